//! Follows an access log as it grows: woken by inotify, by a poll once a second in any case.
//!
//! `scan` knows files and rotation, `reader` bytes and lines; here they meet the clock, the
//! parser and the engine.

mod reader;
mod scan;

use std::{future, io, path::PathBuf, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    checkpoint::Checkpoints,
    format::{Format, Unparsed},
    intake::Intake,
};
use crate::{directories::Directories, time::Clock};
pub use reader::Line;
pub use scan::Follower;

/// One log to follow.
#[derive(Clone, Debug)]
pub struct Follow {
    /// File or glob, absolute.
    pub path: PathBuf,
    /// How its lines read.
    pub format: Format,
    /// Where its events go.
    pub intake: Arc<Intake>,
    /// Where it was left, and where to note how far it got.
    pub checkpoints: Checkpoints,
    /// The clock.
    pub clock: Clock,
    /// Ends it.
    pub stop: CancellationToken,
}

/// Without any event: files are looked at this often all the same.
const POLL: Duration = Duration::from_secs(1);
/// The same where directories cannot be watched (yet).
const POLL_UNWATCHED: Duration = Duration::from_millis(250);
/// After a wake: lets a burst of single lines become one read.
const GATHER: Duration = Duration::from_millis(5);

/// Follows until told to stop. Reads are synchronous on purpose: each is at most one chunk of what
/// was just written, hence in the page cache, and the task yields after every one.
pub async fn follow(this: Follow) {
    let mut follower = Follower::new(this.path.clone(), this.checkpoints.clone());
    let mut watch = Watch::new();
    let mut lag = Lag {
        intake: this.intake.clone(),
        shown: 0,
    };
    while !this.stop.is_cancelled() {
        let now = this.clock.now();
        let pumped = {
            let _reading = this.checkpoints.still();
            follower.pump(now, &mut |line| this.take(line))
        };
        lag.show(pumped.lag);
        if pumped.more {
            tokio::task::yield_now().await;
            continue;
        }
        let all_watched = watch.cover(&follower.directories());
        let poll = if all_watched { POLL } else { POLL_UNWATCHED };
        tokio::select! {
            () = this.stop.cancelled() => {}
            () = tokio::time::sleep(poll) => {}
            () = watch.happened() => {}
        }
    }
}

impl Follow {
    fn take(&self, line: Line<'_>) {
        let now = self.clock.now();
        match line {
            Line::Whole(line) => match self.format.parse(line) {
                Ok(event) => {
                    self.intake.take(&event, now);
                }
                Err(why) => self.intake.unparsed(line, why, now),
            },
            Line::TooLong(begin) => self.intake.unparsed(begin, Unparsed::TooLong, now),
        }
    }
}

/// This follower's part of `jailgate_access_log_lag_bytes`.
struct Lag {
    intake: Arc<Intake>,
    shown: i64,
}

impl Lag {
    fn show(&mut self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.intake
            .metrics()
            .log_lag_bytes
            .inc_by(bytes - self.shown);
        self.shown = bytes;
    }
}

impl Drop for Lag {
    fn drop(&mut self) {
        self.show(0);
    }
}

/// Wakes a follower when something happens in the directories it looks at.
struct Watch(Option<Directories>);

impl Watch {
    fn new() -> Self {
        Self(Directories::new().map_or_else(|error| Self::none(&error), Some))
    }

    fn none(error: &io::Error) -> Option<Directories> {
        warn!(%error, "no file events, access logs are polled");
        None
    }

    /// Watches these directories; answers whether all are.
    fn cover(&mut self, wanted: &[PathBuf]) -> bool {
        self.0.as_mut().is_some_and(|watch| watch.cover(wanted))
    }

    async fn happened(&mut self) {
        let Some(watch) = &mut self.0 else {
            return future::pending().await;
        };
        let told = async {
            watch.happened(GATHER).await?;
            watch.take(|_| {})
        };
        if let Err(error) = told.await {
            self.0 = Self::none(&error);
        }
    }
}

#[cfg(test)]
mod tests;
