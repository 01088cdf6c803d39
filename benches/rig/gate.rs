//! A gate, a service behind it and a client, all in this process: what the benches of whole
//! requests share. They compare ways of running the gate; `make bench-peers` compares with others.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    ops::Range,
    thread,
};

use jailgate::{
    app::{self, App, Signal, Signals},
    config::{Address, Config},
};
use tokio::sync::mpsc::Sender;

pub struct Gate {
    /// Where requests are taken in.
    pub address: SocketAddr,
    stop: Sender<Signal>,
    running: thread::JoinHandle<Result<(), app::Error>>,
    _dir: tempfile::TempDir,
}

impl Gate {
    /// One route to the service through `jails`, and `more` of a configuration; 127.0.0.1 may say
    /// who asks. So many other clients are banned, as an operator would.
    pub fn start(origin: SocketAddr, jails: &str, more: &str, banned: u32) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("jailgate.yaml");
        fs::write(
            &file,
            format!(
                "entryPoints: {{ web: {{ address: \"127.0.0.1:0\", forwardedHeaders: \
                 {{ trustedIPs: 127.0.0.1 }} }} }}\nroutes: [{{ service: app, jails: {jails} }}]\n\
                 services: {{ app: {{ servers: [{{ url: \"http://{origin}\" }}] }} }}\n\
                 admin: {{ address: \"127.0.0.1:0\" }}\n{more}"
            ),
        )?;
        let config = Config::load(&file)?;
        let runtime = app::runtime()?;
        let app = runtime.block_on(App::build(config, None))?;
        let entry = app.addresses().into_iter().next();
        let (Some((_, Address::Tcp(address))), &Address::Tcp(admin)) = (entry, app.admin_address())
        else {
            anyhow::bail!("not listening");
        };
        let (stop, signals) = tokio::sync::mpsc::channel(1);
        let running = thread::spawn(move || runtime.block_on(app.run(Signals::Channel(signals))));
        for first in (0..banned).step_by(10_000) {
            ban(admin, first..banned.min(first + 10_000))?;
        }
        Ok(Self {
            address,
            stop,
            running,
            _dir: dir,
        })
    }

    pub fn stop(self) -> anyhow::Result<()> {
        self.stop.blocking_send(Signal::Stop)?;
        let ended = self.running.join();
        Ok(ended.map_err(|_| anyhow::anyhow!("the gate panicked"))??)
    }
}

fn ban(admin: SocketAddr, clients: Range<u32>) -> anyhow::Result<()> {
    let clients: Vec<String> = clients
        .map(|n| format!("\"{}\"", Ipv4Addr::from(0xC612_0000 + n)))
        .collect();
    let body = format!("{{\"clients\":[{}],\"for\":\"1h\"}}", clients.join(","));
    let mut stream = connect(admin);
    write!(
        stream,
        "POST /api/v1/bans HTTP/1.1\r\nHost: {admin}\r\nContent-Type: application/json\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "not banned: {answer}");
    Ok(())
}

/// Serves every connection on a thread of its own, for as long as the bench runs.
pub fn listen(each: impl Fn(TcpStream) + Send + Copy + 'static) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || each(stream));
        }
    });
    Ok(address)
}

/// The service: refuses `/no` with 401, has two bytes for everything else.
pub fn serve(mut stream: TcpStream) {
    let (mut request, mut read) = ([0; 2048], 0);
    while let Some(more) = stream.read(&mut request[read..]).ok().filter(|n| *n > 0) {
        read += more;
        if request[..read].ends_with(b"\r\n\r\n") {
            let answer: &[u8] = match request.starts_with(b"GET /no") {
                true => b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
                false => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            };
            if stream.write_all(answer).is_err() {
                return;
            }
            read = 0;
        }
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_nodelay(true).expect("a TCP socket");
    stream
}

/// One request of this client, to the end of its answer.
pub fn exchange(stream: &mut TcpStream, path: &str, client: Ipv4Addr) {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: example.com\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\n\
         X-Forwarded-For: {client}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let (mut answer, mut read) = ([0; 4096], 0);
    // The service's answers end with their head or with `ok`.
    while !(answer[..read].ends_with(b"\r\n\r\n") || answer[..read].ends_with(b"ok")) {
        let more = stream.read(&mut answer[read..]).expect("an answer");
        let said = String::from_utf8_lossy(&answer[..read]);
        assert!(more > 0, "closed: {said:?}");
        read += more;
    }
}
