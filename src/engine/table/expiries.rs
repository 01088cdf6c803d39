//! The ends of single clients' bans: open addressing that is read without a lock, so that two cores
//! asking at once share no line that either writes. A byte of each client's hash stands apart from
//! the rest, so that whoever is not banned waits for two megabytes for a million, not for twenty;
//! the rest is asked for before it is known whether it is needed. What an end means is the scope's.

use std::{
    hash::BuildHasher as _,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use super::{End, Keyed, prefetch::prefetch};

/// No end any more. The place stays its client's until the table is rebuilt: given to another, a
/// reader could take the old end for the new client's.
const GONE: u32 = 0;
/// Places of a bucket: their bytes are compared as one word.
const BUCKET: usize = 8;
/// Of a hundred places, how many are taken before a table is rebuilt, and how many after: a client
/// costs 14 to 19 bytes as one word, 34 to 44 as four.
const FULL: usize = 62;
const FRESH: usize = 48;
const ONES: u64 = 0x0101_0101_0101_0101;

/// Single clients of one family, each as `N` words.
#[derive(Debug)]
pub struct Expiries<const N: usize> {
    /// Replaced when it is rebuilt; changed in place otherwise.
    table: ArcSwap<Table<N>>,
    len: AtomicUsize,
    hash: Keyed,
    /// Places taken, those that are gone included. Whoever writes holds it.
    taken: CachePadded<Mutex<usize>>,
}

#[derive(Debug)]
struct Table<const N: usize> {
    /// A byte per place of each bucket, the first is the lowest; 0 is a free one.
    tags: Box<[AtomicU64]>,
    slots: Box<[[Slot<N>; BUCKET]]>,
}

/// The key is written before the place's tag, and never again.
#[derive(Debug)]
struct Slot<const N: usize> {
    key: [AtomicU32; N],
    end: AtomicU32,
}

impl<const N: usize> Expiries<N> {
    /// An empty table; nothing is allocated for its places.
    pub fn new(hash: Keyed) -> Self {
        Self {
            table: ArcSwap::from_pointee(Table::new(0)),
            len: AtomicUsize::new(0),
            hash,
            taken: CachePadded::default(),
        }
    }

    /// When the ban of a client ends, as far as it has one.
    #[inline]
    pub fn get(&self, key: [u32; N]) -> Option<End> {
        if self.len.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let table = self.table.load();
        let (_, end) = table.find(hash_of(self.hash, key), key)?;
        (end > GONE).then(|| End::from_raw(end))
    }

    /// Sets or clears (`None`) the end of a client's ban.
    pub fn set(&self, key: [u32; N], end: Option<End>) {
        let hash = hash_of(self.hash, key);
        let mut taken = self.taken.lock();
        let end = end.map_or(GONE, End::raw);
        let table = self.table.load();
        if let Some((slot, before)) = table.find(hash, key) {
            slot.end.store(end, Ordering::Release);
            match (before > GONE, end > GONE) {
                (true, false) => _ = self.len.fetch_sub(1, Ordering::Relaxed),
                (false, true) => _ = self.len.fetch_add(1, Ordering::Relaxed),
                _ => {}
            }
        } else if end > GONE {
            if table.is_full(*taken + 1) {
                self.rebuild(&mut taken, self.len() + 1);
                self.table.load().insert(hash, key, end);
            } else {
                table.insert(hash, key, end);
            }
            *taken += 1;
            self.len.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Makes room for `more` at once: growing a million by quarters would hold writers up long.
    pub(super) fn reserve(&self, more: usize) {
        let mut taken = self.taken.lock();
        if self.table.load().is_full(*taken + more) {
            self.rebuild(&mut taken, self.len() + more);
        }
    }

    /// Clients with an end.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// No client has one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives memory back where most of it stands empty.
    pub(super) fn shrink(&self) {
        let mut taken = self.taken.lock();
        let room = self.table.load().places();
        if room > 64 && self.len() < room / 4 {
            self.rebuild(&mut taken, self.len());
        }
    }

    /// Heap bytes held.
    pub fn bytes(&self) -> usize {
        let table = self.table.load();
        size_of_val(&*table.tags) + size_of_val(&*table.slots)
    }

    /// Moves what is live to a table for `clients`, with room for a quarter more.
    fn rebuild(&self, taken: &mut usize, clients: usize) {
        let next = Table::new(clients * 100 / FRESH);
        for slot in self.table.load().slots.iter().flatten() {
            let end = slot.end.load(Ordering::Relaxed);
            if end > GONE {
                let key = slot.key();
                next.insert(hash_of(self.hash, key), key, end);
            }
        }
        *taken = self.len();
        self.table.store(Arc::new(next));
    }
}

impl<const N: usize> Table<N> {
    fn new(room: usize) -> Self {
        let free = || Slot {
            key: [const { AtomicU32::new(0) }; N],
            end: AtomicU32::new(GONE),
        };
        let buckets = 0..room.div_ceil(BUCKET);
        Self {
            tags: buckets.clone().map(|_| AtomicU64::new(0)).collect(),
            slots: buckets.map(|_| std::array::from_fn(|_| free())).collect(),
        }
    }

    fn places(&self) -> usize {
        self.slots.len() * BUCKET
    }

    /// With more places taken, too many buckets would be full.
    fn is_full(&self, taken: usize) -> bool {
        taken * 100 > self.places() * FULL
    }

    /// The buckets in which a hash is looked for, one after the other until one is not full.
    #[inline]
    fn search(&self, hash: u64) -> impl Iterator<Item = (&AtomicU64, &[Slot<N>; BUCKET])> {
        let home = ((u128::from(hash) * self.tags.len() as u128) >> 64) as usize;
        let buckets = (home..self.tags.len()).chain(0..home);
        buckets.map(|at| (&self.tags[at], &self.slots[at]))
    }

    /// The client's place and what stands there.
    #[inline]
    fn find(&self, hash: u64, key: [u32; N]) -> Option<(&Slot<N>, u32)> {
        for (tags, slots) in self.search(hash) {
            let own = own_place(hash);
            prefetch(&slots[own..BUCKET.min(own + 2)]);
            let tags = tags.load(Ordering::Acquire);
            let mut same = zero_bytes(tags ^ (ONES * tag(hash)));
            while same != 0 {
                let slot = &slots[same.trailing_zeros() as usize / 8];
                if slot.key() == key {
                    return Some((slot, slot.end.load(Ordering::Acquire)));
                }
                same &= same - 1;
            }
            // Places are never given up: where one is free, nobody was sent on to the next bucket.
            if zero_bytes(tags) != 0 {
                return None;
            }
        }
        None
    }

    /// The key is not there and there is room.
    fn insert(&self, hash: u64, key: [u32; N], end: u32) {
        let free = |tags: &AtomicU64| zero_bytes(tags.load(Ordering::Relaxed)) != 0;
        if let Some((tags, slots)) = self.search(hash).find(|(tags, _)| free(tags)) {
            let held = tags.load(Ordering::Relaxed);
            let own = own_place(hash);
            let from_own = zero_bytes(held.rotate_right(8 * own as u32));
            let at = (own + from_own.trailing_zeros() as usize / 8) % BUCKET;
            for (word, value) in slots[at].key.iter().zip(key) {
                word.store(value, Ordering::Relaxed);
            }
            slots[at].end.store(end, Ordering::Relaxed);
            tags.store(held | (tag(hash) << (8 * at)), Ordering::Release);
        }
    }
}

/// A byte of the hash, never 0; the bucket is chosen by others.
#[inline]
fn tag(hash: u64) -> u64 {
    (hash & 0xff).max(1)
}

/// The place of its bucket that a client takes when it is free, or else one soon after.
#[inline]
fn own_place(hash: u64) -> usize {
    (hash >> 8) as usize % BUCKET
}

/// The highest bit of every byte that is zero, and seldom of one above such a byte.
#[inline]
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & (ONES << 7)
}

impl<const N: usize> Slot<N> {
    #[inline]
    fn key(&self) -> [u32; N] {
        std::array::from_fn(|at| self.key[at].load(Ordering::Relaxed))
    }
}

#[inline]
fn hash_of<const N: usize>(hash: Keyed, key: [u32; N]) -> u64 {
    match key.as_slice() {
        [one] => hash.hash_one(*one),
        words => {
            let fold = |bits, word: &u32| (bits << 32) | u128::from(*word);
            hash.hash_one(words.iter().fold(0u128, fold))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Against a plain map, with few keys so that places are given up, taken again and rebuilt.
    fn agrees<const N: usize>(keys: u32, steps: u32) {
        let table = Expiries::<N>::new(Keyed(7));
        let mut plain = HashMap::new();
        let mut state = 1u32;
        for step in 0..steps {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let mut key = [0; N];
            key[N - 1] = (state >> 8) % keys;
            let end = (state & 3 != 0).then(|| End::from_raw(2 + step));
            table.set(key, end);
            match end {
                Some(end) => plain.insert(key, end),
                None => plain.remove(&key),
            };
            if step % 1000 == 0 {
                table.shrink();
            }
            assert_eq!(table.get(key), end);
            assert_eq!(table.len(), plain.len());
        }
        for key in 0..keys {
            let mut words = [0; N];
            words[N - 1] = key;
            assert_eq!(table.get(words), plain.get(&words).copied());
        }
    }

    #[test]
    fn it_holds_what_a_plain_map_holds() {
        agrees::<1>(50, 20_000);
        agrees::<1>(20_000, 60_000);
        agrees::<4>(3_000, 40_000);
    }

    #[test]
    fn memory_is_given_back() {
        let table = Expiries::<1>::new(Keyed(7));
        (0..100_000).for_each(|key| table.set([key], Some(End::from_raw(9))));
        assert!(table.bytes() <= 100_000 * 20 + 64, "{}", table.bytes());
        (0..100_000).for_each(|key| table.set([key], None));
        table.shrink();
        assert_eq!((table.len(), table.is_empty()), (0, true));
        assert_eq!(table.bytes(), 0);
    }

    #[test]
    fn readers_see_a_client_whole_or_not_at_all() {
        let table = Expiries::<4>::new(Keyed(7));
        let key = |n: u32| [n, !n, n, !n];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..20u32 {
                    for n in 0..2_000 {
                        let end = (round % 2 == 0).then(|| End::from_raw(n + 2));
                        table.set(key(n), end);
                    }
                }
            });
            for n in (0..2_000).cycle().take(60_000) {
                let found = table.get(key(n));
                assert!(found.is_none_or(|end| end == End::from_raw(n + 2)), "{n}");
            }
        });
    }
}
