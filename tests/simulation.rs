//! Seeds × steps of requests, late log lines, bans, decisions, reloads, clock advances and
//! restarts against a naive model; the engine's own invariants are checked after each step.
//! `JAILGATE_SEED=N cargo test --test simulation` plays one seed again.

#[path = "simulation/model.rs"]
mod model;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use jailgate::{
    engine::{
        Ban, Cause, Delta, Engine, JailSpec, Limits, Origin, Outcome, Reason, Request, Selector,
        Since, Told, Verdict,
        jail::{Increment, WindowKind},
        nets::NetSet,
        urls::{Mode, UrlRules},
    },
    time::Millis,
};
use model::{Expected, Model};

const SEEDS: u64 = 24;
const STEPS: usize = 400;
const NAMES: [&str; 3] = ["web", "api", "trial"];
const CLIENTS: [&str; 8] = [
    "192.0.2.1",
    "192.0.2.2",
    "192.0.2.200",
    "198.51.100.1",
    "2001:db8::1",
    "2001:db8::2",
    "2001:db8:0:1::1",
    "2001:db8:1::1",
];
const NETS: [&str; 8] = [
    "192.0.2.1/32",
    "192.0.2.0/24",
    "198.51.100.1/32",
    "2001:db8::/64",
    "2001:db8::2/128",
    "2001:db8::/48",
    "2001:db8:1::/56",
    "192.0.2.200/32",
];

/// One run: the engine, the model that says what it should do, and a follower that reads along.
struct Run {
    engine: Engine,
    model: Model,
    limits: Limits,
    rng: Rng,
    now: Millis,
    cursor: u64,
    view: BTreeMap<String, Arc<Ban>>,
}

/// SplitMix64: a test needs no more.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

fn spec(name: &str, rng: &mut Rng) -> JailSpec {
    let rules = [("^/no".into(), Mode::Block), ("^/yes".into(), Mode::Allow)];
    let growing = Increment {
        factor: 1.5,
        maxtime: Duration::from_secs(400),
        rndtime: Duration::ZERO,
        remember: Duration::from_secs(200),
    };
    JailSpec {
        name: name.into(),
        enabled: true,
        denylist: Arc::default(),
        allowlist: Arc::default(),
        urls: Arc::new(UrlRules::compile(&rules).expect("two plain rules")),
        findtime: Duration::from_millis(rng.one(&[0, 20_000, 60_000, 60_050])),
        bantime: Duration::from_millis(rng.one(&[0, 30_000, 90_000, 90_001])),
        maxretry: rng.one(&[0, 1, 2, 3, 5]),
        statuses: if name == "api" {
            Vec::new()
        } else {
            vec![401..=401, 403..=404]
        },
        match_methods: Vec::new(),
        match_path: None,
        window: if name == "web" {
            WindowKind::Fixed
        } else {
            WindowKind::Sliding
        },
        increment: (name != "api").then_some(growing),
        simulate: name == "trial" && rng.below(3) > 0,
        ignore_self: true,
        ipv6_prefix: rng.one(&[64, 64, 56]),
    }
}

impl Run {
    fn new(seed: u64, limits: Limits) -> Self {
        let mut run = Self {
            engine: Engine::new(limits, seed),
            model: Model::default(),
            limits,
            rng: Rng(seed),
            now: 1_790_000_000_000 + seed * 37,
            cursor: 0,
            view: BTreeMap::new(),
        };
        run.reload();
        run
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..50 => self.request(),
            50..62 => self.log_line(),
            62..75 => {
                self.now += self.rng.one(&[1, 7, 99, 100, 1000, 10_000, 29_999, 61_000]);
                if self.rng.below(2) == 0 {
                    self.engine.sweep(self.now);
                    self.model.sweep(self.now);
                }
            }
            75..82 => self.ban(),
            82..86 => self.unban(),
            86..93 => self.decisions(),
            93..96 => self.reload(),
            96..98 => self.restart(),
            _ => self.follow(),
        }
    }

    fn request(&mut self) {
        let name = self.rng.one(&NAMES);
        let Some(jail) = self.engine.jail(name) else {
            return;
        };
        let client: IpAddr = self.rng.one(&CLIENTS).parse().expect("an address");
        let target = self.rng.one(&["/", "/", "/", "/", "/", "/no", "/yes"]);
        let request = request(client, target);
        let verdict = self.engine.check(jail, &request, self.now);
        let expected = self.model.check(name, client, target, self.now);
        self.same_verdict(&verdict, &expected, name, client);
        let forwarded = matches!(verdict, Verdict::Pass | Verdict::Simulated(_));
        if forwarded && self.rng.below(3) > 0 {
            let status = self.rng.one(&[200, 401, 404, 404, 404]);
            self.observe(name, client, target, status, self.now);
        }
    }

    fn log_line(&mut self) {
        let (name, client) = (self.rng.one(&NAMES), self.rng.one(&CLIENTS));
        let at = self.now - self.rng.below(150_000);
        let client = client.parse().expect("an address");
        self.observe(name, client, "/", 404, at);
    }

    fn observe(&mut self, name: &str, client: IpAddr, target: &str, status: u16, at: Millis) {
        let Some(jail) = self.engine.jail(name) else {
            return;
        };
        let outcome = self
            .engine
            .observe(jail, &request(client, target), status, at);
        let expected = self.model.observe(name, client, target, status, at);
        if self.capped() {
            return;
        }
        let seen = match &outcome {
            Outcome::Ignored => Expected::Ignored,
            Outcome::Counted(count) => Expected::Counted(*count),
            Outcome::Banned { begun, .. } | Outcome::Simulated { begun, .. } => {
                Expected::Banned { begun: *begun }
            }
        };
        assert_eq!(
            seen, expected,
            "{name} {client} {target} {status} at {at}: {outcome:?}"
        );
        let simulated = matches!(outcome, Outcome::Simulated { .. });
        let banned = matches!(expected, Expected::Banned { .. });
        assert_eq!(simulated, banned && self.model.simulates(name));
    }

    fn same_verdict(&self, seen: &Verdict, expected: &Expected, name: &str, client: IpAddr) {
        if self.capped() {
            return;
        }
        let (denial, simulated) = match seen {
            Verdict::Pass | Verdict::Exempt(_) => {
                assert_eq!(*expected, Expected::Passed, "{name} {client}: {seen:?}");
                return;
            }
            Verdict::Deny(denial) => (denial, false),
            Verdict::Simulated(denial) => (denial, true),
        };
        assert_eq!(*expected, Expected::Denied, "{name} {client}: {seen:?}");
        assert_eq!(simulated, self.model.simulates(name));
        let until = denial.until.expect("a ban ends");
        if matches!(denial.reason, Reason::Banned | Reason::Decision) {
            let (covering, longest) = self.model.covering(name, client, self.now);
            let zero = covering.is_empty() && until == self.now;
            assert!(
                zero || covering.contains(&denial.reason),
                "{seen:?} of {covering:?}"
            );
            assert!(
                zero || (until > self.now && until <= longest),
                "{seen:?} by {longest}"
            );
        }
    }

    fn some_ban(&mut self, origin: Origin) -> Ban {
        let jail = self
            .rng
            .one(&[None, None, Some("web"), Some("trial"), Some("gone")]);
        Ban {
            client: self.rng.one(&NETS).parse().expect("a network"),
            jail: jail.map(Arc::from),
            origin,
            cause: Cause::Decision("ssh".into()),
            count: 0,
            first_status: 0,
            last_status: 0,
            path: "".into(),
            since: self.now,
            until: self.now + self.rng.one(&[0, 1, 99, 5000, 60_000, 1 << 40]),
        }
    }

    fn ban(&mut self) {
        let ban = self.some_ban(Origin::Manual);
        self.engine.ban(ban.clone(), self.now);
        self.model.ban(ban, self.now);
    }

    fn unban(&mut self) {
        let net: IpNet = match self.rng.below(2) {
            0 => self.rng.one(&NETS).parse().expect("a network"),
            _ => IpNet::from(
                self.rng
                    .one(&CLIENTS)
                    .parse::<IpAddr>()
                    .expect("an address"),
            ),
        };
        let jail = self.rng.one(&[None, None, Some("web")]).map(Arc::from);
        let which = match self.rng.below(8) {
            0 => Selector::All,
            _ => Selector::Client(net, jail),
        };
        let lifted = self.engine.unban(&which, self.now).len();
        let expected = self.model.unban(&which);
        assert!(
            self.capped() || lifted == expected,
            "{which:?} lifted {lifted} of {expected}"
        );
    }

    fn decisions(&mut self) {
        let origin = Origin::Outside(self.rng.one(&["crowdsec/CAPI", "crowdsec/cscli"]).into());
        let mut delta = Delta {
            replace: self.rng.below(3) == 0,
            ..Delta::default()
        };
        for _ in 0..self.rng.below(5) {
            delta.add.push(self.some_ban(origin.clone()));
        }
        for _ in 0..self.rng.below(3) {
            let ban = self.some_ban(origin.clone());
            delta.remove.push((ban.client, ban.jail));
        }
        self.engine.apply(&origin, delta.clone(), self.now);
        self.model.apply(&origin, delta, self.now);
    }

    fn reload(&mut self) {
        let mut jails = Vec::new();
        for name in NAMES {
            if name == "web" || self.rng.below(4) > 0 {
                jails.push(spec(name, &mut self.rng));
            }
        }
        self.engine
            .configure(jails.clone(), NetSet::default(), self.now);
        self.model.configure(jails);
    }

    /// Everything persistence keeps, into an engine that numbers its jails differently.
    fn restart(&mut self) {
        let changes = match self.engine.ledger().since(0, usize::MAX) {
            Since::Changes { changes, .. } => changes,
            Since::Snapshot { .. } => panic!("a short run is remembered whole"),
        };
        let newest = *self.engine.ledger().watch().borrow();
        let fresh = Engine::new(self.limits, self.rng.next());
        fresh.intern_jail(&"first".into());
        let jails = self.model.live();
        fresh.restore(changes, 0, newest, self.now);
        let renamed = |old: &Engine, id| fresh.intern_jail(&old.jail_name(id));
        fresh.restore_counters(self.engine.counters().into_iter().map(|mut tracked| {
            tracked.jail = renamed(&self.engine, tracked.jail);
            tracked
        }));
        fresh.restore_history(self.engine.history().into_iter().map(|mut earlier| {
            earlier.jail = renamed(&self.engine, earlier.jail);
            earlier
        }));
        fresh.configure(jails, NetSet::default(), self.now);
        self.engine = fresh;
        self.model.restart();
    }

    fn follow(&mut self) {
        let limit = 1 + self.rng.below(5) as usize;
        loop {
            match self.engine.ledger().since(self.cursor, limit) {
                Since::Changes { changes, next } => {
                    if next == self.cursor {
                        break;
                    }
                    assert!(changes.len() <= limit && changes.is_sorted_by_key(|c| c.seq));
                    for change in changes {
                        match change.lift {
                            None => self.view.insert(place(&change.ban), change.ban),
                            Some(_) => self.view.remove(&place(&change.ban)),
                        };
                    }
                    self.cursor = next;
                }
                Since::Snapshot { bans, next } => {
                    self.view = bans.into_iter().map(|ban| (place(&ban), ban)).collect();
                    self.cursor = next;
                }
            }
        }
        let held = self
            .engine
            .ledger()
            .bans()
            .into_iter()
            .map(|ban| (place(&ban), ban));
        assert_eq!(self.view, held.collect(), "what the follower knows");
    }

    fn capped(&self) -> bool {
        self.limits.bans < 1000
    }

    fn verify(&self) {
        self.engine.check_invariants(self.now);
        let stats = self.engine.stats();
        if self.capped() {
            assert!(stats.tracked_clients <= self.limits.tracked_clients);
            assert!(stats.bans <= self.limits.bans);
            return;
        }
        assert_eq!(stats.tracked_clients, self.model.tracked(), "counters held");
        let bans = self.engine.ledger().bans();
        let mut held: Vec<_> = bans.iter().map(|b| (place(b), b.since, b.until)).collect();
        held.sort();
        assert_eq!(held, self.model.listed(place), "bans held");
    }
}

fn place(ban: &Ban) -> String {
    format!("{} {:?} {:?}", ban.client, ban.jail, ban.origin)
}

fn request(client: IpAddr, target: &str) -> Request<'_> {
    Request {
        client,
        method: b"GET",
        target: target.as_bytes(),
        told: Told::These {
            host: b"",
            agent: b"",
        },
        plain: false,
    }
}

fn simulate(limits: Limits) {
    let only = std::env::var("JAILGATE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    for seed in only.map_or(0..SEEDS, |seed: u64| seed..seed + 1) {
        let mut run = Run::new(seed, limits);
        for step in 0..STEPS {
            let stepped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                run.step();
                run.verify();
            }));
            if let Err(panic) = stepped {
                eprintln!("failed at step {step}; again with JAILGATE_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
        run.follow();
    }
}

#[test]
fn the_engine_does_what_the_model_says() {
    simulate(Limits {
        tracked_clients: 100_000,
        bans: 100_000,
        aggregate_ipv6: false,
    });
}

#[test]
fn small_caps_hold_and_everything_still_agrees() {
    simulate(Limits {
        tracked_clients: 3,
        bans: 4,
        aggregate_ipv6: true,
    });
}
