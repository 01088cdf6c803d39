//! One open log file: whole lines in order, however they were written, and the notice that the
//! file was cut. Knows nothing of paths.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
};

use crate::{access_log::checkpoint::Fingerprint, time::Millis};

/// What a file has to offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// One line without its newline.
    Whole(&'a [u8]),
    /// The beginning of a line longer than `MAX_LINE`.
    TooLong(&'a [u8]),
}

/// How one step of reading went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Lines were handed on, or part of one was read; more than that may be there by now.
    Read,
    /// The same, and that was all there was.
    ReadAll,
    /// Nothing new.
    Idle,
    /// The file was cut or written anew since the last step; nothing was handed on.
    Cut,
}

/// Device and inode.
pub type FileId = (u64, u64);

/// One open file.
#[derive(Debug)]
pub struct Reader {
    file: File,
    /// Which file it is, whatever its name.
    pub id: FileId,
    /// Start of the first line not handed on: where a restart goes on.
    pub start: u64,
    /// What the file began with when last looked at.
    pub fingerprint: Fingerprint,
    /// When it last had something new.
    pub active: Millis,
    read: u64,
    carry: Vec<u8>,
    skipping: bool,
}

/// Bytes of the longest line that is looked at. A client must not be able to make its own line
/// longer: Traefik takes heads of 1 MiB and logs `&` as six letters.
pub const MAX_LINE: usize = 8 << 20;
/// Bytes of one read.
const CHUNK: usize = 1 << 20;
/// Room for what one step holds.
pub const SCRATCH: usize = MAX_LINE + CHUNK;

impl Reader {
    /// Opens at the start of a line.
    pub fn open(file: File, start: u64, now: Millis) -> io::Result<Self> {
        Ok(Self {
            id: id_of(&file)?,
            fingerprint: fingerprint(&file)?,
            file,
            start,
            active: now,
            read: start,
            carry: Vec::new(),
            skipping: false,
        })
    }

    /// Bytes not handed on yet.
    pub fn lag(&self) -> u64 {
        self.file
            .metadata()
            .map_or(0, |meta| meta.len().saturating_sub(self.start))
    }

    /// Reads at most one chunk. `scratch` has [`SCRATCH`] bytes.
    pub fn step(&mut self, scratch: &mut [u8], sink: &mut dyn FnMut(Line<'_>)) -> io::Result<Step> {
        let held = self.carry.len();
        scratch[..held].copy_from_slice(&self.carry);
        let fresh = self
            .file
            .read_at(&mut scratch[held..held + CHUNK], self.read)?;
        if fresh == 0 {
            let cut = self.file.metadata()?.len() < self.read;
            return Ok(if cut { Step::Cut } else { Step::Idle });
        }
        // Only now: had it been cut before the read, the beginning could not be the old one.
        if !self.begins_as_before()? {
            return Ok(Step::Cut);
        }
        self.read += fresh as u64;
        self.lines(&scratch[..held + fresh], sink);
        Ok(match fresh {
            CHUNK => Step::Read,
            _ => Step::ReadAll,
        })
    }

    /// Hands on what stands behind the last newline: of a file nobody writes to any more.
    pub fn finish(&mut self, sink: &mut dyn FnMut(Line<'_>)) {
        if !self.carry.is_empty() {
            sink(Line::Whole(&self.carry));
        }
        self.start = self.read;
        self.carry.clear();
    }

    /// Begins again at the top of a file that was cut.
    pub fn rewind(&mut self) -> io::Result<()> {
        (self.start, self.read, self.skipping) = (0, 0, false);
        self.carry.clear();
        self.fingerprint = fingerprint(&self.file)?;
        Ok(())
    }

    fn lines(&mut self, mut text: &[u8], sink: &mut dyn FnMut(Line<'_>)) {
        let mut at = self.read - text.len() as u64;
        while let Some(end) = memchr::memchr(b'\n', text) {
            let line = &text[..end];
            if std::mem::take(&mut self.skipping) {
                // the end of a line already reported
            } else if end > MAX_LINE {
                sink(Line::TooLong(line));
            } else if !line.is_empty() {
                sink(Line::Whole(line));
            }
            at += end as u64 + 1;
            self.start = at;
            text = &text[end + 1..];
        }
        self.carry.clear();
        if text.len() > MAX_LINE && !self.skipping {
            sink(Line::TooLong(text));
            self.skipping = true;
        }
        if !self.skipping {
            self.carry.extend_from_slice(text);
        }
    }

    fn begins_as_before(&mut self) -> io::Result<bool> {
        let mut bytes = [0; Fingerprint::COVERS as usize];
        let bytes = beginning(&self.file, &mut bytes)?;
        let same = begins_with(bytes, self.fingerprint);
        if same && (bytes.len() as u64) > self.fingerprint.len {
            self.fingerprint = Fingerprint::of(bytes);
        }
        Ok(same)
    }
}

/// Which file this is.
pub fn id_of(file: &File) -> io::Result<FileId> {
    file.metadata().map(|meta| (meta.dev(), meta.ino()))
}

/// Whether these first bytes of a file are those of the fingerprint.
fn begins_with(bytes: &[u8], known: Fingerprint) -> bool {
    bytes
        .get(..known.len as usize)
        .is_some_and(|begin| Fingerprint::of(begin) == known)
}

/// Whether a file begins as the fingerprint says; an empty fingerprint knows nothing.
pub fn matches(file: &File, known: Fingerprint) -> io::Result<bool> {
    let mut bytes = [0; Fingerprint::COVERS as usize];
    Ok(known.len > 0 && begins_with(beginning(file, &mut bytes)?, known))
}

fn fingerprint(file: &File) -> io::Result<Fingerprint> {
    let mut bytes = [0; Fingerprint::COVERS as usize];
    beginning(file, &mut bytes).map(Fingerprint::of)
}

fn beginning<'b>(file: &File, bytes: &'b mut [u8]) -> io::Result<&'b [u8]> {
    let mut held = 0;
    while held < bytes.len() {
        match file.read_at(&mut bytes[held..], held as u64)? {
            0 => break,
            more => held += more,
        }
    }
    Ok(&bytes[..held])
}
