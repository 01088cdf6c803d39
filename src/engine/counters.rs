//! Counters of clients that failed lately: sharded, bounded, compact. It counts within windows and
//! makes room; what a full window leads to is the caller's, run under the shard's lock so that
//! exactly one event begins a ban.

use std::{
    hash::{BuildHasher, Hash},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use crossbeam_utils::CachePadded;
use hashbrown::{HashMap, HashTable};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use parking_lot::Mutex;

use super::{
    jail::{JailId, WindowKind},
    table::{Keyed, SHARDS, V6, bits, shard_of, sparse, words},
    window::{Fixed, Step, slide},
};
use crate::time::Millis;

/// How many counters are looked at to find one that was idle for long.
const SAMPLE: usize = 16;

/// What was counted of one client in one jail.
#[derive(Clone, Debug, PartialEq, Eq)]
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

#[derive(Debug)]
struct Family<K> {
    shards: Box<[CachePadded<Mutex<Shard<K>>>]>,
    hash: Keyed,
}

#[derive(Debug)]
struct Shard<K> {
    slots: HashTable<Slot<K>>,
    /// Events of sliding windows only, so that fixed ones stay small.
    rings: HashMap<Id<K>, Vec<(Millis, u16)>, Keyed>,
    hand: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Id<K> {
    key: K,
    jail: u16,
    prefix: u8,
}

/// 28 bytes for v4, 40 for v6: the start is split so that nothing is aligned to eight.
#[derive(Debug)]
struct Slot<K> {
    key: K,
    start: [u32; 2],
    /// Milliseconds from `start` to the latest event.
    last: u32,
    count: u32,
    jail: u16,
    first_status: u16,
    prefix: u8,
    /// Was over when it was counted: stays until the sweep after the next.
    late: bool,
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

impl Id<u32> {
    fn v4(net: Ipv4Net, jail: JailId) -> Self {
        Self {
            key: net.addr().to_bits(),
            jail: jail.0,
            prefix: net.prefix_len(),
        }
    }
}

impl Id<V6> {
    fn v6(net: Ipv6Net, jail: JailId) -> Self {
        Self {
            key: words(net.addr().to_bits()),
            jail: jail.0,
            prefix: net.prefix_len(),
        }
    }
}

fn net_v4(id: Id<u32>) -> Option<IpNet> {
    Ipv4Net::new(id.key.into(), id.prefix).ok().map(IpNet::V4)
}

fn net_v6(id: Id<V6>) -> Option<IpNet> {
    Ipv6Net::new(bits(id.key).into(), id.prefix)
        .ok()
        .map(IpNet::V6)
}

impl<K: Copy + Eq + Hash> Family<K> {
    fn new(hash: Keyed) -> Self {
        let shard = || {
            CachePadded::new(Mutex::new(Shard {
                slots: HashTable::new(),
                rings: HashMap::with_hasher(hash),
                hand: 0,
            }))
        };
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hash,
        }
    }

    fn count<R>(
        &self,
        id: Id<K>,
        event: Event,
        budget: &Budget,
        reserved: bool,
        standing: &impl Fn() -> Option<R>,
        reached: &impl Fn(Reached) -> R,
    ) -> Tally<R> {
        let hash = self.hash.hash_one(id);
        let mut shard = self.shards[shard_of(hash)].lock();
        // of several events in flight at once one begins the ban, and the others find it here
        if let Some(answer) = standing() {
            give_back(budget, reserved);
            return Tally::Settled(answer);
        }
        let full = shard.add(hash, id, event, self.hash, || reserved || budget.reserve());
        let (tally, window) = match full {
            Added::Refused => return Tally::Full,
            Added::Held(tally, window) => {
                give_back(budget, reserved);
                (tally, window)
            }
            Added::New(window) => (Tally::Counted(1), window),
        };
        if matches!(tally, Tally::Counted(_)) && window.count >= event.rule.maxretry {
            let answer = reached(window);
            if shard.remove(hash, id, None) {
                budget.release(1);
            }
            return Tally::Settled(answer);
        }
        tally
    }

    fn get(&self, id: Id<K>, net: impl Fn(Id<K>) -> Option<IpNet>) -> Option<Tracked> {
        let hash = self.hash.hash_one(id);
        let shard = self.shards[shard_of(hash)].lock();
        let slot = shard.slots.find(hash, |slot| slot.id() == id)?;
        slot.tracked(net(id)?, &shard.rings)
    }

    fn remove(&self, id: Id<K>, last: Option<Millis>) -> bool {
        let hash = self.hash.hash_one(id);
        self.shards[shard_of(hash)].lock().remove(hash, id, last)
    }

    fn export(&self, net: impl Fn(Id<K>) -> Option<IpNet>, into: &mut Vec<Tracked>) {
        for shard in &self.shards {
            let shard = shard.lock();
            let each = |slot: &Slot<K>| slot.tracked(net(slot.id())?, &shard.rings);
            into.extend(shard.slots.iter().filter_map(each));
        }
    }

    fn import(&self, id: Id<K>, tracked: Tracked) -> bool {
        let hash = self.hash.hash_one(id);
        let mut shard = self.shards[shard_of(hash)].lock();
        if shard.slots.find(hash, |slot| slot.id() == id).is_some() {
            return false;
        }
        let window = Fixed {
            start: tracked.start,
            last: tracked.last,
            count: tracked.count,
        };
        let mut slot = Slot::new(id, tracked.start, tracked.first_status);
        slot.put(window);
        shard
            .slots
            .insert_unique(hash, slot, |slot| self.hash.hash_one(slot.id()));
        if !tracked.events.is_empty() {
            shard.rings.insert(id, tracked.events);
        }
        true
    }

    fn sweep(&self, over: impl Fn(Millis, Millis, u16, bool) -> bool) -> usize {
        let mut dropped = 0;
        for shard in &self.shards {
            let mut shard = shard.lock();
            let Shard { slots, rings, .. } = &mut *shard;
            let before = slots.len();
            slots.retain(|slot| {
                let window = slot.window();
                let sliding = !rings.is_empty() && rings.contains_key(&slot.id());
                let keep = !over(window.start, window.last, slot.jail, sliding)
                    || std::mem::take(&mut slot.late);
                if !keep && sliding {
                    rings.remove(&slot.id());
                }
                keep
            });
            dropped += before - slots.len();
            if sparse(slots) {
                slots.shrink_to(slots.len() * 2, |slot| self.hash.hash_one(slot.id()));
                rings.shrink_to_fit();
            }
        }
        dropped
    }

    /// The one idle longest of the next few counters of a shard.
    fn sample(&self, at: usize, seen: &mut usize) -> Option<(Id<K>, Millis)> {
        let mut shard = self.shards[at].lock();
        let buckets = shard.slots.num_buckets();
        let (hand, mut oldest) = (shard.hand, None);
        if shard.slots.is_empty() {
            return None;
        }
        let enough = *seen + SAMPLE / 2;
        for step in 0..buckets {
            let bucket = (hand + step) % buckets;
            let Some(slot) = shard.slots.get_bucket(bucket) else {
                continue;
            };
            let last = slot.window().last;
            if oldest.is_none_or(|(_, oldest)| last < oldest) {
                oldest = Some((slot.id(), last));
            }
            *seen += 1;
            if *seen == enough {
                shard.hand = bucket + 1;
                break;
            }
        }
        oldest
    }

    fn bytes(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().slots.allocation_size())
            .sum()
    }

    fn check_invariants(&self) -> usize {
        let mut held = 0;
        for shard in &self.shards {
            let shard = shard.lock();
            held += shard.slots.len();
            for (id, times) in &shard.rings {
                let hash = self.hash.hash_one(id);
                let slot = shard.slots.find(hash, |slot| slot.id() == *id);
                let count = slot.map(|slot| slot.count as usize);
                assert_eq!(count, Some(times.len()), "a sliding window and its counter");
                assert!(
                    times.is_sorted_by_key(|event| event.0),
                    "events of a sliding window in order"
                );
            }
        }
        held
    }
}

enum Added<R> {
    Refused,
    New(Reached),
    Held(Tally<R>, Reached),
}

impl<K: Copy + Eq + Hash> Shard<K> {
    fn add<R>(
        &mut self,
        hash: u64,
        id: Id<K>,
        event: Event,
        state: Keyed,
        place: impl FnOnce() -> bool,
    ) -> Added<R> {
        let sliding = event.rule.kind == WindowKind::Sliding;
        let Some(slot) = self.slots.find_mut(hash, |slot| slot.id() == id) else {
            if !place() {
                return Added::Refused;
            }
            let mut slot = Slot::new(id, event.at, event.status);
            slot.late = event.at.saturating_add(event.rule.findtime) <= event.rule.swept;
            let window = slot.reached();
            self.slots
                .insert_unique(hash, slot, |slot| state.hash_one(slot.id()));
            if sliding {
                self.rings.insert(id, vec![(event.at, event.status)]);
            }
            return Added::New(window);
        };
        let step = if sliding {
            let first = (slot.window().last, slot.first_status);
            let events = self.rings.entry(id).or_insert_with(|| vec![first]);
            let step = slide(events, (event.at, event.status), event.rule.findtime);
            slot.first_status = events[0].1;
            slot.put(Fixed {
                start: events[0].0,
                last: events[events.len() - 1].0,
                count: events.len() as u32,
            });
            step
        } else {
            if !self.rings.is_empty() {
                self.rings.remove(&id);
            }
            let mut window = slot.window();
            let step = window.add(event.at, event.rule.findtime);
            if step == Step::First {
                slot.first_status = event.status;
            }
            slot.put(window);
            step
        };
        slot.late = event.at.saturating_add(event.rule.findtime) <= event.rule.swept;
        let tally = match step {
            Step::Stale => Tally::Stale,
            Step::First | Step::Next => Tally::Counted(slot.count),
        };
        Added::Held(tally, slot.reached())
    }

    /// Removes a counter; with `last`, only if that is still its latest event.
    fn remove(&mut self, hash: u64, id: Id<K>, last: Option<Millis>) -> bool {
        let same =
            |slot: &Slot<K>| slot.id() == id && last.is_none_or(|last| slot.window().last == last);
        let Ok(slot) = self.slots.find_entry(hash, same) else {
            return false;
        };
        slot.remove();
        if !self.rings.is_empty() {
            self.rings.remove(&id);
        }
        true
    }
}

impl<K: Copy + Eq + Hash> Slot<K> {
    fn new(id: Id<K>, at: Millis, first_status: u16) -> Self {
        let mut slot = Self {
            key: id.key,
            start: [0; 2],
            last: 0,
            count: 0,
            jail: id.jail,
            first_status,
            prefix: id.prefix,
            late: false,
        };
        slot.put(Fixed::starting(at));
        slot
    }

    fn id(&self) -> Id<K> {
        Id {
            key: self.key,
            jail: self.jail,
            prefix: self.prefix,
        }
    }

    fn window(&self) -> Fixed {
        let start = Millis::from(self.start[0]) << 32 | Millis::from(self.start[1]);
        Fixed {
            start,
            last: start.saturating_add(self.last.into()),
            count: self.count,
        }
    }

    fn put(&mut self, window: Fixed) {
        self.start = [(window.start >> 32) as u32, window.start as u32];
        self.last = u32::try_from(window.last - window.start).unwrap_or(u32::MAX);
        self.count = window.count;
    }

    fn reached(&self) -> Reached {
        Reached {
            count: self.count,
            first_status: self.first_status,
            last: self.window().last,
        }
    }

    fn tracked(
        &self,
        client: IpNet,
        rings: &HashMap<Id<K>, Vec<(Millis, u16)>, Keyed>,
    ) -> Option<Tracked> {
        let window = self.window();
        Some(Tracked {
            client,
            jail: JailId(self.jail),
            count: window.count,
            first_status: self.first_status,
            start: window.start,
            last: window.last,
            events: rings.get(&self.id()).cloned().unwrap_or_default(),
        })
    }
}

fn give_back(budget: &Budget, reserved: bool) {
    if reserved {
        budget.release(1);
    }
}
