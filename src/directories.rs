//! What happens in directories, told by inotify. Events wait in the kernel until they are asked
//! for: a log that is written to line by line has one event there, and wakes nobody again.

use std::{
    collections::HashMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt};
use inotify::{Event, EventMask, EventStream, Inotify, WatchDescriptor, WatchMask};
use tokio::time;

/// Watched directories. Also those that are gone are given, and are watched when they are back.
#[derive(Debug)]
pub struct Directories {
    events: EventStream<Vec<u8>>,
    /// Taken from the kernel to see that there is something, and not handed on yet.
    first: Option<Event<OsString>>,
    /// Two of them may be one directory, by a link.
    watched: HashMap<PathBuf, WatchDescriptor>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// This file was written to and is still open.
    Written(PathBuf),
    /// This file was closed by who could write to it, or is not there any more.
    Done(PathBuf),
    /// Anything else, or more than the kernel could hold.
    Other,
}

/// Bytes of one read: some hundred events, or one with the longest name there is.
const BUFFER: usize = 4096;

/// Who only reads makes no event: looking at what changed would be news otherwise.
const MASK: WatchMask = WatchMask::MODIFY
    .union(WatchMask::CLOSE_WRITE)
    .union(WatchMask::ATTRIB)
    .union(WatchMask::CREATE)
    .union(WatchMask::DELETE)
    .union(WatchMask::MOVE)
    .union(WatchMask::DELETE_SELF)
    .union(WatchMask::MOVE_SELF)
    .union(WatchMask::ONLYDIR);

impl Directories {
    /// Watches none yet.
    ///
    /// # Errors
    /// The system gives this user no more of them (`fs.inotify.max_user_instances`).
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            events: Inotify::init()?.into_event_stream(vec![0; BUFFER])?,
            first: None,
            watched: HashMap::new(),
        })
    }

    /// Watches these and no others from now on; answers whether all of them are.
    pub fn cover(&mut self, wanted: &[PathBuf]) -> bool {
        let mut watches = self.events.watches();
        let all =
            |watched: &HashMap<PathBuf, _>| wanted.iter().all(|path| watched.contains_key(path));
        if all(&self.watched) && self.watched.len() == wanted.len() {
            return true;
        }
        let gone = self.watched.extract_if(|path, _| !wanted.contains(path));
        let gone: Vec<_> = gone.map(|(_, watch)| watch).collect();
        for watch in gone {
            if self.watched.values().all(|other| *other != watch) {
                // It may be gone already; then so is its watch.
                let _ = watches.remove(watch);
            }
        }
        for path in wanted {
            if !self.watched.contains_key(path)
                && let Ok(watch) = watches.add(path, MASK)
            {
                self.watched.insert(path.clone(), watch);
            }
        }
        all(&self.watched)
    }

    /// Waits until something happens and lets more of it gather for so long; [`Self::take`] it then.
    /// Safe to drop and call again.
    ///
    /// # Errors
    /// The kernel's; what happens later may never be told.
    pub async fn happened(&mut self, gather: Duration) -> io::Result<()> {
        if self.first.is_none() {
            self.first = self.events.next().await.transpose()?;
        }
        time::sleep(gather).await;
        Ok(())
    }

    /// Hands on all that has happened, without waiting.
    ///
    /// # Errors
    /// The kernel's, as before.
    pub fn take(&mut self, mut each: impl FnMut(Happened)) -> io::Result<()> {
        while let Some(event) = self.waiting()? {
            let here = self.watched.iter().filter(|(_, watch)| **watch == event.wd);
            tell(&event, here.map(|(path, _)| path.as_path()), &mut each);
            let ends = EventMask::MOVE_SELF | EventMask::IGNORED;
            if event.mask.intersects(ends) {
                // What stands at that path from now on is another one.
                self.watched.retain(|_, watch| *watch != event.wd);
                let _ = self.events.watches().remove(event.wd);
            }
        }
        Ok(())
    }

    fn waiting(&mut self) -> io::Result<Option<Event<OsString>>> {
        match self.first.take() {
            Some(event) => Ok(Some(event)),
            None => self.events.next().now_or_never().flatten().transpose(),
        }
    }
}

fn tell<'p>(
    event: &Event<OsString>,
    directories: impl Iterator<Item = &'p Path>,
    each: &mut impl FnMut(Happened),
) {
    let done = EventMask::CLOSE_WRITE | EventMask::DELETE | EventMask::MOVED_FROM;
    let kind = match event.mask {
        mask if mask.intersects(EventMask::MODIFY) => Happened::Written,
        mask if mask.intersects(done) => Happened::Done,
        _ => return each(Happened::Other),
    };
    let name = event.name.as_deref().unwrap_or_default();
    for directory in directories {
        each(kind(directory.join(name)));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::Write,
        os::unix::fs::symlink,
    };

    use tempfile::TempDir;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    struct Watched {
        root: TempDir,
        directories: Directories,
    }

    /// The directory `logs` and this link to it, watched.
    fn watched(link: Option<&str>) -> Watched {
        let root = tempfile::tempdir().unwrap();
        let logs = root.path().join("logs");
        fs::create_dir(&logs).unwrap();
        let mut this = Watched {
            directories: Directories::new().unwrap(),
            root,
        };
        let mut wanted = vec![logs];
        if let Some(link) = link {
            symlink("logs", this.path(link)).unwrap();
            wanted.push(this.path(link));
        }
        assert!(this.directories.cover(&wanted));
        this
    }

    impl Watched {
        fn path(&self, name: &str) -> PathBuf {
            self.root.path().join(name)
        }

        /// All that is told next.
        async fn told(&mut self) -> Vec<Happened> {
            let gather = Duration::from_millis(20);
            let happened = self.directories.happened(gather);
            let happened = time::timeout(SOON, happened).await;
            happened.expect("nothing was told").unwrap();
            let mut all = Vec::new();
            self.directories.take(|one| all.push(one)).unwrap();
            all
        }

        fn cover_logs(&mut self) -> bool {
            let logs = self.path("logs");
            self.directories.cover(&[logs])
        }
    }

    #[tokio::test]
    async fn a_file_written_line_by_line_is_told_once_and_reading_it_never() {
        let mut watched = watched(None);
        let log = watched.path("logs/access.log");
        let mut file = File::create(&log).unwrap();
        for _ in 0..100 {
            file.write_all(b"line\n").unwrap();
        }
        let told = watched.told().await;
        assert_eq!(told, [Happened::Other, Happened::Written(log.clone())]);
        fs::read(&log).unwrap();
        drop(file);
        assert_eq!(watched.told().await, [Happened::Done(log)]);
    }

    #[tokio::test]
    async fn what_happens_is_told_by_every_name_of_a_directory() {
        let mut watched = watched(Some("link"));
        let names = [
            watched.path("link/access.log"),
            watched.path("logs/access.log"),
        ];
        let done = |mut told: Vec<Happened>| {
            told.retain(|one| matches!(one, Happened::Done(_)));
            told.sort_by_key(|one| format!("{one:?}"));
            told
        };
        fs::write(&names[0], "line\n").unwrap();
        let both = names.each_ref().map(|name| Happened::Done(name.clone()));
        assert_eq!(done(watched.told().await), both);
        // One of the names is no longer asked for.
        assert!(watched.cover_logs());
        fs::write(&names[0], "line\n").unwrap();
        assert_eq!(done(watched.told().await), both[1..]);
    }

    #[tokio::test]
    async fn a_directory_that_is_gone_or_moved_is_watched_when_it_is_back() {
        let mut watched = watched(None);
        for moved in [false, true] {
            match moved {
                true => fs::rename(watched.path("logs"), watched.path("old")).unwrap(),
                false => fs::remove_dir_all(watched.path("logs")).unwrap(),
            }
            watched.told().await;
            assert!(!watched.cover_logs(), "moved: {moved}");
            fs::create_dir(watched.path("logs")).unwrap();
            assert!(watched.cover_logs(), "moved: {moved}");
            let log = watched.path("logs/access.log");
            fs::write(&log, "line\n").unwrap();
            let told = watched.told().await;
            assert!(told.contains(&Happened::Done(log)), "{told:?}");
        }
        fs::write(watched.path("old/access.log"), "line\n").unwrap();
        let quiet = Duration::from_millis(100);
        let told = watched.directories.happened(Duration::ZERO);
        assert!(time::timeout(quiet, told).await.is_err());
    }

    #[tokio::test]
    async fn nothing_is_lost_when_the_wait_is_given_up() {
        let mut watched = watched(None);
        let log = watched.path("logs/access.log");
        fs::write(&log, "line\n").unwrap();
        let happened = watched.directories.happened(SOON);
        let given_up = time::timeout(Duration::from_millis(50), happened).await;
        assert!(given_up.is_err());
        assert!(watched.told().await.contains(&Happened::Done(log)));
    }
}
