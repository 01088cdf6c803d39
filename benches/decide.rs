//! What a decision costs: check, observe, URL rules, lists and ban state at size, each beside the
//! figure required of it. Times are processor time, the best of several rounds, so that a busy
//! machine shows less; memory is the growth of resident memory. It judges nothing.

#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use jailgate::engine::{
    Ban, Cause, Delta, Engine, JailId, JailSpec, Limits, Origin, Request, Told,
    jail::WindowKind,
    nets::NetSet,
    urls::{Mode, UrlRules, canonical},
};
use rustix::time::{ClockId, clock_gettime};

const NOW: u64 = 1_795_000_000_000;
const MILLION: usize = 1_000_000;
const ROUNDS: usize = 5;

fn main() {
    println!("{:<56}{:>14}  required", "", "measured");
    decisions();
    patterns();
    lists();
    bans();
}

/// Check and observe, by clients tracked and by URL rules.
fn decisions() {
    for tracked in [0, 10_000, MILLION] {
        let (engine, jail) = engine(UrlRules::default());
        let clients = v4(tracked.max(1_000), 1);
        let before = resident();
        for client in &clients[..tracked] {
            engine.observe(jail, &request(*client, b"/"), 404, NOW);
        }
        if tracked == MILLION {
            let each = (resident() - before) as f64 / engine.stats().tracked_clients as f64;
            row("memory per tracked client, 1M", each, "B", "100");
        }
        let order = shuffled(&clients);
        let check = |client| engine.check(jail, &request(client, b"/index.html"), NOW);
        let required = if tracked == MILLION { "250" } else { "" };
        row(
            &format!("check, {tracked} tracked"),
            best(&order, check),
            "ns",
            required,
        );
        let fine = |client| engine.observe(jail, &request(client, b"/"), 200, NOW);
        row(
            &format!("observe 200, {tracked} tracked"),
            best(&order, fine),
            "ns",
            "",
        );
        let failed = |client| engine.observe(jail, &request(client, b"/"), 404, NOW);
        row(
            &format!("observe 404, {tracked} tracked"),
            best(&order, failed),
            "ns",
            "",
        );
    }
    for count in [1, 20, 200] {
        let rules = mixed(count);
        let (engine, jail) = engine(compile(&rules));
        let targets = targets(&rules, 5_000, 0);
        let client = Ipv4Addr::new(192, 0, 2, 1).into();
        let check = |target: &Vec<u8>| engine.check(jail, &request(client, target), NOW);
        let label = format!("check, {count} URL rules, none matches");
        row(&label, best_of(&targets, check), "ns", "");
    }
}

/// URL rules alone, as the requirement counts them: per URL, a fifth of which match.
fn patterns() {
    for (shape, make) in [
        ("mixed", mixed as fn(usize) -> Vec<Rule>),
        ("leading .*", leading),
    ] {
        for (count, required) in [(100, "130"), (3_000, "200")] {
            let rules = make(count);
            let (compiled, build) = timed(|| compile(&rules));
            row(
                &format!("{shape}, {count} rules: build"),
                build / 1e6,
                "ms",
                "",
            );
            let label = format!("{shape}, {count} rules: memory");
            row(&label, compiled.bytes() as f64 / 1e6, "MB", "");
            for (hits, text) in [
                (0, "none matches"),
                (1, "a fifth match one rule"),
                (2, "all"),
            ] {
                let targets = match hits {
                    2 => targets(&rules, 2_000, 1),
                    1 => targets(&rules[..1], 20_000, 5),
                    _ => targets(&rules, 20_000, 0),
                };
                let judge = |target: &Vec<u8>| compiled.judge(target);
                let label = format!("{shape}, {count} rules, {text}");
                row(
                    &label,
                    best_of(&targets, judge),
                    "ns",
                    if hits < 2 { required } else { "" },
                );
            }
        }
    }
    let targets = targets(&mixed(1), 20_000, 0);
    row(
        "canonical, already so",
        best_of(&targets, |target| canonical(target).len()),
        "ns",
        "",
    );
}

/// A million networks: build, memory, lookups that are independent and that wait for each other.
fn lists() {
    let narrow = v4(MILLION, 2)
        .into_iter()
        .map(IpNet::from)
        .collect::<Vec<_>>();
    let mixed = (v4(MILLION, 3).into_iter().enumerate())
        .map(|(n, addr)| {
            network(
                addr,
                if n % 20 == 0 {
                    20 + (n / 20 % 12) as u8
                } else {
                    32
                },
            )
        })
        .collect::<Vec<_>>();
    let wide = (v6(MILLION, 4).into_iter().enumerate())
        .map(|(n, addr)| network(addr, [48, 64, 64, 64, 128][n % 5]))
        .collect::<Vec<_>>();
    for (name, nets) in [
        ("1M v4 addresses", narrow),
        ("1M v4 CIDRs", mixed),
        ("1M v6, 3 lengths", wide),
    ] {
        list(name, &nets);
    }
}

fn list(name: &str, nets: &[IpNet]) {
    let v4 = name.contains("v4");
    let required = |text: &'static str| if v4 { text } else { "" };
    let builds = (0..3).map(|_| timed(|| NetSet::build(nets.iter().copied())).1);
    let build = builds.fold(f64::MAX, f64::min) / 1e6;
    row(&format!("{name}: build"), build, "ms", required("100"));
    let set = NetSet::build(nets.iter().copied());
    row(
        &format!("{name}: memory"),
        set.bytes() as f64 / 1e6,
        "MB",
        required("9"),
    );
    let mut probes = if v4 {
        self::v4(1 << 19, 5)
    } else {
        v6(1 << 19, 5)
    };
    let mut random = Random(6);
    probes.extend((0..1 << 19).map(|_| nets[random.below(nets.len())].addr()));
    let probes = shuffled(&probes);
    let lookup = best(&probes, |addr| set.contains(addr));
    row(
        &format!("{name}: lookup, throughput"),
        lookup,
        "ns",
        required("35"),
    );
    row(
        &format!("{name}: lookup, dependent"),
        dependent(&probes, &set),
        "ns",
        required("50"),
    );
}

/// Clients that are only banned, as decisions from outside make them, beside dashmap.
fn bans() {
    for (family, addrs, bytes) in [
        ("v4", v4(MILLION, 7), "21 (state alone)"),
        ("v6", v6(MILLION, 8), "45 (state alone)"),
    ] {
        let (engine, jail) = engine(UrlRules::default());
        let origin = Origin::Outside("bench".into());
        let before = resident();
        for some in addrs.chunks(50_000) {
            let add = some.iter().map(|addr| decision(*addr, &origin)).collect();
            engine.apply(
                &origin,
                Delta {
                    add,
                    ..Delta::default()
                },
                NOW,
            );
        }
        let each = (resident() - before) as f64 / engine.stats().bans as f64;
        row(
            &format!("{family} ban, with its entry in the ledger"),
            each,
            "B",
            bytes,
        );
        let hits = shuffled(&addrs);
        let misses = if family == "v4" {
            v4(MILLION, 9)
        } else {
            v6(MILLION, 9)
        };
        let check = |client| engine.check(jail, &request(client, b"/"), NOW);
        row(
            &format!("{family} check, banned, 1M bans"),
            best(&hits, check),
            "ns",
            "",
        );
        row(
            &format!("{family} check, free, 1M bans"),
            best(&misses, check),
            "ns",
            "",
        );
        drop(engine);
        let map: dashmap::DashMap<IpAddr, u64> = addrs.iter().map(|addr| (*addr, NOW)).collect();
        let get = |addr| map.get(&addr).map(|until| *until);
        row(
            &format!("{family} dashmap, hit"),
            best(&hits, get),
            "ns",
            "",
        );
        row(
            &format!("{family} dashmap, miss"),
            best(&misses, get),
            "ns",
            "",
        );
    }
}

type Rule = (String, Mode);

/// Shapes that real rules have; words are drawn, so that they share little.
fn mixed(count: usize) -> Vec<Rule> {
    let mut random = Random(count as u64);
    let shape = |n: usize| {
        let word = random.word();
        let pattern = match n % 5 {
            0 => format!("^/{word}/"),
            1 => format!(r"/{word}\.(php|asp|jsp)$"),
            2 => format!("^/{word}[0-9]+/edit"),
            3 => format!("(?i)/{word}-admin.*login"),
            _ => format!(r"\?.*{word}=\d+"),
        };
        (pattern, Mode::Block)
    };
    (0..count).map(shape).collect()
}

fn leading(count: usize) -> Vec<Rule> {
    let mut random = Random(count as u64);
    (0..count)
        .map(|n| (format!(".*{}{n}.*", random.word()), Mode::Block))
        .collect()
}

/// Targets of 35 bytes or so, no two alike; every `hits`-th one matches a rule.
fn targets(rules: &[Rule], count: usize, hits: usize) -> Vec<Vec<u8>> {
    let mut random = Random(11);
    let hit = |n: usize| hits > 0 && n.is_multiple_of(hits);
    let target = |n: usize| {
        let word = match hit(n) {
            true => matching(&rules[random.below(rules.len())].0),
            false => random.word(),
        };
        let (a, b) = (random.word(), random.next() % 100_000);
        match n % 3 {
            _ if hit(n) => format!("/{word}"),
            0 => format!("/{word}/{a}/item-{b}?page={}", b % 9),
            1 => format!("/{word}/assets/{a}-{b:x}.js"),
            _ => format!("/{word}?id={b}&session={a}{b:x}"),
        }
    };
    (0..count).map(target).map(String::into_bytes).collect()
}

/// What a pattern of [`mixed`] or [`leading`] matches, without its slash.
fn matching(pattern: &str) -> String {
    let plain = pattern
        .replace("[0-9]+", "12")
        .replace(r"\.(php|asp|jsp)$", ".php");
    let plain = plain
        .replace("(?i)", "")
        .replace(".*login", "/login")
        .replace(r"\d+", "7");
    let plain = plain.replace(r"\?.*", "a?x=1&").replace(".*", "");
    plain.trim_start_matches(['^', '/']).to_owned()
}

fn compile(rules: &[Rule]) -> UrlRules {
    UrlRules::compile(rules).unwrap_or_else(|bad| panic!("{bad:?}"))
}

fn engine(urls: UrlRules) -> (Engine, JailId) {
    let limits = Limits {
        tracked_clients: 2 * MILLION,
        bans: 2 * MILLION,
        aggregate_ipv6: false,
    };
    let engine = Engine::new(limits, 1);
    let jail = JailSpec {
        name: "web".into(),
        enabled: true,
        denylist: Arc::default(),
        allowlist: Arc::default(),
        urls: Arc::new(urls),
        findtime: Duration::from_secs(600),
        bantime: Duration::from_secs(600),
        // Never reached: what is timed is counting.
        maxretry: u32::MAX,
        statuses: vec![400..=499],
        match_methods: Vec::new(),
        match_path: None,
        window: WindowKind::Fixed,
        increment: None,
        simulate: false,
        ignore_self: true,
        ipv6_prefix: 128,
    };
    engine.configure(
        vec![jail],
        NetSet::build([network(Ipv4Addr::LOCALHOST.into(), 8)]),
        NOW,
    );
    let jail = engine.jail("web").expect("it was just configured");
    (engine, jail)
}

fn request(client: IpAddr, target: &[u8]) -> Request<'_> {
    Request {
        client,
        method: b"GET",
        target,
        told: Told::These {
            host: b"app.example.com",
            agent: b"curl/8.0",
        },
        plain: false,
    }
}

fn decision(addr: IpAddr, origin: &Origin) -> Ban {
    Ban {
        client: addr.into(),
        jail: None,
        origin: origin.clone(),
        cause: Cause::Decision("bench".into()),
        count: 0,
        first_status: 0,
        last_status: 0,
        path: "".into(),
        since: NOW,
        until: NOW + 3_600_000,
    }
}

fn network(addr: IpAddr, len: u8) -> IpNet {
    IpNet::new(addr, len)
        .expect("a length of its family")
        .trunc()
}

fn best<R>(addrs: &[IpAddr], call: impl Fn(IpAddr) -> R) -> f64 {
    best_of(addrs, |addr| call(*addr))
}

/// Nanoseconds a call, in the best round.
fn best_of<T, R>(inputs: &[T], call: impl Fn(&T) -> R) -> f64 {
    let round = || {
        let all = || {
            inputs
                .iter()
                .for_each(|input| drop(black_box(call(black_box(input)))))
        };
        timed(all).1 / inputs.len() as f64
    };
    (0..ROUNDS).map(|_| round()).fold(f64::MAX, f64::min)
}

/// Each lookup's answer decides which address is next.
fn dependent(probes: &[IpAddr], set: &NetSet) -> f64 {
    let round = || {
        let mut at = 0;
        let all = || {
            for _ in 0..probes.len() {
                at = (at + 1 + usize::from(set.contains(probes[at]))) & (probes.len() - 1);
            }
        };
        timed(all).1 / probes.len() as f64
    };
    (0..ROUNDS).map(|_| round()).fold(f64::MAX, f64::min)
}

/// The result and the nanoseconds this thread ran for it; the clock on the wall would also count
/// the turns of others.
fn timed<R>(call: impl FnOnce() -> R) -> (R, f64) {
    let begun = on_cpu();
    let result = black_box(call());
    (result, on_cpu() - begun)
}

fn on_cpu() -> f64 {
    let ran = clock_gettime(ClockId::ThreadCPUTime);
    ran.tv_sec as f64 * 1e9 + ran.tv_nsec as f64
}

fn row(what: &str, measured: f64, unit: &str, required: &str) {
    let limit = if required.is_empty() {
        String::new()
    } else {
        format!("≤ {required}")
    };
    println!("{what:<56}{measured:>11.1} {unit:<2}  {limit}");
}

/// Resident bytes of this process.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<usize> = status
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0) * 4096
}

/// SplitMix64, so that every run sees the same inputs.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn word(&mut self) -> String {
        let len = 4 + self.below(6);
        (0..len)
            .map(|_| char::from(b'a' + self.below(26) as u8))
            .collect()
    }
}

fn v4(count: usize, seed: u64) -> Vec<IpAddr> {
    let mut random = Random(seed << 32);
    // Not 127.0.0.0/8, which `ignoreself` spares.
    std::iter::repeat_with(|| random.next() as u32)
        .filter(|bits| bits >> 24 != 127)
        .map(|bits| Ipv4Addr::from_bits(bits).into())
        .take(count)
        .collect()
}

/// Addresses below 2000::/16, all in different /64s.
fn v6(count: usize, seed: u64) -> Vec<IpAddr> {
    let mut random = Random(seed << 32);
    let mut addr = || {
        let high = 0x2000_u64 << 48 | random.next() >> 16;
        Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(random.next())).into()
    };
    (0..count).map(|_| addr()).collect()
}

fn shuffled(addrs: &[IpAddr]) -> Vec<IpAddr> {
    let (mut addrs, mut random) = (addrs.to_vec(), Random(99));
    for at in (1..addrs.len()).rev() {
        addrs.swap(at, random.below(at + 1));
    }
    addrs
}
