//! One client connection from accept to close: PROXY header, TLS, protocol, hyper, and the
//! bridge from hyper's requests to the stack. Which request passes is not decided here.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::{io::AsyncReadExt, net::TcpStream};
use tower::Service;

use super::{
    exchange::{Body, Exchange, RequestBody},
    limits::Place,
    link::{Link, Timeouts},
    proxy_protocol::{self, Source},
    server::{Sites, Worker},
    site::{Door, Site},
    socket::{Io, Stream},
    stack::Answer,
    streams::{self, Streams},
    wire::Wire,
};

/// Requests that one HTTP/2 connection may give up, beyond as many as it lets be answered, before
/// it is closed (rapid reset).
const CANCELLED_MAX: u32 = 1000;
/// HTTP/2 flow control, as Envoy's edge guide has it.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of one answer that HTTP/2 takes before it writes them: a client may let a hundred lie.
const STREAM_BUFFERED: usize = 64 * 1024;
/// Bytes of a response that hyper takes before it writes them, and so what it holds for a client
/// that reads no more.
const BUFFERED: usize = 256 * 1024;
/// hyper's own limit on header lines; another one costs it its array on the stack.
const HYPER_HEADERS: usize = 100;

/// Serves the connections of one entry point of one worker.
#[derive(Clone, Debug)]
pub struct Front<S> {
    /// The worker they belong to.
    pub worker: Arc<Worker>,
    /// The entry point, by its place in the site.
    pub door: usize,
    /// The configuration in force, as last seen: looking whether there is another costs one load.
    sites: Sites,
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
            sites: worker.sites(),
            worker,
            door,
            stack,
        }
    }

    /// The configuration in force.
    pub fn site(&mut self) -> Arc<Site> {
        self.sites.load().clone()
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
        self,
        site: Arc<Site>,
        mut stream: Stream,
        peer: Option<SocketAddr>,
        mut place: Place,
    ) -> Result<(), Early> {
        let door = &site.doors[self.door];
        let peer = match (&mut stream, peer) {
            (Stream::Tcp(stream), Some(peer)) if door.proxy_trusted.contains(peer.ip()) => {
                let named = Box::pin(within(door.timeouts.header, source(stream, peer)));
                Some(named.await.map_err(Early::Proxy)?)
            }
            _ => peer,
        };
        if let Some(peer) = peer {
            let ip = peer.ip().to_canonical();
            if !door.trusted.contains(ip) && !place.of(ip, &door.limits) {
                return Err(Early::Crowded(ip));
            }
        }
        let (io, h2) = match &door.tls {
            Some(acceptor) => {
                // Boxed: the task of every connection would be as large, and is moved about.
                let accepted = Box::pin(within(door.timeouts.header, acceptor.accept(stream)));
                let tls = accepted.await.map_err(Early::Tls)?;
                let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
                (Io::Tls(Box::new(tls)), h2)
            }
            None => (Io::Plain(stream), false),
        };
        let tls = door.tls.is_some();
        let timeouts = Timeouts::from(&door.timeouts);
        let link = Link::new(self.worker.ticker.clone(), peer, tls, timeouts);
        let registered = self.worker.ticker.register(link.clone());
        let mut wire = Wire::new(io, registered, place);
        match tls {
            true if h2 => wire.speak_h2(),
            true => {}
            false => wire.tell_protocol().await.map_err(Early::First)?,
        }
        let wire = TokioIo::new(wire);
        self.speak(wire, &link, &site).await;
        Ok(())
    }

    /// Speaks HTTP until the connection ends. Errors are the client's business.
    async fn speak(self, wire: TokioIo<Wire>, link: &Arc<Link>, site: &Site) {
        let door = &site.doors[self.door];
        let tasks = self.worker.tasks.clone();
        let requests = Requests {
            front: RefCell::new(self),
            link: link.clone(),
            served: Cell::new(0),
        };
        // In boxes of their own: inside the task's future they would be copied with it, several
        // times until it runs.
        if link.h2() {
            let streams = Streams {
                tasks,
                link: link.clone(),
            };
            let builder = h2_builder(streams, door);
            let mut connection = Box::pin(builder.serve_connection(wire, requests));
            drive(connection.as_mut(), link, |connection| {
                connection.graceful_shutdown()
            })
            .await;
        } else {
            let mut connection = Box::pin(
                h1_builder(door, wire.inner().sees_the_client_go())
                    .serve_connection(wire, requests)
                    .with_upgrades(),
            );
            drive(connection.as_mut(), link, |connection| {
                connection.graceful_shutdown()
            })
            .await;
        }
    }
}

/// Whom a trusted peer names as the connection's source.
async fn source(stream: &mut TcpStream, peer: SocketAddr) -> io::Result<SocketAddr> {
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
                    Source::Peer(real) => real,
                    Source::Itself => peer,
                });
            }
            // A peek does not wait for more than there is.
            Ok(None) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
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
        .max_buf_size(door.limits.header_bytes.max(BUFFERED));
    if door.limits.headers > HYPER_HEADERS {
        builder.max_headers(door.limits.headers);
    }
    builder
}

fn h2_builder(streams: Streams, door: &Door) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .max_send_buf_size(STREAM_BUFFERED)
        .max_concurrent_streams(door.limits.concurrent_streams)
        .max_header_list_size(u32::try_from(door.limits.header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    builder
}

/// Polls a connection until it is done, or ended by the ticker; tells it when to drain.
async fn drive<C: Future>(
    mut connection: Pin<&mut C>,
    link: &Link,
    shut_down: impl Fn(Pin<&mut C>),
) {
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
    front: RefCell<Front<S>>,
    link: Arc<Link>,
    served: Cell<u32>,
}

impl<S: Stack> hyper::service::Service<Request<Incoming>> for Requests<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let front = &mut *self.front.borrow_mut();
        let site = front.site();
        let limit = site.doors[front.door].limits.body_bytes;
        let quiet = if self.link.h2() {
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
            door: front.door,
            number: self.served.replace(self.served.get().wrapping_add(1)),
            timed: front.worker.times_the_next(),
            now: front.worker.clock.now(),
            trusted: false,
            route: None,
            plain: false,
            client: None,
            verdicts: Vec::new(),
            record: None,
        });
        Answering {
            stack: front.stack.call(exchange),
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
            if link.h2() && link.cancel() > CANCELLED_MAX {
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
        let Poll::Ready(answer) = this.stack.poll(cx) else {
            streams::ours();
            return Poll::Pending;
        };
        let (mut response, record) = answer?;
        if let Some(link) = this.begun.0.take() {
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                link.tunnel();
            }
            link.respond();
            // From here on it is the body that keeps the connection busy.
            response.body_mut().open(link, record);
        }
        Poll::Ready(Ok(response))
    }
}
