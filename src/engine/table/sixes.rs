//! Single v6 clients in words as few as their prefix length allows: half of them for the usual /64, so
//! that half as much has to come from memory. Which bits are a client's is the scope's.

use std::sync::Arc;

use super::{End, Expiries, Fetch, Full, Keyed, words};

/// The prefix length up to which the upper words are the whole client.
const SHORT: u8 = 64;

/// The ends of v6 clients' bans, each as its bits, those beyond the prefix zero.
#[derive(Clone, Debug)]
pub(super) enum Sixes {
    Short(Arc<Expiries<2>>),
    Whole(Arc<Expiries<4>>),
}

impl Sixes {
    /// An empty table for clients of this prefix length.
    pub(super) fn new(prefix: u8, hash: Keyed) -> Self {
        match prefix {
            ..=SHORT => Self::Short(Arc::new(Expiries::new(hash, 0))),
            _ => Self::Whole(Arc::new(Expiries::new(hash, 0))),
        }
    }

    #[inline]
    pub(super) fn prefetch(&self, client: u128) {
        match self {
            Self::Short(table) => table.prefetch(short(client)),
            Self::Whole(table) => table.prefetch(words(client)),
        }
    }

    #[inline]
    pub(super) fn get(&self, client: u128, fetch: Fetch) -> Option<End> {
        match self {
            Self::Short(table) => table.get(short(client), fetch),
            Self::Whole(table) => table.get(words(client), fetch),
        }
    }

    pub(super) fn set(&self, client: u128, end: Option<End>) -> Result<(), Full> {
        match self {
            Self::Short(table) => table.set(short(client), end),
            Self::Whole(table) => table.set(words(client), end),
        }
    }

    pub(super) fn roomier(&self, more: usize) -> Option<Self> {
        match self {
            Self::Short(table) => table.roomier(more).map(Arc::new).map(Self::Short),
            Self::Whole(table) => table.roomier(more).map(Arc::new).map(Self::Whole),
        }
    }

    pub(super) fn smaller(&self) -> Option<Self> {
        match self {
            Self::Short(table) => table.smaller().map(Arc::new).map(Self::Short),
            Self::Whole(table) => table.smaller().map(Arc::new).map(Self::Whole),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Short(table) => table.len(),
            Self::Whole(table) => table.len(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Short(table) => table.bytes(),
            Self::Whole(table) => table.bytes(),
        }
    }
}

#[inline]
fn short(client: u128) -> [u32; 2] {
    [(client >> 96) as u32, (client >> 64) as u32]
}
