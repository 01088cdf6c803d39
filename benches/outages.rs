//! What a request notices of a disk, a LAPI and a Cloudflare that hang: latency of honest requests
//! while attackers are banned, several hundred a second, each way beside the others and round by
//! round. The first row keeps its state in memory and tells nobody.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a bench reads the clock, starts its own clients and prints its result"
)]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use jailgate::{
    app::{self, App, Signal, Signals},
    config::{Address, Config},
};
use tokio::sync::mpsc::Sender;

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(2);
/// Bans a second and worker.
const PACE: Duration = Duration::from_millis(4);

/// One gate and what was measured of it, in nanoseconds.
struct Way {
    name: &'static str,
    address: SocketAddr,
    state: Option<std::path::PathBuf>,
    hangs: bool,
    latencies: Vec<u64>,
    bans: u32,
    stop: Sender<Signal>,
    running: thread::JoinHandle<Result<(), app::Error>>,
    _dir: tempfile::TempDir,
}

fn main() -> anyhow::Result<()> {
    let origin = listen(|stream| {
        serve(stream);
    })?;
    // Takes connections and answers nothing, for as long as the bench runs.
    let silent = listen(|mut stream| while stream.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {})?;
    let memory = "state: { path: \"\" }\n";
    let disk = "state: { path: state.db }\n";
    let outside = format!(
        "{memory}crowdsec: {{ url: \"http://{silent}\", publish: {{ machineId: a, password: b }}, \
         subscribe: {{ apiKey: c }} }}\ncloudflare: {{ accountId: a, listId: b, apiToken: c, \
         baseUrl: \"http://{silent}\" }}\n"
    );
    let mut ways = vec![
        start("memory, nobody is told", origin, memory, false)?,
        start("state on disk", origin, disk, false)?,
        start("the disk hangs", origin, disk, true)?,
        start("LAPI and Cloudflare hang", origin, &outside, false)?,
    ];
    let next = AtomicU32::new(0x0b00_0000);
    for _ in 0..ROUNDS {
        for way in &mut ways {
            round(way, &next);
        }
    }
    let each = ROUND.as_secs_f64() * ROUNDS as f64;
    println!("{ROUNDS} interleaved rounds of {} s", ROUND.as_secs());
    println!(
        "{:<28}{:>10}{:>12}{:>12}{:>10}{:>12}",
        "", "bans/s", "p50 µs", "p99 µs", "p99 / 1st", "p99.9 µs"
    );
    let first = at(&mut ways[0].latencies, 0.99);
    for way in &mut ways {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| at(&mut way.latencies, share));
        println!(
            "{:<28}{:>10.0}{p50:>12.0}{p99:>12.0}{:>10.2}{p999:>12.0}",
            way.name,
            f64::from(way.bans) / each,
            p99 / first
        );
    }
    for way in ways {
        way.stop.blocking_send(Signal::Stop)?;
        let ended = way.running.join();
        ended.map_err(|_| anyhow::anyhow!("the gate panicked"))??;
    }
    Ok(())
}

/// The latency that this share of requests does not exceed, in microseconds.
fn at(latencies: &mut [u64], share: f64) -> f64 {
    latencies.sort_unstable();
    let last = latencies.len().saturating_sub(1);
    latencies
        .get((last as f64 * share) as usize)
        .copied()
        .unwrap_or(0) as f64
        / 1000.0
}

fn listen(each: impl Fn(TcpStream) + Send + Copy + 'static) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || each(stream));
        }
    });
    Ok(address)
}

fn start(name: &'static str, origin: SocketAddr, more: &str, hangs: bool) -> anyhow::Result<Way> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("jailgate.yaml");
    fs::write(
        &file,
        format!(
            "entryPoints: {{ web: {{ address: \"127.0.0.1:0\", forwardedHeaders: \
             {{ trustedIPs: 127.0.0.1 }} }} }}\nroutes: [{{ service: app, jails: [web] }}]\n\
             services: {{ app: {{ servers: [{{ url: \"http://{origin}\" }}] }} }}\n\
             jails: {{ web: {{ enableBlockLogs: false, rules: {{ maxretry: 1, statuscode: 401 }} }} }}\n\
             admin: {{ address: \"127.0.0.1:0\" }}\n{more}"
        ),
    )?;
    let config = Config::load(&file)?;
    let state = config.state.as_ref().map(|state| state.path.clone());
    let runtime = app::runtime()?;
    let app = runtime.block_on(App::build(config, None))?;
    let Some((_, Address::Tcp(address))) = app.addresses().into_iter().next() else {
        anyhow::bail!("no entry point");
    };
    let (stop, signals) = tokio::sync::mpsc::channel(1);
    let running = thread::spawn(move || runtime.block_on(app.run(Signals::Channel(signals))));
    Ok(Way {
        name,
        address,
        state,
        hangs,
        latencies: Vec::new(),
        bans: 0,
        stop,
        running,
        _dir: dir,
    })
}

fn round(way: &mut Way, next: &AtomicU32) {
    // Somebody else's lock is what a disk that hangs looks like.
    let other = way.state.as_ref().filter(|_| way.hangs);
    let other = other.map(|path| rusqlite::Connection::open(path).expect("it is there"));
    if let Some(other) = &other {
        other.execute_batch("BEGIN EXCLUSIVE").expect("the lock");
    }
    let (over, address) = (AtomicBool::new(false), way.address);
    let (latencies, bans) = thread::scope(|scope| {
        let attackers = [(); 2].map(|()| scope.spawn(|| attack(address, next, &over)));
        let latencies = ask(address);
        over.store(true, Ordering::Relaxed);
        let bans = attackers.map(|attacker| attacker.join().expect("no panic"));
        (latencies, bans.iter().sum::<u32>())
    });
    way.latencies.extend(latencies);
    way.bans += bans;
    if let Some(other) = &other {
        other
            .execute_batch("ROLLBACK")
            .expect("the lock is given back");
    }
}

/// Honest requests, one after the other.
fn ask(address: SocketAddr) -> Vec<u64> {
    let mut stream = connect(address);
    let (began, mut latencies) = (Instant::now(), Vec::new());
    while began.elapsed() < ROUND {
        let asked = Instant::now();
        exchange(&mut stream, "/app/page?id=7", Ipv4Addr::new(203, 0, 113, 1));
        latencies.push(asked.elapsed().as_nanos() as u64);
    }
    latencies
}

/// A client after the other fails once and is banned.
fn attack(address: SocketAddr, next: &AtomicU32, over: &AtomicBool) -> u32 {
    let (mut stream, mut bans) = (connect(address), 0);
    while !over.load(Ordering::Relaxed) {
        exchange(
            &mut stream,
            "/no",
            Ipv4Addr::from(next.fetch_add(1, Ordering::Relaxed)),
        );
        bans += 1;
        thread::sleep(PACE);
    }
    bans
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_nodelay(true).expect("a TCP socket");
    stream
}

fn exchange(stream: &mut TcpStream, path: &str, client: Ipv4Addr) {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: example.com\r\nX-Forwarded-For: {client}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let (mut answer, mut read) = ([0; 4096], 0);
    // Answers of this bench end with their head or with `ok`.
    while !(answer[..read].ends_with(b"\r\n\r\n") || answer[..read].ends_with(b"ok")) {
        let more = stream.read(&mut answer[read..]).expect("an answer");
        assert!(
            more > 0,
            "closed: {:?}",
            String::from_utf8_lossy(&answer[..read])
        );
        read += more;
    }
}

fn serve(mut stream: TcpStream) -> Option<()> {
    let (mut request, mut read) = ([0; 2048], 0);
    loop {
        let more = stream.read(&mut request[read..]).ok().filter(|n| *n > 0)?;
        read += more;
        if request[..read].ends_with(b"\r\n\r\n") {
            let answer: &[u8] = match request.starts_with(b"GET /no") {
                true => b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
                false => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            };
            stream.write_all(answer).ok()?;
            read = 0;
        }
    }
}
