//! Bans of whatever is not a single client: one table per prefix length, changed in fetch, so that
//! taking in a hundred thousand ranges copies none of them. What a range means is the scope's.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{End, Expiries, Fetch, Full, Keyed, masked, masked_v4, words};

/// Ranges of both families.
#[derive(Clone, Debug)]
pub(super) struct Ranges {
    v4: Lengths<1>,
    v6: Lengths<4>,
}

/// One table per prefix length that ever had a range; there are few.
#[derive(Clone, Debug)]
struct Lengths<const N: usize> {
    tables: Vec<(u8, Arc<Expiries<N>>)>,
    hash: Keyed,
}

impl Ranges {
    pub(super) fn new(hash: Keyed) -> Self {
        Self {
            v4: Lengths::new(hash),
            v6: Lengths::new(hash),
        }
    }

    #[inline]
    pub(super) fn prefetch(&self, addr: IpAddr) {
        match addr {
            IpAddr::V4(v4) => self.v4.prefetch(|len| [masked_v4(v4.to_bits(), len)]),
            IpAddr::V6(v6) => self.v6.prefetch(|len| words(masked(v6.to_bits(), len))),
        }
    }

    /// The end furthest away of all ranges that cover `addr`.
    #[inline]
    pub(super) fn longest(&self, addr: IpAddr, fetch: Fetch) -> Option<End> {
        match addr {
            IpAddr::V4(v4) => {
                let key = |len| [masked_v4(v4.to_bits(), len)];
                self.v4.longest(key, fetch)
            }
            IpAddr::V6(v6) => {
                let key = |len| words(masked(v6.to_bits(), len));
                self.v6.longest(key, fetch)
            }
        }
    }

    pub(super) fn exactly(&self, net: IpNet) -> Option<End> {
        match net {
            IpNet::V4(v4) => self.v4.exactly(v4.prefix_len(), [v4.addr().to_bits()]),
            IpNet::V6(v6) => self.v6.exactly(v6.prefix_len(), words(v6.addr().to_bits())),
        }
    }

    /// The caller holds the ledger, so nobody else writes.
    pub(super) fn set(&self, net: IpNet, end: Option<End>) -> Result<(), Full> {
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

    /// The same with room for one more network as long as this.
    pub(super) fn roomier(&self, net: IpNet) -> Self {
        let (v4, v6) = (&self.v4, &self.v6);
        match net {
            IpNet::V4(net) => Self {
                v4: v4.roomier(net.prefix_len()),
                v6: v6.clone(),
            },
            IpNet::V6(net) => Self {
                v4: v4.clone(),
                v6: v6.roomier(net.prefix_len()),
            },
        }
    }

    /// The same in less memory, where most of it stands empty.
    pub(super) fn smaller(&self) -> Option<Self> {
        let (v4, v6) = (self.v4.smaller(), self.v6.smaller());
        (v4.is_some() || v6.is_some()).then(|| Self {
            v4: v4.unwrap_or_else(|| self.v4.clone()),
            v6: v6.unwrap_or_else(|| self.v6.clone()),
        })
    }
}

impl<const N: usize> Lengths<N> {
    fn new(hash: Keyed) -> Self {
        let tables = Vec::new();
        Self { tables, hash }
    }

    #[inline]
    fn prefetch(&self, key: impl Fn(u8) -> [u32; N]) {
        for (len, table) in &self.tables {
            table.prefetch(key(*len));
        }
    }

    #[inline]
    fn longest(&self, key: impl Fn(u8) -> [u32; N], fetch: Fetch) -> Option<End> {
        let tables = self.tables.iter();
        let ends = tables.filter_map(|(len, table)| table.get(key(*len), fetch));
        ends.max()
    }

    fn exactly(&self, len: u8, key: [u32; N]) -> Option<End> {
        let (_, table) = self.tables.iter().find(|(held, _)| *held == len)?;
        table.get(key, Fetch::AtOnce)
    }

    fn set(&self, len: u8, key: [u32; N], end: Option<End>) -> Result<(), Full> {
        match self.tables.iter().find(|(held, _)| *held == len) {
            Some((_, table)) => table.set(key, end),
            None if end.is_none() => Ok(()),
            None => Err(Full),
        }
    }

    fn len(&self) -> usize {
        self.tables.iter().map(|(_, table)| table.len()).sum()
    }

    fn roomier(&self, len: u8) -> Self {
        let mut tables = self.tables.clone();
        match tables.iter_mut().find(|(held, _)| *held == len) {
            Some((_, table)) => {
                if let Some(roomier) = table.roomier(1) {
                    *table = Arc::new(roomier);
                }
            }
            None => tables.push((len, Arc::new(Expiries::new(self.hash, 1)))),
        }
        Self {
            tables,
            hash: self.hash,
        }
    }

    fn smaller(&self) -> Option<Self> {
        let (mut next, mut any) = (self.clone(), false);
        for (_, table) in &mut next.tables {
            if let Some(smaller) = table.smaller() {
                (*table, any) = (Arc::new(smaller), true);
            }
        }
        any.then_some(next)
    }
}
