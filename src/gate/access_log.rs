//! jailgate's own access log: one line a request, text (`combined` with what jailgate adds) or
//! JSON, written by a thread of its own. Off costs one branch a request. It never holds
//! `Authorization` or cookies, and nothing a client sends can start a second line.

use std::{
    convert::Infallible,
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Response, Version, header};
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::exchange::{Asked, Body, Exchange};
use crate::{
    config::{AccessLogTarget, Log},
    engine::Reason,
    tasks::Tasks,
    telemetry::privacy::logged_address,
    time::{Clock, Millis},
};

/// Lines that may wait for the disk; more are dropped and counted.
const QUEUE: usize = 8192;

/// Where lines go. Clones share one writer, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct AccessLog {
    lines: SyncSender<Line>,
    lost: Arc<AtomicU64>,
    json: bool,
    target: AccessLogTarget,
}

#[derive(Debug)]
enum Line {
    Text(String),
    Reopen,
}

/// One request's line in the making. Written when the response is handed over or given up.
#[derive(Debug)]
pub struct Record {
    log: AccessLog,
    clock: Clock,
    began: Millis,
    peer: Option<IpAddr>,
    version: Version,
    asked: Asked,
    referer: Option<HeaderValue>,
    status: AtomicU16,
    bytes: AtomicU64,
    broken: AtomicBool,
    judged: Mutex<Judged>,
}

/// What the guard and the router add.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// The client, once established.
    pub client: Option<IpAddr>,
    /// The jail that refused.
    pub jail: Option<Arc<str>>,
    /// Why.
    pub reason: Option<Reason>,
    /// Where it was sent.
    pub service: Option<Arc<str>>,
}

impl AccessLog {
    /// Starts the writer; `None` when the log is off or its file cannot be opened (said in the log).
    pub fn open(log: &Log) -> Option<Self> {
        let out = match &log.access {
            AccessLogTarget::Off => return None,
            AccessLogTarget::Stdout => Out::Stdout(io::stdout()),
            AccessLogTarget::File(path) => Out::File(append(path)?, path.clone()),
        };
        let (lines, queue) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            out,
            lost: lost.clone(),
        };
        if let Err(error) = Tasks::thread("access-log".to_owned(), move || writer.run(&queue)) {
            tracing::error!(%error, "the access log's thread cannot be started");
            return None;
        }
        Some(Self {
            lines,
            lost,
            json: log.json,
            target: log.access.clone(),
        })
    }

    /// Opens the file anew, after it was moved away.
    pub fn reopen(&self) {
        let _ = self.lines.try_send(Line::Reopen);
    }

    /// Whether it writes as this configuration wants it.
    pub fn serves(&self, log: &Log) -> bool {
        self.json == log.json && self.target == log.access
    }

    fn send(&self, line: String) {
        if self.lines.try_send(Line::Text(line)).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}

fn append(path: &Path) -> Option<File> {
    match OpenOptions::new().create(true).append(true).open(path) {
        Ok(file) => Some(file),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "the access log cannot be opened");
            None
        }
    }
}

struct Writer {
    out: Out,
    lost: Arc<AtomicU64>,
}

enum Out {
    Stdout(io::Stdout),
    File(File, PathBuf),
}

impl Writer {
    /// Writes batches until nobody can send any more.
    fn run(mut self, queue: &Receiver<Line>) {
        let mut batch = String::new();
        while let Ok(first) = queue.recv() {
            for line in std::iter::once(first).chain(queue.try_iter().take(1024)) {
                match line {
                    Line::Text(text) => batch.push_str(&text),
                    Line::Reopen => {
                        self.write(&mut batch);
                        self.reopen();
                    }
                }
            }
            self.write(&mut batch);
            let lost = self.lost.swap(0, Relaxed);
            if lost > 0 {
                tracing::warn!(lost, "access-log lines were dropped: the disk is too slow");
            }
        }
    }

    fn write(&mut self, batch: &mut String) {
        let written = match &mut self.out {
            Out::Stdout(out) => out.write_all(batch.as_bytes()),
            Out::File(file, _) => file.write_all(batch.as_bytes()),
        };
        if written.is_err() {
            self.lost.fetch_add(batch.lines().count() as u64, Relaxed);
        }
        batch.clear();
    }

    fn reopen(&mut self) {
        if let Out::File(file, path) = &mut self.out
            && let Some(opened) = append(path)
        {
            *file = opened;
        }
    }
}

impl Record {
    fn new(exchange: &Exchange, log: AccessLog, clock: Clock) -> Self {
        let text = |name| exchange.head.headers.get(name).cloned();
        Self {
            log,
            clock,
            began: exchange.now,
            peer: exchange.link.peer_ip(),
            version: exchange.head.version,
            asked: exchange.asked(),
            referer: text(header::REFERER),
            status: AtomicU16::new(499),
            bytes: AtomicU64::new(0),
            broken: AtomicBool::new(false),
            judged: Mutex::default(),
        }
    }

    /// Adds what became known.
    pub fn judge(&self, add: impl FnOnce(&mut Judged)) {
        add(&mut self.judged.lock());
    }

    /// Body bytes handed over.
    pub fn sent(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// The response ended before its end.
    pub fn broke_off(&self) {
        self.broken.store(true, Relaxed);
    }

    /// Hands the line to the writer.
    pub fn write(&self) {
        let now = self.clock.now();
        let line = if self.log.json {
            self.json(now)
        } else {
            self.text(now)
        };
        self.log.send(line);
    }

    /// `client - - [time] "request" status bytes "referer" "agent" milliseconds service jail:reason`
    fn text(&self, now: Millis) -> String {
        let judged = self.judged.lock().clone();
        let client = judged.client.or(self.peer).map(logged_address);
        let mut out = String::with_capacity(256);
        match client {
            Some(client) => _ = write!(out, "{client}"),
            None => out.push('-'),
        }
        _ = write!(
            out,
            " - - [{}] \"",
            time(self.began, "%d/%b/%Y:%H:%M:%S %z")
        );
        quoted(&mut out, self.asked.method.as_str().as_bytes());
        out.push(' ');
        quoted(&mut out, self.target());
        _ = write!(
            out,
            " {:?}\" {} {} \"",
            self.version,
            self.status(),
            self.bytes()
        );
        quoted(
            &mut out,
            self.referer.as_ref().map_or(b"-", HeaderValue::as_bytes),
        );
        out.push_str("\" \"");
        quoted(
            &mut out,
            self.asked
                .agent
                .as_ref()
                .map_or(b"-", HeaderValue::as_bytes),
        );
        _ = write!(
            out,
            "\" {} {} ",
            now.saturating_sub(self.began),
            judged.service.as_deref().unwrap_or("-")
        );
        match (&judged.jail, judged.reason) {
            (Some(jail), Some(reason)) => _ = write!(out, "{jail}:{}", reason.as_str()),
            _ => out.push('-'),
        }
        out.push('\n');
        out
    }

    fn json(&self, now: Millis) -> String {
        let judged = self.judged.lock().clone();
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let header =
            |value: &Option<HeaderValue>| value.as_ref().map(|value| text(value.as_bytes()));
        let line = serde_json::json!({
            "time": time(self.began, "%Y-%m-%dT%H:%M:%S%.3fZ"),
            "client": judged.client.or(self.peer).map(logged_address),
            "peer": self.peer.map(logged_address),
            "method": self.asked.method.as_str(),
            "host": header(&self.asked.host),
            "path": text(self.target()),
            "proto": format!("{:?}", self.version),
            "status": self.status(),
            "bytes": self.bytes(),
            "duration_ms": now.saturating_sub(self.began),
            "service": judged.service.as_deref(),
            "jail": judged.jail.as_deref(),
            "reason": judged.reason.map(Reason::as_str),
            "broken": self.broken.load(Relaxed),
            "referer": header(&self.referer),
            "user_agent": header(&self.asked.agent),
        });
        format!("{line}\n")
    }

    fn target(&self) -> &[u8] {
        self.asked
            .target
            .as_ref()
            .map_or(b"-", |target| target.as_str().as_bytes())
    }

    fn status(&self) -> u16 {
        self.status.load(Relaxed)
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }
}

fn time(at: Millis, format: &str) -> String {
    i64::try_from(at)
        .ok()
        .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok())
        .map_or_else(String::new, |at| {
            at.to_zoned(jiff::tz::TimeZone::UTC)
                .strftime(format)
                .to_string()
        })
}

/// Printable ASCII as it is; quotes, backslashes and everything else as `\xHH`, as nginx does.
fn quoted(out: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => _ = write!(out, "\\x{byte:02X}"),
            0x20..0x7F => out.push(byte as char),
            _ => _ = write!(out, "\\x{byte:02X}"),
        }
    }
}

/// Opens a [`Record`] for every request while the log is on.
#[derive(Clone, Copy, Debug)]
pub struct Recorded {
    /// For how long it took.
    pub clock: Clock,
}

impl<S> Layer<S> for Recorded {
    type Service = Recorder<S>;

    fn layer(&self, inner: S) -> Recorder<S> {
        Recorder {
            inner,
            clock: self.clock,
        }
    }
}

/// See [`Recorded`].
#[derive(Clone, Debug)]
pub struct Recorder<S> {
    inner: S,
    clock: Clock,
}

impl<S> Service<Box<Exchange>> for Recorder<S>
where
    S: Service<Box<Exchange>, Response = Response<Body>, Error = Infallible>,
{
    type Response = (Response<Body>, Option<Arc<Record>>);
    type Error = Infallible;
    type Future = Recording<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut exchange: Box<Exchange>) -> Self::Future {
        if let Some(log) = &exchange.site.access_log {
            exchange.record = Some(Arc::new(Record::new(&exchange, log.clone(), self.clock)));
        }
        Recording {
            record: exchange.record.clone().map(Unanswered),
            inner: self.inner.call(exchange),
        }
    }
}

pin_project! {
    /// See [`Recorder`].
    #[derive(Debug)]
    pub struct Recording<F> {
        #[pin]
        inner: F,
        record: Option<Unanswered>,
    }
}

/// Dropped before there is an answer, the client left: the line says 499.
#[derive(Debug)]
struct Unanswered(Arc<Record>);

impl Drop for Unanswered {
    fn drop(&mut self) {
        if self.0.status() == 499 {
            self.0.write();
        }
    }
}

impl<F> Future for Recording<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Output = Result<(Response<Body>, Option<Arc<Record>>), Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx))?;
        let record = this.record.take().map(|unanswered| {
            unanswered
                .0
                .status
                .store(response.status().as_u16(), Relaxed);
            unanswered.0.clone()
        });
        Poll::Ready(Ok((response, record)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_send_stays_on_its_line_and_inside_its_quotes() {
        let mut out = String::new();
        quoted(&mut out, b"/a\"b\\c\n\x1b[0m\xC3\xA4");
        assert_eq!(out, r"/a\x22b\x5Cc\x0A\x1B[0m\xC3\xA4");
    }

    #[test]
    fn times_are_those_of_combined() {
        assert_eq!(
            time(0, "%d/%b/%Y:%H:%M:%S %z"),
            "01/Jan/1970:00:00:00 +0000"
        );
    }

    #[test]
    fn a_moved_file_is_followed_by_a_new_one_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = AccessLog::open(&Log {
            access: AccessLogTarget::File(path.clone()),
            ..Log::default()
        })
        .unwrap();
        log.send("one\n".into());
        wait_for(&path, "one\n");
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        log.reopen();
        log.send("two\n".into());
        wait_for(&path, "two\n");
    }

    fn wait_for(path: &Path, content: &str) {
        while std::fs::read_to_string(path).unwrap_or_default() != content {
            std::thread::yield_now();
        }
    }
}
