//! End to end: CPU and time per request through the gate, on keep-alive connections over loopback.
//! Client, service and gate share this process, so compare its rows; `make bench-peers` compares
//! with other proxies.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a bench reads the clock, starts its own clients and prints its result"
)]

#[path = "rig/gate.rs"]
mod gate;

use std::{
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::Instant,
};

use gate::{Gate, connect, exchange, listen, serve};

const REQUESTS: u32 = 5_000;
const ROUNDS: usize = 41;
const CLIENTS: u32 = 4;
const BANS: u32 = 100_000;

/// What one way to the service took, round by round, in microseconds per request.
struct Row {
    name: &'static str,
    address: SocketAddr,
    wall: Vec<f64>,
    cpu: Vec<f64>,
}

fn main() -> anyhow::Result<()> {
    let origin = listen(serve)?;
    let full = full();
    let none = Gate::start(origin, "[]", &full, 0)?;
    let jailed = Gate::start(origin, "[web]", &full, 0)?;
    let banning = Gate::start(origin, "[web]", &full, BANS)?;
    let mut rows = [
        ("no gate", origin),
        ("gate, no jail", none.address),
        ("lists, 100 rules, statuses", jailed.address),
        ("the same, 100,000 bans active", banning.address),
    ]
    .map(|(name, address)| Row {
        name,
        address,
        wall: Vec::new(),
        cpu: Vec::new(),
    });
    for round in 0..=ROUNDS {
        for row in &mut rows {
            let (wall, cpu) = ask(row.address);
            // The first round warms up.
            if round > 0 {
                row.wall.push(wall);
                row.cpu.push(cpu);
            }
        }
    }
    println!(
        "{REQUESTS} requests on {CLIENTS} connections, medians of {ROUNDS} interleaved rounds"
    );
    println!(
        "{:<32}{:>12}{:>16}{:>18}",
        "", "µs/request", "CPU µs/request", "CPU / row above"
    );
    for (n, row) in rows.iter().enumerate() {
        let above = &rows[n.saturating_sub(1)].cpu;
        let ratios = row.cpu.iter().zip(above).map(|(a, b)| a / b).collect();
        let [wall, cpu, ratio] = [row.wall.clone(), row.cpu.clone(), ratios].map(median);
        println!("{:<32}{wall:>12.1}{cpu:>16.1}{ratio:>18.2}", row.name);
    }
    for gate in [none, jailed, banning] {
        gate.stop()?;
    }
    Ok(())
}

fn full() -> String {
    let rules: Vec<String> = (0..100)
        .map(|n| format!("{{ regexp: \"^/scan{n}/.*php$\", mode: block }}"))
        .collect();
    format!(
        "jails: {{ web: {{ allowlist: {{ ip: 10.0.0.0/8 }}, denylist: {{ ip: 192.0.2.0/24 }}, \
         rules: {{ maxretry: 4, statuscode: \"400-499\", urlregexps: [{}] }} }} }}\n\
         state: {{ path: \"\" }}\n",
        rules.join(", ")
    )
}

/// Wall and CPU microseconds per request.
fn ask(address: SocketAddr) -> (f64, f64) {
    let (start, before) = (Instant::now(), cpu());
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                let mut stream = connect(address);
                let client = Ipv4Addr::new(203, 0, 113, client as u8);
                for _ in 0..REQUESTS / CLIENTS {
                    exchange(&mut stream, "/app/page?id=7", client);
                }
            });
        }
    });
    let each = |micros: f64| micros / f64::from(REQUESTS);
    (
        each(start.elapsed().as_micros() as f64),
        each((cpu() - before) as f64 / 1000.0),
    )
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// CPU time of this process, in nanoseconds.
fn cpu() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
