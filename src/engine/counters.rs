//! Counters of clients that failed lately: sharded, bounded, compact. It counts within windows and
//! makes room; what a full window leads to is the caller's, run under the shard's lock so that
//! exactly one event begins a ban.

mod shard;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ipnet::IpNet;
use shard::{Family, Id, net_v4, net_v6};

use super::{
    jail::{JailId, WindowKind},
    table::{Keyed, SHARDS, V6},
};
use crate::time::Millis;

/// How many counters are looked at to find one that was idle for long.
const SAMPLE: usize = 16;

/// What was counted of one client in one jail.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tracked {
    /// The client.
    pub client: IpNet,
    /// Where it was counted.
    pub jail: JailId,
    /// Counted events in the window.
    pub count: u32,
    /// Status of the first of them; 0 when there was none.
    pub first_status: u16,
    /// Start of the window.
    pub start: Millis,
    /// The latest counted event.
    pub last: Millis,
    /// Time and status of every event of a sliding window, oldest first; empty for a fixed one.
    pub events: Vec<(Millis, u16)>,
}

/// One event to count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) at: Millis,
    pub(super) status: u16,
    pub(super) rule: Rule,
}

/// The rule it is counted by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) kind: WindowKind,
    pub(super) findtime: Millis,
    pub(super) maxretry: u32,
    /// The newest time `sweep` has seen: windows over by then stay one sweep longer, for a
    /// backlog of log lines that is still being read.
    pub(super) swept: Millis,
}

/// A full window, as the ban that follows tells it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reached {
    pub(super) count: u32,
    pub(super) first_status: u16,
    /// The newest event of the window.
    pub(super) last: Millis,
}

/// What became of one event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tally<R> {
    /// Counted; this many in the window now.
    Counted(u32),
    /// Older than the window that runs.
    Stale,
    /// Not held yet, and there is no room.
    Full,
    /// The caller's answer, because the client is banned or has become so.
    Settled(R),
}

/// Counters of every jail, v4 and v6 apart.
#[derive(Debug)]
pub(super) struct Counters {
    v4: Family<u32>,
    v6: Family<V6>,
    budget: Budget,
    hand: AtomicUsize,
}

#[derive(Debug)]
struct Budget {
    held: AtomicUsize,
    cap: AtomicUsize,
    evicted: AtomicU64,
}

#[derive(Clone, Copy)]
enum Idle {
    V4(Id<u32>, Millis),
    V6(Id<V6>, Millis),
}

impl Counters {
    pub(super) fn new(cap: usize, hash: Keyed) -> Self {
        Self {
            v4: Family::new(hash),
            v6: Family::new(hash),
            budget: Budget {
                held: AtomicUsize::new(0),
                cap: AtomicUsize::new(cap),
                evicted: AtomicU64::new(0),
            },
            hand: AtomicUsize::new(0),
        }
    }

    pub(super) fn set_cap(&self, cap: usize) {
        self.budget.cap.store(cap, Ordering::Relaxed);
    }

    pub(super) fn held(&self) -> usize {
        self.budget.held.load(Ordering::Relaxed)
    }

    pub(super) fn evicted(&self) -> u64 {
        self.budget.evicted.load(Ordering::Relaxed)
    }

    /// Counts one event, under the lock of the client's shard. `standing` answers when the client
    /// is banned already, `reached` when this event fills the window; the counter is then gone.
    /// With `evict`, room is made by dropping the counter idle longest among a few.
    pub(super) fn count<R>(
        &self,
        client: IpNet,
        jail: JailId,
        event: Event,
        evict: bool,
        standing: impl Fn() -> Option<R>,
        reached: impl Fn(Reached) -> R,
    ) -> Tally<R> {
        let mut reserved = false;
        loop {
            let tally = match client {
                IpNet::V4(net) => {
                    let id = Id::v4(net, jail);
                    self.v4
                        .count(id, event, &self.budget, reserved, &standing, &reached)
                }
                IpNet::V6(net) => {
                    let id = Id::v6(net, jail);
                    self.v6
                        .count(id, event, &self.budget, reserved, &standing, &reached)
                }
            };
            if !matches!(tally, Tally::Full) || !evict || !self.evict() {
                return tally;
            }
            reserved = true;
        }
    }

    /// Forgets one client in one jail.
    pub(super) fn forget(&self, client: IpNet, jail: JailId) {
        let gone = match client {
            IpNet::V4(net) => self.v4.remove(Id::v4(net, jail), None),
            IpNet::V6(net) => self.v6.remove(Id::v6(net, jail), None),
        };
        if gone {
            self.budget.release(1);
        }
    }

    /// What is counted of one client in one jail.
    pub(super) fn get(&self, client: IpNet, jail: JailId) -> Option<Tracked> {
        match client {
            IpNet::V4(net) => self.v4.get(Id::v4(net, jail), net_v4),
            IpNet::V6(net) => self.v6.get(Id::v6(net, jail), net_v6),
        }
    }

    /// Everything counted, shard by shard.
    pub(super) fn export(&self) -> Vec<Tracked> {
        let mut all = Vec::with_capacity(self.held());
        self.v4.export(net_v4, &mut all);
        self.v6.export(net_v6, &mut all);
        all
    }

    /// Puts back what [`Counters::export`] gave, as far as there is room; a counter already
    /// running wins.
    pub(super) fn import(&self, tracked: Tracked) {
        if !self.budget.reserve() {
            return;
        }
        let placed = match tracked.client {
            IpNet::V4(net) => self.v4.import(Id::v4(net, tracked.jail), tracked),
            IpNet::V6(net) => self.v6.import(Id::v6(net, tracked.jail), tracked),
        };
        if !placed {
            self.budget.release(1);
        }
    }

    /// Drops windows that are over and gives memory back. `findtime` answers per jail.
    pub(super) fn sweep(&self, now: Millis, findtime: impl Fn(JailId) -> Millis) {
        let over = |start: Millis, last: Millis, jail: u16, sliding: bool| {
            let from = if sliding { last } else { start };
            now >= from.saturating_add(findtime(JailId(jail)))
        };
        self.budget
            .release(self.v4.sweep(over) + self.v6.sweep(over));
        while self.held() > self.budget.cap.load(Ordering::Relaxed) && self.evict() {
            self.budget.release(1);
        }
    }

    /// Drops one counter, keeping its place for the caller. False when nothing is held.
    fn evict(&self) -> bool {
        loop {
            match self.idle_longest() {
                Some(Idle::V4(id, last)) if self.v4.remove(id, Some(last)) => break,
                Some(Idle::V6(id, last)) if self.v6.remove(id, Some(last)) => break,
                // somebody else was faster, or the client failed again meanwhile
                Some(_) => {}
                None => return false,
            }
        }
        self.budget.evicted.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn idle_longest(&self) -> Option<Idle> {
        let hand = self.hand.fetch_add(1, Ordering::Relaxed);
        // shards in no order that a flood could follow, both families alike
        let first = hand.wrapping_mul(0x9E37_79B9) >> 8;
        let (mut seen, mut oldest) = (0, None::<Idle>);
        for at in (0..SHARDS).map(|step| (first + step) % SHARDS) {
            let v4 = self.v4.sample(at, &mut seen);
            let v6 = self.v6.sample(at, &mut seen);
            let v4 = v4.map(|(id, last)| Idle::V4(id, last));
            let v6 = v6.map(|(id, last)| Idle::V6(id, last));
            oldest = oldest
                .into_iter()
                .chain(v4)
                .chain(v6)
                .min_by_key(Idle::last);
            if seen >= SAMPLE {
                break;
            }
        }
        oldest
    }

    /// Heap bytes of all shards, sliding windows' events excepted.
    pub(super) fn bytes(&self) -> usize {
        self.v4.bytes() + self.v6.bytes()
    }

    /// Panics when sums do not add up.
    pub(super) fn check_invariants(&self) {
        let (v4, v6) = (self.v4.check_invariants(), self.v6.check_invariants());
        assert_eq!(v4 + v6, self.held(), "counters held");
    }
}

impl Idle {
    fn last(&self) -> Millis {
        match self {
            Self::V4(_, last) | Self::V6(_, last) => *last,
        }
    }
}

impl Budget {
    fn reserve(&self) -> bool {
        let cap = self.cap.load(Ordering::Relaxed);
        self.held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                (held < cap).then_some(held + 1)
            })
            .is_ok()
    }

    fn release(&self, places: usize) {
        self.held.fetch_sub(places, Ordering::Relaxed);
    }
}
