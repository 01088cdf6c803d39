//! Calls `Engine::check` or `Engine::observe` a given number of times, for callgrind to count
//! (`guard.py`). Every input is fixed, so that two runs differ by the number of calls alone.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use ipnet::{IpNet, Ipv4Net};
use jailgate::engine::{
    Ban, Cause, Delta, Engine, JailId, JailSpec, Limits, Origin, Request, Told,
    ban::FOREVER,
    jail::WindowKind,
    nets::NetSet,
    urls::{Mode, UrlRules},
};

const NOW: u64 = 1_795_000_000_000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (Some(what), Some(calls)) = (args.first(), args.get(1).and_then(|n| n.parse().ok())) else {
        eprintln!("usage: guard check|observe CALLS");
        return;
    };
    let (engine, jail) = engine();
    for n in 0..calls {
        let request = request(n);
        match what.as_str() {
            "check" => drop(std::hint::black_box(engine.check(
                jail,
                &request,
                NOW + u64::from(n),
            ))),
            _ => drop(std::hint::black_box(engine.observe(
                jail,
                &request,
                404,
                NOW + u64::from(n),
            ))),
        }
    }
}

/// One of 64 clients, so that tables stop growing before the first call that is counted.
fn request(n: u32) -> Request<'static> {
    Request {
        client: Ipv4Addr::from(0x3301_0100 + n % 64 * 7919).into(),
        method: b"GET",
        target: b"/app/articles/2026/on-proxies?page=2&sort=date",
        told: Told::These {
            host: b"bench.example",
            agent: b"curl/8.0",
        },
        plain: false,
    }
}

fn engine() -> (Engine, JailId) {
    let limits = Limits {
        tracked_clients: 100_000,
        bans: 100_000,
        aggregate_ipv6: false,
    };
    let engine = Engine::new(limits, 42);
    engine.configure(vec![jail()], NetSet::default(), NOW);
    let origin = Origin::Outside("crowdsec/CAPI".into());
    let add = (0..10_000).map(|n| decision(n, &origin)).collect();
    engine.apply(
        &origin,
        Delta {
            add,
            ..Delta::default()
        },
        NOW,
    );
    let jail = engine.jail("web").expect("it was just configured");
    (engine, jail)
}

fn jail() -> JailSpec {
    let rules: Vec<_> = (0..100)
        .map(|n| (format!("^/scan{n}/.*[.]php$"), Mode::Block))
        .collect();
    let list = |from: u32| Arc::new(NetSet::build((0..1000).map(|n| net(from + n * 4096, 28))));
    JailSpec {
        name: "web".into(),
        enabled: true,
        denylist: list(0x0B00_0000),
        allowlist: list(0xC800_0000),
        urls: Arc::new(UrlRules::compile(&rules).expect("fixed patterns")),
        findtime: Duration::from_secs(600),
        bantime: Duration::from_secs(10_800),
        maxretry: u32::MAX,
        statuses: vec![400..=400, 401..=401, 403..=499],
        match_methods: Vec::new(),
        match_path: None,
        window: WindowKind::Fixed,
        increment: None,
        simulate: false,
        ignore_self: true,
        ipv6_prefix: 64,
    }
}

fn decision(n: u32, origin: &Origin) -> Ban {
    Ban {
        client: net(0x5000_0000 + n * 251, 32),
        jail: None,
        origin: origin.clone(),
        cause: Cause::Decision("crowdsecurity/http-probing".into()),
        count: 0,
        first_status: 0,
        last_status: 0,
        path: "".into(),
        since: NOW,
        until: FOREVER,
    }
}

fn net(address: u32, prefix: u8) -> IpNet {
    Ipv4Net::new_assert(address.into(), prefix).trunc().into()
}
