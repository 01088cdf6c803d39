//! IPv6: one frozen hash table per distinct prefix length. Real lists use a handful of lengths,
//! and this was five times faster than searching ranges of 128-bit numbers.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;

use super::Prefix;

/// The tables, shortest prefix first. Those up to /64 keep keys of eight bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Levels<V> {
    short: Vec<Level<u64, V>>,
    long: Vec<Level<u128, V>>,
    /// Lists hold addresses that attackers choose, so nobody may foresee the buckets.
    hasher: RandomState,
}

/// Keys grouped by bucket; `starts[b]..starts[b + 1]` is bucket `b`. No empty places are held,
/// which is what makes it half the size of an open table.
#[derive(Clone, Debug)]
struct Level<K, V> {
    len: u8,
    starts: Box<[u32]>,
    keys: Box<[K]>,
    values: Box<[V]>,
}

/// About this many keys (one cache line of the short ones) share a bucket.
const KEYS_PER_BUCKET_BITS: u32 = 3;

impl<V: Copy + Ord + Default> Levels<V> {
    pub(super) fn build(mut prefixes: Vec<Prefix<u128, V>>) -> Self {
        prefixes.sort_unstable();
        drop_covered(&mut prefixes);
        prefixes.sort_unstable_by_key(|prefix| prefix.len);
        let mut levels = Self::default();
        for same in prefixes.chunk_by(|a, b| a.len == b.len) {
            let len = same[0].len;
            if len <= 64 {
                let keys = same
                    .iter()
                    .map(|prefix| (short_key(prefix.first, len), prefix.value));
                levels.short.push(Level::build(len, keys, &levels.hasher));
            } else {
                let keys = same
                    .iter()
                    .map(|prefix| (long_key(prefix.first, len), prefix.value));
                levels.long.push(Level::build(len, keys, &levels.hasher));
            }
        }
        levels
    }

    #[inline]
    pub(super) fn max(&self, addr: u128) -> Option<V> {
        let hasher = &self.hasher;
        let short = self
            .short
            .iter()
            .map(|l| l.get(short_key(addr, l.len), hasher));
        let long = self
            .long
            .iter()
            .map(|l| l.get(long_key(addr, l.len), hasher));
        short.chain(long).flatten().max()
    }

    pub(super) fn shortest(&self, addr: u128) -> Option<u8> {
        let hasher = &self.hasher;
        let holds = |l: &&Level<u64, V>| l.get(short_key(addr, l.len), hasher).is_some();
        let short = self.short.iter().find(holds).map(|l| l.len);
        let holds = |l: &&Level<u128, V>| l.get(long_key(addr, l.len), hasher).is_some();
        short.or_else(|| self.long.iter().find(holds).map(|l| l.len))
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

impl<K: Copy + Eq + Hash + Default, V: Copy + Default> Level<K, V> {
    fn build(len: u8, entries: impl Iterator<Item = (K, V)> + Clone, hasher: &RandomState) -> Self {
        let count = entries.clone().count();
        let bits = count
            .checked_ilog2()
            .unwrap_or(0)
            .saturating_sub(KEYS_PER_BUCKET_BITS);
        let mut starts = vec![0u32; (1 << bits) + 1];
        let size = starts.len();
        for (key, _) in entries.clone() {
            starts[bucket(hasher, key, size) + 1] += 1;
        }
        for b in 1..size {
            starts[b] += starts[b - 1];
        }
        let mut next = starts.clone();
        let mut keys = vec![K::default(); count];
        let mut values = vec![V::default(); count];
        for (key, value) in entries {
            let place = &mut next[bucket(hasher, key, size)];
            keys[*place as usize] = key;
            values[*place as usize] = value;
            *place += 1;
        }
        Self {
            len,
            starts: starts.into(),
            keys: keys.into(),
            values: values.into(),
        }
    }

    #[inline]
    fn get(&self, key: K, hasher: &RandomState) -> Option<V> {
        let b = bucket(hasher, key, self.starts.len());
        let (from, to) = (self.starts[b] as usize, self.starts[b + 1] as usize);
        let at = self.keys[from..to].iter().position(|k| *k == key)?;
        Some(self.values[from + at])
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.starts) + size_of_val(&*self.keys) + size_of_val(&*self.values)
    }
}

/// The bucket of `key` when there are `starts - 1` of them, a power of two.
#[inline]
fn bucket<K: Hash>(hasher: &RandomState, key: K, starts: usize) -> usize {
    hasher.hash_one(key) as usize & (starts - 2)
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

/// Drops every prefix that one around it outdoes; expects parents before what they contain.
fn drop_covered<V: Copy + Ord>(prefixes: &mut Vec<Prefix<u128, V>>) {
    let mut open: Vec<(u128, V)> = Vec::new();
    prefixes.dedup_by(|later, kept| {
        // Sorted, so of equal networks the greatest value comes last.
        let same = later.first == kept.first && later.len == kept.len;
        if same {
            kept.value = later.value;
        }
        same
    });
    prefixes.retain(|prefix| {
        while open.last().is_some_and(|&(last, _)| last < prefix.first) {
            open.pop();
        }
        let last = prefix.first | u128::MAX.checked_shr(prefix.len.into()).unwrap_or(0);
        let kept = open.last().is_none_or(|&(_, around)| prefix.value > around);
        if kept {
            open.push((last, prefix.value));
        }
        kept
    });
}
