//! The first bytes of a connection: which protocol is spoken.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, ReadBuf};

use super::Wire;

/// What HTTP/2 by prior knowledge begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes asked for to tell it by: most requests come whole.
const FIRST_READ: usize = 4096;

impl Wire {
    /// Reads until it is known which protocol is spoken. An error when the client sends nothing,
    /// or when the end begins first.
    pub async fn tell_protocol(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_first(cx)).await
    }

    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let known = self.ahead.len().min(PREFACE.len());
            if known > 0 && self.ahead[..known] != PREFACE[..known] {
                return Poll::Ready(Ok(()));
            }
            if known == PREFACE.len() {
                self.speak_h2();
                return Poll::Ready(Ok(()));
            }
            // Kept at its own size: hyper reads on with a buffer of its own.
            let mut first = [MaybeUninit::uninit(); FIRST_READ];
            let mut first = ReadBuf::uninit(&mut first);
            if Pin::new(&mut self.io)
                .poll_read(cx, &mut first)?
                .is_pending()
            {
                self.waiting();
                self.alive(cx)?;
                if self.link().draining() {
                    return Poll::Ready(Err(io::ErrorKind::Interrupted.into()));
                }
                return Poll::Pending;
            }
            if first.filled().is_empty() {
                return match self.ahead.is_empty() {
                    true => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                    false => Poll::Ready(Ok(())),
                };
            }
            self.ahead.extend_from_slice(first.filled());
        }
    }
}
