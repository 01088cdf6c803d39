//! A response body that is still coming, read as the client takes it. When the server answered
//! before it had the whole request, the rest of that is sent from here.

use std::{
    io::ErrorKind,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{
    Connection, Framing,
    chunked::{Decoded, Decoder},
    send::{SendError, Sending, Waits},
};
use crate::proxy::{
    Error, Phase, Proxy, Splice, dial::Stream, headers::clean_trailers, spare, splice::stand_in,
};

/// Smaller pieces are copied out, so that one that waits for a slow client does not hold a whole
/// buffer.
const COPIED: usize = 4 * 1024;

/// Shorter bodies are not worth the pipe.
const SPLICED: u64 = 64 * 1024;

/// Reads one body; the connection goes back to the pool with its last byte, or is closed.
#[derive(Debug)]
pub(in crate::proxy) struct Streaming {
    connection: Option<Box<Connection>>,
    framing: Reading,
    keep_alive: bool,
    sending: Option<Sending>,
    /// It is a buffer for bodies that is read into.
    large: bool,
    /// The client may take others at the same time.
    one_of_many: bool,
    /// The way past buffers, if there is one.
    splice: Option<Arc<Splice>>,
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
            large: false,
            one_of_many: false,
            splice: None,
            proxy,
        }
    }

    pub(in crate::proxy) fn splice(&mut self, splice: impl FnOnce() -> Option<Arc<Splice>>) {
        let long = matches!(self.framing, Reading::Length(SPLICED..));
        let tcp = |connection: &Connection| matches!(connection.stream, Stream::Tcp(_));
        if long && self.connection.as_deref().is_some_and(tcp) {
            self.splice = splice();
        }
    }

    pub(in crate::proxy) fn one_of_many(&mut self) {
        self.one_of_many = true;
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
        if let Some(error) = self.poll_send(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            let Some(connection) = &mut self.connection else {
                return Poll::Ready(None);
            };
            match self.framing.decode(connection) {
                Ok(Some(Decoded::Data(data))) => {
                    connection.timer.clear();
                    let data = match data.len() > COPIED {
                        true => data,
                        false => Bytes::copy_from_slice(&data),
                    };
                    self.give_back();
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
                Ok(None) => self.give_back(),
                Err(why) => return Poll::Ready(Some(Err(connection.bad_response(why)))),
            }
            if let Some(data) = ready!(self.poll_splice(cx)) {
                return Poll::Ready(Some(data.map(Frame::data)));
            }
            if !ready!(self.poll_read(cx))? {
                return Poll::Ready(None);
            }
        }
    }

    /// The next bytes by the way past buffers; `None` when they have to be read.
    fn poll_splice(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let (Some(splice), Some(connection)) = (&self.splice, &mut self.connection) else {
            return Poll::Ready(None);
        };
        let (Reading::Length(left), Stream::Tcp(stream)) = (&mut self.framing, &connection.stream)
        else {
            return Poll::Ready(None);
        };
        // How long a client may take is the gate's to say.
        ready!(splice.poll_taken(cx));
        match splice.poll_fill(cx, stream, *left) {
            Poll::Ready(Ok(0)) => Poll::Ready(Some(Err(connection.reset(None)))),
            Poll::Ready(Ok(bytes)) => {
                *left -= bytes as u64;
                connection.timer.clear();
                if *left == 0 {
                    self.finish();
                }
                Poll::Ready(Some(Ok(stand_in(bytes))))
            }
            Poll::Ready(Err(error)) if error.kind() == ErrorKind::Unsupported => {
                self.splice = None;
                Poll::Ready(None)
            }
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(connection.reset(Some(error))))),
            Poll::Pending => self.poll_timeout(cx).map(|late| Some(Err(late))),
        }
    }

    /// Reads on; false is the orderly end of a body that lasts until the server closes.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Error>> {
        self.borrow();
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(Ok(false));
        };
        match connection.poll_fill(cx) {
            Poll::Ready(Ok(0)) => Poll::Ready(match self.framing {
                Reading::Close => Ok(false),
                _ => Err(connection.reset(None)),
            }),
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(true)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(connection.reset(Some(error)))),
            Poll::Pending => {
                self.give_back();
                self.poll_timeout(cx).map(Err)
            }
        }
    }

    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let (Some(connection), clock) = (&mut self.connection, &self.proxy.0.clock) else {
            return Poll::Pending;
        };
        if !connection.timer.is_set() {
            let limit = connection.server.transport.body_timeout;
            connection.timer.set(clock.now(), limit);
        }
        ready!(connection.timer.poll(cx, clock));
        Poll::Ready(connection.timed_out(Phase::ResponseBody))
    }

    /// Reads go into one of the thread's few buffers for bodies, which stay warm in the cache and take
    /// many bytes with one system call, for as long as there are bytes in it.
    fn borrow(&mut self) {
        if let (Some(connection), false) = (&mut self.connection, self.large)
            && connection.read.is_empty()
        {
            connection.leave_buffer();
            connection.read = spare::body_buffer(self.one_of_many);
            self.large = true;
        }
    }

    fn give_back(&mut self) {
        if let Some(connection) = &mut self.connection
            && connection.read.is_empty()
            && std::mem::take(&mut self.large)
        {
            let buffer = std::mem::take(&mut connection.read);
            spare::keep_body_buffer(buffer, self.one_of_many);
        }
    }

    /// Sends on what is left of the request; answers why the client has no more of it, for then
    /// the server waits in vain. The server's clock stands still while it is the client that is
    /// waited for, and while the upload moves.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Option<Error> {
        let (Some(sending), Some(connection)) = (&mut self.sending, &mut self.connection) else {
            return None;
        };
        let before = sending.progress.written;
        let done = sending.poll(&mut connection.stream, cx);
        if sending.progress.written != before || sending.progress.waits == Waits::Client {
            connection.timer.clear();
        }
        match done {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => self.sending = None,
            Poll::Ready(Err(SendError::Server(_))) => {
                self.sending = None;
                self.keep_alive = false;
            }
            Poll::Ready(Err(SendError::Client(error))) => return Some(Error::ClientBody(error)),
        }
        None
    }

    /// The body is whole: the connection may serve the next request if it is clean.
    fn finish(&mut self) {
        self.give_back();
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
