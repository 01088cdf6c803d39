//! Where each file was left: what a follower needs to go on after a restart without losing or
//! doubling a line. Kept in memory and, when given a path, in one small JSON file.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The first bytes of a file, so that a reused inode or a file cut and written anew is not taken
/// for the old one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Bytes it covers, at most [`Fingerprint::COVERS`].
    pub len: u64,
    /// FNV-1a over them: must read the same in every version of this program.
    pub hash: u64,
}

/// Where one file was left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// Why checkpoints could not be kept.
#[derive(Debug, Error)]
pub enum Error {
    /// Reading, writing or renaming the file.
    #[error("checkpoints {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Not the JSON this program writes.
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
    file: Option<Arc<Path>>,
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
    /// In memory only.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// Kept in `file`, read now when it is there.
    pub fn open(file: &Path) -> Result<Self, Error> {
        let failed = |source| Error::File {
            path: file.into(),
            source,
        };
        let list: Vec<Checkpoint> = match fs::read(file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| Error::Damaged {
                path: file.into(),
                source,
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        let this = Self::empty(file);
        this.restore(list);
        Ok(this)
    }

    /// Kept in `file` from now on, whatever stands there.
    pub fn empty(file: &Path) -> Self {
        Self {
            file: Some(file.into()),
            ..Self::default()
        }
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

    /// Writes them down, whole or not at all. Nothing happens in memory mode.
    pub fn save(&self) -> Result<(), Error> {
        let Some(path) = &self.file else {
            return Ok(());
        };
        let failed = |source| Error::File {
            path: path.to_path_buf(),
            source,
        };
        let mut text = serde_json::to_vec(&self.all())
            .map_err(io::Error::from)
            .map_err(failed)?;
        text.push(b'\n');
        let next = path.with_extension("tmp");
        let write = || {
            let mut file = fs::File::create(&next)?;
            file.write_all(&text)?;
            file.sync_data()?;
            fs::rename(&next, path)
        };
        write().map_err(failed)
    }
}
