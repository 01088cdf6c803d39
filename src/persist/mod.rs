//! The state on disk: bans with their lifts, how often clients were banned, counters together with
//! the places in logs they belong to, and how far each follower has come. One thread writes, off
//! the request path; `schema` owns the file, `store` what is written and read, `writer` when.
//!
//! Nobody is told of a change before it is here (`Ledger::settle`), unless the disk fails.

pub mod archive;

mod rows;
mod schema;
mod store;
mod writer;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    engine::Engine,
    tasks::Tasks,
    telemetry::{Metrics, Status},
    time::Clock,
};
pub use archive::{Archive, Ended};
use writer::Writer;

/// The state cannot be kept in this file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it.
    #[error("state {path}: another jailgate is running with this file")]
    Taken {
        /// The database.
        path: PathBuf,
    },
    /// A later jailgate wrote it.
    #[error(
        "state {path}: written by a newer jailgate (schema {found}, this one knows {}); use that \
         version, or another file",
        schema::VERSION
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i32,
    },
    /// A database of something else.
    #[error("state {path}: a database, but not jailgate's; name another file")]
    Foreign {
        /// The database.
        path: PathBuf,
    },
    /// The file was taken away while it was in use.
    #[error("state {path}: the file is gone")]
    Gone {
        /// The database.
        path: PathBuf,
    },
    /// The file system.
    #[error("state {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// SQLite.
    #[error("state {path}")]
    Database {
        /// The database.
        path: PathBuf,
        /// What it said.
        #[source]
        source: rusqlite::Error,
    },
}

/// Where one access log was left: everything before `offset` is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The followed path.
    pub path: PathBuf,
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub inode: u64,
    /// Start of the first line not counted.
    pub offset: u64,
    /// Bytes of the beginning that the hash covers.
    pub begin_len: u64,
    /// Hash of what the file began with.
    pub begin_hash: u64,
}

/// What a writer needs.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The database.
    pub path: PathBuf,
    /// How long ended bans are kept.
    pub keep: Duration,
    /// Whose state it is.
    pub engine: Arc<Engine>,
    /// The clock.
    pub clock: Clock,
    /// Errors and lag.
    pub metrics: Arc<Metrics>,
    /// How the disk is doing.
    pub status: Status,
}

/// Stops every reader of logs, hands over where each is, and lets them go on once the function
/// given has returned: what it takes from the engine belongs to these very places.
pub type Instant = Box<dyn Fn(&mut dyn FnMut(Vec<Place>)) + Send>;

/// The state, restored and not written yet.
pub struct State {
    writer: Writer,
    places: Vec<Place>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

/// The writer's thread.
#[derive(Debug)]
pub struct Running {
    stop: CancellationToken,
    ended: oneshot::Receiver<()>,
    archive: Archive,
}

impl State {
    /// Opens the file and puts what it holds into the engine; call it before anything is served or
    /// followed. A damaged file is set aside; a disk that fails is tried again later, and bans are
    /// held in memory meanwhile. Only a file that is not ours to write is an error.
    pub fn open(setup: Setup) -> Result<Self, Error> {
        let (writer, places) = Writer::open(setup)?;
        Ok(Self { writer, places })
    }

    /// Where access logs were left.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Takes over places that were kept elsewhere so far; answers whether they are on disk.
    pub fn adopt(&mut self, places: Vec<Place>) -> bool {
        let kept = self.writer.adopt(&places);
        self.places = places;
        kept
    }

    /// Starts to write, on a thread of its own.
    pub fn start(self, instant: Instant) -> std::io::Result<Running> {
        let stop = CancellationToken::new();
        let (ending, ended) = oneshot::channel();
        let (asking, mut asked) = mpsc::channel(16);
        let (mut writer, stopping) = (self.writer, stop.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        Tasks::thread("state".to_owned(), move || {
            runtime.block_on(writer.run(&instant, &mut asked, stopping));
            drop(writer);
            // Nobody waits any more when the program ends by itself.
            let _ = ending.send(());
        })?;
        Ok(Running {
            stop,
            ended,
            archive: Archive(asking),
        })
    }
}

impl Running {
    /// By which people ask.
    pub fn archive(&self) -> Archive {
        self.archive.clone()
    }

    /// Writes everything a last time, at most for `grace`; call it when nothing else runs.
    pub async fn close(self, grace: Duration) -> bool {
        self.stop.cancel();
        tokio::time::timeout(grace, self.ended).await.is_ok()
    }
}

/// What a database error is about.
fn of_database(path: &Path) -> impl Fn(rusqlite::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Database {
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests;
