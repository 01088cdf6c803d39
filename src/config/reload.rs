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
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind},
};
use parking_lot::Mutex;
use tokio::{sync::Notify, time};

use crate::tasks::Tasks;

/// How often files are looked at when no event comes: network file systems send none.
const POLL: Duration = Duration::from_secs(2);

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
    /// The same files and what their links lead to: events about others wake nobody.
    own: Mutex<HashSet<PathBuf>>,
    /// Written to since they were last closed.
    unfinished: Mutex<HashSet<PathBuf>>,
    events: Mutex<Option<Events>>,
    woken: Notify,
    changed: Notify,
}

/// The kernel's events for the directories of the followed files: a file that is replaced is
/// another file, but its directory stays.
#[derive(Debug)]
struct Events {
    watcher: RecommendedWatcher,
    directories: HashSet<PathBuf>,
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
            own: Mutex::default(),
            unfinished: Mutex::default(),
            events: Mutex::default(),
            woken: Notify::new(),
            changed: Notify::new(),
        });
        if events {
            *shared.events.lock() = Shared::events(&shared);
        }
        let watch = Self { shared };
        watch.follow(files);
        let (shared, stop) = (watch.shared.clone(), tasks.stopping());
        tasks.service("config watch", move || {
            let (shared, stop) = (shared.clone(), stop.clone());
            async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = shared.run() => {}
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
        let files: Vec<_> = files.into_iter().map(seen).collect();
        *followed = files;
        let own = with_targets(followed.iter().map(|(path, _)| path));
        // The watcher's thread answers below and may be waiting for us above.
        drop(followed);
        let directories = own.iter().filter_map(|path| path.parent());
        let directories = directories.map(Path::to_owned).collect();
        *self.shared.own.lock() = own;
        if let Some(events) = &mut *self.shared.events.lock() {
            events.follow(directories);
        }
    }

    /// Resolves when a followed file has changed and lies still; safe to drop and call again.
    pub async fn changed(&mut self) {
        self.shared.changed.notified().await;
    }
}

impl Shared {
    fn events(shared: &Arc<Self>) -> Option<Events> {
        let weak = Arc::downgrade(shared);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if let Some(shared) = weak.upgrade() {
                shared.note(event);
            }
        });
        match watcher {
            Ok(watcher) => Some(Events {
                watcher,
                directories: HashSet::new(),
            }),
            Err(error) => {
                tracing::warn!(%error, "no file events; files are looked at every two seconds");
                None
            }
        }
    }

    fn note(&self, event: notify::Result<Event>) {
        if let Ok(mut event) = event {
            // A log or a database beside the configuration is written to all the time.
            if matches!(
                event.kind,
                EventKind::Access(_) | EventKind::Modify(ModifyKind::Data(_))
            ) {
                let own = self.own.lock();
                event.paths.retain(|path| own.contains(path));
                if event.paths.is_empty() {
                    return;
                }
            }
            let mut unfinished = self.unfinished.lock();
            match event.kind {
                EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Remove(_) => {
                    event.paths.iter().for_each(|path| {
                        unfinished.remove(path);
                    });
                }
                EventKind::Modify(ModifyKind::Data(_)) => unfinished.extend(event.paths),
                // Looking at the files is no news: it would wake itself for ever.
                EventKind::Access(_) => return,
                _ => {}
            }
        }
        self.woken.notify_one();
    }

    async fn run(&self) {
        loop {
            tokio::select! {
                () = self.woken.notified() => {}
                () = time::sleep(POLL) => {}
            }
            if self.differs() {
                self.settled().await;
                self.changed.notify_one();
            }
        }
    }

    fn differs(&self) -> bool {
        let files = self.files.lock();
        files.iter().any(|(path, seen)| Seen::of(path) != *seen)
    }

    /// Waits until nothing changes any more, and takes that state as the known one.
    async fn settled(&self) {
        let mut quiet = 0;
        loop {
            if self.differs() {
                quiet = 0;
                for (path, seen) in self.files.lock().iter_mut() {
                    *seen = Seen::of(path);
                }
            } else {
                quiet += 1;
            }
            let enough = if self.unfinished() {
                QUIET_UNFINISHED
            } else {
                QUIET
            };
            if quiet >= enough {
                self.unfinished.lock().clear();
                return;
            }
            time::sleep(SETTLE).await;
        }
    }

    fn unfinished(&self) -> bool {
        if self.files.lock().iter().any(|(_, seen)| seen.is_none()) {
            return true;
        }
        let open = self.unfinished.lock();
        self.own.lock().iter().any(|path| open.contains(path))
    }
}

impl Events {
    fn follow(&mut self, wanted: HashSet<PathBuf>) {
        for gone in self.directories.difference(&wanted) {
            // It may be gone already; then so is its watch.
            let _ = self.watcher.unwatch(gone);
        }
        self.directories = wanted
            .into_iter()
            .filter(|directory| {
                self.directories.contains(directory)
                    || self
                        .watcher
                        .watch(directory, RecursiveMode::NonRecursive)
                        .is_ok()
            })
            .collect();
    }
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
