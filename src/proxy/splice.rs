//! Long bodies on their way from a server's socket to a client's without a copy through this
//! process: splice(2), by way of a pipe. hyper, which writes responses, is given as many stand-ins;
//! the client's wire tells them by where they lie, and moves the bytes themselves in their place.

use std::{
    cell::RefCell,
    io,
    os::fd::OwnedFd,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::{
    io::{Errno, ioctl_fionread},
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
    process::{Resource, getrlimit},
};
use tokio::{io::Interest, net::TcpStream};

/// Bytes that a pipe holds.
const ROOM: usize = 256 * 1024;
/// Pipes at most, and in a hundred descriptors that may be open: each takes two, and clients that
/// read slowly must not leave none to others.
const PIPES: u64 = 512;
const IN_A_HUNDRED: u64 = 6;
/// Empty pipes a thread keeps.
const KEPT: usize = 16;

/// What hyper is given in place of the bytes. Nobody reads it.
static STAND_IN: [u8; ROOM] = [0; ROOM];

/// Pipes there may be.
static MOST: LazyLock<usize> = LazyLock::new(|| most(getrlimit(Resource::Nofile).current));
/// Pipes there are.
static OPEN: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static EMPTY: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// The way to one client over TCP without TLS, for one body at a time.
#[derive(Debug, Default)]
pub struct Splice(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    /// `None` while no bytes are on their way.
    pipe: Option<Pipe>,
    bytes: usize,
    /// More of the body is here already, so that these need not leave before it.
    more: bool,
    /// Who has more.
    waiting: Option<Waker>,
}

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// Whether hyper hands these over in place of bytes in the pipe.
pub fn is_stand_in(slice: &[u8]) -> bool {
    STAND_IN.as_ptr_range().contains(&slice.as_ptr())
}

/// For `bytes` that are in the pipe; at most [`ROOM`].
pub(super) fn stand_in(bytes: usize) -> Bytes {
    Bytes::from_static(&STAND_IN[..bytes])
}

impl Splice {
    /// Ready when the client has taken all that was for it.
    pub(super) fn poll_taken(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut held = self.0.lock();
        if held.bytes == 0 {
            return Poll::Ready(());
        }
        held.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Takes up to `most` bytes from a server, once the client has taken those before; 0 is the
    /// server's end. [`Unsupported`](io::ErrorKind::Unsupported) when this has to be read instead:
    /// there is no pipe, or the kernel does not splice these sockets.
    pub(super) fn poll_fill(
        &self,
        cx: &mut Context<'_>,
        server: &TcpStream,
        most: u64,
    ) -> Poll<io::Result<usize>> {
        let room = most.min(ROOM as u64) as usize;
        loop {
            ready!(server.poll_read_ready(cx))?;
            // Taken when there is something to read: a body that is waited for holds none.
            let pipe = Pipe::take()?;
            match server.try_io(Interest::READABLE, || pipe.fill(server, room)) {
                Ok(bytes @ 1..) => {
                    let more = (bytes as u64) < most && ioctl_fionread(server)? > 0;
                    *self.0.lock() = Held {
                        pipe: Some(pipe),
                        bytes,
                        more,
                        waiting: None,
                    };
                    return Poll::Ready(Ok(bytes));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => pipe.keep(),
                nothing => {
                    pipe.keep();
                    return Poll::Ready(nothing);
                }
            }
        }
    }

    /// Moves up to `most` bytes on to the client, in the order they came.
    pub fn poll_drain(
        &self,
        cx: &mut Context<'_>,
        client: &TcpStream,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(client.poll_write_ready(cx))?;
            let mut held = self.0.lock();
            let Some(pipe) = &held.pipe else {
                return Poll::Ready(Err(lost()));
            };
            let drain = || pipe.drain(client, most, held.more);
            match client.try_io(Interest::WRITABLE, drain) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(moved) => {
                    held.bytes -= moved;
                    if held.bytes == 0 {
                        held.pipe.take().into_iter().for_each(Pipe::keep);
                        held.waiting.take().into_iter().for_each(Waker::wake);
                    }
                    return Poll::Ready(Ok(moved));
                }
            }
        }
    }

    /// An error when bytes are left where hyper has none to write any more: it had its stand-ins
    /// copied, and what the client got is not what the server sent.
    pub fn none_left(&self) -> io::Result<()> {
        match self.0.lock().bytes {
            0 => Ok(()),
            _ => Err(lost()),
        }
    }
}

fn lost() -> io::Error {
    io::Error::other("a spliced body and its stand-ins do not agree")
}

fn most(descriptors: Option<u64>) -> usize {
    descriptors.map_or(PIPES, |all| (all / 100 * IN_A_HUNDRED).min(PIPES)) as usize
}

impl Pipe {
    fn take() -> io::Result<Self> {
        if let Some(pipe) = EMPTY.with_borrow_mut(Vec::pop) {
            return Ok(pipe);
        }
        if OPEN.fetch_add(1, Relaxed) >= *MOST {
            OPEN.fetch_sub(1, Relaxed);
            return Err(io::ErrorKind::Unsupported.into());
        }
        let made = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).and_then(|(read, write)| {
            // Refused to a user who has too many; so small a pipe is no gain.
            fcntl_setpipe_size(&write, ROOM).map(|_| (read, write))
        });
        match made {
            Ok((read, write)) => Ok(Self { read, write }),
            Err(_) => {
                OPEN.fetch_sub(1, Relaxed);
                Err(io::ErrorKind::Unsupported.into())
            }
        }
    }

    /// Of an empty one.
    fn keep(self) {
        EMPTY.with_borrow_mut(|empty| {
            if empty.len() < KEPT {
                empty.push(self);
            }
        });
    }

    fn fill(&self, from: &TcpStream, most: usize) -> io::Result<usize> {
        match splice(from, None, &self.write, None, most, SpliceFlags::NONBLOCK) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::PERM) => {
                Err(io::ErrorKind::Unsupported.into())
            }
            moved => Ok(moved?),
        }
    }

    fn drain(&self, into: &TcpStream, most: usize, more: bool) -> io::Result<usize> {
        let mut flags = SpliceFlags::NONBLOCK;
        flags.set(SpliceFlags::MORE, more);
        Ok(splice(&self.read, None, into, None, most, flags)?)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::Arc, time::Duration};

    use http_body_util::BodyExt as _;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::timeout,
    };

    use super::*;
    use crate::proxy::tests::{answering, forward, get, proxy, text, upstream};

    /// No test may find all pipes gone because of another.
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    /// Both ends of a connection.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
        (one.unwrap(), other.unwrap().0)
    }

    /// As if there were as many pipes as there may be, until it is dropped.
    fn no_pipes() -> impl Drop {
        struct Full;
        impl Drop for Full {
            fn drop(&mut self) {
                OPEN.fetch_sub(*MOST, Relaxed);
            }
        }
        EMPTY.with_borrow_mut(Vec::clear);
        OPEN.fetch_add(*MOST, Relaxed);
        Full
    }

    #[tokio::test]
    async fn bytes_reach_the_client_in_order_and_are_taken_a_pipe_at_a_time() {
        let _alone = ALONE.lock().await;
        let ((mut server, from), (to, mut client)) = (pair().await, pair().await);
        let sent: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        let splice = Splice::default();
        let move_all = async {
            let mut left = sent.len();
            while left > 0 {
                let fill = poll_fn(|cx| splice.poll_fill(cx, &from, left as u64));
                let mut held = fill.await.unwrap();
                assert!((1..=ROOM).contains(&held));
                left -= held;
                while held > 0 {
                    let taken = timeout(Duration::ZERO, poll_fn(|cx| splice.poll_taken(cx)));
                    assert!(taken.await.is_err(), "{held} bytes are still in the pipe");
                    assert!(splice.none_left().is_err());
                    let drain = poll_fn(|cx| splice.poll_drain(cx, &to, held.min(7_777)));
                    held -= drain.await.unwrap();
                }
                poll_fn(|cx| splice.poll_taken(cx)).await;
                splice.none_left().unwrap();
            }
        };
        let mut got = vec![0; sent.len()];
        let (_, wrote, read) = tokio::join!(
            move_all,
            server.write_all(&sent),
            client.read_exact(&mut got)
        );
        wrote.unwrap();
        read.unwrap();
        assert!(got == sent);
    }

    #[tokio::test]
    async fn whoever_waits_for_the_client_is_woken_when_it_has_taken_all() {
        let _alone = ALONE.lock().await;
        let ((mut server, from), (to, _client)) = (pair().await, pair().await);
        server.write_all(b"for the client").await.unwrap();
        let splice = Splice::default();
        let held = poll_fn(|cx| splice.poll_fill(cx, &from, 99)).await.unwrap();
        let taken = poll_fn(|cx| splice.poll_taken(cx));
        let drained = poll_fn(|cx| splice.poll_drain(cx, &to, held));
        let both = async { tokio::join!(taken, drained) };
        let (_, moved) = timeout(Duration::from_secs(10), both).await.expect("woken");
        assert_eq!(moved.unwrap(), 14);
    }

    #[tokio::test]
    async fn when_there_are_too_many_pipes_nothing_is_taken() {
        let _alone = ALONE.lock().await;
        let (mut server, mut from) = pair().await;
        server.write_all(b"to be read").await.unwrap();
        let splice = Splice::default();
        let full = no_pipes();
        let none = poll_fn(|cx| splice.poll_fill(cx, &from, 99)).await;
        assert_eq!(none.unwrap_err().kind(), io::ErrorKind::Unsupported);
        let mut text = [0; 10];
        from.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"to be read");
        drop(full);
        server.write_all(b"again").await.unwrap();
        let some = poll_fn(|cx| splice.poll_fill(cx, &from, 99)).await;
        assert_eq!(some.unwrap(), 5);
    }

    #[test]
    fn most_descriptors_are_left_to_connections() {
        assert_eq!(most(Some(1024)), 60);
        assert_eq!((most(Some(65_536)), most(None)), (512, 512));
    }

    #[tokio::test]
    async fn the_end_of_a_server_is_told() {
        let _alone = ALONE.lock().await;
        let (server, from) = pair().await;
        drop(server);
        let splice = Splice::default();
        let end = poll_fn(|cx| splice.poll_fill(cx, &from, 99)).await;
        assert_eq!(end.unwrap(), 0);
    }

    fn length(body: &str) -> String {
        format!("content-length: {}", body.len())
    }

    /// The answer to a request whose response has `head` and this body.
    async fn answer(head: &str, body: &str) -> http::Response<crate::proxy::Body> {
        let (address, _) = answering(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}")).await;
        let answer = forward(&proxy(), &upstream(&[address]), get("/")).await;
        answer
            .unwrap()
            .map(|body| body.spliced(|| Some(Arc::default())))
    }

    #[tokio::test]
    async fn a_long_body_stays_in_the_kernel() {
        let _alone = ALONE.lock().await;
        let long = "long ".repeat(100_000);
        let answer = answer(&length(&long), &long).await;
        let mut body = answer.into_body();
        let mut read = String::new();
        loop {
            let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
            if is_stand_in(&data) {
                break;
            }
            read += std::str::from_utf8(&data).unwrap();
        }
        assert!(long.starts_with(&read) && read.len() < 16 * 1024);
    }

    #[tokio::test]
    async fn other_bodies_are_read() {
        let _alone = ALONE.lock().await;
        let short = "short ".repeat(10_000);
        let whole = answer(&length(&short), &short).await;
        assert!(text(whole).await == short);
        let chunk = format!("{:x}\r\n{short}\r\n", short.len());
        let chunks = chunk.repeat(9) + "0\r\n\r\n";
        let chunked = answer("transfer-encoding: chunked", &chunks).await;
        assert!(text(chunked).await == short.repeat(9));
    }

    #[tokio::test]
    async fn without_a_pipe_long_ones_are_read_too() {
        let _alone = ALONE.lock().await;
        let _full = no_pipes();
        let long = "long ".repeat(100_000);
        let whole = answer(&length(&long), &long).await;
        assert!(text(whole).await == long);
    }
}
