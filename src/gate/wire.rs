//! The client's socket as hyper sees it: reads are scanned, silence is timed, 1xx heads are put
//! in before the response's. It neither parses requests nor decides about them.

mod first;
mod held;

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use self::held::Held;
use super::{
    limits::Place,
    link::{Link, Registered},
    scan::{Phase, Scan},
    socket::{self, Io},
};
use crate::{
    proxy::{Splice, is_stand_in},
    time::Millis,
};

/// A small answer's head and body go out as one piece: `send` is a little cheaper than `writev` and
/// the copy is short.
const GATHERED: usize = 2048;

/// How long a body that nobody wants any more is read, in milliseconds.
const LINGER: Millis = 5_000;
/// How much HTTP/2 may send meanwhile, in bytes: windows, but no flood.
const LINGER_H2: usize = 256 << 10;

/// A socket (or TLS stream) with a scanner and a [`Link`].
#[derive(Debug)]
pub struct Wire {
    io: Io,
    /// Read before hyper took over: the bytes the protocol was told by.
    ahead: BytesMut,
    registered: Registered,
    /// Given back when the socket closes, upgraded or not.
    _place: Place,
    scan: Scan,
    scanning: bool,
    phase: Phase,
    /// The task that was registered last, to spare the lock when it is the same.
    waker: Option<Waker>,
    /// Our side is closed, and what still comes is thrown away: so much until now.
    lingering: Option<usize>,
    /// hyper has nothing left to write: a 1xx head may be put in here.
    boundary: bool,
    early: BytesMut,
    /// HTTP/2's small writes, until its flush.
    held: Option<Held>,
    /// A next request came while this one is worked on, so whether the client left is not to be
    /// seen.
    ahead_of_us: bool,
}

impl Wire {
    /// Nothing was read from `io` yet. HTTP/1.1 until told otherwise.
    pub fn new(io: Io, registered: Registered, place: Place) -> Self {
        registered.link().at_boundary(true);
        Self {
            io,
            ahead: BytesMut::new(),
            scan: Scan::default(),
            scanning: true,
            phase: Phase::Idle,
            waker: None,
            lingering: None,
            boundary: true,
            early: BytesMut::new(),
            held: None,
            ahead_of_us: false,
            registered,
            _place: place,
        }
    }

    /// HTTP/2 is spoken from the first byte on.
    pub fn speak_h2(&mut self) {
        self.link().speak_h2();
        self.scanning = false;
        self.held = Some(Held::default());
    }

    /// Whether hyper need not look for the client's end by itself.
    pub fn sees_the_client_go(&self) -> bool {
        self.io.tcp().is_some()
    }

    fn link(&self) -> &Arc<Link> {
        self.registered.link()
    }

    fn watch(&mut self, cx: &Context<'_>) {
        if !self
            .waker
            .as_ref()
            .is_some_and(|known| known.will_wake(cx.waker()))
        {
            self.link().watched_by(cx.waker());
            self.waker = Some(cx.waker().clone());
        }
    }

    fn alive(&mut self, cx: &Context<'_>) -> io::Result<()> {
        self.watch(cx);
        if self.link().ended() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    /// Bytes came in.
    fn received(&mut self, bytes: &[u8]) {
        self.ahead_of_us = false;
        if self.link().tunnelled() {
            self.scan.switch_off();
            self.scanning = false;
        }
        if !self.scanning {
            self.heard();
            return;
        }
        let before = self.scan.found();
        self.scan.feed(bytes);
        let found = self.scan.found();
        if found != before {
            self.link().note(found);
        }
        let phase = self.scan.phase();
        // A head is timed from its first byte to its last, a body anew with every read.
        if phase != self.phase || phase != Phase::Head {
            self.heard();
        }
        self.phase = phase;
    }

    /// Ends what silence began. To say goodbye gives nobody more time.
    fn heard(&self) {
        let link = self.link();
        let parting = link.h2() && link.draining();
        if !link.blocked() && !parting {
            link.allow_all();
        }
    }

    /// Whether the client left while its request is worked on. hyper would find out by reading on,
    /// for which it takes a new buffer a request: it is told to take half-closed connections, and
    /// a client that closed its half is taken to be gone here, as hyper does.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let waits = self.phase == Phase::Idle && self.scanning && !self.ahead_of_us;
        if !waits || !self.ahead.is_empty() || !self.link().busy() {
            return Ok(());
        }
        let Some(stream) = self.io.tcp() else {
            return Ok(());
        };
        let mut byte = [MaybeUninit::uninit()];
        match stream.poll_peek(cx, &mut ReadBuf::uninit(&mut byte)) {
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(1..)) => {
                self.ahead_of_us = true;
                Ok(())
            }
            Poll::Ready(Ok(0)) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Ready(Err(error)) => Err(error),
        }
    }

    /// Nothing came in: from here on silence counts, unless it is our turn.
    fn waiting(&self) {
        let link = self.link();
        if link.limited() || link.tunnelled() {
            return;
        }
        match self.phase {
            Phase::Idle if link.busy() => {}
            Phase::Idle => link.allow(link.timeouts().idle),
            Phase::Head => link.allow(link.timeouts().header),
            Phase::Body => link.allow(link.timeouts().body),
        }
    }
}

impl Wire {
    /// Writes the 1xx heads that wait, if hyper's own bytes are all out.
    fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.boundary
            && self.early.is_empty()
            && let Some(early) = self.link().take_early()
        {
            self.early = early;
        }
        while !self.early.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.early))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.early.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn before_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_early(cx))?;
        if self.boundary {
            self.boundary = false;
            self.link().at_boundary(false);
        }
        Poll::Ready(Ok(()))
    }

    /// Whether hyper writes the last it has, and closes next. A client that sent more than its last
    /// request is reset by that: what is for it had better be sent before.
    fn ends(&self, cx: &mut Context<'_>, stream: &TcpStream) -> bool {
        let answered = |requests| self.link().answered(requests);
        self.scan.last().is_some_and(answered)
            && self.phase == Phase::Idle
            && stream.poll_read_ready(cx).is_pending()
    }

    /// Writes what comes before bytes that are spliced, or moves those; `None` when there are none.
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Option<Poll<io::Result<usize>>> {
        let first = slices.iter().position(|slice| is_stand_in(slice))?;
        Some(match (first, self.link().spliced(), self.io.tcp()) {
            (0, Some(splice), Some(client)) => {
                let stand_ins = slices.iter().take_while(|slice| is_stand_in(slice));
                splice.poll_drain(cx, client, stand_ins.map(|slice| slice.len()).sum())
            }
            (0, ..) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
            // Not held back for what follows: a client that is awake by then costs less.
            _ => Pin::new(&mut self.io).poll_write_vectored(cx, &slices[..first]),
        })
    }

    /// Has one of HTTP/2's small writes wait for its flush; `None` when it is to go out by itself,
    /// and all that was held before it went.
    fn poll_held(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<Option<usize>>> {
        let take = |held: &mut Held| held.take(slices);
        let mut taken = self.held.as_mut().and_then(take);
        if taken.is_none() {
            ready!(self.poll_out(cx))?;
            taken = self.held.as_mut().and_then(take);
        }
        Poll::Ready(Ok(taken))
    }

    /// Writes what is held. The client has taken something only when it is less by that.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(held) = self.held.as_mut().filter(|held| held.len() > 0) else {
            return Poll::Ready(Ok(()));
        };
        let before = held.len();
        let out = held.poll_out(cx, &mut self.io);
        if held.len() < before {
            self.unblock();
        }
        match out {
            Poll::Pending => self.after_write(cx, Poll::Pending),
            out => out,
        }
    }

    /// Writes what a flush put off. A client that takes nothing does not keep us from reading.
    fn write_due(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.held.as_ref().is_some_and(Held::is_due) {
            return Ok(());
        }
        match self.poll_out(cx) {
            Poll::Ready(written) => written,
            Poll::Pending => Ok(()),
        }
    }

    fn unblock(&self) {
        if self.link().unblock() {
            self.waiting();
        }
    }

    /// A client that does not read is timed like one that does not send.
    fn after_write<R>(
        &mut self,
        cx: &Context<'_>,
        result: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        match &result {
            Poll::Pending => {
                self.link().block();
                self.alive(cx)?;
            }
            // Only what a blocked write began: a head that is being read has its own limit.
            Poll::Ready(_) => self.unblock(),
        }
        result
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.write_due(cx)?;
        let before = buf.filled().len();
        if !this.ahead.is_empty() {
            let taken = this.ahead.len().min(buf.remaining());
            buf.put_slice(&this.ahead[..taken]);
            this.ahead.advance(taken);
            if this.ahead.is_empty() {
                this.ahead = BytesMut::new();
            }
        } else if Pin::new(&mut this.io).poll_read(cx, buf)?.is_pending() {
            this.waiting();
            this.alive(cx)?;
            return Poll::Pending;
        }
        this.received(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl Wire {
    /// Reads on for a while after an answer that did not wait for the body: closing on unread
    /// bytes resets the connection, and the client, or a proxy in front, never sees the answer.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            self.link().allow(LINGER);
        }
        let lingered = self.lingering.get_or_insert_default();
        let mut scratch = [MaybeUninit::uninit(); 8192];
        loop {
            let mut buf = ReadBuf::uninit(&mut scratch);
            if Pin::new(&mut self.io).poll_read(cx, &mut buf)?.is_pending() {
                self.alive(cx)?;
                return Poll::Pending;
            }
            *lingered += buf.filled().len();
            let enough = self.registered.link().h2() && *lingered > LINGER_H2;
            if buf.filled().is_empty() || enough {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.before_write(cx))?;
        if let Some(taken) = ready!(this.poll_held(cx, &[io::IoSlice::new(bytes)]))? {
            return Poll::Ready(Ok(taken));
        }
        let result = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.after_write(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.before_write(cx))?;
        if let Some(taken) = ready!(this.poll_held(cx, slices))? {
            return Poll::Ready(Ok(taken));
        }
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        let result = if let Some(result) = this.poll_splice(cx, slices) {
            result
        } else if length <= GATHERED {
            let mut gathered = [0; GATHERED];
            let mut end = 0;
            for slice in slices {
                gathered[end..end + slice.len()].copy_from_slice(slice);
                end += slice.len();
            }
            match this.io.tcp().filter(|stream| this.ends(cx, stream)) {
                Some(stream) => socket::poll_write_last(stream, cx, &gathered[..end]),
                None => Pin::new(&mut this.io).poll_write(cx, &gathered[..end]),
            }
        } else {
            Pin::new(&mut this.io).poll_write_vectored(cx, slices)
        };
        this.after_write(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.boundary {
            // hyper flushes only when it has written all it holds.
            this.boundary = true;
            this.link().at_boundary(true);
            this.link().spliced().map_or(Ok(()), Splice::none_left)?;
        }
        ready!(this.poll_early(cx))?;
        this.poll_gone(cx)?;
        if this.held.as_mut().is_some_and(|held| held.put_off(cx)) {
            return Poll::Ready(Ok(()));
        }
        let result = Pin::new(&mut this.io).poll_flush(cx);
        this.after_write(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // What the client of HTTP/2 says of its windows is no body, and would reset it as well.
        let lingers = (this.phase == Phase::Body || this.link().h2()) && !this.link().tunnelled();
        if !lingers && this.scanning && this.io.tcp().is_some() {
            // It is closed next, which says the same with one system call less.
            return Poll::Ready(Ok(()));
        }
        if this.lingering.is_none() {
            ready!(this.poll_out(cx))?;
            let result = Pin::new(&mut this.io).poll_shutdown(cx);
            ready!(this.after_write(cx, result))?;
        }
        match lingers {
            true => this.poll_linger(cx),
            false => Poll::Ready(Ok(())),
        }
    }
}
