//! IPv6: one frozen hash table per distinct prefix length. Real lists use a handful of lengths,
//! and this was five times faster than searching ranges of 128-bit numbers.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;

use super::Prefix;

/// The tables, shortest prefix first. Those up to /64 keep keys of eight bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Levels {
    short: Vec<Level<u64>>,
    long: Vec<Level<u128>>,
    /// Lists hold addresses that attackers choose, so nobody may foresee the buckets.
    hasher: RandomState,
}

/// Keys grouped by bucket. No empty places are held, which makes it half the size of an open
/// table.
#[derive(Clone, Debug)]
struct Level<K> {
    len: u8,
    /// One more than there are buckets, so that each one's end is the next one's start.
    buckets: Box<[Bucket]>,
    keys: Box<[K]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    start: u32,
    /// One bit for each of 32 hash classes present: turns most misses away at the line already
    /// loaded, without a search whose end the processor would guess wrong.
    classes: u32,
}

/// About this many keys (one cache line of the short ones) share a bucket.
const KEYS_PER_BUCKET_BITS: u32 = 3;

impl Levels {
    pub(super) fn build(mut prefixes: Vec<Prefix<u128>>) -> Self {
        prefixes.sort_unstable();
        drop_covered(&mut prefixes);
        prefixes.sort_unstable_by_key(|prefix| prefix.len);
        let mut levels = Self::default();
        for same in prefixes.chunk_by(|a, b| a.len == b.len) {
            let len = same[0].len;
            if len <= 64 {
                let keys = same.iter().map(|prefix| short_key(prefix.first, len));
                levels.short.push(Level::build(len, keys, &levels.hasher));
            } else {
                let keys = same.iter().map(|prefix| long_key(prefix.first, len));
                levels.long.push(Level::build(len, keys, &levels.hasher));
            }
        }
        levels
    }

    #[inline]
    pub(super) fn contains(&self, addr: u128) -> bool {
        self.short
            .iter()
            .any(|l| l.contains(short_key(addr, l.len), &self.hasher))
            || self
                .long
                .iter()
                .any(|l| l.contains(long_key(addr, l.len), &self.hasher))
    }

    /// Whether any prefix contains this one or lies inside it.
    pub(super) fn overlaps(&self, first: u128, len: u8) -> bool {
        let shift = 128 - u32::from(len);
        let cut = |addr: u128| addr.checked_shr(shift).unwrap_or(0);
        let inside = |(held, held_len): (u128, u8)| held_len > len && cut(held) == cut(first);
        self.contains(first) || self.prefixes().any(inside)
    }

    /// The length of the widest prefix around `addr`.
    pub(super) fn shortest(&self, addr: u128) -> Option<u8> {
        let holds = |len: u8| match self.short.iter().find(|l| l.len == len) {
            Some(l) => l.contains(short_key(addr, len), &self.hasher),
            None => (self.long.iter().find(|l| l.len == len))
                .is_some_and(|l| l.contains(long_key(addr, len), &self.hasher)),
        };
        (0..=128).find(|len| holds(*len))
    }

    /// First address and length of every prefix.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = (u128, u8)> + '_ {
        let widen = |key: u128, len: u8| key.checked_shl(128 - u32::from(len)).unwrap_or(0);
        let short = self.short.iter().flat_map(move |level| {
            let keys = level.keys.iter();
            keys.map(move |key| (widen((*key).into(), level.len), level.len))
        });
        let long = self.long.iter().flat_map(move |level| {
            let keys = level.keys.iter();
            keys.map(move |key| (widen(*key, level.len), level.len))
        });
        short.chain(long)
    }

    pub(super) fn len(&self) -> usize {
        let short: usize = self.short.iter().map(|l| l.keys.len()).sum();
        short + self.long.iter().map(|l| l.keys.len()).sum::<usize>()
    }

    pub(super) fn bytes(&self) -> usize {
        let short: usize = self.short.iter().map(Level::bytes).sum();
        short + self.long.iter().map(Level::bytes).sum::<usize>()
    }
}

impl<K: Copy + Eq + Hash + Default> Level<K> {
    fn build(len: u8, entries: impl Iterator<Item = K> + Clone, hasher: &RandomState) -> Self {
        let count = entries.clone().count();
        let bits = count
            .checked_ilog2()
            .unwrap_or(0)
            .saturating_sub(KEYS_PER_BUCKET_BITS);
        let mut level = Self {
            len,
            buckets: vec![Bucket::default(); (1 << bits) + 1].into(),
            keys: vec![K::default(); count].into(),
        };
        for key in entries.clone() {
            let (at, class) = level.place(key, hasher);
            level.buckets[at].start += 1;
            level.buckets[at].classes |= class;
        }
        let mut end = 0;
        for bucket in &mut level.buckets {
            end += bucket.start;
            bucket.start = end;
        }
        // Filled from each bucket's end, which leaves `start` where it belongs.
        for key in entries {
            let (at, _) = level.place(key, hasher);
            level.buckets[at].start -= 1;
            let place = level.buckets[at].start as usize;
            level.keys[place] = key;
        }
        level
    }

    #[inline]
    fn contains(&self, key: K, hasher: &RandomState) -> bool {
        let (at, class) = self.place(key, hasher);
        let bucket = self.buckets[at];
        bucket.classes & class != 0
            && self.keys[bucket.start as usize..self.buckets[at + 1].start as usize].contains(&key)
    }

    /// The bucket of a key and its class, as a bit.
    #[inline]
    fn place(&self, key: K, hasher: &RandomState) -> (usize, u32) {
        let hash = hasher.hash_one(key);
        // A power of two and one more.
        (hash as usize & (self.buckets.len() - 2), 1 << (hash >> 59))
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.buckets) + size_of_val(&*self.keys)
    }
}

#[inline]
fn short_key(addr: u128, len: u8) -> u64 {
    ((addr >> 64) as u64)
        .checked_shr(64 - u32::from(len))
        .unwrap_or(0)
}

#[inline]
fn long_key(addr: u128, len: u8) -> u128 {
    addr >> (128 - u32::from(len))
}

/// Drops every prefix inside another; expects parents before what they contain.
fn drop_covered(prefixes: &mut Vec<Prefix<u128>>) {
    let mut around = None;
    prefixes.retain(|prefix| {
        if around.is_some_and(|last| prefix.first <= last) {
            return false;
        }
        around = Some(prefix.first | u128::MAX.checked_shr(prefix.len.into()).unwrap_or(0));
        true
    });
}
