//! Counting what came of a request, and the bans of our own that follow from it.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{
    Denial, Engine, Outcome, Reason, Request,
    ban::{Cause, Origin},
    client,
    counters::{Event, Reached, Tally},
    decide::{Ruling, denylisted},
    history::Earlier,
    jail::JailId,
    policy::Jail,
    slots::{Detail, Place, Terms},
    table::Fetch,
    window::{ban_length, millis},
};
use crate::time::Millis;

/// Longest path a ban keeps, in bytes.
const MAX_PATH: usize = 256;
/// The prefix that IPv6 clients are counted by when counters run full.
const AGGREGATE: u8 = 48;
/// A ban that `block` hits keep extending changes at most this often, and at most ten times in
/// its own length: each change goes to disk and to every follower.
const EXTEND_EVERY: Millis = 1000;

impl Engine {
    /// Counts what came of a request. `now` is when it came: log lines carry their own time and
    /// may be late and out of order. Lists and URL rules are asked again, but only for a status
    /// that counts, so nothing needs to be carried here from [`Engine::check`]. A client that is
    /// banned by then is not counted; its response is to be replaced all the same.
    pub fn observe(
        &self,
        jail: JailId,
        request: &Request<'_>,
        status: u16,
        now: Millis,
    ) -> Outcome {
        let policy = self.policy.load();
        let counts =
            |jail: &&Jail| jail.spec.enabled && jail.counts(status) && jail.matches(request);
        let Some(jail) = policy.live(jail).filter(counts) else {
            return Outcome::Ignored;
        };
        let addr = client::canonical(request.client);
        match self.ruling(&policy, jail, addr, request, &mut |_, _| {}) {
            Ruling::Exempt(_) => Outcome::Ignored,
            Ruling::Denylist => jail.replace(denylisted(jail), false),
            Ruling::Block(pattern) => {
                let (denial, begun) = self.ban_by_rule(jail, addr, request, pattern, status, now);
                jail.replace(denial, begun)
            }
            Ruling::Open => self.count(jail, addr, request, jail.event(now, status, self.swept())),
        }
    }

    /// Takes in a request that a log tells of: what [`Engine::check`] and then
    /// [`Engine::observe`] would do of it, asking lists and rules once. Answers whether it was
    /// counted as a failure.
    pub fn hear(&self, jail: JailId, request: &Request<'_>, status: u16, at: Millis) -> bool {
        let policy = self.policy.load();
        let Some(jail) = policy.live(jail).filter(|jail| jail.spec.enabled) else {
            return false;
        };
        let addr = client::canonical(request.client);
        match self.ruling(&policy, jail, addr, request, &mut |_, _| {}) {
            Ruling::Exempt(_) | Ruling::Denylist => false,
            Ruling::Block(pattern) => {
                self.ban_by_rule(jail, addr, request, pattern, 0, at);
                false
            }
            Ruling::Open => {
                let counts = jail.counts(status) && jail.matches(request);
                let event = jail.event(at, status, self.swept());
                counts && self.count(jail, addr, request, event).counted()
            }
        }
    }

    /// Counts one event that is known to count.
    pub(super) fn count(
        &self,
        jail: &Jail,
        addr: IpAddr,
        request: &Request<'_>,
        event: Event,
    ) -> Outcome {
        // asked anew under the counter's lock: a ban begun meanwhile may stand in a table swapped in
        // since this event's policy was
        let standing = || {
            let policy = self.policy.load();
            let jail = policy.any(jail.id)?;
            let denial =
                self.standing(&policy, jail, addr, Fetch::AtOnce, event.at, &mut |_, _| {})?;
            Some(jail.replace(denial, false))
        };
        let tally = |client: IpNet, evict: bool| {
            self.counters
                .count(client, jail.id, event, evict, standing, |reached| {
                    self.begin(jail, client, reached, request, event)
                })
        };
        let wider = self.aggregate(jail, addr);
        let mut tallied = tally(client::fold(addr, jail.spec.ipv6_prefix), wider.is_none());
        if let (Tally::Full, Some(wider)) = (&tallied, wider) {
            tallied = tally(wider, true);
        }
        let outcome = match tallied {
            Tally::Counted(count) => Outcome::Counted(count),
            Tally::Stale | Tally::Full => Outcome::Ignored,
            Tally::Settled(outcome) => outcome,
        };
        if outcome.counted() {
            self.witness(jail.id, addr, request, event.status, event.at);
        }
        outcome
    }

    /// The wider network a client is counted as under flood, if that is wanted.
    fn aggregate(&self, jail: &Jail, addr: IpAddr) -> Option<IpNet> {
        let wanted = self
            .aggregate_ipv6
            .load(std::sync::atomic::Ordering::Relaxed);
        let wider = wanted && addr.is_ipv6() && jail.spec.ipv6_prefix > AGGREGATE;
        wider.then(|| client::fold(addr, AGGREGATE))
    }

    /// A window is full. Runs under the lock of the client's counter, so that of many failures in
    /// flight exactly one comes here.
    fn begin(
        &self,
        jail: &Jail,
        client: IpNet,
        reached: Reached,
        request: &Request<'_>,
        event: Event,
    ) -> Outcome {
        let since = event.at.max(reached.last);
        let (until, earlier) = self.until(jail, client, since, 0);
        let denial = jail.denial(Reason::Banned, until);
        let mut begun = true;
        if until > since {
            if until <= self.swept() {
                // an old log line: the ban it would have led to is over by now, and a line read
                // again after a restart has had it before
                let known = self.history.get(client, jail.id);
                if known.is_none_or(|known| known.until <= since) {
                    self.remember(jail, client, earlier + 1, until);
                }
                return Outcome::Counted(reached.count);
            }
            self.remember(jail, client, earlier + 1, until);
            let terms = Terms {
                cause: Cause::Failures,
                detail: Detail {
                    count: reached.count,
                    first_status: reached.first_status,
                    last_status: event.status,
                    path: path_of(request.target),
                },
                since,
                until,
            };
            begun = self.impose_one(jail.place(client), terms, since);
        }
        jail.replace(denial, begun)
    }

    /// A `block` rule hit: bans at once, or extends the ban of ours that stands. Answers also
    /// whether it began one.
    pub(super) fn ban_by_rule(
        &self,
        jail: &Jail,
        addr: IpAddr,
        request: &Request<'_>,
        pattern: Arc<str>,
        status: u16,
        now: Millis,
    ) -> (Denial, bool) {
        let client = client::fold(addr, jail.spec.ipv6_prefix);
        let place = jail.place(client);
        let denial = |until| jail.denial(Reason::Rule, until);
        let mut slots = self.ledger.lock();
        let held = slots.find(&place).map(|id| slots.slot(id));
        let held = held.filter(|slot| slot.until() > now);
        let (until, earlier) = self.until(jail, client, now, u32::from(held.is_some()));
        let (mut since, mut count) = (now, 1);
        if let Some(held) = held {
            let step = EXTEND_EVERY.min(millis(jail.spec.bantime) / 10);
            if until < held.until().saturating_add(step) {
                return (denial(held.until()), false);
            }
            (since, count) = (held.since(), held.count().saturating_add(1));
        }
        if until <= now.max(self.swept()) {
            return (denial(until), until == now);
        }
        let terms = Terms {
            cause: Cause::Rule(pattern),
            detail: Detail {
                count,
                first_status: status,
                last_status: status,
                path: path_of(request.target),
            },
            since,
            until,
        };
        let begun = held.is_none();
        self.remember(jail, client, earlier + 1, until);
        let mut changed = Vec::new();
        self.impose(&mut slots, place, terms, now, &mut changed);
        self.mirror(&slots, &changed, self.ticks(now));
        drop(slots);
        self.ledger.announce();
        // only now: whoever counts from here on finds the ban first
        self.counters.forget(client, jail.id);
        self.witness(jail.id, addr, request, status, now);
        (denial(until), begun)
    }

    /// When a ban that begins `at` ends, and how many earlier ones it grew by. `running` is 1 when
    /// the latest of them is the one being extended.
    pub(super) fn until(
        &self,
        jail: &Jail,
        client: IpNet,
        at: Millis,
        running: u32,
    ) -> (Millis, u32) {
        let earlier = jail.spec.increment.map_or(0, |increment| {
            let bans = self
                .history
                .bans(client, jail.id, at, millis(increment.remember));
            bans.saturating_sub(running)
        });
        let length = ban_length(&jail.spec, earlier, client, at, self.hash);
        (at.saturating_add(length), earlier)
    }

    fn remember(&self, jail: &Jail, client: IpNet, bans: u32, until: Millis) {
        if jail.spec.increment.is_some() {
            let earlier = Earlier {
                client,
                jail: jail.id,
                bans,
                until,
            };
            self.history.note(earlier, self.bans_cap());
        }
    }
}

impl Jail {
    pub(super) fn denial(&self, reason: Reason, until: Millis) -> Denial {
        Denial {
            reason,
            jail: self.id,
            until: Some(until),
        }
    }

    /// Where this jail's own ban of a client stands.
    fn place(&self, client: IpNet) -> Place {
        Place {
            client,
            jail: Some(self.id),
            origin: Origin::Jail,
            silent: self.spec.simulate,
        }
    }

    fn replace(&self, denial: Denial, begun: bool) -> Outcome {
        if self.spec.simulate {
            Outcome::Simulated { denial, begun }
        } else {
            Outcome::Banned { denial, begun }
        }
    }
}

/// The path of a target as a ban keeps it: no query, lossy, short.
fn path_of(target: &[u8]) -> Box<str> {
    let path = memchr::memchr2(b'?', b'#', target).map_or(target, |end| &target[..end]);
    let text = String::from_utf8_lossy(&path[..path.len().min(MAX_PATH)]);
    text[..text.floor_char_boundary(MAX_PATH)].into()
}
