//! End to end: CPU and time per request through the gate, on keep-alive connections over loopback.
//! Client, service and gate share this process, so compare its rows; `make bench-peers` compares
//! with other proxies.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a bench reads the clock, starts its own clients and prints its result"
)]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Instant,
};

use jailgate::{
    app::{self, App, Signal, Signals},
    config::{Address, Config},
};

const REQUESTS: u32 = 20_000;
const CLIENTS: u32 = 4;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn main() -> anyhow::Result<()> {
    let service = TcpListener::bind("127.0.0.1:0")?;
    let origin = service.local_addr()?;
    thread::spawn(move || {
        for stream in service.incoming().map_while(Result::ok) {
            thread::spawn(move || serve(stream));
        }
    });
    println!("{REQUESTS} requests on {CLIENTS} connections, median of 3");
    println!("{:<34}{:>12}{:>16}", "", "µs/request", "CPU µs/request");
    row("no gate", origin);
    let rules: Vec<String> = (0..100)
        .map(|n| format!("{{ regexp: \"^/scan{n}/.*php$\", mode: block }}"))
        .collect();
    let full = format!(
        "{{ allowlist: {{ ip: 10.0.0.0/8 }}, denylist: {{ ip: 192.0.2.0/24 }}, rules: \
         {{ maxretry: 4, statuscode: \"400-499\", urlregexps: [{}] }} }}",
        rules.join(", ")
    );
    for (name, jails) in [
        ("gate, no jail", "[]"),
        ("gate, lists, 100 rules, statuses", "[web]"),
    ] {
        gated(name, origin, jails, &full)?;
    }
    Ok(())
}

fn gated(name: &str, origin: SocketAddr, jails: &str, jail: &str) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("jailgate.yaml");
    fs::write(
        &file,
        format!(
            "entryPoints: {{ web: {{ address: \"127.0.0.1:0\", forwardedHeaders: \
             {{ trustedIPs: 127.0.0.1 }} }} }}\nroutes: [{{ service: app, jails: {jails} }}]\n\
             services: {{ app: {{ servers: [{{ url: \"http://{origin}\" }}] }} }}\n\
             jails: {{ web: {jail} }}\nadmin: {{ address: \"127.0.0.1:0\" }}\n\
             state: {{ path: \"\" }}\n"
        ),
    )?;
    let config = Config::load(&file)?;
    let runtime = app::runtime()?;
    let app = runtime.block_on(App::build(config, None))?;
    let Some((_, Address::Tcp(web))) = app.addresses().into_iter().next() else {
        anyhow::bail!("no entry point");
    };
    let (stop, signals) = tokio::sync::mpsc::channel(1);
    let running = thread::spawn(move || runtime.block_on(app.run(Signals::Channel(signals))));
    row(name, web);
    stop.blocking_send(Signal::Stop)?;
    running
        .join()
        .map_err(|_| anyhow::anyhow!("the gate panicked"))??;
    Ok(())
}

fn row(name: &str, address: SocketAddr) {
    round(address, REQUESTS / 10);
    let mut rounds: Vec<(f64, f64)> = (0..3).map(|_| round(address, REQUESTS)).collect();
    rounds.sort_by(|a, b| a.1.total_cmp(&b.1));
    let (wall, cpu) = rounds[1];
    println!("{name:<34}{wall:>12.1}{cpu:>16.1}");
}

/// Wall and CPU microseconds per request.
fn round(address: SocketAddr, requests: u32) -> (f64, f64) {
    let (start, before) = (Instant::now(), cpu());
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || ask(address, client, requests / CLIENTS));
        }
    });
    let each = |micros: f64| micros / f64::from(requests);
    (
        each(start.elapsed().as_micros() as f64),
        each((cpu() - before) as f64 / 1000.0),
    )
}

fn ask(address: SocketAddr, client: u32, requests: u32) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_nodelay(true).expect("a TCP socket");
    let request = format!(
        "GET /app/page?id=7 HTTP/1.1\r\nHost: example.com\r\nUser-Agent: Mozilla/5.0\r\n\
         Accept: */*\r\nX-Forwarded-For: 203.0.113.{client}\r\n\r\n"
    );
    let mut answer = [0; 1024];
    for _ in 0..requests {
        stream.write_all(request.as_bytes()).expect("sent");
        let mut read = 0;
        while !answer[..read].ends_with(b"ok") {
            let more = stream.read(&mut answer[read..]).expect("an answer");
            assert!(
                more > 0,
                "closed: {:?}",
                String::from_utf8_lossy(&answer[..read])
            );
            read += more;
        }
    }
}

fn serve(mut stream: TcpStream) -> Option<()> {
    let mut request = [0; 2048];
    let mut read = 0;
    loop {
        let more = stream.read(&mut request[read..]).ok().filter(|n| *n > 0)?;
        read += more;
        if request[..read].ends_with(b"\r\n\r\n") {
            stream.write_all(ANSWER).ok()?;
            read = 0;
        }
    }
}

/// CPU time of this process, in nanoseconds.
fn cpu() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
