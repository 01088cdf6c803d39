//! The only reader of the clock. Everything below takes `now` as an argument.
//!
//! The wall clock is read once, at start; from then on the monotonic clock advances it, so a
//! clock that jumps neither lengthens nor ends a ban while the process runs.

#![expect(
    clippy::disallowed_methods,
    reason = "this is the file that reads the clock"
)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Unix time in milliseconds.
pub type Millis = u64;

/// A wall clock that never jumps. Copy it freely; all copies agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall_at_start: Millis,
    started: Instant,
}

impl Clock {
    /// Reads the wall clock once.
    pub fn start() -> Self {
        Self {
            wall_at_start: wall(),
            started: Instant::now(),
        }
    }

    /// Now, in Unix milliseconds. About 30 ns.
    pub fn now(&self) -> Millis {
        self.wall_at_start + self.started.elapsed().as_millis() as Millis
    }

    /// Seconds since `earlier`, an [`elapsed`](Self::elapsed), for histograms.
    pub fn seconds_since(&self, earlier: Duration) -> f64 {
        self.elapsed().saturating_sub(earlier).as_secs_f64()
    }

    /// Time since the start of this process, as exact as the machine has it.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// How long this process has run, in milliseconds.
    pub fn uptime(&self) -> Millis {
        self.started.elapsed().as_millis() as Millis
    }

    /// The wall clock as it stands now, for noticing that it drifted from [`Clock::now`].
    pub fn wall(&self) -> Millis {
        wall()
    }
}

/// A time as RFC 3339, UTC; `None` for one that no calendar knows.
pub fn rfc3339(at: Millis) -> Option<String> {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(at).ok()?).ok()?;
    Some(at.to_string())
}

fn wall() -> Millis {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as Millis)
}
