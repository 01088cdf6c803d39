//! What HTTP/2 has written and the socket has not seen. h2 flushes after every frame of some size;
//! here the answers of a connection that are ready in one turn of its worker leave as one piece:
//! one TLS record, one system call.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;

/// What is held at most: a TLS record.
const HELD: usize = 16 << 10;
/// Longer writes are not copied: a body's usual frames fill a record by themselves.
const COPIED: usize = 8 << 10;

/// Bytes of one connection.
#[derive(Debug, Default)]
pub struct Held {
    bytes: BytesMut,
    /// Flushed, to be written when the connection is polled next, which is soon.
    due: bool,
}

impl Held {
    /// Takes a write over; `None` when all that is held must go out before it.
    pub fn take(&mut self, slices: &[io::IoSlice<'_>]) -> Option<usize> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        if length > COPIED || self.bytes.len() + length > HELD {
            return None;
        }
        for slice in slices {
            self.bytes.extend_from_slice(slice);
        }
        Some(length)
    }

    /// Bytes held.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Puts a flush off until every task that is ready has had its turn: it may have more to write.
    /// Answers whether there was something to put off.
    pub fn put_off(&mut self, cx: &Context<'_>) -> bool {
        if self.bytes.is_empty() {
            return false;
        }
        if !self.due {
            self.due = true;
            cx.waker().wake_by_ref();
        }
        true
    }

    /// Whether a flush was put off until now.
    pub fn is_due(&self) -> bool {
        self.due
    }

    /// Writes all that is held.
    pub fn poll_out<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut W,
    ) -> Poll<io::Result<()>> {
        while !self.bytes.is_empty() {
            let written = ready!(Pin::new(&mut *io).poll_write(cx, &self.bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.bytes.advance(written);
        }
        // a connection that waits holds no memory
        *self = Self::default();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn all_goes_out_in_order_by_whatever_pieces_the_socket_takes() {
        let (mut io, mut far) = tokio::io::duplex(7);
        let long = vec![b'l'; COPIED + 1];
        let pieces = [&b"first "[..], b"second ", &long, b"last"];
        let write = async {
            let mut held = Held::default();
            for piece in pieces {
                if held.take(&[io::IoSlice::new(piece)]).is_none() {
                    poll_fn(|cx| held.poll_out(cx, &mut io)).await.unwrap();
                    tokio::io::AsyncWriteExt::write_all(&mut io, piece)
                        .await
                        .unwrap();
                }
            }
            poll_fn(|cx| held.poll_out(cx, &mut io)).await.unwrap();
            drop(io);
        };
        let mut all = Vec::new();
        let (_, read) = tokio::join!(write, far.read_to_end(&mut all));
        read.unwrap();
        assert!(all == pieces.concat(), "{} bytes", all.len());
    }
}
