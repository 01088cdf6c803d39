//! Sockets: bound once, one listener per worker, and the stream types behind one name.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll, ready},
};

use nix::{
    libc::{self, c_int},
    setsockopt_impl,
    sys::socket::{setsockopt, sockopt::SetStruct},
};
use rustix::net::SendFlags;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};
use tokio_rustls::server::TlsStream;

use crate::config::Address;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Seconds a connection may stay with the kernel until its first bytes are there: who accepts it
/// finds them, and is woken once. After that it is accepted without.
const DEFERRED: c_int = 1;

/// `TCP_DEFER_ACCEPT`, as Apache has it for HTTP.
#[derive(Clone, Copy, Debug)]
struct DeferAccept;
setsockopt_impl!(
    DeferAccept,
    libc::IPPROTO_TCP,
    libc::TCP_DEFER_ACCEPT,
    c_int,
    SetStruct<'_, c_int>
);

/// An address is bound for every worker, or it is not.
#[derive(Debug)]
pub enum Bound {
    /// One socket per worker; the kernel spreads connections over them.
    Tcp(Vec<std::net::TcpListener>, SocketAddr),
    /// One socket, shared: the first worker to wake takes the connection.
    Unix(std::os::unix::net::UnixListener, PathBuf),
}

/// A worker's listener.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// Unix.
    Unix(UnixListener),
}

/// A client's connection without TLS.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
}

/// A client's connection as HTTP runs on it.
#[derive(Debug)]
pub enum Io {
    /// In the clear.
    Plain(Stream),
    /// Encrypted.
    Tls(Box<TlsStream<Stream>>),
}

impl Bound {
    /// Binds `address` for `workers`. Port 0 is chosen once, for all.
    pub fn bind(address: &Address, workers: usize) -> io::Result<Self> {
        match address {
            Address::Tcp(wanted) => {
                probe(*wanted)?;
                let first = reuseport(*wanted)?;
                let chosen = first.local_addr()?;
                let mut all = vec![first];
                for _ in 1..workers {
                    all.push(reuseport(chosen)?);
                }
                Ok(Self::Tcp(all, chosen))
            }
            Address::Unix(path) => {
                remove_stale(path)?;
                let listener = std::os::unix::net::UnixListener::bind(path)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Unix(listener, path.clone()))
            }
        }
    }

    /// Where it listens.
    pub fn address(&self) -> Address {
        match self {
            Self::Tcp(_, address) => Address::Tcp(*address),
            Self::Unix(_, path) => Address::Unix(path.clone()),
        }
    }

    /// One socket for each of the `workers` it was bound for.
    pub fn share(self, workers: usize) -> io::Result<Vec<Socketed>> {
        match self {
            Self::Tcp(all, _) => Ok(all.into_iter().map(Socketed::Tcp).collect()),
            Self::Unix(listener, _) => (0..workers)
                .map(|_| listener.try_clone().map(Socketed::Unix))
                .collect(),
        }
    }
}

/// A bound socket on its way to its worker.
#[derive(Debug)]
pub enum Socketed {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// Unix.
    Unix(std::os::unix::net::UnixListener),
}

impl Socketed {
    /// Inside the worker's runtime.
    pub fn listen(self) -> io::Result<Listener> {
        match self {
            Self::Tcp(listener) => TcpListener::from_std(listener).map(Listener::Tcp),
            Self::Unix(listener) => UnixListener::from_std(listener).map(Listener::Unix),
        }
    }
}

/// A socket left over from a process that is gone would make the bind fail; one that answers
/// belongs to somebody.
fn remove_stale(path: &Path) -> io::Result<()> {
    let stale = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path).is_err();
    if stale {
        std::fs::remove_file(path)
    } else {
        Ok(())
    }
}

/// `SO_REUSEPORT` would let a second process of the same user take half the connections of a
/// first one; without it, the address is refused as taken.
fn probe(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    socket(address)?.bind(&address.into())
}

fn reuseport(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // Streamed bodies go out as they come; connections inherit it from here.
    socket.set_tcp_nodelay(true)?;
    // Clients speak first, in TLS and PROXY headers too. Where the kernel cannot, all is as without.
    if let Err(error) = setsockopt(&socket, DeferAccept, &DEFERRED) {
        tracing::debug!(%error, "silent connections are accepted");
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    Ok(socket)
}

impl Listener {
    /// The next connection and its peer; `None` on a unix socket. Only the last task that asked is
    /// woken: each listener has one, and needs no queue of those who wait.
    pub fn poll_accept(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(Stream, Option<SocketAddr>)>> {
        match self {
            Self::Tcp(listener) => listener
                .poll_accept(cx)
                .map_ok(|(stream, peer)| (Stream::Tcp(stream), Some(peer))),
            Self::Unix(listener) => listener
                .poll_accept(cx)
                .map_ok(|(stream, _)| (Stream::Unix(stream), None)),
        }
    }
}

/// Writes what the connection is closed after: it waits (200 ms at most) for the end of the stream,
/// to go out in one segment with it.
pub fn poll_write_last(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
    loop {
        ready!(stream.poll_write_ready(cx))?;
        let send = || Ok(rustix::net::send(stream, bytes, flags)?);
        match stream.try_io(Interest::WRITABLE, send) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            sent => return Poll::Ready(sent),
        }
    }
}

impl Io {
    /// In the clear, where the socket's own state tells of the client's.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(Stream::Tcp(stream)) => Some(stream),
            Self::Plain(Stream::Unix(_)) | Self::Tls(_) => None,
        }
    }
}

/// Reads and writes through whichever stream is inside.
macro_rules! delegate {
    ($type:ident: $($variant:ident),+) => {
        impl AsyncRead for $type {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => Pin::new(stream).poll_read(cx, buf),)+
                }
            }
        }

        impl AsyncWrite for $type {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => Pin::new(stream).poll_write(cx, bytes),)+
                }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                slices: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => Pin::new(stream).poll_write_vectored(cx, slices),)+
                }
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    $(Self::$variant(stream) => stream.is_write_vectored(),)+
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => Pin::new(stream).poll_flush(cx),)+
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => Pin::new(stream).poll_shutdown(cx),)+
                }
            }
        }
    };
}

delegate!(Stream: Tcp, Unix);
delegate!(Io: Plain, Tls);

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn the_last_bytes_leave_with_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let sent = poll_fn(|cx| poll_write_last(&stream, cx, b"bye")).await;
        assert_eq!(sent.unwrap(), 3);
        let mut all = Vec::new();
        let soon = Duration::from_millis(50);
        let early = tokio::time::timeout(soon, client.read_buf(&mut all)).await;
        assert!(early.is_err(), "went out by itself: {all:?}");
        drop(stream);
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"bye");
    }

    #[tokio::test]
    async fn who_says_something_is_accepted_at_once_and_who_is_silent_later() {
        let bound = Bound::bind(&Address::Tcp(([127, 0, 0, 1], 0).into()), 1).unwrap();
        let Address::Tcp(address) = bound.address() else {
            panic!("bound elsewhere");
        };
        let listener = bound.share(1).unwrap().remove(0).listen().unwrap();
        let accept = |millis| {
            let accepted = poll_fn(|cx| listener.poll_accept(cx));
            tokio::time::timeout(Duration::from_millis(millis), accepted)
        };
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        assert!(accept(200).await.is_err(), "accepted before it said a word");
        client.write_all(b"GET").await.unwrap();
        let (_, peer) = accept(200).await.expect("accepted at once").unwrap();
        assert_eq!(peer, client.local_addr().ok());
        accept(5_000).await.expect("accepted in the end").unwrap();
    }
}
