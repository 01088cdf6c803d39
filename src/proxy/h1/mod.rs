//! A lean HTTP/1.1 client: the request's own task writes the head and reads the answer, so that a
//! request costs one write, one read and no hop between tasks. Pools and choices are elsewhere.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use tokio_util::io::poll_read_buf;

pub(super) use self::{
    body::Streaming,
    head::{Line, Sends},
};
use self::{
    head::{Framing, Head},
    send::{SendError, Sending, Waits},
};
use super::{
    Error, Informational, Phase, Proxy, body::RequestBody, dial::Stream, headers::Outgoing, spare,
    timer::Timer, upstream::Server,
};
use crate::time::{Clock, Millis};

mod body;
mod chunked;
mod head;
mod send;

/// How long a body is held back for a server that ignores `Expect` (RFC 9110 §10.1.1).
const CONTINUE_WAIT: Duration = Duration::from_secs(1);
/// Interim responses before a final one.
const MAX_INTERIM: u8 = 32;

/// A connection to a server, between exchanges in a pool.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) server: Arc<Server>,
    pub(super) idle_since: Millis,
    /// It has already served a request.
    pub(super) reused: bool,
    stream: Stream,
    /// Without room while nothing is read.
    read: BytesMut,
    timer: Timer,
}

/// What is asked for; the lines are already in the head.
pub(super) struct Ask<'a> {
    pub(super) method: &'a Method,
    pub(super) upgrade: bool,
    pub(super) informational: Option<Informational<'a>>,
    pub(super) clock: &'a Clock,
    pub(super) now: Millis,
}

/// A request under way, until its response's head is there.
pub(super) struct Exchange<'a> {
    connection: Box<Connection>,
    ask: Ask<'a>,
    sending: Sending,
    sent: Sent,
    broken: Option<io::Error>,
    /// What the timer was last set for, with the bytes written by then.
    timed: Option<(Waits, u64)>,
    /// Bytes have come back.
    heard: bool,
    /// The buffer may hold a head that was not looked at.
    unread: bool,
    interim: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Not,
    All,
    /// The server stopped taking it; an answer may have been sent before that.
    Broken,
}

/// Why there is no response.
#[derive(Debug)]
pub(super) enum Failure {
    /// A pooled connection was closed before it gave any byte, and repeating the request cannot
    /// do harm: nothing of it was written, or its method is idempotent (RFC 9110 §9.2.2), and its
    /// body was not begun.
    Stale(RequestBody, Error),
    /// For good.
    Final(Error),
}

/// A response's head with the connection it came on.
pub(super) struct Answer {
    head: Head,
    connection: Box<Connection>,
    /// What is left to send.
    sending: Option<Sending>,
}

/// A response in the forms the caller tells apart.
pub(super) enum Answered {
    /// The body came with the head; the connection is given back when it can be used again.
    Whole(Bytes, Option<Box<Connection>>),
    /// The body is still to come.
    Streams(Streaming),
}

impl Connection {
    pub(super) fn new(server: Arc<Server>, stream: Stream) -> Box<Self> {
        Box::new(Self {
            server,
            idle_since: 0,
            reused: false,
            stream,
            read: BytesMut::new(),
            timer: Timer::new(),
        })
    }

    /// It was closed, or sent something unasked, while it was idle.
    pub(super) fn is_stale(&mut self) -> bool {
        self.stream.is_stale()
    }

    /// The bytes below HTTP, after a switch of protocols: what came early, and the rest.
    pub(super) fn into_stream(self) -> (BytesMut, Stream) {
        (self.read, self.stream)
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.read.reserve(1);
        poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.read)
    }

    /// Reads what is, or begins with, a head.
    fn poll_fill_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.read.capacity() == 0 {
            self.read = spare::small_buffer();
        }
        let filled = self.poll_fill(cx);
        if filled.is_pending() {
            self.leave_buffer();
        }
        filled
    }

    /// Leaves an empty buffer to others.
    fn leave_buffer(&mut self) {
        if self.read.is_empty() {
            spare::keep_small_buffer(std::mem::take(&mut self.read));
        }
    }

    /// Readies it for a pool.
    fn rest(&mut self) {
        self.reused = true;
        self.timer.clear();
        self.leave_buffer();
    }

    fn reset(&self, source: Option<io::Error>) -> Error {
        Error::Reset {
            server: self.server.label.clone(),
            source,
        }
    }

    fn bad_response(&self, why: &'static str) -> Error {
        Error::BadResponse {
            server: self.server.label.clone(),
            why,
        }
    }

    fn timed_out(&self, phase: Phase) -> Error {
        Error::Timeout {
            server: self.server.label.clone(),
            phase,
        }
    }
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        connection: Box<Connection>,
        line: &Line<'_>,
        outgoing: &Outgoing<'_>,
        body: RequestBody,
        ask: Ask<'a>,
    ) -> Self {
        let mut head = spare::head();
        head::encode(&mut head, line, outgoing);
        Self {
            connection,
            ask,
            sending: Sending::new(head, body, line.sends, line.expect),
            sent: Sent::Not,
            broken: None,
            timed: None,
            heard: false,
            unread: false,
            interim: 0,
        }
    }

    /// Sends and waits until the response's head is there.
    pub(super) async fn run(mut self) -> Result<Answer, Failure> {
        match std::future::poll_fn(|cx| self.poll(cx)).await {
            Ok(head) => {
                let sending = match self.sent {
                    Sent::All => None,
                    Sent::Not | Sent::Broken => Some(self.sending),
                };
                Ok(Answer {
                    head,
                    connection: self.connection,
                    sending,
                })
            }
            Err(error) if self.may_repeat() && matches!(error, Error::Reset { .. }) => {
                Err(Failure::Stale(self.sending.into_body(), error))
            }
            Err(error) => Err(Failure::Final(error)),
        }
    }

    fn may_repeat(&self) -> bool {
        let progress = &self.sending.progress;
        let harmless = progress.written == 0 || self.ask.method.is_idempotent();
        self.connection.reused && !self.heard && !progress.body_touched && harmless
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Error>> {
        loop {
            self.poll_send(cx)?;
            match self.poll_head(cx)? {
                Poll::Ready(head) => match self.interim(head)? {
                    Some(head) => return Poll::Ready(Ok(head)),
                    None => continue,
                },
                Poll::Pending => {}
            }
            ready!(self.connection.timer.poll(cx, self.ask.clock));
            if self.sending.is_held() && self.sent == Sent::Not {
                self.sending.release();
                continue;
            }
            return Poll::Ready(Err(self.connection.timed_out(match self.sent {
                Sent::Not => Phase::RequestBody,
                Sent::All | Sent::Broken => Phase::ResponseHeader,
            })));
        }
    }

    /// Sends on, and sets the timer for whoever is waited for.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        if self.sent != Sent::Not {
            return Ok(());
        }
        match self.sending.poll(&mut self.connection.stream, cx) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => self.sent = Sent::All,
            Poll::Ready(Err(SendError::Server(error))) => {
                (self.sent, self.broken) = (Sent::Broken, Some(error));
            }
            Poll::Ready(Err(SendError::Client(error))) => return Err(Error::ClientBody(error)),
        }
        let state = (self.sending.progress.waits, self.sending.progress.written);
        let first = self.timed.is_none();
        if self.timed.replace(state) == Some(state) && self.sent == Sent::Not {
            return Ok(());
        }
        let now = if first {
            self.ask.now
        } else {
            self.ask.clock.now()
        };
        let Connection { timer, server, .. } = &mut *self.connection;
        match (self.sent, self.sending.progress.waits) {
            (Sent::All | Sent::Broken, _) => {
                timer.set(now, server.transport.response_header_timeout)
            }
            (Sent::Not, Waits::Server) => timer.set(now, server.transport.body_timeout),
            (Sent::Not, Waits::Continue) => timer.set(now, CONTINUE_WAIT),
            // How long a client may take is the gate's to say.
            (Sent::Not, Waits::Client | Waits::Nothing) => timer.clear(),
        }
        Ok(())
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Result<Poll<Head>, Error> {
        let connection = &mut *self.connection;
        loop {
            if std::mem::take(&mut self.unread) && !connection.read.is_empty() {
                match head::parse(&mut connection.read, self.ask.method) {
                    Ok(Some(head)) => return Ok(Poll::Ready(head)),
                    Ok(None) => {}
                    Err(why) => return Err(connection.bad_response(why)),
                }
            }
            match connection.poll_fill_head(cx) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Ok(0)) => return Err(connection.reset(self.broken.take())),
                Poll::Ready(Err(error)) => return Err(connection.reset(Some(error))),
                Poll::Ready(Ok(_)) => (self.heard, self.unread) = (true, true),
            }
        }
    }

    /// Deals with a 1xx head; a final one is handed back.
    fn interim(&mut self, head: Head) -> Result<Option<Head>, Error> {
        if !head.status.is_informational() {
            return Ok(Some(head));
        }
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return match self.ask.upgrade && self.sent == Sent::All {
                true => Ok(Some(head)),
                false => Err(self.connection.bad_response("101 nobody asked for")),
            };
        }
        self.interim += 1;
        if self.interim > MAX_INTERIM {
            return Err(self.connection.bad_response("too many interim responses"));
        }
        if head.status == StatusCode::CONTINUE {
            self.sending.release();
        } else if let Some(tell) = self.ask.informational {
            tell(head.status, &head.headers);
        }
        self.unread = true;
        Ok(None)
    }
}

impl Answer {
    pub(super) fn status(&self) -> StatusCode {
        self.head.status
    }

    /// What a 101 switches to.
    pub(super) fn upgrade(&self) -> Option<&http::HeaderValue> {
        self.head.upgrade.as_ref()
    }

    pub(super) fn headers(&mut self) -> HeaderMap {
        std::mem::take(&mut self.head.headers)
    }

    pub(super) fn into_connection(self) -> Box<Connection> {
        self.connection
    }

    /// The body, or the way to it.
    pub(super) fn body(self, proxy: &Proxy) -> Answered {
        let Self {
            head,
            mut connection,
            sending,
        } = self;
        match head.framing {
            Framing::Length(length) if length <= connection.read.len() as u64 => {
                let bytes = match length {
                    0 => Bytes::new(),
                    length => connection.read.split_to(length as usize).freeze(),
                };
                let reusable = head.keep_alive && sending.is_none() && connection.read.is_empty();
                Answered::Whole(
                    bytes,
                    reusable.then(|| {
                        connection.rest();
                        connection
                    }),
                )
            }
            framing => Answered::Streams(Streaming::new(
                connection,
                framing,
                head.keep_alive,
                sending,
                proxy.clone(),
            )),
        }
    }
}
