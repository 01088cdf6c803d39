//! HTTP/2's streams, each a task of its worker, and the end of those whose client takes no more of
//! the answer: hyper waits for its window for ever. Who takes bytes slowly is not ended.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

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
    /// How long a client may take nothing of an answer; zero is no limit.
    pub allowed: Duration,
}

pin_project! {
    /// One stream. Dropped before its end, it is reset (CANCEL).
    struct Stream<F> {
        #[pin]
        stream: F,
        allowed: Duration,
        waiting: Option<Pin<Box<Sleep>>>,
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let allowed = self.allowed;
        if allowed.is_zero() {
            self.tasks.spawn(stream);
            return;
        }
        self.tasks.spawn(Stream {
            stream,
            allowed,
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
        let allowed = *this.allowed;
        let waiting = this.waiting.get_or_insert_with(|| Box::pin(sleep(allowed)));
        waiting.as_mut().poll(cx)
    }
}
