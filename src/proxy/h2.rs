//! HTTP/2 towards servers, by hyper: sessions shared by all requests of a worker, streams with
//! the same timeouts as HTTP/1.1. Which server is asked is not decided here.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::http2::{Builder, SendRequest},
};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::{
    BoxError, Error, Phase,
    body::RequestBody,
    dial::Stream,
    h1::Failure,
    headers::{Outgoing, clean_trailers, strip_response},
    timer::Timer,
    upstream::Server,
};
use crate::{
    tasks::Tasks,
    time::{Clock, Millis},
};

/// Streams at once on one connection; more open a second one. Beyond what a server allows
/// hyper queues.
const MAX_STREAMS: usize = 100;
/// A ping after this long without a word, and how long its answer may take.
const PING: Duration = Duration::from_secs(20);
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const MAX_HEADER_LIST: u32 = 64 * 1024;
/// How often the progress of an upload is looked at.
const TICK: Duration = Duration::from_secs(1);

/// A worker's connections to one server.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    open: Vec<Session>,
    /// Held while one is being opened, so that a burst opens one and not a hundred.
    pub(super) dialling: Arc<tokio::sync::Mutex<()>>,
}

/// One connection. Its streams are counted by the clones of `streams`.
#[derive(Clone, Debug)]
pub(super) struct Session {
    send: SendRequest<Upload>,
    streams: Arc<()>,
    idle_since: Option<Millis>,
}

/// A response body; dropping it resets the stream.
#[derive(Debug)]
pub(super) struct Streaming {
    incoming: Incoming,
    timer: Timer,
    upload: Arc<Progress>,
    server: Arc<Server>,
    clock: Clock,
    _stream: Arc<()>,
}

/// A request body on its way, watched.
#[derive(Debug)]
struct Upload {
    body: RequestBody,
    progress: Arc<Progress>,
    clock: Clock,
}

/// What is known of an upload from outside of hyper's task.
#[derive(Debug)]
struct Progress {
    ended: AtomicBool,
    /// The client has sent no more for now: nobody's fault upstream.
    waits_for_client: AtomicBool,
    at: AtomicU64,
}

/// Lets hyper spawn through [`Tasks`].
#[derive(Clone)]
struct Executor(Tasks);

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

impl Sessions {
    /// One that can take another stream.
    pub(super) fn find(&mut self) -> Option<Session> {
        self.open.retain(|session| !session.send.is_closed());
        let session = self.open.iter_mut().find(|session| session.has_room())?;
        session.idle_since = None;
        Some(session.clone())
    }

    pub(super) fn add(&mut self, session: Session) {
        self.open.push(session);
    }

    /// Lets go of what is closed or was not used for `limit`. Answers whether any is left.
    pub(super) fn sweep(&mut self, now: Millis, limit: Duration) -> bool {
        self.open.retain_mut(|session| {
            if session.send.is_closed() {
                return false;
            }
            if session.streams() > 0 {
                session.idle_since = None;
                return true;
            }
            let since = *session.idle_since.get_or_insert(now);
            limit.is_zero() || now - since < limit.as_millis() as Millis
        });
        !self.open.is_empty()
    }
}

impl Session {
    /// Speaks HTTP/2's preface on a fresh connection.
    pub(super) async fn open(
        stream: Stream,
        server: &Server,
        tasks: &Tasks,
    ) -> Result<Self, Error> {
        let handshake = Builder::new(Executor(tasks.clone()))
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADER_LIST)
            .handshake(TokioIo::new(stream))
            .await;
        let (send, connection) = handshake.map_err(|source| failed(server, source))?;
        let label = server.label.clone();
        tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(server = %label, %error, "HTTP/2 connection ended");
            }
        });
        Ok(Self {
            send,
            streams: Arc::new(()),
            idle_since: None,
        })
    }

    fn has_room(&self) -> bool {
        self.streams() < MAX_STREAMS
    }

    fn streams(&self) -> usize {
        // The session's own, in the pool.
        Arc::strong_count(&self.streams) - 1
    }

    /// One exchange, up to the response's head.
    pub(super) async fn ask(
        mut self,
        outgoing: &Outgoing<'_>,
        authority: &[u8],
        body: RequestBody,
        server: &Arc<Server>,
        clock: &Clock,
    ) -> Result<Response<Streaming>, Failure> {
        let bodiless = body.is_end_stream();
        let progress = Arc::new(Progress {
            ended: AtomicBool::new(bodiless),
            waits_for_client: AtomicBool::new(false),
            at: AtomicU64::new(clock.now()),
        });
        let upload = Upload {
            body,
            progress: progress.clone(),
            clock: *clock,
        };
        let request = match encode(outgoing, authority, server, upload) {
            Ok(request) => request,
            Err(error) => return Err(Failure::Final(Error::ClientBody(error.into()))),
        };
        let mut timer = Timer::new();
        let mut response = pin!(self.send.try_send_request(request));
        let outcome = std::future::poll_fn(|cx| match response.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => progress
                .poll_head_timeout(cx, &mut timer, server, clock)
                .map(Err),
        });
        match outcome.await {
            Err(timeout) => Err(Failure::Final(timeout)),
            Ok(Ok(response)) => {
                timer.clear();
                let mut response = response.map(|incoming| Streaming {
                    incoming,
                    timer,
                    upload: progress,
                    server: server.clone(),
                    clock: *clock,
                    _stream: self.streams,
                });
                strip_response(response.headers_mut());
                Ok(response)
            }
            // What never left hyper's queue comes back whole.
            Ok(Err(mut error)) => Err(match error.take_message() {
                Some(request) => {
                    let body = request.into_body().body;
                    Failure::Stale(body, failed(server, error.into_error()))
                }
                // The session died under a request that may be repeated.
                None if bodiless
                    && outgoing.parts.method.is_idempotent()
                    && self.send.is_closed() =>
                {
                    Failure::Stale(RequestBody::default(), failed(server, error.into_error()))
                }
                None => Failure::Final(failed(server, error.into_error())),
            }),
        }
    }
}

fn failed(server: &Server, source: hyper::Error) -> Error {
    Error::Http2 {
        server: server.label.clone(),
        source,
    }
}

fn encode(
    outgoing: &Outgoing<'_>,
    authority: &[u8],
    server: &Server,
    upload: Upload,
) -> Result<Request<Upload>, http::Error> {
    let target = outgoing.parts.uri.path_and_query();
    let target = target.map_or("/", |target| target.as_str());
    let path = match (target, &*server.config.base_path) {
        (target, "") => target.to_owned(),
        ("*", _) => "*".to_owned(),
        (target, base) => format!("{base}{target}"),
    };
    let uri = Uri::builder()
        .scheme(if server.tls.is_some() {
            "https"
        } else {
            "http"
        })
        .authority(authority)
        .path_and_query(path)
        .build()?;
    let mut headers = HeaderMap::with_capacity(outgoing.parts.headers.len() + 8);
    outgoing.each(&mut |name, value| {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    });
    let mut request = Request::new(upload);
    *request.method_mut() = outgoing.parts.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    Ok(request)
}

impl Progress {
    /// Ready with the timeout that has passed. hyper's task moves the upload without waking this
    /// one, so while it lasts it is looked at every tick.
    fn poll_head_timeout(
        &self,
        cx: &mut Context<'_>,
        timer: &mut Timer,
        server: &Server,
        clock: &Clock,
    ) -> Poll<Error> {
        loop {
            let ended = self.ended.load(Relaxed);
            let (limit, phase) = match ended {
                true => (
                    server.transport.response_header_timeout,
                    Phase::ResponseHeader,
                ),
                false => (server.transport.body_timeout, Phase::RequestBody),
            };
            let since = self.at.load(Relaxed);
            let now = clock.now();
            let waits = !ended && self.waits_for_client.load(Relaxed);
            if !limit.is_zero() && !waits && now >= since + limit.as_millis() as Millis {
                return Poll::Ready(Error::Timeout {
                    server: server.label.clone(),
                    phase,
                });
            }
            match ended {
                true => timer.set(since, limit),
                false => timer.set(now, TICK),
            }
            ready!(timer.poll(cx, clock));
        }
    }

    /// The upload still moves, or it is the client that is waited for.
    fn is_moving(&self, now: Millis, limit: Duration) -> bool {
        !self.ended.load(Relaxed)
            && (self.waits_for_client.load(Relaxed)
                || now < self.at.load(Relaxed) + limit.as_millis() as Millis)
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let progress = &self.progress;
        progress.waits_for_client.store(frame.is_pending(), Relaxed);
        progress.at.store(self.clock.now(), Relaxed);
        let mut frame = ready!(frame);
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            clean_trailers(trailers);
        }
        let last = !matches!(&frame, Some(Ok(frame)) if frame.is_data());
        progress
            .ended
            .store(last || self.body.is_end_stream(), Relaxed);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Streaming {
    pub(super) fn is_end(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) {
            self.timer.clear();
            return Poll::Ready(match frame {
                Some(Ok(mut frame)) => {
                    if let Some(trailers) = frame.trailers_mut() {
                        clean_trailers(trailers);
                    }
                    Some(Ok(frame))
                }
                Some(Err(source)) => Some(Err(failed(&self.server, source))),
                None => None,
            });
        }
        let limit = self.server.transport.body_timeout;
        if !self.timer.is_set() {
            self.timer.set(self.clock.now(), limit);
        }
        loop {
            ready!(self.timer.poll(cx, &self.clock));
            let now = self.clock.now();
            if !self.upload.is_moving(now, limit) {
                return Poll::Ready(Some(Err(Error::Timeout {
                    server: self.server.label.clone(),
                    phase: Phase::ResponseBody,
                })));
            }
            self.timer.set(now, limit);
        }
    }
}
