//! How far the publisher is behind the ledger, measured from outside of it: it may hang.

use std::sync::Arc;

use super::ours::FOLLOWER;
use crate::{engine::Engine, time::Millis};

/// How long the oldest change that LAPI has not got has been waiting.
#[derive(Debug)]
pub(super) struct Lag {
    engine: Arc<Engine>,
    since: Option<Millis>,
}

impl Lag {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self {
            engine,
            since: None,
        }
    }

    /// Milliseconds, as of `now`.
    pub(super) fn measure(&mut self, now: Millis) -> Millis {
        let settled = *self.engine.ledger().settled().borrow();
        let behind = self.engine.cursors().get(FOLLOWER) < settled;
        self.since = behind.then(|| self.since.unwrap_or(now));
        self.since.map_or(0, |since| now.saturating_sub(since))
    }
}
