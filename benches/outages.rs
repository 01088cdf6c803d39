//! What a request notices of a disk, a LAPI and a Cloudflare that hang: latency of honest requests
//! while attackers are banned, several hundred a second, each way beside the others and round by
//! round. The first row keeps its state in memory and tells nobody.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a bench reads the clock, starts its own clients and prints its result"
)]

#[path = "rig/gate.rs"]
mod gate;

use std::{
    io::Read as _,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use gate::{Gate, connect, exchange, listen, serve};

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(2);
/// Bans a second and worker.
const PACE: Duration = Duration::from_millis(4);

/// One gate and what was measured of it, in nanoseconds.
struct Way {
    name: &'static str,
    gate: Gate,
    /// The database whose disk hangs.
    hangs: Option<PathBuf>,
    latencies: Vec<u64>,
    bans: u32,
}

fn main() -> anyhow::Result<()> {
    let origin = listen(serve)?;
    // Takes connections and answers nothing, for as long as the bench runs.
    let silent = listen(|mut stream| while stream.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {})?;
    let memory = "state: { path: \"\" }\n";
    let (disk, hanging) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let kept = |dir: &Path| {
        format!(
            "state: {{ path: \"{}\" }}\n",
            dir.join("state.db").display()
        )
    };
    let outside = format!(
        "{memory}crowdsec: {{ url: \"http://{silent}\", publish: {{ machineId: a, password: b }}, \
         subscribe: {{ apiKey: c }} }}\ncloudflare: {{ accountId: a, listId: b, apiToken: c, \
         baseUrl: \"http://{silent}\" }}\n"
    );
    let mut ways = vec![
        start("memory, nobody is told", origin, memory, None)?,
        start("state on disk", origin, &kept(disk.path()), None)?,
        start(
            "the disk hangs",
            origin,
            &kept(hanging.path()),
            Some(hanging.path().join("state.db")),
        )?,
        start("LAPI and Cloudflare hang", origin, &outside, None)?,
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
        way.gate.stop()?;
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

fn start(
    name: &'static str,
    origin: SocketAddr,
    more: &str,
    hangs: Option<PathBuf>,
) -> anyhow::Result<Way> {
    let more = format!(
        "jails: {{ web: {{ enableBlockLogs: false, rules: {{ maxretry: 1, statuscode: 401 }} }} }}\n\
         {more}"
    );
    Ok(Way {
        name,
        gate: Gate::start(origin, "[web]", &more, 0)?,
        hangs,
        latencies: Vec::new(),
        bans: 0,
    })
}

fn round(way: &mut Way, next: &AtomicU32) {
    // Somebody else's lock is what a disk that hangs looks like.
    let other = way
        .hangs
        .as_ref()
        .map(|path| rusqlite::Connection::open(path).expect("it is there"));
    if let Some(other) = &other {
        other.execute_batch("BEGIN EXCLUSIVE").expect("the lock");
    }
    let (over, address) = (AtomicBool::new(false), way.gate.address);
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
