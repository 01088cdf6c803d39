//! What ban state costs at a million clients, beside dashmap in the same run: bytes per client,
//! dependent hits, misses, two threads with 5 % writes; and how long decisions take to come in.
//! Prints figures and ratios; `cargo bench --bench contention`.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a bench reads the clock and prints"
)]

use std::{
    hash::BuildHasher as _,
    hint::black_box,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Instant,
};

use arc_swap::{ArcSwap, Guard};
use dashmap::DashMap;
use jailgate::engine::{
    Ban, Cause, Delta, Engine, JailSpec, Limits, Origin, Request, Told,
    jail::WindowKind,
    nets::NetSet,
    table::{End, Expiries, Fetch, Keyed},
};
use parking_lot::Mutex;

const CLIENTS: u32 = 1 << 20;
const ROUNDS: usize = 5;
const LOOKUPS: u32 = 1 << 21;
const SEED: u64 = 0x6a61_696c;
const NOW: u64 = 1_790_000_000_000;

/// A map under test, keyed by the number of a client; clients from `CLIENTS` on are not in it.
trait Map: Sync {
    /// What is held while a decision asks its two tables: the jail's, and that of bans everywhere.
    type Held<'m>
    where
        Self: 'm;

    fn hold(&self) -> Self::Held<'_>;
    fn get(held: &Self::Held<'_>, client: u32, fetch: Fetch) -> Option<u32>;
    fn set(&self, client: u32, until: u32);
}

/// A table behind the guard that a decision takes, as the engine's policy holds its tables.
struct Swapped<const N: usize> {
    table: ArcSwap<Expiries<N>>,
    /// The ledger, which whoever writes holds.
    writer: Mutex<()>,
}

type V4 = Swapped<1>;
/// As clients of a /64, the usual prefix; and as whole addresses.
type V6 = Swapped<2>;
type Whole = Swapped<4>;
struct Dash(DashMap<u128, u64, foldhash::fast::FixedState>);

/// Look-ups of a decision that finds nothing.
const TABLES: u32 = 2;

/// Scatters client numbers over the address space, each its own address.
fn v4(client: u32) -> u32 {
    client.wrapping_mul(0x9E37_79B1)
}

fn v6(client: u32) -> u128 {
    (0x2001_0db8u128 << 96) | (u128::from(v4(client)) << 64)
}

fn words(bits: u128) -> [u32; 4] {
    [
        (bits >> 96) as u32,
        (bits >> 64) as u32,
        (bits >> 32) as u32,
        bits as u32,
    ]
}

impl<const N: usize> Swapped<N> {
    fn new() -> Self {
        Self {
            table: ArcSwap::from_pointee(Expiries::new(Keyed(SEED), 0)),
            writer: Mutex::default(),
        }
    }

    fn bytes(&self) -> usize {
        self.table.load().bytes()
    }

    fn put(&self, key: [u32; N], until: u32) {
        let end = Some(End::from_raw(until));
        let _writer = self.writer.lock();
        let table = self.table.load();
        if table.set(key, end).is_err() {
            let roomier = table.roomier(1).expect("it was full");
            roomier.set(key, end).expect("there is room");
            self.table.store(Arc::new(roomier));
        }
    }
}

/// One word of a v4 client, two or four of a v6 one.
fn key<const N: usize>(client: u32) -> [u32; N] {
    let v6 = words(v6(client));
    std::array::from_fn(|at| if N == 1 { v4(client) } else { v6[at] })
}

impl<const N: usize> Map for Swapped<N> {
    type Held<'m> = Guard<Arc<Expiries<N>>>;

    fn hold(&self) -> Self::Held<'_> {
        self.table.load()
    }

    fn get(held: &Self::Held<'_>, client: u32, fetch: Fetch) -> Option<u32> {
        held.get(key(client), fetch).map(End::raw)
    }

    fn set(&self, client: u32, until: u32) {
        self.put(key(client), until);
    }
}

impl Map for Dash {
    type Held<'m> = &'m Self;

    fn hold(&self) -> Self::Held<'_> {
        self
    }

    fn get(held: &Self::Held<'_>, client: u32, _: Fetch) -> Option<u32> {
        // v4-mapped, as one map for both families has to key it
        let key = 0xffff_0000_0000 | u128::from(v4(client));
        held.0.get(&key).map(|until| *until as u32)
    }

    fn set(&self, client: u32, until: u32) {
        self.0
            .insert(0xffff_0000_0000 | u128::from(v4(client)), until.into());
    }
}

/// What this thread has run so far, in nanoseconds: unlike a clock it leaves out the time in which
/// the machine was busy with something else.
fn ran() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split_whitespace()
        .next()
        .and_then(|nanos| nanos.parse().ok())
        .unwrap_or(0)
}

/// Nanoseconds per lookup of one round.
fn timed(round: impl FnOnce()) -> f64 {
    let start = ran();
    round();
    (ran() - start) as f64 / f64::from(LOOKUPS)
}

/// Each lookup waits for the one before: what it found is part of the next client's number. A hit
/// ends its decision, so each pays for what is held.
fn hit<M: Map>(map: &M) -> f64 {
    timed(|| {
        let mut client = 1;
        for _ in 0..LOOKUPS {
            let found = M::get(&map.hold(), client & (CLIENTS - 1), Fetch::AtOnce).unwrap_or(0);
            client = client.wrapping_mul(1_664_525).wrapping_add(found);
        }
        black_box(client);
    })
}

/// The least a dependent hit can take: one word of a line drawn from as much memory.
fn one_load(words: &[u32]) -> f64 {
    timed(|| {
        let mut client = 1;
        for _ in 0..LOOKUPS {
            let hash = Keyed(SEED).hash_one(v4(client & (CLIENTS - 1)));
            let at = (u128::from(hash) * words.len() as u128) >> 64;
            client = client
                .wrapping_mul(1_664_525)
                .wrapping_add(words[at as usize]);
        }
        black_box(client);
    })
}

/// Whom the first table does not know, the second is asked for.
fn miss<M: Map>(map: &M) -> f64 {
    timed(|| {
        let mut found = 0;
        for decision in (CLIENTS..CLIENTS + LOOKUPS).step_by(TABLES as usize) {
            let held = map.hold();
            for client in decision..decision + TABLES {
                found += u32::from(M::get(&held, client, Fetch::Later).is_some());
            }
        }
        assert_eq!(found, 0);
    })
}

fn two_threads<M: Map>(map: &M) -> f64 {
    let walk = |thread: u32| {
        let mut client = 1 + thread;
        for step in 0..LOOKUPS {
            let at = client & (CLIENTS - 1);
            if step % 20 == 0 {
                map.set(at, VALUE);
            } else {
                client = client.wrapping_add(M::get(&map.hold(), at, Fetch::AtOnce).unwrap_or(0));
            }
            client = client.wrapping_mul(1_664_525).wrapping_add(1_013_904_222);
        }
        black_box(client);
    };
    std::thread::scope(|scope| {
        let threads = [0, 1].map(|thread| scope.spawn(move || timed(|| walk(thread))));
        let times = threads.map(|thread| thread.join().unwrap_or(f64::INFINITY));
        (times[0] + times[1]) / 2.0
    })
}

/// Every walk once.
fn walks<M: Map>(map: &M) -> [f64; 3] {
    [hit(map), miss(map), two_threads(map)]
}

/// Odd, so that the dependent walk visits every client.
const VALUE: u32 = 0x3b9a_ca07;

fn filled<M: Map>(map: M) -> M {
    (0..CLIENTS).for_each(|client| map.set(client, VALUE));
    map
}

fn maps() {
    let v4 = filled(V4::new());
    let v6 = filled(V6::new());
    let whole = filled(Whole::new());
    let dash = filled(Dash(DashMap::with_hasher(
        foldhash::fast::FixedState::with_seed(SEED),
    )));
    let rounds: [&dyn Fn() -> [f64; 3]; 4] =
        [&|| walks(&v4), &|| walks(&v6), &|| walks(&whole), &|| {
            walks(&dash)
        }];
    let words = [v4.bytes(), v6.bytes()].map(|bytes| vec![VALUE; bytes / size_of::<u32>()]);
    let mut best = [[f64::INFINITY; 3]; 4];
    let mut least = [f64::INFINITY; 2];
    // in turns, so that all of them meet the same machine
    for _ in 0..ROUNDS {
        for (round, best) in rounds.iter().zip(&mut best) {
            best.iter_mut()
                .zip(round())
                .for_each(|(best, time)| *best = best.min(time));
        }
        for (words, least) in words.iter().zip(&mut least) {
            *least = least.min(one_load(words));
        }
    }
    let [ours, wide, _, theirs] = best;
    let each = |bytes: usize| bytes as f64 / f64::from(CLIENTS);
    println!("1M bans     dependent hit       miss    2t 95/5   (CPU ns, best of {ROUNDS})");
    for (name, [hit, miss, two]) in ["v4", "v6 /64", "v6 /128", "dashmap"].iter().zip(best) {
        println!("{name:<10} {hit:>14.1} {miss:>10.1} {two:>10.1}");
    }
    let verdict = |name: &str, value: f64, limit: f64| {
        let word = if value <= limit { "ok" } else { "MISSED" };
        println!("{name:<34} {value:>7.2}  (at most {limit})  {word}");
    };
    verdict("bytes per v4 client", each(v4.bytes()), 21.0);
    verdict("bytes per v6 client", each(v6.bytes()), 45.0);
    verdict("bytes per v6 client of a /128", each(whole.bytes()), 45.0);
    verdict("v4 miss, ns", ours[1], 20.0);
    verdict("v4 dependent hit / dashmap", ours[0] / theirs[0], 0.55);
    verdict("v6 dependent hit / dashmap", wide[0] / theirs[0], 0.55);
    for (name, least) in ["v4", "v6"].iter().zip(least) {
        println!(
            "one load from as much memory as {name}: {least:.1} ns, {:.2} of dashmap's hit",
            least / theirs[0]
        );
    }
    println!(
        "2 threads 95/5 / dashmap: v4 {:.2}, v6 {:.2}",
        ours[2] / theirs[2],
        wide[2] / theirs[2]
    );
}

fn decisions(range: std::ops::Range<u32>) -> Vec<Ban> {
    let scenario: Arc<str> = "crowdsecurity/http-probing".into();
    let client = |n| match n % 4 {
        3 => IpAddr::V6(Ipv6Addr::from_bits(v6(n))),
        _ => IpAddr::V4(Ipv4Addr::from_bits(v4(n))),
    };
    let ban = |n| Ban {
        client: client(n).into(),
        jail: None,
        origin: Origin::Manual,
        cause: Cause::Decision(scenario.clone()),
        count: 0,
        first_status: 0,
        last_status: 0,
        path: "".into(),
        since: NOW,
        until: NOW + 4 * 3_600_000 + u64::from(v4(n) % 3_600_000),
    };
    range.map(ban).collect()
}

fn jail() -> JailSpec {
    JailSpec {
        name: "web".into(),
        enabled: true,
        denylist: Arc::default(),
        allowlist: Arc::default(),
        urls: Arc::default(),
        findtime: std::time::Duration::from_secs(120),
        bantime: std::time::Duration::from_secs(300),
        maxretry: 4,
        statuses: vec![400..=499],
        match_methods: Vec::new(),
        match_path: None,
        window: WindowKind::Fixed,
        increment: None,
        simulate: false,
        ignore_self: true,
        ipv6_prefix: 64,
    }
}

fn intake() {
    let limits = Limits {
        tracked_clients: 2_000_000,
        bans: 2_000_000,
        aggregate_ipv6: false,
    };
    let origin = Origin::Outside("crowdsec/CAPI".into());
    for many in [100_000, 1_000_000] {
        let engine = Engine::new(limits, SEED);
        engine.configure(vec![jail()], NetSet::default(), NOW);
        let jail = engine.jail("web").expect("it was configured");
        let delta = Delta {
            add: decisions(0..many),
            ..Delta::default()
        };
        let (taken, slowest) = std::thread::scope(|scope| {
            let apply = scope.spawn(|| {
                let start = ran();
                engine.apply(&origin, delta, NOW);
                ran() - start
            });
            let (mut slowest, mut client) = (0, 0u32);
            while !apply.is_finished() {
                // four failures: the last begins a ban, which needs the ledger
                for _ in 0..4 {
                    let client = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + client));
                    let asked = Instant::now();
                    black_box(engine.observe(jail, &request(client), 404, NOW));
                    slowest = slowest.max(asked.elapsed().as_micros());
                }
                client += 1;
            }
            (apply.join().unwrap_or(0) / 1_000_000, slowest)
        });
        let (_, tables, ledger) = engine.bytes();
        let bans = engine.stats().bans;
        println!(
            "apply {many}: {taken} CPU ms; per ban {:.0} B in tables, {:.0} B in the ledger; slowest observe meanwhile {slowest} µs",
            tables as f64 / bans as f64,
            ledger as f64 / bans as f64,
        );
        if many == 1_000_000 {
            checks(&engine);
        }
    }
}

fn request(client: IpAddr) -> Request<'static> {
    Request {
        client,
        method: b"GET",
        target: b"/index.html",
        told: Told::These {
            host: b"app.example.com",
            agent: b"curl/8.0",
        },
        plain: false,
    }
}

fn checks(engine: &Engine) {
    let jail = engine.jail("web").expect("it was configured");
    let time = |from: u32| {
        let round = || {
            for n in 0..LOOKUPS {
                // every fourth is a v6 decision; these are the v4 ones
                let client = from + n % 1_000_000 / 4 * 4;
                let client = IpAddr::V4(Ipv4Addr::from_bits(v4(client)));
                black_box(engine.check(jail, &request(client), NOW));
            }
        };
        (0..ROUNDS)
            .map(|_| timed(round))
            .fold(f64::INFINITY, f64::min)
    };
    let (free, denied) = (time(2_000_000), time(0));
    println!("check with 1M decisions: free {free:.0} ns, denied {denied:.0} ns");
    for (what, now) in [
        ("nothing due", NOW + 1000),
        ("all of them over", NOW + 6 * 3_600_000),
    ] {
        let start = ran();
        engine.sweep(now);
        println!("sweep, {what}: {:.1} CPU ms", (ran() - start) as f64 / 1e6);
    }
}

fn main() {
    maps();
    intake();
}
