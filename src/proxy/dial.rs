//! New connections to servers: TCP, unix sockets, TLS with its choice of protocol. Nothing of
//! HTTP is spoken here.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::atomic::Ordering::Relaxed,
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Error, Phase, upstream::Server};
use crate::config::Scheme;

/// A connection's bytes, whatever carries them.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A fresh connection and what is to be spoken on it.
#[derive(Debug)]
pub(super) enum Dialled {
    H1(Stream),
    H2(Stream),
}

/// Connects within `dial_timeout`, TLS handshake included. `h1_only` keeps HTTP/2 out of it.
pub(super) async fn dial(server: &Server, h1_only: bool) -> Result<Dialled, Error> {
    let limit = server.transport.dial_timeout;
    if limit.is_zero() {
        return connect(server, h1_only).await;
    }
    timeout(limit, connect(server, h1_only))
        .await
        .unwrap_or_else(|_| {
            Err(Error::Timeout {
                server: server.label.clone(),
                phase: Phase::Dial,
            })
        })
}

async fn connect(server: &Server, h1_only: bool) -> Result<Dialled, Error> {
    let refused = |source| Error::Connect {
        server: server.label.clone(),
        source,
    };
    let host = &*server.config.host;
    if server.config.scheme == Scheme::Unix {
        let stream = UnixStream::connect(host).await.map_err(refused)?;
        return Ok(Dialled::H1(Stream::Unix(stream)));
    }
    let address = (host.trim_matches(['[', ']']), server.config.port);
    let stream = TcpStream::connect(address).await.map_err(refused)?;
    stream.set_nodelay(true).map_err(refused)?;
    let Some(tls) = &server.tls else {
        return Ok(match server.config.scheme {
            Scheme::H2c => Dialled::H2(Stream::Tcp(stream)),
            _ => Dialled::H1(Stream::Tcp(stream)),
        });
    };
    let config = if h1_only { &tls.h1 } else { &tls.any };
    let stream = TlsConnector::from(config.clone())
        .connect(tls.name.clone(), stream)
        .await
        .map_err(|source| Error::Tls {
            server: server.label.clone(),
            source,
        })?;
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    if !h1_only {
        server.chose_h2.store(h2, Relaxed);
    }
    let stream = Stream::Tls(Box::new(stream));
    Ok(if h2 {
        Dialled::H2(stream)
    } else {
        Dialled::H1(stream)
    })
}

impl Stream {
    /// Whether an idle connection was closed or sent something unasked. Costs no system call
    /// while nothing happened: tokio knows the socket's readiness.
    pub(super) fn is_stale(&mut self) -> bool {
        let mut byte = [0];
        let quiet = match self {
            Self::Tcp(stream) => would_block(stream.try_read(&mut byte)),
            Self::Unix(stream) => would_block(stream.try_read(&mut byte)),
            // Session tickets may lie there and are no data.
            Self::Tls(stream) => Pin::new(stream)
                .poll_read(
                    &mut Context::from_waker(Waker::noop()),
                    &mut ReadBuf::new(&mut byte),
                )
                .is_pending(),
        };
        !quiet
    }
}

fn would_block(read: io::Result<usize>) -> bool {
    read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
            Stream::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
