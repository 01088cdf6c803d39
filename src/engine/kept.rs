//! How far the changes of something are on disk. Whoever keeps the state says so; whoever must not
//! tell of a change that a crash could take back waits. Bans have the ledger's own numbers instead.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// Changes by their number, and how many of them are kept.
#[derive(Debug, Default)]
pub struct Kept {
    changed: watch::Sender<u64>,
    kept: watch::Sender<u64>,
    held: AtomicBool,
}

impl Kept {
    /// The newest change's number, for waiting.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// As [`Ledger::hold`](super::Ledger::hold): `true` when changes wait for [`keep`](Self::keep).
    pub fn hold(&self, held: bool) {
        self.held.store(held, Ordering::SeqCst);
        if !held {
            self.keep(*self.changed.borrow());
        }
    }

    /// Everything as of this change is on disk.
    pub fn keep(&self, change: u64) {
        self.kept.send_modify(|kept| *kept = change.max(*kept));
    }

    /// Waits until every change made so far is on disk, or no disk is kept.
    pub async fn wait_kept(&self) {
        let change = *self.changed.borrow();
        // The sender lives as long as `self`.
        let _ = self.kept.subscribe().wait_for(|kept| *kept >= change).await;
    }

    /// Something has changed.
    pub(super) fn announce(&self) {
        self.changed.send_modify(|change| *change += 1);
        if !self.held.load(Ordering::SeqCst) {
            self.keep(*self.changed.borrow());
        }
    }
}
