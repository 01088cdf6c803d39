//! Notices that a file of the configuration changed and has been written to its end. Loading and
//! swapping are the caller's.
//!
//! The kernel's events only wake it: what counts is that a file's identity, size or time differ
//! from what was seen before, so a lost event costs one polling period and nothing more.

mod restart;
#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    fs, future, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time};

use crate::{
    directories::{Directories, Happened},
    tasks::Tasks,
};

/// How often files are looked at when no event comes: network file systems send none.
const POLL: Duration = Duration::from_secs(2);

/// What is written line by line beside them, a log for one, wakes it ten times a second at most.
const GATHER: Duration = Duration::from_millis(100);

/// A file counts as written when it has not changed for this long …
const SETTLE: Duration = Duration::from_millis(150);

/// … for this many times; many more while somebody still has it open for writing, or it is gone.
const QUIET: u32 = 2;
const QUIET_UNFINISHED: u32 = 66;

/// Tells when one of the followed files changed.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    files: Mutex<Vec<(PathBuf, Option<Seen>)>>,
    /// Other files are followed from now on.
    other: Notify,
    changed: Notify,
}

/// Looks at the followed files when something happens to them.
struct Watcher {
    shared: Arc<Shared>,
    /// The directories of the followed files: a file that is replaced is another file, but its
    /// directory stays.
    directories: Option<Directories>,
    /// The followed files and what their links lead to: what happens to others is no news.
    own: HashSet<PathBuf>,
    /// Written to since they were last closed.
    unfinished: HashSet<PathBuf>,
}

/// What tells one state of a file from another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Watch {
    /// Follows these files (`Config::watched`) from their present state on.
    pub fn start(tasks: &Tasks, files: Vec<PathBuf>) -> Self {
        Self::with(tasks, files, true)
    }

    fn with(tasks: &Tasks, files: Vec<PathBuf>, events: bool) -> Self {
        let shared = Arc::new(Shared {
            files: Mutex::default(),
            other: Notify::new(),
            changed: Notify::new(),
        });
        let watch = Self { shared };
        watch.follow(files);
        let (shared, stop) = (watch.shared.clone(), tasks.stopping());
        tasks.service("config watch", move || {
            let (shared, stop) = (shared.clone(), stop.clone());
            async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = Watcher::new(shared, events).run() => {}
                }
            }
        });
        watch
    }

    /// Follows other files from now on: call it after each load.
    pub fn follow(&self, files: Vec<PathBuf>) {
        let mut followed = self.shared.files.lock();
        let seen = |path: PathBuf| {
            let known = followed.iter().find(|(known, _)| *known == path);
            let seen = known.map_or_else(|| Seen::of(&path), |(_, seen)| seen.clone());
            (path, seen)
        };
        *followed = files.into_iter().map(seen).collect();
        self.shared.other.notify_one();
    }

    /// Resolves when a followed file has changed and lies still; safe to drop and call again.
    pub async fn changed(&mut self) {
        self.shared.changed.notified().await;
    }
}

impl Watcher {
    fn new(shared: Arc<Shared>, events: bool) -> Self {
        let directories = events.then(Directories::new).transpose();
        Self {
            directories: directories.unwrap_or_else(|error| none(&error)),
            shared,
            own: HashSet::new(),
            unfinished: HashSet::new(),
        }
    }

    async fn run(mut self) {
        let shared = self.shared.clone();
        let mut poll = time::interval(POLL);
        loop {
            let look = tokio::select! {
                () = shared.other.notified() => true,
                _ = poll.tick() => true,
                () = happened(&mut self.directories) => false,
            };
            if !self.take() && !look {
                continue;
            }
            self.cover();
            if self.differs() {
                self.settled().await;
                shared.changed.notify_one();
            }
        }
    }

    /// Watches where the followed files are now.
    fn cover(&mut self) {
        self.own = with_targets(self.shared.files.lock().iter().map(|(path, _)| path));
        let parents: HashSet<_> = self.own.iter().filter_map(|path| path.parent()).collect();
        let parents: Vec<_> = parents.into_iter().map(Path::to_owned).collect();
        if let Some(directories) = &mut self.directories {
            directories.cover(&parents);
        }
    }

    /// Notes who is being written to; answers whether there was news.
    fn take(&mut self) -> bool {
        let Some(directories) = &mut self.directories else {
            return false;
        };
        let (own, unfinished) = (&self.own, &mut self.unfinished);
        let mut news = false;
        let taken = directories.take(|happened| {
            news |= match happened {
                Happened::Written(path) if own.contains(&path) => unfinished.insert(path),
                Happened::Done(path) if own.contains(&path) => {
                    unfinished.remove(&path);
                    true
                }
                // A log or a database beside the configuration is written to all the time.
                Happened::Written(_) | Happened::Done(_) => false,
                Happened::Other => true,
            };
        });
        if let Err(error) = taken {
            self.directories = none(&error);
        }
        news
    }

    fn differs(&self) -> bool {
        let files = self.shared.files.lock();
        files.iter().any(|(path, seen)| Seen::of(path) != *seen)
    }

    /// Waits until nothing changes any more, and takes that state as the known one.
    async fn settled(&mut self) {
        let mut quiet = 0;
        loop {
            if self.differs() {
                quiet = 0;
                for (path, seen) in self.shared.files.lock().iter_mut() {
                    *seen = Seen::of(path);
                }
            } else {
                quiet += 1;
            }
            let enough = match self.is_unfinished() {
                true => QUIET_UNFINISHED,
                false => QUIET,
            };
            if quiet >= enough {
                self.unfinished.clear();
                return;
            }
            time::sleep(SETTLE).await;
            self.take();
        }
    }

    fn is_unfinished(&self) -> bool {
        let gone = |(_, seen): &(_, Option<Seen>)| seen.is_none();
        self.shared.files.lock().iter().any(gone)
            || self.own.iter().any(|path| self.unfinished.contains(path))
    }
}

/// Resolves when something happened, and the rest of it has had its time.
async fn happened(directories: &mut Option<Directories>) {
    let Some(watch) = directories else {
        return future::pending().await;
    };
    if let Err(error) = watch.happened(GATHER).await {
        *directories = none(&error);
    }
}

fn none(error: &io::Error) -> Option<Directories> {
    tracing::warn!(%error, "no file events; files are looked at every two seconds");
    None
}

impl Seen {
    fn of(path: &Path) -> Option<Self> {
        let data = fs::metadata(path).ok()?;
        Some(Self {
            device: data.dev(),
            inode: data.ino(),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
        })
    }
}

/// The files and, where links lead to them, the real ones.
fn with_targets<'a>(files: impl Iterator<Item = &'a PathBuf>) -> HashSet<PathBuf> {
    files
        .flat_map(|file| [Some(file.clone()), fs::canonicalize(file).ok()])
        .flatten()
        .collect()
}
