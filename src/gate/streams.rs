//! HTTP/2's streams, each a task of its worker, and the end of those whose client takes no more of
//! the answer: hyper waits for its window for ever. Each frame (16 KB) has its time anew.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use super::link::Link;
use crate::tasks::Tasks;

/// What the last poll of a stream came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Nothing of the answer was asked for: its client has to take what there is.
    Clients,
    /// Some of the answer was taken.
    Moved,
    /// The service, or the server behind it, is waited for.
    Ours,
}

thread_local! {
    /// Of the stream that is polled on this thread.
    static TURN: Cell<Turn> = const { Cell::new(Turn::Clients) };
}

/// The stream that is polled took some of its answer.
pub fn moved() {
    TURN.set(Turn::Moved);
}

/// The stream that is polled waits, and not for its client.
pub fn ours() {
    TURN.set(Turn::Ours);
}

/// Runs what hyper wants run: one future a stream.
#[derive(Clone, Debug)]
pub struct Streams {
    /// Where they run.
    pub tasks: Tasks,
    /// The connection.
    pub link: Arc<Link>,
}

pin_project! {
    /// One stream. Dropped before its end, it is reset (CANCEL).
    struct Stream<F> {
        #[pin]
        stream: F,
        link: Arc<Link>,
        waiting: Option<Pin<Box<Sleep>>>,
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let link = self.link.clone();
        if link.timeouts().body == 0 {
            self.tasks.spawn(stream);
            return;
        }
        self.tasks.spawn(Stream {
            stream,
            link,
            waiting: None,
        });
    }
}

impl<F: Future<Output = ()>> Future for Stream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        TURN.set(Turn::Clients);
        if this.stream.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let turn = TURN.get();
        if turn != Turn::Clients {
            *this.waiting = None;
        }
        if turn == Turn::Ours {
            return Poll::Pending;
        }
        let allowed = Duration::from_millis(this.link.timeouts().body);
        loop {
            let waiting = this.waiting.get_or_insert_with(|| Box::pin(sleep(allowed)));
            ready!(waiting.as_mut().poll(cx));
            if !this.link.blocked() {
                return Poll::Ready(());
            }
            // The way to the client is full, of other streams too, and is timed by itself.
            *this.waiting = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::gate::link::{Ticker, Timeouts};

    #[tokio::test(start_paused = true)]
    async fn a_stream_behind_others_is_not_timed() {
        let timeouts = Timeouts {
            header: 0,
            body: 60_000,
            idle: 0,
        };
        let link = Link::new(Arc::new(Ticker::default()), None, false, timeouts);
        let mut stream = Box::pin(Stream {
            stream: pending(),
            link: link.clone(),
            waiting: None,
        });
        let day = Duration::from_secs(86_400);
        link.block();
        assert!(tokio::time::timeout(day, &mut stream).await.is_err());
        link.unblock();
        let minute = Duration::from_secs(61);
        assert!(tokio::time::timeout(minute, stream).await.is_ok());
    }
}
