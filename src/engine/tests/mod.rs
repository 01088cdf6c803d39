//! The engine as a specification: a small world that plays requests by script.

mod allow;
mod bans;
mod evidence;
mod explain;
mod followers;
mod limits;
mod parallel;
mod plugin;
mod windows;

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{
    Ban, Cause, Engine, JailId, JailSpec, Limits, Origin, Outcome, Request, Told, Verdict,
    jail::WindowKind,
    ledger::{Change, Since},
    nets::NetSet,
    urls::{Mode, UrlRules},
};
use crate::time::Millis;

/// A second in the middle of a tick, so that nothing is right by being round.
const START: Millis = 1_790_000_000_037;
const CLIENT: &str = "192.0.2.1";

/// One jail, one clock, and clients that fail by script.
struct World {
    engine: Engine,
    jail: JailId,
    now: Millis,
}

/// findtime 120 s, bantime 300 s, maxretry 4, every 4xx counts.
fn jail(name: &str) -> JailSpec {
    JailSpec {
        maxretry: 4,
        statuses: vec![400..=499],
        ..JailSpec::named(name)
    }
}

fn nets(nets: &[&str]) -> NetSet {
    NetSet::build(nets.iter().map(|net| self::net(net)))
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap_or_else(|_| IpNet::from(addr(text)))
}

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn rules(rules: &[(&str, Mode)]) -> Arc<UrlRules> {
    let rules: Vec<_> = rules
        .iter()
        .map(|(pattern, mode)| (pattern.to_string(), *mode))
        .collect();
    Arc::new(UrlRules::compile(&rules).unwrap())
}

fn limits() -> Limits {
    Limits {
        tracked_clients: 1000,
        bans: 1000,
        aggregate_ipv6: false,
    }
}

fn request<'a>(client: &str, method: &'a str, target: &'a str) -> Request<'a> {
    Request {
        client: addr(client),
        method: method.as_bytes(),
        target: target.as_bytes(),
        told: Told::These {
            host: b"app.example.com",
            agent: b"",
        },
        plain: false,
    }
}

/// An outside decision or a ban by hand, everywhere.
fn ban(client: &str, origin: Origin, until: Millis) -> Ban {
    Ban {
        client: net(client),
        jail: None,
        origin,
        cause: Cause::Decision("crowdsecurity/http-probing".into()),
        count: 0,
        first_status: 0,
        last_status: 0,
        path: "".into(),
        since: START,
        until,
    }
}

fn capi() -> Origin {
    Origin::Outside("crowdsec/CAPI".into())
}

impl World {
    fn new(jail: JailSpec) -> Self {
        Self::with(vec![jail], limits())
    }

    fn with(jails: Vec<JailSpec>, limits: Limits) -> Self {
        let engine = Engine::new(limits, 7);
        let name = jails[0].name.clone();
        engine.configure(jails, nets(&["127.0.0.1"]), START);
        let jail = engine.jail(&name).unwrap();
        Self {
            engine,
            jail,
            now: START,
        }
    }

    /// What a client sees of one request to a backend that answers `status`: the status, or
    /// `deny`.
    fn send(&self, client: &str, method: &str, target: &str, status: u16) -> String {
        let request = request(client, method, target);
        let answer = match self.engine.check(self.jail, &request, self.now) {
            Verdict::Deny(_) => return "deny".into(),
            Verdict::Exempt(_) => return status.to_string(),
            Verdict::Pass | Verdict::Simulated(_) => {
                self.engine.observe(self.jail, &request, status, self.now)
            }
        };
        match answer {
            Outcome::Banned { .. } => "deny".into(),
            _ => status.to_string(),
        }
    }

    /// Plays tokens: `404` is a GET of `/` answered so, `200:/yes` names the target, `404@IP`
    /// another client, `+30s` and `+5ms` let time pass (with a sweep). Answers what clients saw.
    fn play(&mut self, script: &str) -> String {
        let mut seen = Vec::new();
        for token in script.split_whitespace() {
            if let Some(pause) = token.strip_prefix('+') {
                self.wait(pause);
                continue;
            }
            let (rest, client) = token.split_once('@').unwrap_or((token, CLIENT));
            let (status, target) = rest.split_once(':').unwrap_or((rest, "/"));
            seen.push(self.send(client, "GET", target, status.parse().unwrap()));
        }
        self.engine.check_invariants(self.now);
        seen.join(" ")
    }

    fn wait(&mut self, pause: &str) {
        let millis = pause
            .strip_suffix("ms")
            .map(|millis| millis.parse::<Millis>().unwrap());
        let seconds = || pause.strip_suffix('s').unwrap().parse::<Millis>().unwrap() * 1000;
        self.now += millis.unwrap_or_else(seconds);
        self.engine.sweep(self.now);
    }

    fn changes(&self, cursor: u64) -> Vec<Change> {
        match self.engine.ledger().since(cursor, usize::MAX) {
            Since::Changes { changes, .. } => changes,
            Since::Snapshot { .. } => panic!("a snapshot instead of changes"),
        }
    }
}

#[track_caller]
fn check(name: &str, jail: JailSpec, script: &str, expected: &str) {
    let seen = World::new(jail).play(script);
    assert_eq!(seen, expected, "{name}: {script}");
}
