//! Connections of the admin listener: so many at a time, and none for those who say nothing. The
//! gate needs the descriptors.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo};
use http::Request;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::Bound;
use crate::tasks::Tasks;

/// What the listener takes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; more wait to be accepted.
    pub connections: u32,
    /// For a head, and between two requests.
    pub head: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            head: Duration::from_secs(30),
        }
    }
}

/// Serves until told to stop, and what was begun to its end.
pub async fn serve(
    bound: &Bound,
    router: Router,
    limits: Limits,
    tasks: Tasks,
    stop: CancellationToken,
) {
    let rooms = Arc::new(Semaphore::new(limits.connections as usize));
    let mut failing = false;
    loop {
        let accepted = async {
            let room = rooms.clone().acquire_owned().await;
            (room, accept(bound).await)
        };
        let (room, accepted) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((io, peer)) => {
                failing = false;
                let (router, stop) = (router.clone(), stop.clone());
                tasks.spawn(async move {
                    connection(io, peer, router, limits, stop).await;
                    drop(room);
                });
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "admin cannot accept");
                }
                // Out of descriptors, most likely: others must close first.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
    let _ = rooms.acquire_many(limits.connections).await;
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

async fn accept(bound: &Bound) -> io::Result<(Box<dyn Socket>, Option<SocketAddr>)> {
    Ok(match bound {
        Bound::Tcp(listener, _) => {
            let (io, peer) = listener.accept().await?;
            (Box::new(io), Some(peer))
        }
        Bound::Unix(listener, _) => (Box::new(listener.accept().await?.0), None),
    })
}

async fn connection(
    io: Box<dyn Socket>,
    peer: Option<SocketAddr>,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    let answer = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        if let Some(peer) = peer {
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        let router = router.clone();
        async move {
            let Ok(response) = router.oneshot(request).await;
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(io), answer));
    // Errors are the client's business.
    let _ = tokio::select! {
        served = serving.as_mut() => served,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[tokio::test]
    async fn who_says_nothing_makes_room() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", axum::routing::get(async || "here"));
        let (tasks, stop) = (Tasks::new(), CancellationToken::new());
        let limits = Limits {
            connections: 2,
            head: Duration::from_millis(300),
        };
        tasks.clone().spawn(async move {
            let bound = Bound::Tcp(listener, address);
            serve(&bound, router, limits, tasks, stop).await;
        });
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut dripping = TcpStream::connect(address).await.unwrap();
        dripping.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
        let mut third = TcpStream::connect(address).await.unwrap();
        third
            .write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            .await
            .unwrap();
        let mut byte = [0];
        let early = third.read(&mut byte);
        let early = tokio::time::timeout(Duration::from_millis(100), early).await;
        assert!(early.is_err(), "a third was let in");
        let all = async {
            let mut answer = String::new();
            third.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("here"));
            for silent in [&mut silent, &mut dripping] {
                let _ = silent.read_to_end(&mut Vec::new()).await;
            }
        };
        let soon = Duration::from_secs(5);
        tokio::time::timeout(soon, all).await.expect("still open");
    }
}
