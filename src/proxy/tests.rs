//! Exchanges against upstreams written by hand, byte by byte, over real sockets.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{Body, BoxError, Error, Forwarded, Proxy, Upstream};
use crate::{
    config::{self, Scheme},
    tasks::Tasks,
    time::Clock,
};

mod exchange;
mod protocols;
mod reach;
mod sending;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A server whose connections are handled by `handle`, told their number from 0 on.
pub(super) async fn raw<F, Fut>(handle: F) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Fn(usize, TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let accepted = count.clone();
    let tasks = Tasks::new();
    tasks.clone().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            tasks.spawn(handle(accepted.fetch_add(1, Relaxed), stream));
        }
    });
    (address, count)
}

/// A server that answers every request head with `answer`.
pub(super) async fn answering(answer: impl Into<Bytes>) -> (SocketAddr, Arc<AtomicUsize>) {
    let answer = answer.into();
    raw(move |_, mut stream| {
        let answer = answer.clone();
        async move {
            while !head(&mut stream).await.is_empty() {
                stream.write_all(&answer).await.unwrap();
            }
        }
    })
    .await
}

/// Reads one head, blank line included, and nothing behind it; what there is of it when the peer
/// closed first.
pub(super) async fn head(stream: &mut TcpStream) -> String {
    let mut seen = vec![0; 16 * 1024];
    let (mut before, mut length) = (0, stream.peek(&mut seen).await.unwrap_or(0));
    let end = loop {
        match memchr::memmem::find(&seen[..length], b"\r\n\r\n") {
            Some(end) => break end + 4,
            None if length == before => break length,
            None => tokio::task::yield_now().await,
        }
        (before, length) = (length, stream.peek(&mut seen).await.unwrap_or(0));
    };
    seen.truncate(end);
    stream.read_exact(&mut seen).await.unwrap();
    String::from_utf8(seen).unwrap()
}

pub(super) fn server(scheme: Scheme, host: &str, port: u16) -> config::Server {
    config::Server {
        scheme,
        host: host.into(),
        port,
        base_path: "".into(),
    }
}

pub(super) fn service(servers: Vec<config::Server>) -> config::Service {
    config::Service {
        name: "app".into(),
        servers,
        pass_host_header: true,
        health_check: None,
        transport: config::Transport::default(),
    }
}

pub(super) fn one(scheme: Scheme, host: &str, port: u16) -> config::Service {
    service(vec![server(scheme, host, port)])
}

pub(super) fn built(service: &config::Service) -> Arc<Upstream> {
    Arc::new(Upstream::build(service, None).unwrap())
}

pub(super) fn upstream(addresses: &[SocketAddr]) -> Arc<Upstream> {
    let servers = addresses
        .iter()
        .map(|address| server(Scheme::Http, &address.ip().to_string(), address.port()));
    built(&service(servers.collect()))
}

pub(super) fn proxy() -> Proxy {
    Proxy::new(Clock::start(), Tasks::new())
}

pub(super) fn forwarded() -> Forwarded {
    Forwarded::new(Some([192, 0, 2, 7].into()), false, false)
}

pub(super) fn get(path: &str) -> Request<Empty<Bytes>> {
    let request = Request::get(path).header("host", "app.example.com");
    request.body(Empty::new()).unwrap()
}

pub(super) fn post(body: &'static str) -> Request<Full<Bytes>> {
    let request = Request::post("/upload").header("host", "app.example.com");
    request.body(Full::new(body.into())).unwrap()
}

pub(super) async fn forward<B>(
    proxy: &Proxy,
    upstream: &Arc<Upstream>,
    request: Request<B>,
) -> Result<Response<Body>, Error>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let now = proxy.0.clock.now();
    let (mut parts, body) = request.into_parts();
    proxy
        .forward(upstream, &mut parts, body, &forwarded(), None, now)
        .await
}

pub(super) async fn text(response: Response<Body>) -> String {
    let body = response.into_body().collect().await.unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}
