//! Active bans in order of change, every change numbered. Followers read from their own cursor.

use std::sync::Arc;

use tokio::sync::watch;

use super::ban::Ban;

/// How a ban ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lift {
    /// Its time was over.
    Expired,
    /// An operator lifted it.
    Unbanned,
    /// Its origin took it back.
    Withdrawn,
    /// The table was full and it was the one ending soonest.
    Evicted,
}

/// One numbered change.
#[derive(Clone, Debug)]
pub struct Change {
    /// Strictly increasing, from 1.
    pub seq: u64,
    /// The ban as it stands, or stood when it was lifted.
    pub ban: Arc<Ban>,
    /// `None`: it began or was changed; else how it ended.
    pub lift: Option<Lift>,
    /// Only for `lift: None`: it was active before (extended or replaced).
    pub updated: bool,
}

/// What happened after a cursor.
#[derive(Clone, Debug)]
pub enum Since {
    /// Every change in order; a ban changed twice is listed once, at its latest.
    Changes {
        /// Oldest first.
        changes: Vec<Change>,
        /// Cursor to ask with next.
        next: u64,
    },
    /// The cursor is too old: everything active now replaces what the follower holds.
    Snapshot {
        /// All active bans.
        bans: Vec<Arc<Ban>>,
        /// Cursor to ask with next.
        next: u64,
    },
}

/// The ledger. Reading and writing take one short lock.
#[derive(Debug)]
pub struct Ledger {}

impl Ledger {
    /// What happened after `cursor` (0: from the beginning), at most `limit` changes.
    pub fn since(&self, _cursor: u64, _limit: usize) -> Since {
        todo!()
    }

    /// The newest number, for waiting: changes when anything happens.
    pub fn watch(&self) -> watch::Receiver<u64> {
        todo!()
    }
}
