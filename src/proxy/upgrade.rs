//! Switched protocols (WebSocket and others): bytes both ways, once server and client have both
//! agreed. Nothing of the client's goes upstream before the server's 101 (CVE-2026-2833).

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes},
    time::sleep,
};

use super::{dial::Stream, h1::Connection};
use crate::tasks::Tasks;

/// A tunnel is looked at this often; one with a closed side and no bytes in between is done.
const TICK: Duration = Duration::from_secs(30);
/// Ticks without a byte after which an open one is done: an hour, as Envoy has it.
const IDLE_TICKS: u32 = 120;
const BUFFER: usize = 16 * 1024;

/// Carries the two sides' bytes to each other until both have ended, or nothing moves for an hour
/// (half a minute once a side has closed), or the process stops.
pub(super) fn tunnel(client: OnUpgrade, connection: Connection, tasks: &Tasks) {
    let stopping = tasks.stopping();
    let label = connection.server.label.clone();
    let (early, stream) = connection.into_stream();
    let watch = Arc::new(Watch::default());
    let mut server = Watched {
        early,
        stream,
        watch: watch.clone(),
    };
    tasks.spawn(async move {
        let mut client = match client.await {
            Ok(client) => TokioIo::new(client),
            Err(error) => return tracing::debug!(%error, "the client did not switch protocols"),
        };
        let copy = copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER);
        let ended = tokio::select! {
            ended = copy => ended.map(|_| ()),
            () = watch.until_idle() => Ok(()),
            () = stopping.cancelled() => Ok(()),
        };
        if let Err(error) = ended {
            tracing::debug!(server = %label, %error, "tunnel broke off");
        }
    });
}

/// The server's side, with what it sent right behind its 101.
struct Watched {
    early: BytesMut,
    stream: Stream,
    watch: Arc<Watch>,
}

#[derive(Debug, Default)]
struct Watch {
    moves: AtomicU64,
    half_closed: AtomicBool,
}

impl Watch {
    async fn until_idle(&self) {
        let (mut seen, mut quiet) = (0, 0);
        loop {
            sleep(TICK).await;
            let moves = self.moves.load(Relaxed);
            quiet = if moves == seen { quiet + 1 } else { 0 };
            seen = moves;
            if quiet >= IDLE_TICKS || (quiet > 0 && self.half_closed.load(Relaxed)) {
                return;
            }
        }
    }

    fn moved(&self) {
        self.moves.fetch_add(1, Relaxed);
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.watch.moved();
        if !self.early.is_empty() {
            let take = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early[..take]);
            self.early.advance(take);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() == before {
            self.watch.half_closed.store(true, Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.watch.moved();
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch.half_closed.store(true, Relaxed);
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
