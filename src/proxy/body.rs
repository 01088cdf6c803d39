//! The response body as the client side sees it: frames straight from the server's connection,
//! which goes back to its pool with the last one.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::Error;

/// A response body. Dropping it early closes the server's connection (HTTP/1.1) or resets the
/// stream (HTTP/2).
#[derive(Debug)]
pub struct Body(Kind);

#[derive(Debug)]
enum Kind {
    /// Nothing, or everything at once.
    Whole(Bytes),
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Kind::Whole(bytes) = &mut self.get_mut().0;
        let bytes = std::mem::take(bytes);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        let Kind::Whole(bytes) = &self.0;
        bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let Kind::Whole(bytes) = &self.0;
        SizeHint::with_exact(bytes.len() as u64)
    }
}
