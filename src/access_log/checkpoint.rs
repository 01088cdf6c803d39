//! Where each file was left: what a follower needs to go on after a restart without losing or
//! doubling a line. Held in memory; the state on disk keeps it together with the counters that
//! belong to it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};
use serde::Deserialize;
use thiserror::Error;

/// The first bytes of a file, so that a reused inode or a file cut and written anew is not taken
/// for the old one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Fingerprint {
    /// Bytes it covers, at most [`Fingerprint::COVERS`].
    pub len: u64,
    /// FNV-1a over them: must read the same in every version of this program.
    pub hash: u64,
}

/// Where one file was left.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Checkpoint {
    /// The followed path (for a rotated file: the path it had when it was followed).
    pub path: PathBuf,
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub inode: u64,
    /// Start of the first line not handed on.
    pub offset: u64,
    /// What the file began with.
    pub fingerprint: Fingerprint,
}

/// Why checkpoints of an earlier version could not be read.
#[derive(Debug, Error)]
pub enum Error {
    /// Reading the file.
    #[error("checkpoints {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Not the JSON that version wrote.
    #[error("checkpoints {path} are damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
}

/// Every checkpoint of the process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Checkpoints {
    /// Held while lines are read and counted, up to noting how far.
    reading: Arc<Mutex<()>>,
    /// By followed path, the newest last.
    known: Arc<Mutex<BTreeMap<PathBuf, Vec<Checkpoint>>>>,
}

/// Rotated files remembered per path: enough to recognise those of one rotation scheme.
const KEEP: usize = 64;

impl Fingerprint {
    /// How much of a file's beginning is looked at.
    pub const COVERS: u64 = 1024;

    /// Of the first bytes of a file.
    pub fn of(bytes: &[u8]) -> Self {
        let fnv = |hash: u64, b: &u8| (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
        Self {
            len: bytes.len() as u64,
            hash: bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv),
        }
    }
}

impl Checkpoints {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What an earlier version kept in a file of its own; nothing when that is not there.
    pub fn of_file(file: &Path) -> Result<Vec<Checkpoint>, Error> {
        match fs::read(file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| Error::Damaged {
                path: file.into(),
                source,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(Error::File {
                path: file.into(),
                source,
            }),
        }
    }

    /// Waits until no line is between being read and being noted, and keeps it so: what is counted
    /// meanwhile belongs to exactly these places.
    pub fn still(&self) -> MutexGuard<'_, ()> {
        self.reading.lock()
    }

    /// Takes in what was kept elsewhere.
    pub fn restore(&self, list: Vec<Checkpoint>) {
        list.into_iter().for_each(|checkpoint| self.put(checkpoint));
    }

    /// All of them, for keeping elsewhere.
    pub fn all(&self) -> Vec<Checkpoint> {
        self.known.lock().values().flatten().cloned().collect()
    }

    /// Those of one followed path, the newest last.
    pub fn of(&self, path: &Path) -> Vec<Checkpoint> {
        self.known.lock().get(path).cloned().unwrap_or_default()
    }

    /// Notes where a file stands; the same file's earlier note goes.
    pub fn put(&self, checkpoint: Checkpoint) {
        let mut known = self.known.lock();
        let list = known.entry(checkpoint.path.clone()).or_default();
        list.retain(|old| (old.dev, old.inode) != (checkpoint.dev, checkpoint.inode));
        list.push(checkpoint);
        if list.len() > KEEP {
            list.remove(0);
        }
    }
}
