//! The ends of single clients' bans: sharded open addressing that is read without a lock, so that
//! two cores asking at once share no line that either writes. What an end means is the scope's.

use std::{
    hash::BuildHasher as _,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use super::{End, Keyed, SHARDS, shard_of};

/// No end: nothing was ever here, and a search ends.
const EMPTY: u32 = 0;
/// No end any more. The place stays its client's until the shard is rebuilt: given to another, a
/// reader could take the old end for the new client's.
const GONE: u32 = 1;

/// Single clients of one family, each as `N` words.
#[derive(Debug)]
pub struct Expiries<const N: usize> {
    shards: Box<[CachePadded<Shard<N>>]>,
    len: AtomicUsize,
    hash: Keyed,
}

#[derive(Debug)]
struct Shard<const N: usize> {
    /// Replaced when it is rebuilt; changed in place otherwise.
    table: ArcSwap<Table<N>>,
    write: Mutex<Used>,
}

/// What only writers need to know of a shard.
#[derive(Debug, Default)]
struct Used {
    /// Places taken, those that are gone included.
    taken: usize,
    live: usize,
}

#[derive(Debug)]
struct Table<const N: usize>(Box<[Slot<N>]>);

/// The key is written before the end, and never again.
#[derive(Debug)]
struct Slot<const N: usize> {
    key: [AtomicU32; N],
    end: AtomicU32,
}

impl<const N: usize> Default for Shard<N> {
    fn default() -> Self {
        Self {
            table: ArcSwap::from_pointee(Table(Box::default())),
            write: Mutex::default(),
        }
    }
}

impl<const N: usize> Expiries<N> {
    /// An empty table; nothing but the shards themselves is allocated.
    pub fn new(hash: Keyed) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| CachePadded::default()).collect(),
            len: AtomicUsize::new(0),
            hash,
        }
    }

    /// When the ban of a client ends, as far as it has one.
    #[inline]
    pub fn get(&self, key: [u32; N]) -> Option<End> {
        if self.len.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let hash = hash_of(self.hash, key);
        let table = self.shards[shard_of(hash)].table.load();
        let (_, end) = table.find(hash, key)?;
        (end > GONE).then(|| End::from_raw(end))
    }

    /// Sets or clears (`None`) the end of a client's ban.
    pub fn set(&self, key: [u32; N], end: Option<End>) {
        let hash = hash_of(self.hash, key);
        let shard = &self.shards[shard_of(hash)];
        let mut used = shard.write.lock();
        let end = end.map_or(GONE, End::raw);
        let table = shard.table.load();
        if let Some((slot, before)) = table.find(hash, key) {
            slot.end.store(end, Ordering::Release);
            match (before > GONE, end > GONE) {
                (true, false) => self.count(&mut used, -1),
                (false, true) => self.count(&mut used, 1),
                _ => {}
            }
        } else if end > GONE {
            // fuller than three quarters, searches get long
            if (used.taken + 1) * 4 > table.0.len() * 3 {
                shard.rebuild(&mut used, self.hash);
                shard.table.load().insert(hash, key, end);
            } else {
                table.insert(hash, key, end);
            }
            used.taken += 1;
            self.count(&mut used, 1);
        }
    }

    fn count(&self, used: &mut Used, by: isize) {
        used.live = used.live.wrapping_add_signed(by);
        self.len.fetch_add(by as usize, Ordering::Relaxed);
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
        for shard in &self.shards {
            let mut used = shard.write.lock();
            let room = shard.table.load().0.len();
            if room > 64 && used.live < room / 4 {
                shard.rebuild(&mut used, self.hash);
            }
        }
    }

    /// Heap bytes of all shards.
    pub fn bytes(&self) -> usize {
        let slots = |shard: &CachePadded<Shard<N>>| shard.table.load().0.len();
        self.shards.iter().map(slots).sum::<usize>() * size_of::<Slot<N>>()
    }
}

impl<const N: usize> Shard<N> {
    /// Moves what is live to a table with room to grow by a third.
    fn rebuild(&self, used: &mut Used, hash: Keyed) {
        let room = if used.live == 0 { 0 } else { used.live + 4 };
        let next = Table::new(room * 9 / 5);
        for slot in &self.table.load().0 {
            let end = slot.end.load(Ordering::Relaxed);
            if end > GONE {
                let key = slot.key();
                next.insert(hash_of(hash, key), key, end);
            }
        }
        used.taken = used.live;
        self.table.store(Arc::new(next));
    }
}

impl<const N: usize> Table<N> {
    fn new(room: usize) -> Self {
        let empty = || Slot {
            key: [const { AtomicU32::new(0) }; N],
            end: AtomicU32::new(EMPTY),
        };
        Self((0..room.max(8)).map(|_| empty()).collect())
    }

    /// Where the search for a hash begins. The shard is chosen by other bits.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        (((hash & 0xffff_ffff) * self.0.len() as u64) >> 32) as usize
    }

    /// The client's place and what stands there.
    #[inline]
    fn find(&self, hash: u64, key: [u32; N]) -> Option<(&Slot<N>, u32)> {
        let home = self.home(hash);
        let (before, after) = self.0.split_at(home);
        for slot in after.iter().chain(before) {
            let end = slot.end.load(Ordering::Acquire);
            if end == EMPTY {
                return None;
            }
            if slot.key() == key {
                return Some((slot, end));
            }
        }
        None
    }

    /// The key is not there and there is room.
    fn insert(&self, hash: u64, key: [u32; N], end: u32) {
        let (before, after) = self.0.split_at(self.home(hash));
        let empty = |slot: &&Slot<N>| slot.end.load(Ordering::Relaxed) == EMPTY;
        if let Some(slot) = after.iter().chain(before).find(empty) {
            for (word, value) in slot.key.iter().zip(key) {
                word.store(value, Ordering::Relaxed);
            }
            slot.end.store(end, Ordering::Release);
        }
    }
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
        assert!(table.bytes() < 100_000 * 16, "{}", table.bytes());
        (0..100_000).for_each(|key| table.set([key], None));
        table.shrink();
        assert_eq!((table.len(), table.is_empty()), (0, true));
        assert!(table.bytes() <= SHARDS * 8 * 8, "{}", table.bytes());
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
