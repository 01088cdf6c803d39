//! The pure heart: decides, counts, bans. No I/O, no clock, and nothing here can fail.
//!
//! [`Engine::check`] answers whether a request may pass, [`Engine::observe`] counts what came of
//! it, [`Engine::apply`] takes in what others decided, [`Engine::sweep`] lets go of what expired.
//! Every call takes `now` in Unix milliseconds.

pub mod ban;
pub mod client;
pub mod jail;
pub mod ledger;
pub mod nets;
pub mod table;
pub mod urls;
pub mod window;

use std::net::IpAddr;

use crate::time::Millis;
pub use ban::{Ban, Cause, Origin, Reason};
pub use jail::{JailId, JailSpec};
pub use ledger::{Change, Ledger, Lift, Since};

/// What the engine needs to know of one request. Borrowed, nothing is copied on the hot path.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The client as the adapter established it; the engine canonicalises it (v4-mapped, prefix).
    pub client: IpAddr,
    /// Method as sent, `GET`.
    pub method: &'a [u8],
    /// Host without port, lower case or as sent; empty when unknown.
    pub host: &'a [u8],
    /// Origin-form target as sent: escaped path, `?`, raw query. Never absolute-form.
    pub target: &'a [u8],
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
    pub remove: Vec<(ipnet::IpNet, Option<std::sync::Arc<str>>)>,
}

/// Which bans to lift by hand.
#[derive(Clone, Debug)]
pub enum Selector {
    /// Exactly this client or range, every origin, in one jail or (`None`) everywhere.
    Client(ipnet::IpNet, Option<std::sync::Arc<str>>),
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
#[derive(Debug)]
pub struct Engine {}

impl Engine {
    /// An engine without jails. `seed` keys the hashes and the random part of grown bans.
    pub fn new(_limits: Limits, _seed: u64) -> Self {
        todo!()
    }

    /// Puts these jails in force at once; state of jails that stay is kept, ids of names are kept
    /// for ever. `itself` is what `ignoreself` spares.
    pub fn configure(&self, _jails: Vec<JailSpec>, _itself: nets::NetSet, _now: Millis) {
        todo!()
    }

    /// Changes the caps; takes effect with the next insertion.
    pub fn set_limits(&self, _limits: Limits) {
        todo!()
    }

    /// The id of a configured jail.
    pub fn jail(&self, _name: &str) -> Option<JailId> {
        todo!()
    }

    /// The name behind an id.
    pub fn jail_name(&self, _id: JailId) -> std::sync::Arc<str> {
        todo!()
    }

    /// May this request pass `jail`? Counts it when the jail counts requests.
    pub fn check(&self, _jail: JailId, _request: &Request<'_>, _now: Millis) -> Verdict {
        todo!()
    }

    /// Counts what came of a request.
    pub fn observe(
        &self,
        _jail: JailId,
        _request: &Request<'_>,
        _status: u16,
        _now: Millis,
    ) -> Outcome {
        todo!()
    }

    /// Takes in decisions made elsewhere.
    pub fn apply(&self, _origin: &Origin, _delta: Delta, _now: Millis) {
        todo!()
    }

    /// Imposes one ban by hand (or restores one).
    pub fn ban(&self, _ban: Ban, _now: Millis) {
        todo!()
    }

    /// Lifts bans by hand and answers those lifted.
    pub fn unban(&self, _which: &Selector, _now: Millis) -> Vec<std::sync::Arc<Ban>> {
        todo!()
    }

    /// Lets go of what expired; call it about every second.
    pub fn sweep(&self, _now: Millis) {
        todo!()
    }

    /// The ledger of bans.
    pub fn ledger(&self) -> &Ledger {
        todo!()
    }

    /// Sizes and totals.
    pub fn stats(&self) -> Stats {
        todo!()
    }
}
