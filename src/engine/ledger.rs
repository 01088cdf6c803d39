//! Active bans in order of change, every change numbered. Followers read from their own cursor and
//! fall back to a snapshot when they are too far behind. Who bans, and what the hot path sees of
//! it, is decided elsewhere.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::{
    ban::Ban,
    policy::Names,
    slots::{Slot, Slots},
    table::Keyed,
};

/// Bans a snapshot or a scan reads under one hold of the lock.
pub(super) const CHUNK: usize = 1024;

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

impl Lift {
    /// One fixed word for logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Unbanned => "unbanned",
            Self::Withdrawn => "withdrawn",
            Self::Evicted => "evicted",
        }
    }
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
        /// All active bans. Changes made while it was read may be in it and come again.
        bans: Vec<Arc<Ban>>,
        /// Cursor to ask with next.
        next: u64,
    },
}

/// The ledger. Reading and writing take one short lock, again for every thousand bans.
#[derive(Debug)]
pub struct Ledger {
    slots: Mutex<Slots>,
    newest: watch::Sender<u64>,
    settled: watch::Sender<u64>,
    held: AtomicBool,
    names: Arc<Names>,
}

impl Ledger {
    pub(super) fn new(names: Arc<Names>, hash: Keyed) -> Self {
        Self {
            slots: Mutex::new(Slots::new(hash)),
            newest: watch::Sender::new(0),
            settled: watch::Sender::new(0),
            held: AtomicBool::new(false),
            names,
        }
    }

    /// What happened after `cursor` (0: from the beginning), at most `limit` changes. A cursor
    /// from another life, beyond the newest number, gets a snapshot too.
    pub fn since(&self, cursor: u64, limit: usize) -> Since {
        self.since_until(cursor, limit, u64::MAX)
    }

    /// As [`since`](Self::since), with changes up to the number `last` only. A snapshot knows no
    /// such bound: wait until its `next` is settled before telling anybody.
    pub(super) fn since_until(&self, cursor: u64, limit: usize, last: u64) -> Since {
        let slots = self.slots.lock();
        let newest = slots.newest();
        if cursor > newest || cursor < slots.floor() {
            drop(slots);
            let (bans, next) = self.snapshot();
            return Since::Snapshot { bans, next };
        }
        let (mut changes, mut next) = (Vec::new(), cursor);
        for seq in cursor + 1..=newest.min(last) {
            if changes.len() == limit {
                break;
            }
            next = seq;
            if let Some(slot) = slots.logged(seq) {
                changes.push(Change {
                    seq,
                    ban: self.read(&slots, slot),
                    lift: slot.lift(),
                    updated: slot.updated(),
                });
            }
        }
        Since::Changes { changes, next }
    }

    /// Every active ban, and the cursor from which changes follow it.
    pub fn snapshot(&self) -> (Vec<Arc<Ban>>, u64) {
        let newest = self.slots.lock().newest();
        (self.bans(), newest)
    }

    /// The newest number, for waiting: changes when anything happens.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// The newest change that may be told to the world: it is on disk, or no disk is kept.
    pub fn settled(&self) -> watch::Receiver<u64> {
        self.settled.subscribe()
    }

    /// Whether changes wait for [`settle`](Self::settle) (`true`: a disk is kept) or settle
    /// themselves as they are made (`false`: memory only, or the disk fails).
    pub fn hold(&self, held: bool) {
        self.held.store(held, Ordering::SeqCst);
        if !held {
            self.settle(*self.newest.borrow());
        }
    }

    /// Every change up to this number is on disk.
    pub fn settle(&self, seq: u64) {
        advance(&self.settled, seq);
    }

    /// Waits until every change up to this number may be told.
    pub async fn wait_settled(&self, seq: u64) {
        // The sender lives as long as `self`.
        let _ = self.settled().wait_for(|settled| *settled >= seq).await;
    }

    /// Every active ban, oldest change first.
    pub fn bans(&self) -> Vec<Arc<Ban>> {
        let (standing, _) = self.standing();
        standing.into_iter().map(|change| change.ban).collect()
    }

    /// Every active ban as its latest change, in order of number, and the cursor from which
    /// changes follow: what a disk is given that lost the thread.
    pub fn standing(&self) -> (Vec<Change>, u64) {
        let newest = self.slots.lock().newest();
        let mut standing = Vec::with_capacity(self.len());
        let mut from = 0;
        loop {
            let slots = self.slots.lock();
            let Some(chunk) = slots.chunk(from, CHUNK) else {
                break;
            };
            let active = chunk.iter().filter(|slot| slot.is_active() && !slot.silent);
            standing.extend(active.map(|slot| Change {
                seq: slot.seq(),
                ban: self.read(&slots, slot),
                lift: None,
                updated: slot.updated(),
            }));
            from += CHUNK;
        }
        standing.sort_unstable_by_key(|change| change.seq);
        (standing, newest)
    }

    /// Active bans that `wanted` keeps, latest change first, from before the number `before` on
    /// (`u64::MAX`: from the newest), at most `limit`, each with its number. Only as many bans are
    /// read as it takes.
    pub fn page(
        &self,
        before: u64,
        limit: usize,
        mut wanted: impl FnMut(&Ban) -> bool,
    ) -> Vec<(u64, Arc<Ban>)> {
        let mut page = Vec::new();
        let mut next = before;
        loop {
            let slots = self.slots.lock();
            let last = next.min(slots.newest() + 1);
            let first = last.saturating_sub(CHUNK as u64).max(slots.floor() + 1);
            if last <= first {
                break;
            }
            for seq in (first..last).rev() {
                let active = slots.logged(seq).filter(|slot| slot.is_active());
                if let Some(slot) = active {
                    let ban = self.read(&slots, slot);
                    if wanted(&ban) {
                        page.push((seq, ban));
                        if page.len() == limit {
                            return page;
                        }
                    }
                }
            }
            next = first;
        }
        self.page_of_old(before, limit, &mut wanted, &mut page);
        page
    }

    /// Goes on with bans that last changed longer ago than the log of changes reaches back.
    fn page_of_old(
        &self,
        before: u64,
        limit: usize,
        wanted: &mut impl FnMut(&Ban) -> bool,
        page: &mut Vec<(u64, Arc<Ban>)>,
    ) {
        let mut old = self.unlogged();
        old.retain(|(seq, _)| *seq < before);
        old.sort_unstable_by_key(|(seq, _)| std::cmp::Reverse(*seq));
        for chunk in old.chunks(CHUNK) {
            let slots = self.slots.lock();
            for (seq, id) in chunk {
                // A slot that moved on meanwhile is among those already passed.
                let slot = slots.get(*id).filter(|slot| slot.seq() == *seq);
                let Some(slot) = slot.filter(|slot| slot.is_active()) else {
                    continue;
                };
                let ban = self.read(&slots, slot);
                if wanted(&ban) {
                    page.push((*seq, ban));
                    if page.len() == limit {
                        return;
                    }
                }
            }
        }
    }

    /// Active bans counted by what `key` says of each.
    pub fn tally<K: Eq + std::hash::Hash>(
        &self,
        key: impl Fn(&Ban) -> K,
    ) -> std::collections::HashMap<K, usize> {
        let mut counts = std::collections::HashMap::new();
        for ban in self.bans() {
            *counts.entry(key(&ban)).or_default() += 1;
        }
        counts
    }

    /// Number and slot of every listed ban that is older than the log.
    fn unlogged(&self) -> Vec<(u64, u32)> {
        let mut numbers = Vec::new();
        let mut from = 0;
        loop {
            let slots = self.slots.lock();
            let floor = slots.floor();
            let Some(chunk) = slots.chunk(from, 16 * CHUNK) else {
                return numbers;
            };
            let old = (from as u32..)
                .zip(chunk)
                .filter(|(_, slot)| slot.seq() <= floor);
            let old = old.filter(|(_, slot)| slot.is_active() && !slot.silent);
            numbers.extend(old.map(|(id, slot)| (slot.seq(), id)));
            from += 16 * CHUNK;
        }
    }

    /// Active bans held.
    pub fn len(&self) -> usize {
        self.slots.lock().listed()
    }

    /// No active ban.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Heap bytes held, paths and reasons excepted.
    pub fn bytes(&self) -> usize {
        self.slots.lock().bytes()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock()
    }

    pub(super) fn read(&self, slots: &Slots, slot: &Slot) -> Arc<Ban> {
        Arc::new(slot.ban(slots, &self.names))
    }

    /// Wakes followers, if anything changed; called with the lock released.
    pub(super) fn announce(&self) {
        let newest = self.slots.lock().newest();
        advance(&self.newest, newest);
        if !self.held.load(Ordering::SeqCst) {
            self.settle(newest);
        }
    }
}

/// Wakes who waits, if this is news.
fn advance(known: &watch::Sender<u64>, seq: u64) {
    known.send_if_modified(|known| {
        let news = *known < seq;
        *known = seq.max(*known);
        news
    });
}
