//! How often the publisher does what, and how long it waits after failures.

use std::time::Duration;

use crate::{config::CrowdsecPublish, time::Millis};

/// Waits after a failure: 1 s, 2 s, … at most this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often what is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Between two batches.
    pub(super) batch: Duration,
    /// Between two looks at what LAPI holds: it lets go of old alerts every minute. A ban younger
    /// than this is on its way and not missing.
    pub(super) check: Millis,
}

impl Pace {
    pub(super) fn new(config: &CrowdsecPublish) -> Self {
        Self {
            batch: config.interval,
            check: config.check_interval.as_millis() as Millis,
        }
    }
}

/// How long to wait after so many failures in a row.
pub(super) fn backoff(failures: u32) -> Duration {
    Duration::from_secs(1 << (failures.clamp(1, 6) - 1)).min(PATIENCE)
}
