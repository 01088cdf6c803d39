//! Follows an access log as it grows: woken by inotify, by a poll once a second in any case.
//!
//! `scan` knows files and rotation, `reader` bytes and lines; here they meet the clock, the
//! parser and the engine.

mod reader;
mod scan;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    checkpoint::Checkpoints,
    format::{Format, Unparsed},
    intake::Intake,
};
use crate::time::Clock;
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

/// Wakes a follower when something happens in the directories it looks at.
struct Watch {
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    wake: Arc<Notify>,
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
            () = watch.wake.notified() => tokio::time::sleep(GATHER).await,
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

impl Watch {
    fn new() -> Self {
        let wake = Arc::new(Notify::new());
        let waker = wake.clone();
        let watcher = notify::recommended_watcher(move |_| waker.notify_one());
        if let Err(error) = &watcher {
            warn!(%error, "no file events, access logs are polled");
        }
        Self {
            watcher: watcher.ok(),
            watched: BTreeSet::new(),
            wake,
        }
    }

    /// Watches these directories; answers whether all are.
    fn cover(&mut self, directories: &[PathBuf]) -> bool {
        let Some(watcher) = &mut self.watcher else {
            return false;
        };
        self.watched
            .retain(|old| directories.contains(old) && old.is_dir());
        let mut all = true;
        for directory in directories {
            all &= self.watched.contains(directory) || {
                let watching = watch_one(watcher, directory);
                if watching {
                    self.watched.insert(directory.clone());
                }
                watching
            };
        }
        all
    }
}

fn watch_one(watcher: &mut RecommendedWatcher, directory: &Path) -> bool {
    watcher
        .watch(directory, RecursiveMode::NonRecursive)
        .inspect_err(|error| debug!(path = %directory.display(), %error, "not watched"))
        .is_ok()
}

#[cfg(test)]
mod tests;
