//! Boxes for requests under way, used again. A request's innermost future is large; inside every
//! layer's future it would be copied once per layer, and a box made for each costs as much.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::Response;
use parking_lot::Mutex;
use tokio_util::sync::ReusableBoxFuture;

use super::{exchange::Body, respond::Refusal};

/// What is in a box.
type Outcome = Result<Response<Body>, Refusal>;

/// Empty boxes kept; a burst makes more and lets them go.
const KEPT: usize = 256;

/// One worker's empty boxes.
#[derive(Debug, Default)]
pub struct Boxes(Mutex<Vec<ReusableBoxFuture<'static, Outcome>>>);

/// A future in a box of its worker's.
#[derive(Debug)]
pub struct Boxed {
    held: Option<ReusableBoxFuture<'static, Outcome>>,
    boxes: Arc<Boxes>,
}

impl Boxes {
    /// Puts a future into a box.
    pub fn hold<F>(self: &Arc<Self>, future: F) -> Boxed
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let free = self.0.lock().pop();
        let held = match free {
            Some(mut held) => {
                held.set(future);
                held
            }
            None => ReusableBoxFuture::new(future),
        };
        Boxed {
            held: Some(held),
            boxes: self.clone(),
        }
    }
}

impl Future for Boxed {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = &mut *self;
        let held = this
            .held
            .as_mut()
            .expect("a future is not polled after it is done");
        let outcome = ready!(held.poll(cx));
        let mut free = this.boxes.0.lock();
        if free.len() < KEPT {
            free.extend(this.held.take());
        }
        drop(free);
        Poll::Ready(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_box_is_used_again_once_it_is_empty() {
        let boxes = Arc::new(Boxes::default());
        let answer = |boxes: &Arc<Boxes>| boxes.hold(async { Err(Refusal::NoRoute) });
        let (first, second) = (answer(&boxes), answer(&boxes));
        assert!(first.await.is_err());
        assert_eq!(boxes.0.lock().len(), 1);
        drop(second);
        assert_eq!(boxes.0.lock().len(), 1, "what was given up is not kept");
        assert!(answer(&boxes).await.is_err());
        assert_eq!(boxes.0.lock().len(), 1);
    }
}
