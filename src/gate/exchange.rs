//! One request on its way through the stack, and the bodies on both sides of it. A typed struct
//! in place of request extensions: nothing is looked up, nothing is boxed.

use std::{
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Response, header, request::Parts, uri::PathAndQuery};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};

use super::{
    access_log::Record, client_ip::Client, link::Link, respond::Refusal, site::Site, streams,
};
use crate::{
    engine::{self, Verdict},
    proxy,
    time::Millis,
};

/// A request with everything that is known of it.
#[derive(Debug)]
pub struct Exchange {
    /// As hyper read it; origin-form and with exactly one `Host` once it passed `strict`.
    pub head: Parts,
    /// Streams.
    pub body: RequestBody,
    /// The connection it came on.
    pub link: Arc<Link>,
    /// The configuration it is served under, from beginning to end.
    pub site: Arc<Site>,
    /// Its number on the connection, from 0.
    pub number: u32,
    /// Whether it is timed for the histograms.
    pub timed: bool,
    /// The entry point, by its place in the site.
    pub door: usize,
    /// When it came.
    pub now: Millis,
    /// Whether the peer's forwarding headers are believed.
    pub trusted: bool,
    /// Whether admission found the target plain ([`crate::engine::urls::is_plain`]).
    pub plain: bool,
    /// The route found; `None` is no route.
    pub route: Option<usize>,
    /// The client as the first jail established it.
    pub client: Option<Client>,
    /// What each jail said; kept for `whoami@internal` only.
    pub verdicts: Vec<(Arc<str>, Verdict)>,
    /// The access log's line; `None` when it is off.
    pub record: Option<Arc<Record>>,
}

/// What came of an exchange, and the exchange: its head is as it was, for whoever counts the
/// answer.
pub type Served = (Result<Response<Body>, Refusal>, Box<Exchange>);

/// What a request asks for, kept for longer than its head is.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Method.
    pub method: http::Method,
    /// `Host` as sent.
    pub host: Option<HeaderValue>,
    /// Origin-form target.
    pub target: Option<PathAndQuery>,
    /// `User-Agent` as sent.
    pub agent: Option<HeaderValue>,
}

impl Exchange {
    /// `Host` as sent, empty when there is none.
    pub fn host(&self) -> &[u8] {
        let host = self.head.headers.get(header::HOST);
        host.map_or(b"", HeaderValue::as_bytes)
    }

    /// Origin-form target as sent.
    pub fn target(&self) -> &str {
        self.head
            .uri
            .path_and_query()
            .map_or("/", PathAndQuery::as_str)
    }

    /// As the engine wants it.
    pub fn by(&self, client: IpAddr) -> engine::Request<'_> {
        engine::Request {
            client,
            method: self.head.method.as_str().as_bytes(),
            target: self.target().as_bytes(),
            told: engine::Told::In(&self.head.headers),
            plain: self.plain,
        }
    }

    /// What is asked for, to be told when the answer is gone.
    pub fn asked(&self) -> Asked {
        Asked {
            method: self.head.method.clone(),
            host: self.head.headers.get(header::HOST).cloned(),
            target: self.head.uri.path_and_query().cloned(),
            agent: self.head.headers.get(header::USER_AGENT).cloned(),
        }
    }
}

/// A request body that counts and times out (HTTP/2; the wire does it for HTTP/1.1). None by
/// default.
#[derive(Debug, Default)]
pub struct RequestBody {
    /// `None` is no body.
    incoming: Option<Incoming>,
    left: u64,
    quiet: Option<Quiet>,
    failed: bool,
}

/// The silence allowed on one stream. The timer exists only while somebody waits.
#[derive(Debug)]
struct Quiet {
    allowed: std::time::Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Why a request body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// More than `limits.bodyBytes`. 413.
    #[error("the request body is larger than allowed")]
    TooLarge,
    /// Nothing came for `timeouts.body`. 408.
    #[error("nothing more of the request body came in time")]
    Quiet,
    /// Badly framed, or cut off. 400.
    #[error("the request body cannot be read")]
    Broken(#[source] hyper::Error),
}

impl RequestBody {
    /// `limit` in bytes, 0 for none; `quiet` in milliseconds, 0 for none.
    pub fn new(incoming: Incoming, limit: u64, quiet: Millis) -> Self {
        Self {
            incoming: (!incoming.is_end_stream()).then_some(incoming),
            left: if limit == 0 { u64::MAX } else { limit },
            quiet: (quiet > 0).then(|| Quiet {
                allowed: std::time::Duration::from_millis(quiet),
                timer: None,
            }),
            failed: false,
        }
    }

    /// Whether it is known to be longer than allowed.
    pub fn too_large(&self) -> bool {
        self.size_hint().lower() > self.left
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
        let length = frame.data_ref().map_or(0, Bytes::len) as u64;
        self.left = self.left.checked_sub(length).ok_or(BodyError::TooLarge)?;
        Ok(frame)
    }
}

impl Quiet {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let allowed = self.allowed;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(allowed)));
        timer.as_mut().poll(cx)
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let (Some(incoming), false) = (&mut this.incoming, this.failed) else {
            return Poll::Ready(None);
        };
        let Poll::Ready(frame) = Pin::new(incoming).poll_frame(cx) else {
            if let Some(quiet) = &mut this.quiet {
                ready!(quiet.poll(cx));
                this.failed = true;
                return Poll::Ready(Some(Err(BodyError::Quiet)));
            }
            return Poll::Pending;
        };
        if let Some(quiet) = &mut this.quiet {
            quiet.timer = None;
        }
        let taken = frame.map(|frame| {
            frame
                .map_err(BodyError::Broken)
                .and_then(|frame| this.take(frame))
        });
        this.failed = matches!(taken, Some(Err(_)));
        Poll::Ready(taken)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

/// HTTP/2 is given so much at a time, a frame: a client is timed for each, however slow it is.
const FRAME: usize = 16 << 10;

/// A response body: nothing, a page of ours, or what streams from a server.
#[derive(Debug)]
pub struct Body {
    kind: Kind,
    /// Of a frame that was too long for HTTP/2.
    rest: Bytes,
    /// Counted as open until it is handed over whole or dropped.
    open: Option<Open>,
}

#[derive(Debug)]
enum Kind {
    Empty,
    Whole(Bytes),
    Upstream(proxy::Body),
}

/// What ends with a response body.
#[derive(Debug)]
struct Open {
    link: Arc<Link>,
    record: Option<Arc<Record>>,
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self {
            kind: Kind::Empty,
            rest: Bytes::new(),
            open: None,
        }
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, proxy::Error>>> {
        let frame = match &mut self.kind {
            _ if !self.rest.is_empty() => Some(Ok(Frame::data(std::mem::take(&mut self.rest)))),
            Kind::Empty => None,
            Kind::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.kind = Kind::Empty;
                (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)))
            }
            Kind::Upstream(body) => ready!(Pin::new(body).poll_frame(cx)),
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| self.cut(frame))))
    }

    /// Leaves what HTTP/2 cannot send as one frame for the next one.
    fn cut(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let h2 = |open: &Open| open.link.h2();
        let long = frame.data_ref().is_some_and(|data| data.len() > FRAME);
        if !long || !self.open.as_ref().is_some_and(h2) {
            return frame;
        }
        frame.map_data(|mut data| {
            self.rest = data.split_off(FRAME);
            data
        })
    }

    /// The connection is busy, and the record unwritten, until this body is done.
    pub fn open(&mut self, link: Arc<Link>, record: Option<Arc<Record>>) {
        self.open = Some(Open { link, record });
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self {
            kind: Kind::Whole(bytes),
            rest: Bytes::new(),
            open: None,
        }
    }
}

impl From<proxy::Body> for Body {
    fn from(body: proxy::Body) -> Self {
        Self {
            kind: Kind::Upstream(body),
            rest: Bytes::new(),
            open: None,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.link.finish();
        if let Some(record) = &self.record {
            record.write();
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = proxy::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, proxy::Error>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = this.poll_next(cx) else {
            streams::ours();
            return Poll::Pending;
        };
        streams::moved();
        if let Some(Open {
            record: Some(record),
            ..
        }) = &this.open
        {
            match &frame {
                Some(Ok(frame)) => record.sent(frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(_)) => record.broke_off(),
                None => {}
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            _ if !self.rest.is_empty() => false,
            Kind::Empty => true,
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Upstream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let mut hint = match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Upstream(body) => body.size_hint(),
        };
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body::Body as _;
    use http_body_util::BodyExt;

    use super::*;
    use crate::gate::link::{Ticker, Timeouts};

    fn frames(h2: bool, length: usize) -> Vec<usize> {
        let timeouts = Timeouts {
            header: 0,
            body: 0,
            idle: 0,
        };
        let link = Link::new(Arc::new(Ticker::default()), None, false, timeouts);
        if h2 {
            link.speak_h2();
        }
        link.begin();
        let mut body = Body::from(Bytes::from(vec![b'x'; length]));
        body.open(link, None);
        let (mut all, mut left) = (Vec::new(), length);
        while !body.is_end_stream() {
            assert_eq!(body.size_hint().exact(), Some(left as u64));
            let frame = body.frame().now_or_never().unwrap().unwrap().unwrap();
            all.push(frame.into_data().unwrap().len());
            left -= all.last().unwrap();
        }
        all
    }

    #[test]
    fn http2_is_given_one_frame_at_a_time() {
        assert_eq!(frames(true, 40_000), [FRAME, FRAME, 40_000 - 2 * FRAME]);
        assert_eq!(frames(true, FRAME), [FRAME]);
        assert_eq!(frames(true, 0), [0; 0]);
        assert_eq!(frames(false, 40_000), [40_000]);
    }
}
