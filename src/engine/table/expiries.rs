//! The ends of single clients' bans: open addressing that is read without a lock, so that two cores
//! asking at once share no line that either writes. A byte of each client's hash stands apart from
//! the rest, so that whoever is not banned waits for two megabytes for a million, not for twenty.
//! What an end means, and which table is in force, is the scope's.

use std::{
    hash::BuildHasher as _,
    sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use super::{End, Keyed, bits, prefetch::prefetch};

/// No end any more. The place stays its client's until the table is rebuilt: given to another, a
/// reader could take the old end for the new client's.
const GONE: u32 = 0;
/// Places of a bucket: their bytes are compared as one word.
const BUCKET: usize = 8;
/// Of a hundred places, how many are taken after a table was rebuilt: a client costs at most 19 bytes
/// as one word, 28 as two, 44 as four. How many before stands with the table.
const FRESH: usize = 48;
const ONES: u64 = 0x0101_0101_0101_0101;

/// Single clients of one family, each as `N` words. It never grows: whoever holds it makes another
/// and swaps them, so that a reader needs no guard but the one it holds that of.
#[derive(Debug)]
pub struct Expiries<const N: usize> {
    /// A byte per place of each bucket, the first is the lowest; 0 is a free one.
    tags: Box<[AtomicU64]>,
    slots: Box<[[Slot<N>; BUCKET]]>,
    hash: Keyed,
    len: AtomicUsize,
    /// Places taken, those that are gone included. Whoever writes holds it.
    taken: CachePadded<Mutex<usize>>,
}

/// When a look-up asks memory for the client's own place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// Once its tag is found. Of nearly everybody who is not there nothing is asked in vain, nor a
    /// page's address looked up; for after [`Expiries::prefetch`].
    Later,
    /// Together with the tags: whoever is there does not wait twice.
    AtOnce,
}

/// There is no room for a client.
#[derive(Clone, Copy, Debug)]
pub struct Full;

/// The key is written before the place's tag, and never again.
#[derive(Debug)]
struct Slot<const N: usize> {
    key: [AtomicU32; N],
    end: AtomicU32,
}

impl<const N: usize> Expiries<N> {
    /// Of a hundred places, how many are taken before a table is rebuilt. A wide client that is not
    /// in its own place is on a line that nobody asked for; narrow ones share it, and more of them
    /// stay in the caches.
    const FULL: usize = if N > 1 { 55 } else { 62 };

    /// An empty table for as many clients and a quarter more; for none, nothing is allocated.
    pub fn new(hash: Keyed, clients: usize) -> Self {
        let free = || Slot {
            key: [const { AtomicU32::new(0) }; N],
            end: AtomicU32::new(GONE),
        };
        let buckets = 0..(clients * 100 / FRESH).div_ceil(BUCKET);
        Self {
            tags: buckets.clone().map(|_| AtomicU64::new(0)).collect(),
            slots: buckets.map(|_| std::array::from_fn(|_| free())).collect(),
            hash,
            len: AtomicUsize::new(0),
            taken: CachePadded::default(),
        }
    }

    /// Asks memory for the tags, which [`Expiries::get`] reads first. With a million clients they are
    /// seldom in a cache, and whoever has other things to look at meanwhile does not wait for them.
    #[inline]
    pub fn prefetch(&self, key: [u32; N]) {
        if !self.tags.is_empty() {
            prefetch(&self.tags[self.home(hash_of(self.hash, key))]);
        }
    }

    /// When the ban of a client ends, as far as it has one.
    #[inline]
    pub fn get(&self, key: [u32; N], fetch: Fetch) -> Option<End> {
        if self.tags.is_empty() {
            return None;
        }
        let (_, end) = self.find(hash_of(self.hash, key), key, fetch)?;
        (end > GONE).then(|| End::from_raw(end))
    }

    /// Sets or clears (`None`) the end of a client's ban.
    ///
    /// # Errors
    ///
    /// [`Full`] when the client has no place and there is room for none: then nothing changed.
    pub fn set(&self, key: [u32; N], end: Option<End>) -> Result<(), Full> {
        let hash = hash_of(self.hash, key);
        let mut taken = self.taken.lock();
        let end = end.map_or(GONE, End::raw);
        if let Some((slot, before)) = self.find(hash, key, Fetch::AtOnce) {
            slot.end.store(end, Ordering::Release);
            match (before > GONE, end > GONE) {
                (true, false) => _ = self.len.fetch_sub(1, Ordering::Relaxed),
                (false, true) => _ = self.len.fetch_add(1, Ordering::Relaxed),
                _ => {}
            }
        } else if end > GONE {
            if self.is_full(*taken + 1) {
                return Err(Full);
            }
            self.insert(hash, key, end);
            *taken += 1;
            self.len.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The same with room for `more`, when this has none. Growing a million by quarters would hold
    /// writers up long. Nobody may write to this one any more.
    pub fn roomier(&self, more: usize) -> Option<Self> {
        let full = self.is_full(*self.taken.lock() + more);
        full.then(|| self.rebuilt(self.len() + more))
    }

    /// The same with less room, where most of it stands empty.
    pub fn smaller(&self) -> Option<Self> {
        let sparse = self.places() > 64 && self.len() < self.places() / 4;
        sparse.then(|| self.rebuilt(self.len()))
    }

    /// Clients with an end.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// No client has one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Heap bytes held.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.tags) + size_of_val(&*self.slots)
    }

    /// What is live, in a table for `clients`.
    fn rebuilt(&self, clients: usize) -> Self {
        let next = Self::new(self.hash, clients);
        for slot in self.slots.iter().flatten() {
            let end = slot.end.load(Ordering::Relaxed);
            if end > GONE {
                let key = slot.key();
                next.insert(hash_of(self.hash, key), key, end);
            }
        }
        next.len.store(self.len(), Ordering::Relaxed);
        *next.taken.lock() = self.len();
        next
    }

    fn places(&self) -> usize {
        self.slots.len() * BUCKET
    }

    /// With more places taken, too many buckets would be full.
    fn is_full(&self, taken: usize) -> bool {
        taken * 100 > self.places() * Self::FULL
    }

    #[inline]
    fn home(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.tags.len() as u128) >> 64) as usize
    }

    /// The buckets in which a hash is looked for, one after the other until one is not full.
    #[inline]
    fn search(&self, hash: u64) -> impl Iterator<Item = (&AtomicU64, &[Slot<N>; BUCKET])> {
        let home = self.home(hash);
        let buckets = (home..self.tags.len()).chain(0..home);
        buckets.map(|at| (&self.tags[at], &self.slots[at]))
    }

    /// The client's place and what stands there.
    #[inline]
    fn find(&self, hash: u64, key: [u32; N], fetch: Fetch) -> Option<(&Slot<N>, u32)> {
        for (tags, slots) in self.search(hash) {
            if fetch == Fetch::AtOnce {
                prefetch(&slots[own_place(hash)]);
            }
            let tags = tags.load(Ordering::Acquire);
            let mut same = exact_zero_bytes(tags ^ (ONES * tag(hash)));
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

impl<const N: usize> Slot<N> {
    #[inline]
    fn key(&self) -> [u32; N] {
        std::array::from_fn(|at| self.key[at].load(Ordering::Relaxed))
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

/// The same without those: a place that is not the tag's may be free, and a free one reads as the
/// client of zeros.
#[inline]
fn exact_zero_bytes(word: u64) -> u64 {
    const LOW: u64 = !(ONES << 7);
    !(((word & LOW) + LOW) | word | LOW)
}

#[inline]
fn hash_of<const N: usize>(hash: Keyed, key: [u32; N]) -> u64 {
    match key.as_slice() {
        [one] => hash.hash_one(*one),
        [high, low] => hash.hash_one(u64::from(*high) << 32 | u64::from(*low)),
        words => hash.hash_one(bits(words)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use arc_swap::ArcSwap;

    use super::*;

    /// A table that is swapped for another when it is full, as the engine does it.
    struct Swapped<const N: usize>(ArcSwap<Expiries<N>>);

    impl<const N: usize> Swapped<N> {
        fn new(hash: Keyed) -> Self {
            Self(ArcSwap::from_pointee(Expiries::new(hash, 0)))
        }

        fn set(&self, key: [u32; N], end: Option<End>) {
            let table = self.0.load();
            if table.set(key, end).is_err() {
                let roomier = table.roomier(1).unwrap();
                roomier.set(key, end).unwrap();
                self.0.store(roomier.into());
            }
        }

        fn shrink(&self) {
            if let Some(smaller) = self.0.load().smaller() {
                self.0.store(smaller.into());
            }
        }
    }

    /// Against a plain map, with few keys so that places are given up, taken again and rebuilt.
    fn agrees<const N: usize>(keys: u32, steps: u32) {
        let table = Swapped::<N>::new(Keyed(7));
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
            assert_eq!(table.0.load().get(key, Fetch::Later), end);
            assert_eq!(table.0.load().len(), plain.len());
        }
        for key in 0..keys {
            let mut words = [0; N];
            words[N - 1] = key;
            assert_eq!(
                table.0.load().get(words, Fetch::AtOnce),
                plain.get(&words).copied()
            );
        }
    }

    #[test]
    fn it_holds_what_a_plain_map_holds() {
        agrees::<1>(50, 20_000);
        agrees::<1>(20_000, 60_000);
        agrees::<2>(3_000, 40_000);
        agrees::<4>(3_000, 40_000);
    }

    #[test]
    fn memory_is_given_back() {
        let table = Swapped::<1>::new(Keyed(7));
        (0..100_000).for_each(|key| table.set([key], Some(End::from_raw(9))));
        assert!(
            table.0.load().bytes() <= 100_000 * 20 + 64,
            "{}",
            table.0.load().bytes()
        );
        (0..100_000).for_each(|key| table.set([key], None));
        table.shrink();
        assert_eq!((table.0.load().len(), table.0.load().is_empty()), (0, true));
        assert_eq!(table.0.load().bytes(), 0);
    }

    /// Where a place holds the tag 1, a quick comparison takes a free place above it for one of
    /// that tag too, and a free place reads as the client of zeros.
    #[test]
    fn the_client_of_zeros_is_not_found_where_nobody_is() {
        let seed = (0..)
            .find(|seed| tag(hash_of(Keyed(*seed), [0])) == 1)
            .unwrap();
        let table = Expiries::<1>::new(Keyed(seed), 3);
        let below = |key: &u32| tag(hash_of(table.hash, [*key])) == 1;
        let first = (1..).find(below).unwrap();
        let above = own_place(hash_of(table.hash, [first])) + 1;
        let next = |key: &u32| own_place(hash_of(table.hash, [*key])) == above;
        let second = (1..).filter(|key| *key != first).find(next).unwrap();
        for key in [first, 0, second] {
            table.set([key], Some(End::from_raw(key + 2))).unwrap();
        }
        for key in [first, 0, second] {
            assert_eq!(
                table.get([key], Fetch::Later),
                Some(End::from_raw(key + 2)),
                "{key}"
            );
        }
    }

    #[test]
    fn readers_see_a_client_whole_or_not_at_all() {
        let table = Swapped::<4>::new(Keyed(7));
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
                let found = table.0.load().get(key(n), Fetch::AtOnce);
                assert!(found.is_none_or(|end| end == End::from_raw(n + 2)), "{n}");
            }
        });
    }
}
