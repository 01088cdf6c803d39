//! Until when a client is banned, as the hot path asks it: compact tables for single
//! clients, one such table per prefix length for ranges. A mirror of the ledger, which settles what
//! a 32-bit end cannot tell. It neither counts nor knows why.

mod expiries;
mod prefetch;
mod ranges;
mod sixes;

use std::{hash::BuildHasher, net::IpAddr, sync::Arc};

use foldhash::fast::{FixedState, FoldHasher};
use hashbrown::HashTable;
use ipnet::IpNet;

pub use self::expiries::{Expiries, Fetch, Full};
use self::{ranges::Ranges, sixes::Sixes};
use crate::time::Millis;

/// Enough that two cores rarely meet, few enough that an empty table costs 8 KiB.
pub(super) const SHARDS: usize = 64;
/// Length of a tick in milliseconds: 31 bits of them are 6.8 years.
const TICK: Millis = 100;
const LAST_TICK: u32 = (1 << 31) - 1;
/// How far before the first `now` ticks begin, so that old log lines can be judged too.
const LOOK_BACK: Millis = 365 * 24 * 3600 * 1000;

/// A v6 address or prefix with the alignment that keeps an entry at 20 bytes.
pub(super) type V6 = [u32; 4];

/// Builds hashers that an attacker who does not know the seed cannot aim at.
#[derive(Clone, Copy, Debug)]
pub struct Keyed(pub u64);

/// Turns milliseconds into the ticks that tables hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticks {
    epoch: Millis,
}

/// The end of a ban as an entry holds it: 31 bits of ticks, and whether it came from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct End(u32);

/// What a table says of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not banned.
    Free,
    /// Banned at least until then; at most one tick longer.
    Banned { until: Millis, outside: bool },
    /// Within the last tick, or out of the range of ticks: only the ledger knows.
    Unsure,
}

/// Every ban of one jail, or of every jail. Ends are changed in place, for every clone; for more
/// room another is made and swapped with the policy, whose guard a reader holds anyway.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    v4: Arc<Expiries<1>>,
    v6: Sixes,
    v6_prefix: u8,
    ranges: Ranges,
}

impl BuildHasher for Keyed {
    type Hasher = FoldHasher<'static>;

    #[inline]
    fn build_hasher(&self) -> Self::Hasher {
        FixedState::with_seed(self.0).build_hasher()
    }
}

impl End {
    /// An end from what [`End::raw`] gave.
    pub fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// Ticks, and in the lowest bit whether it came from outside.
    pub fn raw(self) -> u32 {
        self.0
    }
}

impl Ticks {
    pub(super) fn starting(now: Millis) -> Self {
        let epoch = now.saturating_sub(LOOK_BACK);
        Self {
            epoch: epoch - epoch % TICK,
        }
    }

    fn at(self, time: Millis) -> u32 {
        (time.saturating_sub(self.epoch) / TICK).min(LAST_TICK.into()) as u32
    }

    pub(super) fn end(self, until: Millis, outside: bool) -> End {
        // nothing ends in tick 0: with one bit more that is what an empty place holds
        End(self.at(until).max(1) << 1 | u32::from(outside))
    }

    fn standing(self, end: End, now: u32) -> Standing {
        let (tick, outside) = (end.0 >> 1, end.0 & 1 == 1);
        if now == 0 || tick == LAST_TICK || tick == now {
            Standing::Unsure
        } else if tick < now {
            Standing::Free
        } else {
            let until = self.epoch + Millis::from(tick) * TICK;
            Standing::Banned { until, outside }
        }
    }
}

impl Scope {
    /// `v6_prefix` is the length at which a v6 network is a single client here.
    pub(super) fn new(v6_prefix: u8, hash: Keyed) -> Self {
        Self {
            v4: Arc::new(Expiries::new(hash, 0)),
            v6: Sixes::new(v6_prefix, hash),
            v6_prefix,
            ranges: Ranges::new(hash),
        }
    }

    pub(super) fn v6_prefix(&self) -> u8 {
        self.v6_prefix
    }

    /// Asks memory for what [`Scope::standing`] reads first of this address.
    #[inline]
    pub(super) fn prefetch(&self, addr: IpAddr) {
        match addr {
            IpAddr::V4(v4) => self.v4.prefetch([v4.to_bits()]),
            IpAddr::V6(v6) => self.v6.prefetch(masked(v6.to_bits(), self.v6_prefix)),
        }
        self.ranges.prefetch(addr);
    }

    /// What holds for a canonical address. Takes no lock.
    #[inline]
    pub(super) fn standing(
        &self,
        addr: IpAddr,
        fetch: Fetch,
        ticks: Ticks,
        now: Millis,
    ) -> Standing {
        let now = ticks.at(now);
        let single = match addr {
            IpAddr::V4(v4) => self.v4.get([v4.to_bits()], fetch),
            IpAddr::V6(v6) => self.v6.get(masked(v6.to_bits(), self.v6_prefix), fetch),
        };
        let single = single.map_or(Standing::Free, |end| ticks.standing(end, now));
        if single != Standing::Free {
            return single;
        }
        self.ranges
            .longest(addr, fetch)
            .map_or(Standing::Free, |end| ticks.standing(end, now))
    }

    /// The same with room for these, when this has none. The caller holds the ledger until the
    /// other is swapped in: nobody may write to this one any more.
    pub(super) fn roomier<'n>(&self, nets: impl IntoIterator<Item = &'n IpNet>) -> Option<Self> {
        let (mut v4, mut v6) = (0, 0);
        for net in nets {
            match net {
                IpNet::V4(net) => v4 += usize::from(net.prefix_len() == 32),
                IpNet::V6(net) => v6 += usize::from(net.prefix_len() == self.v6_prefix),
            }
        }
        let v4 = self.v4.roomier(v4.saturating_sub(self.v4.len()));
        let v6 = self.v6.roomier(v6.saturating_sub(self.v6.len()));
        self.with(v4, v6, None)
    }

    /// The same with room for one more, after [`Scope::set`] found none. As for [`Scope::roomier`].
    pub(super) fn roomier_by(&self, net: IpNet) -> Self {
        let (mut v4, mut v6, mut ranges) = (None, None, None);
        match net {
            IpNet::V4(net) if net.prefix_len() == 32 => v4 = self.v4.roomier(1),
            IpNet::V6(net) if net.prefix_len() == self.v6_prefix => v6 = self.v6.roomier(1),
            range => ranges = Some(self.ranges.roomier(range)),
        }
        self.with(v4, v6, ranges).unwrap_or_else(|| self.clone())
    }

    /// The same in less memory, where most of it stands empty. As for [`Scope::roomier`].
    pub(super) fn smaller(&self) -> Option<Self> {
        self.with(self.v4.smaller(), self.v6.smaller(), self.ranges.smaller())
    }

    fn with(
        &self,
        v4: Option<Expiries<1>>,
        v6: Option<Sixes>,
        ranges: Option<Ranges>,
    ) -> Option<Self> {
        (v4.is_some() || v6.is_some() || ranges.is_some()).then(|| Self {
            v4: v4.map_or_else(|| self.v4.clone(), Arc::new),
            v6: v6.unwrap_or_else(|| self.v6.clone()),
            v6_prefix: self.v6_prefix,
            ranges: ranges.unwrap_or_else(|| self.ranges.clone()),
        })
    }

    /// Sets or clears (`None`) one. The caller holds the ledger, so nobody else writes.
    pub(super) fn set(&self, net: IpNet, end: Option<End>) -> Result<(), Full> {
        match net {
            IpNet::V4(v4) if v4.prefix_len() == 32 => self.v4.set([v4.addr().to_bits()], end),
            IpNet::V6(v6) if v6.prefix_len() == self.v6_prefix => {
                self.v6.set(v6.addr().to_bits(), end)
            }
            range => self.ranges.set(range, end),
        }
    }

    /// The entry of exactly this network.
    pub(super) fn get(&self, net: IpNet) -> Option<End> {
        match net {
            IpNet::V4(v4) if v4.prefix_len() == 32 => {
                self.v4.get([v4.addr().to_bits()], Fetch::AtOnce)
            }
            IpNet::V6(v6) if v6.prefix_len() == self.v6_prefix => {
                self.v6.get(v6.addr().to_bits(), Fetch::AtOnce)
            }
            range => self.ranges.exactly(range),
        }
    }

    /// Entries held, ranges included.
    pub(super) fn len(&self) -> usize {
        self.v4.len() + self.v6.len() + self.ranges.len()
    }

    /// Heap bytes of the single clients.
    pub(super) fn bytes(&self) -> usize {
        self.v4.bytes() + self.v6.bytes()
    }
}

/// Bits that the table itself uses neither for its buckets nor for its tags.
#[inline]
pub(super) fn shard_of(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

/// Worth rehashing: at most a quarter of a table that is not tiny is used.
pub(super) fn sparse<T>(table: &HashTable<T>) -> bool {
    table.capacity() > 64 && table.len() < table.capacity() / 4
}

#[inline]
pub(super) fn words(bits: u128) -> V6 {
    [
        (bits >> 96) as u32,
        (bits >> 64) as u32,
        (bits >> 32) as u32,
        bits as u32,
    ]
}

#[inline]
pub(super) fn bits(words: &[u32]) -> u128 {
    words
        .iter()
        .fold(0, |bits, word| bits << 32 | u128::from(*word))
}

#[inline]
fn masked(bits: u128, len: u8) -> u128 {
    bits & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

#[inline]
fn masked_v4(bits: u32, len: u8) -> u32 {
    bits & u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)
}
