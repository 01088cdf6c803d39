//! The one place where a refusal becomes a response: denials with their page, 404, 50x with their
//! cause in the log, requests that cannot be read. Nobody else writes an answer of ours.

use std::{
    borrow::Cow,
    convert::Infallible,
    error::Error as StdError,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{
    exchange::{Body, BodyError, Exchange},
    link::Link,
};
use crate::{
    config::DenyResponse,
    engine::{Denial, REFUSED},
    proxy,
    telemetry::privacy::logged,
    time::{Clock, Millis},
};

/// Why a request is not answered by a service.
#[derive(Debug)]
pub enum Refusal {
    /// Could be read in two ways: 400, and the connection closes.
    Malformed(&'static str),
    /// Longer than `limits.uriBytes`: 414.
    TargetTooLong,
    /// More than `limits.headers`: 431.
    TooManyHeaders,
    /// More than `limits.bodyBytes`: 413.
    BodyTooLarge,
    /// No trustworthy address to judge: 400 with the reason for the operator.
    NoClient(&'static str),
    /// A forwardAuth question that cannot be judged as it is.
    Unasked(StatusCode, &'static str),
    /// One from a peer that may not ask, or about a jail there is not.
    NotSetUp(StatusCode, &'static str),
    /// No route matches: 404.
    NoRoute,
    /// A jail refuses.
    Denied(Box<Denied>),
    /// The service did not answer: 502, 503, 504, or the request's own body failed.
    Upstream(Box<proxy::Error>),
}

/// A denial and what its response is made from.
#[derive(Debug)]
pub struct Denied {
    /// What the engine said.
    pub denial: Denial,
    /// The jail's name.
    pub jail: Arc<str>,
    /// Who is denied.
    pub client: IpAddr,
    /// The jail's wishes.
    pub response: Arc<DenyResponse>,
}

/// `X-Jailgate-Reason`, one fixed word on every denial and every refused question: the log of
/// whoever asks shows by it that the answer was ours.
pub const REASON: header::HeaderName = header::HeaderName::from_static("x-jailgate-reason");

impl Refusal {
    /// The status it is answered with.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::NoClient(_) => StatusCode::BAD_REQUEST,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::TooManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unasked(status, _) | Self::NotSetUp(status, _) => *status,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Denied(denied) => denied.response.status,
            Self::Upstream(error) => match body_error(error) {
                Some(BodyError::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
                Some(BodyError::Quiet) => StatusCode::REQUEST_TIMEOUT,
                Some(BodyError::Broken(_)) => StatusCode::BAD_REQUEST,
                None => error.status(),
            },
        }
    }

    /// What it says to a person, after the status.
    fn detail(&self) -> Option<&'static str> {
        match self {
            Self::Malformed(why)
            | Self::NoClient(why)
            | Self::Unasked(_, why)
            | Self::NotSetUp(_, why) => Some(why),
            _ => None,
        }
    }

    /// Whether the rest of what the client sent must not be read as requests.
    fn closes(&self) -> bool {
        match self {
            Self::Malformed(_)
            | Self::TargetTooLong
            | Self::TooManyHeaders
            | Self::BodyTooLarge
            | Self::NoClient(_) => true,
            Self::Upstream(error) => body_error(error).is_some(),
            Self::Unasked(..) | Self::NotSetUp(..) | Self::NoRoute | Self::Denied(_) => false,
        }
    }

    /// Puts the cause of a 50x into the log, and what is set up wrong; so many a second.
    fn log(&self, link: &Link, now: Millis) {
        if let Self::NotSetUp(_, why) = self
            && let Some(unsaid) = SAID.admit(now)
        {
            let peer = link.peer_ip().map(logged);
            tracing::warn!(peer, why, unsaid, "a question was refused");
        }
        if let Self::Upstream(error) = self
            && body_error(error).is_none()
            && let Some(unsaid) = SAID.admit(now)
        {
            let cause = error.source().map(tracing::field::display);
            tracing::warn!(status = error.status().as_u16(), %error, cause, unsaid, "no answer from upstream");
        }
    }
}

fn body_error(error: &proxy::Error) -> Option<&BodyError> {
    match error {
        proxy::Error::ClientBody(source) => source.downcast_ref(),
        _ => None,
    }
}

/// Lines about upstreams in the log of this process, per second.
const CAUSES_PER_SECOND: u32 = 20;

static SAID: Causes = Causes {
    second: AtomicU64::new(0),
    lines: AtomicU32::new(0),
    unsaid: AtomicU64::new(0),
};

/// Keeps an outage from filling the disk. Roughly right under contention, which is enough.
#[derive(Debug)]
struct Causes {
    second: AtomicU64,
    lines: AtomicU32,
    unsaid: AtomicU64,
}

impl Causes {
    /// Whether one more is to be said; if so, how many were not since the last one that was.
    fn admit(&self, now: Millis) -> Option<u64> {
        if self.second.swap(now / 1000, Relaxed) != now / 1000 {
            self.lines.store(0, Relaxed);
        }
        if self.lines.fetch_add(1, Relaxed) < CAUSES_PER_SECOND {
            return Some(self.unsaid.swap(0, Relaxed));
        }
        self.unsaid.fetch_add(1, Relaxed);
        None
    }
}

/// Renders a refusal. `head` is whether a HEAD asked.
pub fn render(refusal: &Refusal, head: bool, now: Millis) -> Response<Body> {
    let status = refusal.status();
    let (text, kind) = match refusal {
        Refusal::Denied(denied) => match &denied.response.page {
            Some(page) => (fill(page, denied, now), Some("text/html; charset=utf-8")),
            None => (String::new(), None),
        },
        _ => (
            plain(status, refusal.detail()),
            Some("text/plain; charset=utf-8"),
        ),
    };
    let length = HeaderValue::from(text.len());
    let body = if head || text.is_empty() {
        Body::empty()
    } else {
        Bytes::from(text).into()
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length);
    if let Some(kind) = kind {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    if let Refusal::Denied(denied) = refusal {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let reason = denied.denial.reason.as_str();
        headers.insert(REASON, HeaderValue::from_static(reason));
        if denied.response.retry_after
            && let Some(seconds) = seconds_left(&denied.denial, now)
        {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
    }
    if let Refusal::Unasked(..) | Refusal::NotSetUp(..) = refusal {
        headers.insert(REASON, HeaderValue::from_static(REFUSED));
    }
    response
}

fn plain(status: StatusCode, detail: Option<&str>) -> String {
    match detail {
        Some(detail) => format!("{status}: {detail}\n"),
        None => format!("{status}\n"),
    }
}

/// Seconds until the ban ends, rounded up; nothing for what does not end.
fn seconds_left(denial: &Denial, now: Millis) -> Option<u64> {
    let until = denial
        .until
        .filter(|until| *until != crate::engine::ban::FOREVER)?;
    Some(until.saturating_sub(now).div_ceil(1000))
}

/// Fills `{{status}}`, `{{reason}}`, `{{jail}}`, `{{client}}`, `{{until}}` (RFC 3339) and
/// `{{retry_after}}` (seconds) of a page, escaped for HTML; the last two are empty when the
/// denial does not end. Anything else in braces stays as it is.
fn fill(page: &str, denied: &Denied, now: Millis) -> String {
    let value = |name: &str| -> Option<String> {
        Some(match name {
            "status" => denied.response.status.as_u16().to_string(),
            "reason" => denied.denial.reason.as_str().to_owned(),
            "jail" => denied.jail.to_string(),
            "client" => denied.client.to_string(),
            "until" => seconds_left(&denied.denial, now)
                .and(denied.denial.until)
                .map_or_else(String::new, instant),
            "retry_after" => {
                seconds_left(&denied.denial, now).map_or_else(String::new, |s| s.to_string())
            }
            _ => return None,
        })
    };
    let mut out = String::with_capacity(page.len() + 64);
    let mut rest = page;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        match after
            .split_once("}}")
            .and_then(|(name, rest)| Some((value(name.trim())?, rest)))
        {
            Some((value, after)) => {
                out.push_str(&escape(&value));
                rest = after;
            }
            None => {
                out.push_str("{{");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

fn instant(millis: Millis) -> String {
    i64::try_from(millis / 1000)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(String::new, |timestamp| timestamp.to_string())
}

/// Makes text harmless inside HTML, in attributes too.
fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(letter),
        }
    }
    Cow::Owned(out)
}

/// Turns what is below it into answers, and closes connections that must close.
#[derive(Clone, Copy, Debug)]
pub struct Respond {
    /// For `Retry-After`.
    pub clock: Clock,
}

impl<S> Layer<S> for Respond {
    type Service = Responder<S>;

    fn layer(&self, inner: S) -> Responder<S> {
        Responder {
            inner,
            clock: self.clock,
        }
    }
}

/// See [`Respond`].
#[derive(Clone, Debug)]
pub struct Responder<S> {
    inner: S,
    clock: Clock,
}

impl<S> Service<Box<Exchange>> for Responder<S>
where
    S: Service<Box<Exchange>, Response = Response<Body>, Error = Refusal>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Responding<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Nothing below holds back: limits are kept where connections are accepted.
        let _ = self.inner.poll_ready(cx);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, exchange: Box<Exchange>) -> Self::Future {
        Responding {
            link: exchange.link.clone(),
            number: exchange.number,
            head: exchange.head.method == Method::HEAD,
            clock: self.clock,
            inner: self.inner.call(exchange),
        }
    }
}

pin_project! {
    /// See [`Responder`].
    #[derive(Debug)]
    pub struct Responding<F> {
        #[pin]
        inner: F,
        link: Arc<Link>,
        number: u32,
        head: bool,
        clock: Clock,
    }
}

impl<F> Future for Responding<F>
where
    F: Future<Output = Result<Response<Body>, Refusal>>,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (mut response, closes) = match ready!(this.inner.poll(cx)) {
            Ok(response) => (response, false),
            Err(refusal) => {
                let now = this.clock.now();
                refusal.log(this.link, now);
                (render(&refusal, *this.head, now), refusal.closes())
            }
        };
        if !this.link.h2() && (closes || this.link.must_close(*this.number)) {
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;
    use crate::engine::{JailId, Reason};

    fn denied(page: Option<&str>, until: Option<Millis>) -> Refusal {
        Refusal::Denied(Box::new(Denied {
            denial: Denial {
                reason: Reason::Banned,
                jail: JailId(0),
                until,
            },
            jail: "<web>".into(),
            client: "192.0.2.1".parse().unwrap(),
            response: Arc::new(DenyResponse {
                status: StatusCode::TOO_MANY_REQUESTS,
                retry_after: true,
                page: page.map(Into::into),
            }),
        }))
    }

    #[track_caller]
    fn header(response: &Response<Body>, name: &str) -> Option<String> {
        Some(response.headers().get(name)?.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_denial_says_when_to_come_back_and_nothing_else() {
        let response = render(&denied(None, Some(61_001)), false, 1_000);
        assert_eq!(response.status(), 429);
        assert_eq!(header(&response, "retry-after").as_deref(), Some("61"));
        assert_eq!(
            header(&response, "cache-control").as_deref(),
            Some("no-store")
        );
        assert_eq!(
            header(&response, "x-jailgate-reason").as_deref(),
            Some("banned")
        );
        assert_eq!(header(&response, "content-length").as_deref(), Some("0"));
        assert_eq!(header(&response, "content-type"), None);
        for until in [None, Some(crate::engine::ban::FOREVER)] {
            let response = render(&denied(None, until), false, 1_000);
            assert_eq!(header(&response, "retry-after"), None);
        }
    }

    #[test]
    fn a_page_is_filled_and_escaped() {
        let page =
            "<p>{{status}} {{ reason }} {{jail}} {{client}} {{until}} {{retry_after}} {{x}} {{";
        let Refusal::Denied(made) = denied(Some(page), Some(86_400_000)) else {
            unreachable!()
        };
        assert_eq!(
            fill(page, &made, 86_399_000),
            "<p>429 banned &lt;web&gt; 192.0.2.1 1970-01-02T00:00:00Z 1 {{x}} {{"
        );
    }

    #[test]
    fn an_outage_does_not_fill_the_log() {
        let said = Causes {
            second: AtomicU64::new(0),
            lines: AtomicU32::new(0),
            unsaid: AtomicU64::new(0),
        };
        let lines = (0..1_000).filter(|_| said.admit(5_000).is_some()).count();
        assert_eq!(lines, CAUSES_PER_SECOND as usize);
        assert_eq!(said.admit(6_000), Some(1_000 - lines as u64));
    }

    #[test]
    fn head_gets_the_length_of_a_page_but_not_the_page() {
        let response = render(&denied(Some("<p>no"), None), true, 0);
        assert_eq!(header(&response, "content-length").as_deref(), Some("5"));
        assert!(response.body().is_end_stream());
    }
}
