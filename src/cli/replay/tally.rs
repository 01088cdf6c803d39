//! The replay itself: events through the engine at their own times, and who was banned by it.

use std::{collections::BTreeMap, sync::Arc};

use hashbrown::HashMap;
use ipnet::IpNet;

use crate::{
    access_log::{format::Event, intake::is_own},
    config::{Jail, Limits},
    engine::{
        self, Ban, Engine, JailId, Outcome, Reason, Request, Since, Told, Verdict, client,
        nets::NetSet,
    },
    time::Millis,
};

/// Everything counted.
pub struct Tally {
    engine: Engine,
    jails: Vec<JailTally>,
    denials: Vec<u16>,
    cursor: u64,
    swept: Millis,
    /// Events that named a client and had a status.
    pub events: u64,
    /// jailgate's own denials.
    pub own: u64,
    /// First and last event.
    pub span: Option<(Millis, Millis)>,
}

/// One jail over all logs.
pub struct JailTally {
    id: JailId,
    prefix: u8,
    /// Its name.
    pub name: Arc<str>,
    /// Bans in the order they began.
    pub bans: Vec<Ban>,
    /// By start of the hour, Unix milliseconds.
    pub hours: BTreeMap<Millis, Hour>,
    /// What every client did.
    pub seen: HashMap<IpNet, Seen, foldhash::fast::RandomState>,
}

/// One hour of one jail.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hour {
    /// Events that counted.
    pub failures: u64,
    /// Bans that began.
    pub bans: u64,
    /// Requests that would have been denied.
    pub denied: u64,
}

/// One client in one jail.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// All its requests.
    pub requests: u32,
    /// Those answered with 2xx or 3xx.
    pub successes: u32,
    /// Those that would have been denied.
    pub denied: u32,
}

const HOUR: Millis = 3_600_000;
/// Log time between two sweeps of the engine.
const SWEEP_EVERY: Millis = 10_000;

impl Tally {
    /// Jails as configured, enforced for themselves even where they only simulate. `begin` is the
    /// first event's time.
    pub fn new(jails: &[&Jail], limits: Limits, itself: NetSet, begin: Millis) -> Self {
        let limits = engine::Limits {
            tracked_clients: limits.tracked_clients,
            bans: limits.bans,
            aggregate_ipv6: false,
        };
        // A fixed seed: the same log, the same report.
        let engine = Engine::new(limits, 0);
        let specs = jails.iter().map(|jail| {
            let mut spec = jail.spec.clone();
            spec.simulate = false;
            spec
        });
        engine.configure(specs.collect(), itself, begin);
        let tally = |jail: &&Jail| {
            Some(JailTally {
                id: engine.jail(&jail.spec.name)?,
                prefix: jail.spec.ipv6_prefix,
                name: jail.spec.name.clone(),
                bans: Vec::new(),
                hours: BTreeMap::new(),
                seen: HashMap::default(),
            })
        };
        Self {
            jails: jails.iter().filter_map(tally).collect(),
            denials: jails
                .iter()
                .map(|jail| jail.response.status.as_u16())
                .collect(),
            engine,
            cursor: 0,
            swept: begin,
            events: 0,
            own: 0,
            span: None,
        }
    }

    /// The jails, in the order given.
    pub fn jails(&self) -> &[JailTally] {
        &self.jails
    }

    /// Takes one event for the jails so named.
    pub fn take(&mut self, event: &Event<'_>, at: Millis, trusted: &NetSet, jails: &[Arc<str>]) {
        if is_own(event, &self.denials) {
            self.own += 1;
            return;
        }
        let Some(client) = event.chain.client(trusted) else {
            return;
        };
        if event.status == 0 {
            return;
        }
        self.events += 1;
        let span = self.span.get_or_insert((at, at));
        *span = (span.0.min(at), span.1.max(at));
        if at >= self.swept + SWEEP_EVERY {
            self.swept = at;
            self.engine.sweep(at);
        }
        let request = Request {
            client: client.addr,
            method: &event.method,
            target: &event.target,
            told: Told::These {
                host: &event.host,
                agent: &event.agent,
            },
            plain: false,
        };
        for index in 0..self.jails.len() {
            if jails.contains(&self.jails[index].name) {
                self.judge(index, &request, event.status, at);
            }
        }
    }

    fn judge(&mut self, index: usize, request: &Request<'_>, status: u16, at: Millis) {
        let jail = &mut self.jails[index];
        let key = client::fold(client::canonical(request.client), jail.prefix);
        let seen = jail.seen.entry(key).or_default();
        seen.requests += 1;
        let hour = jail.hours.entry(at - at % HOUR).or_default();
        let verdict = self.engine.check(jail.id, request, at);
        // A scanner's find is a success too, but none that speaks for it.
        let scan = matches!(&verdict, Verdict::Deny(denial) if denial.reason == Reason::Rule);
        seen.successes += u32::from((200..400).contains(&status) && !scan);
        let banned = match verdict {
            Verdict::Exempt(_) => false,
            Verdict::Deny(denial) | Verdict::Simulated(denial) => {
                hour.denied += 1;
                seen.denied += 1;
                matches!(denial.reason, Reason::Rule | Reason::Banned)
            }
            Verdict::Pass if matches!(status, 499 | 502..=504) => false,
            Verdict::Pass => match self.engine.observe(jail.id, request, status, at) {
                Outcome::Ignored => false,
                Outcome::Counted(_) => {
                    hour.failures += 1;
                    false
                }
                Outcome::Banned { begun, .. } | Outcome::Simulated { begun, .. } => {
                    hour.failures += u64::from(begun);
                    begun
                }
            },
        };
        if banned {
            self.collect(index);
        }
    }

    /// Takes bans that began out of the ledger.
    fn collect(&mut self, index: usize) {
        loop {
            let (changes, next) = match self.engine.ledger().since(self.cursor, 1024) {
                Since::Changes { changes, next } => (changes, next),
                // Too far behind cannot be: every ban is collected as it begins.
                Since::Snapshot { next, .. } => (Vec::new(), next),
            };
            if next == self.cursor {
                return;
            }
            self.cursor = next;
            let jail = &mut self.jails[index];
            for change in changes.into_iter().filter(|change| change.lift.is_none()) {
                if change.updated {
                    let last = jail
                        .bans
                        .iter_mut()
                        .rfind(|ban| ban.client == change.ban.client);
                    if let Some(ban) = last {
                        *ban = Ban::clone(&change.ban);
                    }
                } else {
                    jail.hours
                        .entry(change.ban.since / HOUR * HOUR)
                        .or_default()
                        .bans += 1;
                    jail.bans.push(Ban::clone(&change.ban));
                }
            }
        }
    }
}
