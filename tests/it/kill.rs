//! Killed with SIGKILL, over and over, while it bans a thousand clients a second and tells a real
//! LAPI: nothing that was told is lost, nothing lifted comes back, nothing is at LAPI twice.
//!
//! `KILLS` (5) says how often; `make soak` does it a hundred times.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    path::Path,
    sync::{Arc, atomic::AtomicU32, atomic::Ordering},
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags};

use crate::support::{Flood, Jailgate, Lapi, MACHINE, Origin, PASSWORD, request};

/// Bans a second.
const RATE: u32 = 1000;
/// LAPI got nothing for so long: publishing has stalled.
const STANDSTILL: Duration = Duration::from_secs(90);
/// However it goes on.
const PATIENCE: Duration = Duration::from_secs(1800);

fn config(origin: &Origin, lapi: &Lapi) -> String {
    format!(
        "entryPoints:\n  web:\n    address: \"127.0.0.1:0\"\n    \
         forwardedHeaders: {{ trustedIPs: [\"127.0.0.1/32\"] }}\n\
         routes:\n  - {{ service: app, jails: [web] }}\n\
         services:\n  app: {{ servers: [{{ url: \"http://{}\" }}] }}\n\
         jails:\n  web: {{ enableBlockLogs: false, rules: {{ maxretry: 1, findtime: 10m, \
         statuscode: \"401\", bantime: 12h }} }}\n\
         crowdsec:\n  url: \"{}\"\n  publish: {{ machineId: {MACHINE}, password: {PASSWORD} }}\n\
         state: {{ path: jailgate.db }}\n",
        origin.address,
        lapi.url()
    )
}

/// The clients that a log says to be banned.
fn begun(log: &str) -> Vec<Ipv4Addr> {
    let lines = log.lines().filter(|line| line.contains("ban begins"));
    let client = |line: &str| {
        line.split_once("client=")?
            .1
            .split(['/', ' '])
            .next()?
            .parse()
            .ok()
    };
    lines.filter_map(client).collect()
}

fn read(db: &Path) -> Connection {
    Connection::open_with_flags(db, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("a database")
}

fn clients(db: &Connection, sql: &str) -> Vec<Ipv4Addr> {
    let mut statement = db.prepare(sql).unwrap();
    let found = statement
        .query_map([], |row| row.get::<_, String>(0))
        .unwrap();
    found.map(|text| text.unwrap().parse().unwrap()).collect()
}

const OURS: &str = "FROM decisions WHERE origin = 'jailgate'";
const IN_FORCE: &str = "until > strftime('%Y-%m-%d %H:%M:%S', 'now')";

/// How many decisions of ours LAPI ever made, as cheap for it as can be.
fn made(lapi: &Lapi) -> usize {
    let count = format!("SELECT count(*) {OURS}");
    let count: i64 = lapi.db().query_one(&count, [], |row| row.get(0)).unwrap();
    count as usize
}

/// Whom LAPI bans for us, once for each decision in force.
fn at_lapi(lapi: &Lapi) -> Vec<Ipv4Addr> {
    clients(&lapi.db(), &format!("SELECT value {OURS} AND {IN_FORCE}"))
}

/// Whom it banned by two decisions at any moment. One that was stored without its alert, when LAPI
/// gave up halfway, may be lifted and made anew; LAPI stores what both last as text, in UTC.
fn overlapping(lapi: &Lapi) -> Vec<Ipv4Addr> {
    let both = format!(
        "WITH ours AS (SELECT * {OURS}) SELECT a.value FROM ours a JOIN ours b \
         ON a.value = b.value AND a.id < b.id AND b.created_at < a.until"
    );
    clients(&lapi.db(), &both)
}

/// Waits until LAPI bans exactly these, for as long as it still gets anything: how fast it stores
/// is the machine's business.
fn wait_for(lapi: &Lapi, held: &BTreeSet<Ipv4Addr>) -> BTreeSet<Ipv4Addr> {
    let (began, mut moved, mut before) = (Instant::now(), Instant::now(), 0);
    loop {
        let now = made(lapi);
        if now != before {
            (before, moved) = (now, Instant::now());
        }
        let late = moved.elapsed() > STANDSTILL || began.elapsed() > PATIENCE;
        let active: BTreeSet<_> = match now >= held.len() || late {
            true => at_lapi(lapi).into_iter().collect(),
            false => BTreeSet::new(),
        };
        if active == *held || late {
            return active;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Lifts some of the bans of this life as an operator would, and answers whom.
fn lift_some(gate: &Jailgate, told: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
    let some: Vec<_> = told.iter().rev().step_by(20).take(5).copied().collect();
    for client in &some {
        let path = format!("/api/v1/bans?client={client}");
        let answer = request(gate.address("admin"), "DELETE", &path, "");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(
            answer.text().contains("\"since\""),
            "not lifted: {}",
            answer.text()
        );
    }
    some
}

/// Waits until more of ours arrives at LAPI, or for ten seconds: to be killed in the middle of it.
fn while_publishing(lapi: &Lapi) {
    let (before, began) = (made(lapi), Instant::now());
    while made(lapi) == before && began.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn killed_over_and_over_it_loses_revives_and_doubles_nothing() {
    let kills: u32 = std::env::var("KILLS").map_or(5, |kills| kills.parse().expect("a number"));
    let lapi = Lapi::with("flush: {max_items: 1000000, max_age: 7d}", "");
    let origin = Origin::start();
    let config = config(&origin, &lapi);
    let next = Arc::new(AtomicU32::new(0));
    let (mut dir, mut told) = (tempfile::tempdir().unwrap(), BTreeSet::new());
    let (mut lifted, mut doubled) = (BTreeSet::new(), Vec::new());
    let mut under_load = Duration::ZERO;
    for kill in 0..kills {
        let gate = Jailgate::run_in(dir, &config);
        let (began, flood) = (
            Instant::now(),
            Flood::start(gate.address("web"), "/status/401", 1, RATE, &next),
        );
        // Moments all over a second, the same in every run.
        let life = Duration::from_millis(600 + u64::from(kill * 617 % 1000));
        std::thread::sleep(life / 2);
        gate.wait_for("ban begins");
        lifted.extend(lift_some(&gate, &begun(&gate.text())));
        std::thread::sleep(life.saturating_sub(began.elapsed()));
        if kill % 3 == 2 {
            while_publishing(&lapi);
        }
        let (kept, log) = gate.stop("KILL");
        under_load += began.elapsed();
        flood.end();
        for client in begun(&log) {
            if !told.insert(client) {
                doubled.push(client);
            }
        }
        dir = kept;
    }
    let asked = next.load(Ordering::Relaxed);
    let gate = Jailgate::run_in(dir, &config);
    let held = clients(
        &read(&gate.path().join("jailgate.db")),
        "SELECT client FROM bans",
    );
    let held: BTreeSet<_> = held.into_iter().collect();
    let lost: Vec<_> = told
        .difference(&held)
        .filter(|client| !lifted.contains(client))
        .collect();
    let revived: Vec<_> = lifted.intersection(&held).collect();
    let active = wait_for(&lapi, &held);
    let (all, twice) = (made(&lapi), overlapping(&lapi));
    eprintln!(
        "{kills} kills, {asked} clients in {under_load:.1?} ({:.0} bans/s), {} bans told, {} lifted; \
         lost {}, revived {}, told twice {}; at LAPI {} of {}, {} decisions made, doubled {}",
        f64::from(asked) / under_load.as_secs_f64(),
        told.len(),
        lifted.len(),
        lost.len(),
        revived.len(),
        doubled.len(),
        active.len(),
        held.len(),
        all,
        twice.len(),
    );
    assert!(
        lifted.len() >= kills as usize && told.len() > 50 * kills as usize,
        "no load"
    );
    assert!(lost.is_empty(), "told and lost: {lost:?}");
    assert!(revived.is_empty(), "lifted and back: {revived:?}");
    assert!(doubled.is_empty(), "told twice: {doubled:?}");
    let missing: Vec<_> = held.difference(&active).take(20).collect();
    let extra: Vec<_> = active.difference(&held).take(20).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "LAPI lacks {missing:?}, has {extra:?} as well"
    );
    assert!(twice.is_empty(), "twice at LAPI: {twice:?}");
    assert_eq!(at_lapi(&lapi).len(), active.len(), "twice at LAPI now");
}
