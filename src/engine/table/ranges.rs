//! Bans of whatever is not a single client: one table per prefix length, changed in place, so that
//! taking in a hundred thousand ranges copies none of them. What a range means is the scope's.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use ipnet::IpNet;

use super::{End, Expiries, Keyed, masked, masked_v4, words};

/// Ranges of both families.
#[derive(Debug)]
pub(super) struct Ranges {
    v4: Lengths<1>,
    v6: Lengths<4>,
}

/// One table per prefix length that ever had a range; there are few.
#[derive(Debug)]
struct Lengths<const N: usize> {
    tables: ArcSwap<Vec<(u8, Arc<Expiries<N>>)>>,
    /// There is a table; most have none, and looking for them is not free.
    any: AtomicBool,
    hash: Keyed,
}

impl Ranges {
    pub(super) fn new(hash: Keyed) -> Self {
        Self {
            v4: Lengths::new(hash),
            v6: Lengths::new(hash),
        }
    }

    /// The end furthest away of all ranges that cover `addr`.
    #[inline]
    pub(super) fn longest(&self, addr: IpAddr) -> Option<End> {
        match addr {
            IpAddr::V4(v4) => self.v4.longest(|len| [masked_v4(v4.to_bits(), len)]),
            IpAddr::V6(v6) => self.v6.longest(|len| words(masked(v6.to_bits(), len))),
        }
    }

    pub(super) fn exactly(&self, net: IpNet) -> Option<End> {
        match net {
            IpNet::V4(v4) => self.v4.exactly(v4.prefix_len(), [v4.addr().to_bits()]),
            IpNet::V6(v6) => self.v6.exactly(v6.prefix_len(), words(v6.addr().to_bits())),
        }
    }

    /// The caller holds the ledger, so nobody else writes.
    pub(super) fn set(&self, net: IpNet, end: Option<End>) {
        match net {
            IpNet::V4(v4) => self.v4.set(v4.prefix_len(), [v4.addr().to_bits()], end),
            IpNet::V6(v6) => self
                .v6
                .set(v6.prefix_len(), words(v6.addr().to_bits()), end),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    pub(super) fn shrink(&self) {
        self.v4.shrink();
        self.v6.shrink();
    }
}

impl<const N: usize> Lengths<N> {
    fn new(hash: Keyed) -> Self {
        Self {
            tables: ArcSwap::default(),
            any: AtomicBool::new(false),
            hash,
        }
    }

    #[inline]
    fn longest(&self, key: impl Fn(u8) -> [u32; N]) -> Option<End> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let tables = self.tables.load();
        let found = tables
            .iter()
            .filter_map(|(len, table)| table.get(key(*len)));
        found.max()
    }

    fn exactly(&self, len: u8, key: [u32; N]) -> Option<End> {
        let tables = self.tables.load();
        let (_, table) = tables.iter().find(|(held, _)| *held == len)?;
        table.get(key)
    }

    fn set(&self, len: u8, key: [u32; N], end: Option<End>) {
        let tables = self.tables.load();
        if let Some((_, table)) = tables.iter().find(|(held, _)| *held == len) {
            table.set(key, end);
        } else if end.is_some() {
            let table = Arc::new(Expiries::new(self.hash));
            table.set(key, end);
            let mut more = Vec::clone(&tables);
            more.push((len, table));
            self.tables.store(Arc::new(more));
            self.any.store(true, Ordering::Relaxed);
        }
    }

    fn len(&self) -> usize {
        self.tables
            .load()
            .iter()
            .map(|(_, table)| table.len())
            .sum()
    }

    fn shrink(&self) {
        for (_, table) in self.tables.load().iter() {
            table.shrink();
        }
    }
}
