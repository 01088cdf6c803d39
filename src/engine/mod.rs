//! The pure heart: decides, counts, bans. No I/O, no clock, and nothing here can fail.
//!
//! [`Engine::check`] answers whether a request may pass, [`Engine::observe`] counts what came of
//! it, [`Engine::apply`] takes in what others decided, [`Engine::sweep`] lets go of what expired.
//! Every call takes `now` in Unix milliseconds.

pub mod allow;
pub mod ban;
pub mod client;
pub mod evidence;
pub mod explain;
pub mod followers;
pub mod jail;
pub mod kept;
pub mod ledger;
pub mod nets;
pub mod urls;

mod bans;
mod count;
mod counters;
mod decide;
mod history;
mod mirror;
mod policy;
mod slots;
mod state;
#[doc(hidden)]
pub mod table;
#[cfg(test)]
mod tests;
mod window;

use std::{
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::time::Millis;
pub use allow::{AllowList, Allowed};
pub use ban::{Ban, Cause, Origin, REFUSED, Reason};
pub use counters::Tracked;
pub use evidence::{Evidence, Trace, host_name};
pub use explain::{Explanation, Finding};
pub use followers::{Cursors, Follower};
pub use history::Earlier;
pub use jail::{JailId, JailSpec};
pub use ledger::{Change, Ledger, Lift, Since};

/// What the engine needs to know of one request. Borrowed, nothing is copied on the hot path.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The client as the adapter established it; the engine canonicalises it (v4-mapped, prefix).
    pub client: IpAddr,
    /// Method as sent, `GET`.
    pub method: &'a [u8],
    /// Origin-form target as sent: escaped path, `?`, raw query. Never absolute-form.
    pub target: &'a [u8],
    /// What else it said: evidence for people, nothing is decided by it.
    pub told: Told<'a>,
    /// Whether somebody found `target` plain ([`urls::is_plain`]); false when nobody looked.
    pub plain: bool,
}

/// A request's host and `User-Agent`.
#[derive(Clone, Copy, Debug)]
pub enum Told<'a> {
    /// Known already; empty where they are not.
    These {
        /// Host without port, lower case or as sent.
        host: &'a [u8],
        /// `User-Agent` as sent.
        agent: &'a [u8],
    },
    /// To be looked up in its headers when it is kept, as few requests are.
    In(&'a http::HeaderMap),
}

/// May this request pass?
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Pass; what comes back is to be observed.
    Pass,
    /// Pass and never count: allowlisted, or an `allow` URL, or the machine itself.
    Exempt(Exempt),
    /// Would be denied, but the jail only simulates.
    Simulated(Denial),
    /// Refuse.
    Deny(Denial),
}

/// Why a request is not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exempt {
    /// The jail is disabled.
    Disabled,
    /// A trusted proxy, the default gateway or an own address (`ignoreself`).
    Itself,
    /// On the jail's allowlist.
    Allowlist,
    /// An `allow` URL rule matched.
    AllowRule,
}

/// A refusal and everything that log, page, header and metric say about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Denial {
    /// Why, as one fixed word.
    pub reason: Reason,
    /// The jail that refuses.
    pub jail: JailId,
    /// When it ends, Unix milliseconds; `None` for lists (they do not end).
    pub until: Option<Millis>,
}

/// What became of one observed response or log line.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Not a counted event.
    Ignored,
    /// Counted; this many in the window now.
    Counted(u32),
    /// The client is banned: replace the response. `begun` says that this very event did it.
    Banned {
        /// What to answer with.
        denial: Denial,
        /// False when the ban stood already (a response that was in flight).
        begun: bool,
    },
    /// Like `Banned`, but the jail only simulates: deliver the response as it is.
    Simulated {
        /// What would have been answered.
        denial: Denial,
        /// As in `Banned`.
        begun: bool,
    },
}

impl Outcome {
    /// Whether this very event was counted, also as the one that led to a ban.
    pub fn counted(&self) -> bool {
        match self {
            Self::Ignored => false,
            Self::Counted(_) => true,
            Self::Banned { begun, .. } | Self::Simulated { begun, .. } => *begun,
        }
    }
}

/// Caps and switches of the whole engine.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Counters held at once, over all jails; the one idle longest goes first.
    pub tracked_clients: usize,
    /// Bans held at once, outside decisions included; the one ending soonest goes first.
    pub bans: usize,
    /// When counters run full, count new IPv6 clients by /48.
    pub aggregate_ipv6: bool,
}

/// Decisions made elsewhere, as a change to what is known of one origin.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    /// Forget everything of this origin first (a full pull).
    pub replace: bool,
    /// Begin or change.
    pub add: Vec<Ban>,
    /// Take back, by client and jail.
    pub remove: Vec<(ipnet::IpNet, Option<Arc<str>>)>,
}

/// Which bans to lift by hand.
#[derive(Clone, Debug)]
pub enum Selector {
    /// Exactly this client or range, every origin, in one jail or (`None`) wherever it is banned.
    /// A single IPv6 address also means the prefix it is counted as.
    Client(ipnet::IpNet, Option<Arc<str>>),
    /// Every ban of ours and by hand; outside decisions stay.
    All,
}

/// Sizes and totals for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Counters held now.
    pub tracked_clients: usize,
    /// Bans held now.
    pub bans: usize,
    /// Counters dropped because the table was full, ever.
    pub evicted_clients: u64,
    /// Bans dropped because the table was full, ever.
    pub evicted_bans: u64,
}

/// Decides, counts and bans for every jail. Share it by `Arc`; every call takes `&self`.
///
/// Locks are taken in this order: a shard of the counters, the ledger, a shard of a table. The hot
/// path takes none but a guard of the policy.
#[derive(Debug)]
pub struct Engine {
    policy: ArcSwap<policy::Policy>,
    names: Arc<policy::Names>,
    counters: counters::Counters,
    history: history::History,
    evidence: evidence::Ring,
    allow: AllowList,
    ledger: Ledger,
    cursors: Cursors,
    ticks: OnceLock<table::Ticks>,
    /// The newest time `sweep` has seen.
    swept: AtomicU64,
    bans_cap: AtomicUsize,
    evicted_bans: AtomicU64,
    aggregate_ipv6: AtomicBool,
    hash: table::Keyed,
}

impl Engine {
    /// An engine without jails. `seed` keys the hashes and the random part of grown bans.
    pub fn new(limits: Limits, seed: u64) -> Self {
        let hash = table::Keyed(seed);
        let names = Arc::<policy::Names>::default();
        Self {
            policy: ArcSwap::from_pointee(policy::Policy::new(table::Scope::new(128, hash))),
            counters: counters::Counters::new(limits.tracked_clients, hash),
            history: history::History::new(hash),
            evidence: evidence::Ring::new(hash),
            allow: AllowList::default(),
            ledger: Ledger::new(names.clone(), hash),
            names,
            cursors: Cursors::default(),
            ticks: OnceLock::new(),
            swept: AtomicU64::new(0),
            bans_cap: AtomicUsize::new(limits.bans),
            evicted_bans: AtomicU64::new(0),
            aggregate_ipv6: AtomicBool::new(limits.aggregate_ipv6),
            hash,
        }
    }

    /// Puts these jails in force at once; state of jails that stay is kept, ids of names are kept
    /// for ever. `itself` is what `ignoreself` spares.
    pub fn configure(&self, jails: Vec<JailSpec>, itself: nets::NetSet, now: Millis) {
        let ticks = self.ticks(now);
        let mut slots = self.ledger.lock();
        let old = self.policy.load_full();
        let mut next: Vec<Option<policy::Jail>> = old.jails.clone();
        for jail in next.iter_mut().flatten() {
            jail.live = false;
        }
        let mut fresh = Vec::new();
        for spec in jails {
            let id = self.names.id(&spec.name);
            let prefix = spec.ipv6_prefix.clamp(1, 128);
            let known = old.any(id).filter(|jail| jail.scope.v6_prefix() == prefix);
            let scope = known.map(|jail| jail.scope.clone()).unwrap_or_else(|| {
                fresh.push(id);
                table::Scope::new(prefix, self.hash)
            });
            next.resize(next.len().max(usize::from(id.0) + 1), None);
            next[usize::from(id.0)] = Some(policy::Jail {
                id,
                spec: Arc::new(spec),
                live: true,
                scope,
            });
        }
        let next = Arc::new(policy::Policy {
            jails: next,
            everywhere: old.everywhere.clone(),
            itself,
            allowed: old.allowed.clone(),
        });
        self.policy.store(next.clone());
        let enforced = |id: JailId| next.live(id).is_some_and(|jail| !jail.spec.simulate);
        let revived = slots.drop_silent(enforced);
        self.mirror(&slots, &revived, ticks);
        let moved = slots.clients_in(&fresh);
        self.mirror(&slots, &moved, ticks);
    }

    /// Changes the caps; takes effect with the next insertion, and with the next sweep in full.
    pub fn set_limits(&self, limits: Limits) {
        self.counters.set_cap(limits.tracked_clients);
        self.bans_cap.store(limits.bans, Ordering::Relaxed);
        self.aggregate_ipv6
            .store(limits.aggregate_ipv6, Ordering::Relaxed);
    }

    /// The id of a configured jail.
    pub fn jail(&self, name: &str) -> Option<JailId> {
        let id = self.names.find(name)?;
        self.policy.load().live(id).map(|jail| jail.id)
    }

    /// The name behind an id.
    pub fn jail_name(&self, id: JailId) -> Arc<str> {
        self.names.get(id)
    }

    /// The ledger of bans.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// How far each follower of the ledger has come.
    pub fn cursors(&self) -> &Cursors {
        &self.cursors
    }

    /// Whether a network touches what must never be locked out: what `ignoreself` spares (own
    /// addresses, gateways, trusted proxies), the allowlist of any jail in force, or the runtime
    /// allow list.
    pub fn spares(&self, net: &IpNet) -> Option<Exempt> {
        let policy = self.policy.load();
        if policy.itself.overlaps(net) {
            return Some(Exempt::Itself);
        }
        let mut live = policy.jails.iter().flatten().filter(|jail| jail.live);
        let listed =
            policy.allowed.overlaps(net) || live.any(|jail| jail.spec.allowlist.overlaps(net));
        listed.then_some(Exempt::Allowlist)
    }

    /// Sizes and totals.
    pub fn stats(&self) -> Stats {
        Stats {
            tracked_clients: self.counters.held(),
            bans: self.ledger.len(),
            evicted_clients: self.counters.evicted(),
            evicted_bans: self.evicted_bans.load(Ordering::Relaxed),
        }
    }

    /// Ticks begin well before the first time the engine hears of.
    fn ticks(&self, now: Millis) -> table::Ticks {
        *self.ticks.get_or_init(|| table::Ticks::starting(now))
    }

    fn swept(&self) -> Millis {
        self.swept.load(Ordering::Relaxed)
    }
}
