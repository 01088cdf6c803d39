//! One client connection from accept to close: PROXY header, TLS, protocol, hyper, and the
//! bridge from hyper's requests to the stack. Which request passes is not decided here.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncReadExt};
use tower::Service;

use super::{
    exchange::{Body, Exchange, RequestBody},
    limits::Place,
    link::{Link, Timeouts},
    proxy_protocol::{self, Source},
    server::Worker,
    site::{Door, Site},
    socket::{Io, Stream},
    stack::Answer,
    wire::Wire,
};

/// What HTTP/2 by prior knowledge begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Requests one HTTP/2 connection may give up before it is closed (rapid reset).
const CANCELLED_MAX: u32 = 1000;
/// HTTP/2 flow control, as Envoy's edge guide has it.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// hyper's own limit on header lines; another one costs it its array on the stack.
const HYPER_HEADERS: usize = 100;

/// Serves the connections of one entry point of one worker.
#[derive(Clone, Debug)]
pub struct Front<S> {
    /// The worker they belong to.
    pub worker: Arc<Worker>,
    /// The entry point, by its place in the site.
    pub door: usize,
    stack: S,
}

/// A stack that can serve connections.
pub trait Stack:
    Service<Box<Exchange>, Response = Answer, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Stack for S where
    S: Service<Box<Exchange>, Response = Answer, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Why a connection got no further than its first bytes. Seen at debug level only: scanners and
/// browsers that change their mind cause it all day.
#[derive(Debug, thiserror::Error)]
enum Early {
    #[error("PROXY header: {0}")]
    Proxy(#[source] io::Error),
    #[error("TLS handshake: {0}")]
    Tls(#[source] io::Error),
    #[error("first bytes: {0}")]
    First(#[source] io::Error),
    #[error("too many connections from {0}")]
    Crowded(std::net::IpAddr),
}

impl<S: Stack> Front<S> {
    /// Ready for the connections of the door with this index.
    pub fn new(worker: Arc<Worker>, door: usize, stack: S) -> Self {
        Self {
            worker,
            door,
            stack,
        }
    }

    /// Serves one connection to its end. `place` is held as long as its socket.
    pub async fn connect(
        self,
        site: Arc<Site>,
        stream: Stream,
        peer: Option<SocketAddr>,
        place: Place,
    ) {
        if let Err(error) = self.serve(site, stream, peer, place).await {
            tracing::debug!(?peer, %error, "connection ended early");
        }
    }

    async fn serve(
        &self,
        site: Arc<Site>,
        mut stream: Stream,
        peer: Option<SocketAddr>,
        mut place: Place,
    ) -> Result<(), Early> {
        let door = &site.doors[self.door];
        let peer = within(door.timeouts.header, source(&mut stream, peer, door))
            .await
            .map_err(Early::Proxy)?;
        if let Some(peer) = peer {
            let ip = peer.ip().to_canonical();
            if !door.trusted.contains(ip) && !place.of(ip, &door.limits) {
                return Err(Early::Crowded(ip));
            }
        }
        let (io, h2, ahead) = match &door.tls {
            Some(acceptor) => {
                // Boxed: the task of every connection would be as large, and is moved about.
                let accepted = Box::pin(within(door.timeouts.header, acceptor.accept(stream)));
                let tls = accepted.await.map_err(Early::Tls)?;
                let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
                (Io::Tls(Box::new(tls)), h2, Bytes::new())
            }
            None => {
                let stop = self.worker.tasks.stopping();
                let first = within(door.timeouts.idle, sniff(&mut stream));
                let first = tokio::select! {
                    // Mostly there already, and then nobody need be told where to wake us.
                    biased;
                    first = first => first.map_err(Early::First)?,
                    () = stop.cancelled() => return Ok(()),
                };
                let Some(first) = first else { return Ok(()) };
                (Io::Plain(stream), first.starts_with(PREFACE), first)
            }
        };
        let tls = door.tls.is_some();
        let timeouts = Timeouts::from(&door.timeouts);
        let link = Link::new(self.worker.ticker.clone(), peer, tls, h2, timeouts);
        let registered = self.worker.ticker.register(link.clone());
        let wire = TokioIo::new(Wire::new(io, ahead, registered, place));
        self.speak(wire, &link, door).await;
        Ok(())
    }

    /// Speaks HTTP until the connection ends. Errors are the client's business.
    async fn speak(&self, wire: TokioIo<Wire>, link: &Arc<Link>, door: &Door) {
        let requests = Requests {
            front: self.clone(),
            link: link.clone(),
            served: AtomicU32::new(0),
        };
        if link.h2 {
            let connection =
                h2_builder(self.worker.tasks.clone(), door).serve_connection(wire, requests);
            let drive = drive(connection, link, |connection| {
                connection.graceful_shutdown()
            });
            // As the TLS handshake.
            Box::pin(drive).await;
        } else {
            let connection = h1_builder(door, wire.inner().sees_the_client_go())
                .serve_connection(wire, requests)
                .with_upgrades();
            drive(connection, link, |connection| {
                connection.graceful_shutdown()
            })
            .await;
        }
    }
}

/// The connection's source: the socket's peer, or whom a trusted one names.
async fn source(
    stream: &mut Stream,
    peer: Option<SocketAddr>,
    door: &Door,
) -> io::Result<Option<SocketAddr>> {
    let (Stream::Tcp(stream), Some(address)) = (stream, peer) else {
        return Ok(peer);
    };
    if !door.proxy_trusted.contains(address.ip()) {
        return Ok(peer);
    }
    let mut seen = vec![0; proxy_protocol::V2_MAX];
    loop {
        // Peeked, so that TLS and HTTP find the stream as if the header had never been there.
        let length = stream.peek(&mut seen).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match proxy_protocol::parse(&seen[..length]) {
            Ok(Some((source, header))) => {
                stream.read_exact(&mut seen[..header]).await?;
                return Ok(match source {
                    Source::Peer(real) => Some(real),
                    Source::Itself => peer,
                });
            }
            // A peek does not wait for more than there is.
            Ok(None) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}

/// The first bytes, enough to tell HTTP/2 from HTTP/1.1; `None` when there are none.
async fn sniff<T: AsyncRead + Unpin>(stream: &mut T) -> io::Result<Option<Bytes>> {
    let mut first = BytesMut::with_capacity(4096);
    loop {
        if stream.read_buf(&mut first).await? == 0 {
            return Ok((!first.is_empty()).then(|| first.freeze()));
        }
        let compared = first.len().min(PREFACE.len());
        if compared == PREFACE.len() || first[..compared] != PREFACE[..compared] {
            return Ok(Some(first.freeze()));
        }
    }
}

/// `future`, but no longer than `limit`; zero is no limit.
async fn within<T>(limit: Duration, future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    if limit.is_zero() {
        return future.await;
    }
    match tokio::time::timeout(limit, future).await {
        Ok(done) => done,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn h1_builder(door: &Door, watched: bool) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // The wire times heads, bodies and idleness without a timer per request.
        .header_read_timeout(None)
        // It also sees the client go, where it can.
        .half_close(watched)
        .max_header_size(door.limits.header_bytes)
        .max_buf_size(door.limits.header_bytes.max(512 * 1024));
    if door.limits.headers > HYPER_HEADERS {
        builder.max_headers(door.limits.headers);
    }
    builder
}

fn h2_builder(tasks: crate::tasks::Tasks, door: &Door) -> http2::Builder<Spawner> {
    let mut builder = http2::Builder::new(Spawner(tasks));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(door.limits.concurrent_streams)
        .max_header_list_size(u32::try_from(door.limits.header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    builder
}

/// Spawns what hyper wants spawned.
#[derive(Clone, Debug)]
struct Spawner(crate::tasks::Tasks);

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// Polls a connection until it is done, or ended by the ticker; tells it when to drain.
async fn drive<C: Future>(connection: C, link: &Link, shut_down: impl Fn(Pin<&mut C>)) {
    let mut connection = std::pin::pin!(connection);
    let (mut watched, mut draining) = (false, false);
    std::future::poll_fn(|cx| {
        if !watched {
            watched = true;
            link.watched_by(cx.waker());
        }
        if link.draining() && !draining {
            draining = true;
            shut_down(connection.as_mut());
        }
        if link.ended() {
            return Poll::Ready(());
        }
        connection.as_mut().poll(cx).map(drop)
    })
    .await;
}

/// hyper's service for one connection.
#[derive(Debug)]
struct Requests<S> {
    front: Front<S>,
    link: Arc<Link>,
    served: AtomicU32,
}

impl<S: Stack> hyper::service::Service<Request<Incoming>> for Requests<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let worker = &self.front.worker;
        let site = worker.site();
        let limit = site.doors[self.front.door].limits.body_bytes;
        let quiet = if self.link.h2 {
            self.link.timeouts().body
        } else {
            0
        };
        self.link.begin();
        let (head, incoming) = request.into_parts();
        let exchange = Box::new(Exchange {
            head,
            body: RequestBody::new(incoming, limit, quiet),
            link: self.link.clone(),
            site,
            door: self.front.door,
            number: self.served.fetch_add(1, Relaxed),
            now: worker.clock.now(),
            trusted: false,
            route: None,
            client: None,
            verdicts: Vec::new(),
            record: None,
        });
        Answering {
            stack: self.front.stack.clone().call(exchange),
            begun: Begun(Some(self.link.clone())),
        }
    }
}

pin_project! {
    /// A request on its way through the stack.
    #[derive(Debug)]
    struct Answering<F> {
        #[pin]
        stack: F,
        begun: Begun,
    }
}

/// Dropped while it still counts, the client gave the request up.
#[derive(Debug)]
struct Begun(Option<Arc<Link>>);

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(link) = &self.0 {
            link.finish();
            if link.h2 && link.cancel() > CANCELLED_MAX {
                link.end();
            }
        }
    }
}

impl<F> Future for Answering<F>
where
    F: Future<Output = Result<Answer, Infallible>>,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (mut response, record) = ready!(this.stack.poll(cx))?;
        if let Some(link) = this.begun.0.take() {
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                link.tunnel();
            }
            // From here on it is the body that keeps the connection busy.
            response.body_mut().open(link, record);
        }
        Poll::Ready(Ok(response))
    }
}
