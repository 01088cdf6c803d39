//! Which files a configured path or glob means right now, through rotation, truncation and
//! restarts. Synchronous and without a clock: [`Follower::pump`] is the whole of it.
//!
//! What is exact: every line written before a rename, after it to the old file, and to the new
//! one; with copytruncate every line that is in the copy or in the file afterwards (a line written
//! between logrotate's copy and its truncation is lost by copytruncate itself). Compressed
//! siblings are not read: what was rotated *and* compressed while the follower was away is lost.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use tracing::{info, warn};

use super::reader::{self, FileId, Line, Reader, SCRATCH, Step};
use crate::{
    access_log::checkpoint::{Checkpoint, Checkpoints, Fingerprint},
    time::Millis,
};

/// Everything followed for one configured path.
#[derive(Debug)]
pub struct Follower {
    pattern: PathBuf,
    checkpoints: Checkpoints,
    /// What the pattern meant at the last look.
    paths: Vec<PathBuf>,
    readers: Vec<Reader>,
    scratch: Box<[u8]>,
    /// Nothing was known of this path when we began: older siblings are not ours.
    first_life: bool,
}

/// What one pump left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pumped {
    /// There may be more: pump again before waiting.
    pub more: bool,
    /// Bytes not handed on.
    pub lag: u64,
}

/// How long a file that no longer stands at its path is still read after its last line: its
/// writer may not have reopened yet.
const RETIRE: Millis = 60_000;
/// Rotated files looked at, the newest ones.
const SIBLINGS: usize = 48;

impl Follower {
    /// Begins where `checkpoints` say, at the top of the file when they say nothing.
    pub fn new(pattern: PathBuf, checkpoints: Checkpoints) -> Self {
        Self {
            first_life: checkpoints.of(&pattern).is_empty(),
            pattern,
            checkpoints,
            paths: Vec::new(),
            readers: Vec::new(),
            scratch: vec![0; SCRATCH].into(),
        }
    }

    /// Looks at the paths once and reads at most one chunk of every file.
    pub fn pump(&mut self, now: Millis, sink: &mut dyn FnMut(Line<'_>)) -> Pumped {
        let paths = paths(&self.pattern);
        let ids: Vec<_> = paths.iter().map(|path| id_at(path)).collect();
        let standing: Vec<FileId> = ids.iter().flatten().copied().collect();
        for (path, id) in paths.iter().zip(ids) {
            match id.and_then(|id| self.arrive(path, id, &standing, now)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    warn!(path = %path.display(), %error, "access log not readable");
                }
                _ => {}
            }
        }
        self.paths = paths;
        self.first_life = false;
        // What was rotated away is older: to its end first, so that events come in their order.
        let more =
            self.read_all(&standing, false, now, sink) || self.read_all(&standing, true, now, sink);
        self.retire(&standing, now, sink);
        Pumped {
            more,
            lag: self.readers.iter().map(Reader::lag).sum(),
        }
    }

    #[cfg(test)]
    pub(super) fn open_files(&self) -> Vec<FileId> {
        self.readers.iter().map(|reader| reader.id).collect()
    }

    #[cfg(test)]
    pub(super) fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    /// Directories in which something may happen, as of the last look.
    pub fn directories(&self) -> Vec<PathBuf> {
        let parent = |path: &Path| path.parent().unwrap_or(Path::new(".")).to_path_buf();
        let mut all: Vec<_> = self.paths.iter().map(|path| parent(path)).collect();
        let literal = |path: &&Path| !is_glob(path);
        all.extend(
            self.pattern
                .ancestors()
                .skip(1)
                .find(literal)
                .map(Path::to_path_buf),
        );
        all.sort();
        all.dedup();
        all
    }

    /// Sees to it that the file now at `path` is read, from the right place.
    fn arrive(
        &mut self,
        path: &Path,
        id: FileId,
        standing: &[FileId],
        now: Millis,
    ) -> io::Result<()> {
        let read = |id| self.readers.iter().any(|reader| reader.id == id);
        if read(id) {
            return Ok(());
        }
        let file = File::open(path)?;
        // It may be another one by now.
        let id = reader::id_of(&file)?;
        if read(id) {
            return Ok(());
        }
        // A known file that begins otherwise was cut, or its inode was used again.
        let ghost = match self.known(id) {
            Some(was) if was.offset > 0 && !reader::matches(&file, was.fingerprint)? => {
                Some((was.fingerprint, was.offset))
            }
            _ => None,
        };
        let start = match (self.start_in(&file, id, None)?, self.copied_from(&file)?) {
            (Some(start), _) => start,
            (None, Some(reader)) if !standing.contains(&reader.id) => reader.start,
            (None, _) => return Ok(()),
        };
        let reader = Reader::open(file, start, now)?;
        info!(path = %path.display(), start, "reading access log");
        self.note(&reader);
        self.readers.push(reader);
        self.catch_up(path, ghost, now);
        Ok(())
    }

    /// Reads a chunk of every file that stands at its path, or of the first rotated one that has
    /// something; answers whether there may be more.
    fn read_all(
        &mut self,
        standing: &[FileId],
        which: bool,
        now: Millis,
        sink: &mut dyn FnMut(Line<'_>),
    ) -> bool {
        let mut more = false;
        for at in 0..self.readers.len() {
            if standing.contains(&self.readers[at].id) == which && (which || !more) {
                more |= self.read(at, now, sink);
            }
        }
        more
    }

    /// Reads one chunk; answers whether there may be more.
    fn read(&mut self, at: usize, now: Millis, sink: &mut dyn FnMut(Line<'_>)) -> bool {
        let reader = &mut self.readers[at];
        match reader.step(&mut self.scratch, sink) {
            Ok(step @ (Step::Read | Step::ReadAll)) => {
                reader.active = now;
                let reader = &self.readers[at];
                self.note(reader);
                step == Step::Read
            }
            Ok(Step::Idle) => false,
            Ok(Step::Cut) => {
                let ghost = (reader.fingerprint, reader.start);
                info!(path = %self.pattern.display(), "access log was truncated, reading from its top");
                if let Err(error) = reader.rewind() {
                    warn!(path = %self.pattern.display(), %error, "access log not readable");
                }
                reader.active = now;
                let reader = &self.readers[at];
                self.note(reader);
                for path in paths(&self.pattern) {
                    self.catch_up(&path, Some(ghost), now);
                }
                true
            }
            Err(error) => {
                warn!(path = %self.pattern.display(), %error, "access log not readable");
                false
            }
        }
    }

    /// Reads what rotated files hold that was never read: of the copy that copytruncate made
    /// (`ghost`: how the file began before, and where we stood in it), of a known file that went
    /// on growing, and of files that came and went unseen.
    fn catch_up(&mut self, path: &Path, ghost: Option<(Fingerprint, u64)>, now: Millis) {
        for sibling in siblings(path) {
            if let Err(error) = self.catch_up_with(&sibling, ghost, now)
                && error.kind() != io::ErrorKind::NotFound
            {
                warn!(path = %sibling.display(), %error, "rotated access log not readable");
            }
        }
    }

    fn catch_up_with(
        &mut self,
        sibling: &Path,
        ghost: Option<(Fingerprint, u64)>,
        now: Millis,
    ) -> io::Result<()> {
        let file = File::open(sibling)?;
        let meta = file.metadata()?;
        let id = (meta.dev(), meta.ino());
        if self.readers.iter().any(|reader| reader.id == id) {
            return Ok(());
        }
        let known = self.known(id).is_some();
        let Some(mut start) = self.start_in(&file, id, ghost)? else {
            return Ok(());
        };
        if self.first_life && !known {
            start = meta.len();
        }
        let reader = Reader::open(file, start, now)?;
        self.note(&reader);
        if start < meta.len() {
            info!(path = %sibling.display(), start, "reading rotated access log");
            self.readers.push(reader);
        }
        Ok(())
    }

    /// Where to begin in a file that is not being read; `None` for a copy of one that is.
    fn start_in(
        &self,
        file: &File,
        id: FileId,
        ghost: Option<(Fingerprint, u64)>,
    ) -> io::Result<Option<u64>> {
        let known = self.known(id).map(|was| (was.fingerprint, was.offset));
        for (fingerprint, offset) in known.into_iter().chain(ghost) {
            if reader::matches(file, fingerprint)? {
                return Ok(Some(offset));
            }
        }
        Ok(self.copied_from(file)?.is_none().then_some(0))
    }

    /// The file being read that this one begins like: a backup of it, or copytruncate's copy
    /// before it truncates.
    fn copied_from(&self, file: &File) -> io::Result<Option<&Reader>> {
        for reader in &self.readers {
            if reader::matches(file, reader.fingerprint)? {
                return Ok(Some(reader));
            }
        }
        Ok(None)
    }

    /// Lets go of files that were moved away and have been silent since.
    fn retire(&mut self, standing: &[FileId], now: Millis, sink: &mut dyn FnMut(Line<'_>)) {
        let mut at = 0;
        while at < self.readers.len() {
            let reader = &self.readers[at];
            if standing.contains(&reader.id) || reader.active + RETIRE > now {
                at += 1;
                continue;
            }
            let mut reader = self.readers.remove(at);
            reader.finish(sink);
            self.note(&reader);
        }
    }

    fn known(&self, id: FileId) -> Option<Checkpoint> {
        let all = self.checkpoints.of(&self.pattern);
        all.into_iter().find(|was| (was.dev, was.inode) == id)
    }

    fn note(&self, reader: &Reader) {
        self.checkpoints.put(Checkpoint {
            path: self.pattern.clone(),
            dev: reader.id.0,
            inode: reader.id.1,
            offset: reader.start,
            fingerprint: reader.fingerprint,
        });
    }
}

fn id_at(path: &Path) -> io::Result<FileId> {
    fs::metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

/// The files that a path or glob means now.
fn paths(pattern: &Path) -> Vec<PathBuf> {
    match pattern.to_str() {
        Some(text) if is_glob(pattern) => glob::glob(text)
            .map(|found| {
                found
                    .flatten()
                    .filter(|path| !is_compressed(path))
                    .collect()
            })
            .unwrap_or_default(),
        _ => vec![pattern.to_path_buf()],
    }
}

fn is_glob(path: &Path) -> bool {
    path.to_str()
        .is_some_and(|text| text.contains(['*', '?', '[']))
}

fn is_compressed(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("gz" | "zst" | "xz" | "bz2" | "lz4" | "tmp"))
}

/// `access.log.1`, `access.log-20261121` and the like beside a log, oldest first.
fn siblings(path: &Path) -> Vec<PathBuf> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str()))
    else {
        return Vec::new();
    };
    let mut found: Vec<_> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            let other = entry.file_name();
            let rest = other.to_str().and_then(|other| other.strip_prefix(name));
            rest.is_some_and(|rest| rest.starts_with(['.', '-']))
        })
        .map(|entry| entry.path())
        .filter(|path| !is_compressed(path))
        .filter_map(|path| {
            let meta = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
            Some(((meta.mtime(), meta.mtime_nsec()), path))
        })
        .collect();
    found.sort();
    found.drain(..found.len().saturating_sub(SIBLINGS));
    found.into_iter().map(|(_, path)| path).collect()
}
