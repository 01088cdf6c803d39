//! Old logs as events in order of time: plain, gzip or zstd by content, several merged.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use flate2::bufread::MultiGzDecoder;
use indicatif::ProgressBar;

use crate::{access_log::format::Format, time::Millis};

/// One log being read.
pub struct Source {
    /// As given.
    pub path: PathBuf,
    /// How its lines read.
    pub format: Format,
    /// Index of what is wanted of it (see `plan`).
    pub target: usize,
    /// Lines read, empty ones apart.
    pub lines: u64,
    /// Lines that say nothing.
    pub unparsed: u64,
    input: Box<dyn BufRead>,
    /// The next event's line and time; `None` at the end.
    head: Option<Millis>,
    line: Vec<u8>,
}

/// Longest line that is looked at, as for the follower.
const MAX_LINE: usize = 8 << 20;
/// What the format is guessed from.
const SAMPLE: usize = 256 << 10;

impl Source {
    /// Opens a log; without a format, its first lines tell.
    pub fn open(
        path: &Path,
        format: Option<Format>,
        target: usize,
        bar: &ProgressBar,
    ) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let input = unpack(bar.wrap_read(file))
            .with_context(|| format!("cannot read {}", path.display()))?;
        let mut input = BufReader::with_capacity(SAMPLE, input);
        let format = match format {
            Some(format) => format,
            None => guess(&mut input, path)?,
        };
        Ok(Self {
            path: path.into(),
            format,
            target,
            lines: 0,
            unparsed: 0,
            input: Box::new(input),
            head: None,
            line: Vec::new(),
        })
    }

    /// Moves to the next line that says something.
    pub fn advance(&mut self) -> anyhow::Result<()> {
        self.head = None;
        let failed = || format!("cannot read {}", self.path.display());
        while let Some(whole) = read_line(&mut *self.input, &mut self.line).with_context(failed)? {
            if self.line.is_empty() && whole {
                continue;
            }
            self.lines += 1;
            let event = whole.then(|| self.format.parse(&self.line).ok()).flatten();
            match event.and_then(|event| event.time) {
                Some(time) => {
                    self.head = Some(time);
                    break;
                }
                None => self.unparsed += 1,
            }
        }
        Ok(())
    }

    /// When the next event happened; `None` at the end.
    pub fn time(&self) -> Option<Millis> {
        self.head
    }

    /// The line of the next event.
    pub fn line(&self) -> &[u8] {
        &self.line
    }
}

/// The source whose next event is the oldest.
pub fn oldest(sources: &[Source]) -> Option<usize> {
    let heads = sources.iter().enumerate();
    heads
        .filter_map(|(at, source)| Some((source.time()?, at)))
        .min()
        .map(|(_, at)| at)
}

/// Bytes on disk, for the progress bar.
pub fn total_bytes(paths: &[PathBuf]) -> u64 {
    paths
        .iter()
        .filter_map(|path| path.metadata().ok())
        .map(|meta| meta.len())
        .sum()
}

fn unpack(file: impl Read + 'static) -> io::Result<Box<dyn Read>> {
    let mut file = BufReader::with_capacity(1 << 20, file);
    let begin = file.fill_buf()?;
    if begin.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(MultiGzDecoder::new(file)));
    }
    if begin.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Ok(Box::new(zstd::Decoder::with_buffer(file)?));
    }
    Ok(Box::new(file))
}

fn guess(input: &mut impl BufRead, path: &Path) -> anyhow::Result<Format> {
    let sample = input
        .fill_buf()
        .with_context(|| format!("cannot read {}", path.display()))?;
    let whole = memchr::memrchr(b'\n', sample).map_or(sample, |end| &sample[..end]);
    let lines = whole
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .take(100);
    match Format::detect(lines) {
        Some(format) => Ok(format),
        None if sample.is_empty() => Ok(Format::Combined),
        None => bail!(
            "{}: what format is this? Name it with --format",
            path.display()
        ),
    }
}

/// Reads one line without its newline; `Some(false)`: it was too long and is cut short.
fn read_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    line.clear();
    let (mut any, mut whole) = (false, true);
    loop {
        let buffer = match input.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if buffer.is_empty() {
            return Ok(any.then_some(whole));
        }
        any = true;
        let end = memchr::memchr(b'\n', buffer);
        let text = &buffer[..end.unwrap_or(buffer.len())];
        if line.len() + text.len() > MAX_LINE {
            whole = false;
        } else if whole {
            line.extend_from_slice(text);
        }
        let used = end.map_or(buffer.len(), |end| end + 1);
        input.consume(used);
        if end.is_some() {
            return Ok(Some(whole));
        }
    }
}
