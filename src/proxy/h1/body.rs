//! A response body that is still coming, read as the client takes it. When the server answered
//! before it had the whole request, the rest of that is sent from here.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{
    Connection, Framing,
    chunked::{Decoded, Decoder},
    send::{Sending, Waits},
};
use crate::proxy::{Error, Phase, Proxy, headers::clean_trailers};

/// The room offered to one read: small at first, so that trickles stay cheap, and as much as a
/// read fills, so that large bodies cost few system calls.
const FIRST_READ: usize = 16 * 1024;
const LARGEST_READ: usize = 128 * 1024;

/// Reads one body; the connection goes back to the pool with its last byte, or is closed.
#[derive(Debug)]
pub(in crate::proxy) struct Streaming {
    connection: Option<Box<Connection>>,
    framing: Reading,
    keep_alive: bool,
    sending: Option<Sending>,
    room: usize,
    proxy: Proxy,
}

#[derive(Debug)]
enum Reading {
    Length(u64),
    Chunked(Decoder),
    Close,
}

impl Streaming {
    pub(super) fn new(
        mut connection: Box<Connection>,
        framing: Framing,
        keep_alive: bool,
        sending: Option<Sending>,
        proxy: Proxy,
    ) -> Self {
        connection.timer.clear();
        Self {
            connection: Some(connection),
            framing: match framing {
                Framing::Length(length) => Reading::Length(length),
                Framing::Chunked => Reading::Chunked(Decoder::new()),
                Framing::Close => Reading::Close,
            },
            keep_alive,
            sending,
            room: FIRST_READ,
            proxy,
        }
    }

    pub(in crate::proxy) fn is_end(&self) -> bool {
        self.connection.is_none()
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        match (&self.framing, self.is_end()) {
            (_, true) => SizeHint::with_exact(0),
            (Reading::Length(left), _) => SizeHint::with_exact(*left),
            _ => SizeHint::default(),
        }
    }

    pub(in crate::proxy) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(self.poll_next(cx));
        if !matches!(&frame, Some(Ok(_))) {
            self.connection = None;
        }
        Poll::Ready(frame)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.poll_send(cx);
        loop {
            let Some(connection) = &mut self.connection else {
                return Poll::Ready(None);
            };
            match self.framing.decode(connection) {
                Ok(Some(Decoded::Data(data))) => {
                    connection.timer.clear();
                    if matches!(self.framing, Reading::Length(0)) {
                        self.finish();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Some(Decoded::End(mut trailers))) => {
                    self.finish();
                    clean_trailers(&mut trailers);
                    let frame = (!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers)));
                    return Poll::Ready(frame);
                }
                Ok(None) => {}
                Err(why) => return Poll::Ready(Some(Err(connection.bad_response(why)))),
            }
            if !ready!(self.poll_read(cx))? {
                return Poll::Ready(None);
            }
        }
    }

    /// Reads on; false is the orderly end of a body that lasts until the server closes.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Error>> {
        let room = match self.framing {
            Reading::Length(left) => left.clamp(1024, LARGEST_READ as u64) as usize,
            _ => self.room,
        };
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(Ok(false));
        };
        match connection.poll_fill(cx, room) {
            Poll::Ready(Ok(0)) => match self.framing {
                Reading::Close => Poll::Ready(Ok(false)),
                _ => Poll::Ready(Err(connection.reset(None))),
            },
            Poll::Ready(Ok(read)) => {
                if read >= room {
                    self.room = (room * 2).min(LARGEST_READ);
                }
                Poll::Ready(Ok(true))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(connection.reset(Some(error)))),
            Poll::Pending => {
                let clock = &self.proxy.0.clock;
                if !connection.timer.is_set() {
                    let limit = connection.server.transport.body_timeout;
                    connection.timer.set(clock.now(), limit);
                }
                ready!(connection.timer.poll(cx, clock));
                Poll::Ready(Err(connection.timed_out(Phase::ResponseBody)))
            }
        }
    }

    /// Sends on what is left of the request. The server's clock stands still while it is the
    /// client that is waited for, and while the upload moves.
    fn poll_send(&mut self, cx: &mut Context<'_>) {
        let (Some(sending), Some(connection)) = (&mut self.sending, &mut self.connection) else {
            return;
        };
        let before = sending.progress.written;
        let done = sending.poll(&mut connection.stream, cx);
        if sending.progress.written != before || sending.progress.waits == Waits::Client {
            connection.timer.clear();
        }
        match done {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => self.sending = None,
            Poll::Ready(Err(_)) => {
                self.sending = None;
                self.keep_alive = false;
            }
        }
    }

    /// The body is whole: the connection may serve the next request if it is clean.
    fn finish(&mut self) {
        if let Some(mut connection) = self.connection.take()
            && self.keep_alive
            && self.sending.is_none()
            && connection.read.is_empty()
        {
            connection.rest();
            self.proxy.rest(connection);
        }
    }
}

impl Reading {
    fn decode(&mut self, connection: &mut Connection) -> Result<Option<Decoded>, &'static str> {
        let buffer = &mut connection.read;
        let take = match self {
            Self::Chunked(decoder) => return decoder.decode(buffer),
            Self::Length(left) => {
                let take = (*left).min(buffer.len() as u64);
                *left -= take;
                take as usize
            }
            Self::Close => buffer.len(),
        };
        Ok((take > 0).then(|| Decoded::Data(buffer.split_to(take).freeze())))
    }
}
