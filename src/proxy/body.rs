//! Bodies on both sides of an exchange. The response's comes straight from the server's
//! connection, which goes back to its pool with the last frame.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};

use super::{BoxError, Error, Splice, h1, h2};

/// A response body. Dropping it early closes the server's connection (HTTP/1.1) or resets the
/// stream (HTTP/2).
#[derive(Debug)]
pub struct Body(Kind);

#[derive(Debug)]
enum Kind {
    /// Nothing, or everything at once.
    Whole(Bytes),
    H1(Box<h1::Streaming>),
    H2(Box<h2::Streaming>),
}

/// A request body; boxed only when there is one.
#[derive(Debug, Default)]
pub(super) struct RequestBody(Option<UnsyncBoxBody<Bytes, BoxError>>);

impl Body {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self(Kind::Whole(bytes))
    }

    pub(super) fn h1(body: h1::Streaming) -> Self {
        Self(Kind::H1(Box::new(body)))
    }

    pub(super) fn h2(body: h2::Streaming) -> Self {
        Self(Kind::H2(Box::new(body)))
    }

    /// Lets the bytes of a long body go to the client past this process, if `splice` has a way
    /// there. What comes from the body then are stand-ins (see [`is_stand_in`](super::is_stand_in))
    /// for as many bytes, which only that client's wire may write.
    pub fn spliced(mut self, splice: impl FnOnce() -> Option<Arc<Splice>>) -> Self {
        if let Kind::H1(body) = &mut self.0 {
            body.splice(splice);
        }
        self
    }

    /// Holds less of it at a time: the client may take many others with it, or none of them.
    pub fn one_of_many(mut self) -> Self {
        if let Kind::H1(body) = &mut self.0 {
            body.one_of_many();
        }
        self
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.get_mut().0 {
            Kind::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Kind::H1(body) => body.poll_frame(cx),
            Kind::H2(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::H1(body) => body.is_end(),
            Kind::H2(body) => body.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::H1(body) => body.size_hint(),
            Kind::H2(body) => body.size_hint(),
        }
    }
}

impl RequestBody {
    pub(super) fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let ended = body.is_end_stream();
        Self((!ended).then(|| body.map_err(Into::into).boxed_unsync()))
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.get_mut().0 {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Some(body) => body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}
