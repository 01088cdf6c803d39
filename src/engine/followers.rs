//! Who reads the ledger and how far each has come. A follower sees settled changes only, so that
//! nothing is told to anybody that a crash could take back; its cursor is kept by whoever keeps the
//! state.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Engine, kept::Kept, ledger::Since};

/// How far each follower's receiver has everything, by name.
#[derive(Debug, Default)]
pub struct Cursors {
    known: Mutex<BTreeMap<Arc<str>, u64>>,
    kept: Kept,
}

impl Cursors {
    /// The cursor of a follower; 0 when it never acknowledged anything.
    pub fn get(&self, name: &str) -> u64 {
        self.known.lock().get(name).copied().unwrap_or(0)
    }

    /// The receiver has everything up to `seq`.
    pub fn acknowledge(&self, name: &str, seq: u64) {
        self.known.lock().insert(name.into(), seq);
        self.kept.announce();
    }

    /// How far moves are on disk: once they are, a crash does not bring back what was acknowledged.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// All of them, for keeping.
    pub fn all(&self) -> Vec<(Arc<str>, u64)> {
        let known = self.known.lock();
        known
            .iter()
            .map(|(name, seq)| (name.clone(), *seq))
            .collect()
    }

    /// Puts back what [`all`](Self::all) gave.
    pub fn restore(&self, cursors: impl IntoIterator<Item = (Arc<str>, u64)>) {
        self.known.lock().extend(cursors);
    }
}

/// One reader of the ledger. It sees a change once that is settled.
#[derive(Debug)]
pub struct Follower {
    engine: Arc<Engine>,
    name: Arc<str>,
    position: u64,
    settled: watch::Receiver<u64>,
}

impl Follower {
    /// Goes on from the cursor kept under this name.
    pub fn new(engine: Arc<Engine>, name: &str) -> Self {
        Self {
            position: engine.cursors().get(name),
            settled: engine.ledger().settled(),
            name: name.into(),
            engine,
        }
    }

    /// Goes on from elsewhere.
    pub fn at(&mut self, cursor: u64) {
        self.position = cursor;
    }

    /// Waits until something settled follows the position, answers it (at most `limit` changes)
    /// and moves on. Cancel safe: what was not answered comes again.
    pub async fn next(&mut self, limit: usize) -> Since {
        loop {
            let settled = *self.settled.borrow_and_update();
            let ledger = self.engine.ledger();
            let since = ledger.since_until(self.position, limit, settled);
            match &since {
                Since::Changes { next, .. } if *next == self.position => {}
                Since::Changes { next, .. } => {
                    self.position = *next;
                    return since;
                }
                Since::Snapshot { next, .. } => {
                    ledger.wait_settled(*next).await;
                    self.position = *next;
                    return since;
                }
            }
            // The sender is the engine's, which this follower holds.
            let _ = self.settled.changed().await;
        }
    }

    /// The receiver has everything up to `seq`, a `next` that was answered.
    pub fn acknowledge(&self, seq: u64) {
        self.engine.cursors().acknowledge(&self.name, seq);
    }
}
