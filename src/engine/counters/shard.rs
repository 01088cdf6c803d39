//! The shards of the counters: compact slots, and the events of sliding windows beside them.

use std::hash::{BuildHasher, Hash};

use crossbeam_utils::CachePadded;
use hashbrown::{HashMap, HashTable};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use parking_lot::Mutex;

use super::{
    super::{
        jail::{JailId, WindowKind},
        table::{Keyed, SHARDS, V6, bits, shard_of, sparse, words},
        window::{Fixed, Step, slide},
    },
    Budget, Event, Reached, SAMPLE, Tally, Tracked,
};
use crate::time::Millis;

#[derive(Debug)]
pub(super) struct Family<K> {
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
pub(super) struct Id<K> {
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

/// What became of an event in a shard.
enum Added<R> {
    Refused,
    New(Reached),
    Held(Tally<R>, Reached),
}

impl Id<u32> {
    pub(super) fn v4(net: Ipv4Net, jail: JailId) -> Self {
        Self {
            key: net.addr().to_bits(),
            jail: jail.0,
            prefix: net.prefix_len(),
        }
    }
}

impl Id<V6> {
    pub(super) fn v6(net: Ipv6Net, jail: JailId) -> Self {
        Self {
            key: words(net.addr().to_bits()),
            jail: jail.0,
            prefix: net.prefix_len(),
        }
    }
}

pub(super) fn net_v4(id: Id<u32>) -> Option<IpNet> {
    Ipv4Net::new(id.key.into(), id.prefix).ok().map(IpNet::V4)
}

pub(super) fn net_v6(id: Id<V6>) -> Option<IpNet> {
    Ipv6Net::new(bits(&id.key).into(), id.prefix)
        .ok()
        .map(IpNet::V6)
}

impl<K: Copy + Eq + Hash> Family<K> {
    pub(super) fn new(hash: Keyed) -> Self {
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

    pub(super) fn count<R>(
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

    pub(super) fn get(&self, id: Id<K>, net: impl Fn(Id<K>) -> Option<IpNet>) -> Option<Tracked> {
        let hash = self.hash.hash_one(id);
        let shard = self.shards[shard_of(hash)].lock();
        let slot = shard.slots.find(hash, |slot| slot.id() == id)?;
        slot.tracked(net(id)?, &shard.rings)
    }

    pub(super) fn remove(&self, id: Id<K>, last: Option<Millis>) -> bool {
        let hash = self.hash.hash_one(id);
        self.shards[shard_of(hash)].lock().remove(hash, id, last)
    }

    pub(super) fn export(&self, net: impl Fn(Id<K>) -> Option<IpNet>, into: &mut Vec<Tracked>) {
        for shard in &self.shards {
            let shard = shard.lock();
            let each = |slot: &Slot<K>| slot.tracked(net(slot.id())?, &shard.rings);
            into.extend(shard.slots.iter().filter_map(each));
        }
    }

    pub(super) fn import(&self, id: Id<K>, tracked: Tracked) -> bool {
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

    pub(super) fn sweep(&self, over: impl Fn(Millis, Millis, u16, bool) -> bool) -> usize {
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
    pub(super) fn sample(&self, at: usize, seen: &mut usize) -> Option<(Id<K>, Millis)> {
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

    pub(super) fn bytes(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().slots.allocation_size())
            .sum()
    }

    pub(super) fn check_invariants(&self) -> usize {
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
