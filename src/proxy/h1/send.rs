//! The sending half of an exchange: head, body and trailers as the server takes them. Nothing is
//! held back and nothing is asked of the client before the server can have it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::Body as _;
use tokio::io::AsyncWrite;

use super::{Sends, Stream};
use crate::proxy::{BoxError, body::RequestBody, headers::clean_trailers, spare};

/// One request on its way out.
#[derive(Debug)]
pub(super) struct Sending {
    body: RequestBody,
    sends: Sends,
    phase: Phase,
    /// Sent in this order: the head or a chunk's frame, the data, the data's own end.
    front: Vec<u8>,
    front_sent: usize,
    data: Bytes,
    tail: &'static [u8],
    pub(super) progress: Progress,
}

/// What an onlooker (retries, timeouts) needs to know.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// Bytes written.
    pub(super) written: u64,
    /// A frame was taken from the client's body, so it cannot be sent twice.
    pub(super) body_touched: bool,
    /// What it waited for when it was last polled.
    pub(super) waits: Waits,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Waits {
    /// Nothing: all is sent, or it was not polled yet.
    #[default]
    Nothing,
    /// The server takes no more for now.
    Server,
    /// The client has sent no more for now.
    Client,
    /// The server's word whether it wants the body.
    Continue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The body waits for 100 (Continue).
    Held,
    Body,
    Done,
}

/// Why no more of it can be sent.
#[derive(Debug)]
pub(super) enum SendError {
    Server(io::Error),
    Client(BoxError),
}

impl Sending {
    /// `head` is the encoded head; with `hold` the body waits for [`Sending::release`].
    pub(super) fn new(head: Vec<u8>, body: RequestBody, sends: Sends, hold: bool) -> Self {
        let phase = match (sends, hold) {
            (Sends::Nothing | Sends::Exactly(0), _) => Phase::Done,
            (_, true) => Phase::Held,
            (_, false) => Phase::Body,
        };
        Self {
            body,
            sends,
            phase,
            front: head,
            front_sent: 0,
            data: Bytes::new(),
            tail: b"",
            progress: Progress::default(),
        }
    }

    /// The server wants the body, or has waited long enough.
    pub(super) fn release(&mut self) {
        if self.phase == Phase::Held {
            self.phase = Phase::Body;
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.phase == Phase::Held
    }

    /// The body, sent or not.
    pub(super) fn into_body(self) -> RequestBody {
        self.body
    }

    /// Sends what can be sent. Ready when everything is.
    pub(super) fn poll(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendError>> {
        loop {
            self.progress.waits = Waits::Server;
            ready!(self.poll_write(stream, cx)).map_err(SendError::Server)?;
            match self.phase {
                Phase::Done => {
                    self.progress.waits = Waits::Nothing;
                    self.front_sent = 0;
                    spare::keep_head(std::mem::take(&mut self.front));
                    return Poll::Ready(Ok(()));
                }
                Phase::Held => {
                    self.progress.waits = Waits::Continue;
                    return Poll::Pending;
                }
                Phase::Body => {
                    self.progress.waits = Waits::Client;
                    ready!(self.poll_body(cx)).map_err(SendError::Client)?;
                }
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()?;
        self.progress.body_touched = true;
        let Some(frame) = frame else {
            return Poll::Ready(self.end(None));
        };
        let trailers = match frame.into_data() {
            Ok(data) => return Poll::Ready(self.take_data(data)),
            Err(frame) => frame.into_trailers().ok(),
        };
        Poll::Ready(self.end(trailers))
    }

    fn take_data(&mut self, data: Bytes) -> Result<(), BoxError> {
        match &mut self.sends {
            _ if data.is_empty() => return Ok(()),
            Sends::Chunks => {
                self.front
                    .extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                self.tail = b"\r\n";
            }
            Sends::Exactly(left) => {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or("longer than its Content-Length")?;
                if *left == 0 {
                    self.phase = Phase::Done;
                }
            }
            Sends::Nothing => return Err("a body where none was announced".into()),
        }
        self.data = data;
        Ok(())
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), BoxError> {
        match self.sends {
            Sends::Exactly(left) if left > 0 => {
                return Err("shorter than its Content-Length".into());
            }
            Sends::Chunks => {
                self.front.extend_from_slice(b"0\r\n");
                if let Some(mut trailers) = trailers {
                    clean_trailers(&mut trailers);
                    for (name, value) in &trailers {
                        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                            self.front.extend_from_slice(part);
                        }
                    }
                }
                self.front.extend_from_slice(b"\r\n");
            }
            _ => {}
        }
        self.phase = Phase::Done;
        Ok(())
    }

    fn poll_write(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = Pin::new(stream);
        loop {
            let front = &self.front[self.front_sent..];
            let sent = match (
                front.is_empty(),
                self.data.is_empty() && self.tail.is_empty(),
            ) {
                (true, true) => break,
                (false, true) => ready!(stream.as_mut().poll_write(cx, front))?,
                (_, false) => {
                    let slices = [front, &self.data, self.tail].map(IoSlice::new);
                    ready!(stream.as_mut().poll_write_vectored(cx, &slices))?
                }
            };
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(sent);
        }
        self.front.clear();
        self.front_sent = 0;
        self.data = Bytes::new();
        stream.poll_flush(cx)
    }

    fn advance(&mut self, sent: usize) {
        self.progress.written += sent as u64;
        let front = sent.min(self.front.len() - self.front_sent);
        self.front_sent += front;
        let data = (sent - front).min(self.data.len());
        self.data.advance(data);
        self.tail = &self.tail[sent - front - data..];
    }
}
