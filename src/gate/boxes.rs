//! Boxes for requests under way, used again. A request's innermost future is large; inside every
//! layer's future it would be copied once per layer, and a box made for each costs as much.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;

/// Empty boxes kept; a burst makes more and lets them go.
const KEPT: usize = 256;

/// A box, empty or with a future in it.
type Held<F> = Pin<Box<Option<F>>>;

/// One worker's empty boxes.
#[derive(Debug)]
pub struct Boxes<F>(Mutex<Vec<Held<F>>>);

/// A future in a box of its worker's.
#[derive(Debug)]
pub struct Boxed<F> {
    /// `None` once it is done.
    held: Option<Held<F>>,
    boxes: Arc<Boxes<F>>,
}

impl<F> Default for Boxes<F> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<F> Boxes<F> {
    /// Puts a future into a box.
    pub fn hold(self: &Arc<Self>, future: F) -> Boxed<F> {
        let free = self.0.lock().pop();
        let mut held = free.unwrap_or_else(|| Box::pin(None));
        held.set(Some(future));
        Boxed {
            held: Some(held),
            boxes: self.clone(),
        }
    }
}

impl<F: Future> Future for Boxed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let future = this
            .held
            .as_mut()
            .and_then(|held| held.as_mut().as_pin_mut());
        let future = future.expect("a future is not polled after it is done");
        let outcome = ready!(future.poll(cx));
        if let Some(mut held) = this.held.take() {
            held.set(None);
            let mut free = this.boxes.0.lock();
            if free.len() < KEPT {
                free.push(held);
            }
        }
        Poll::Ready(outcome)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{poll_fn, ready};

    use super::*;

    #[tokio::test]
    async fn a_box_is_used_again_once_it_is_empty() {
        let boxes = Arc::new(Boxes::default());
        let (first, second) = (boxes.hold(ready(1)), boxes.hold(ready(1)));
        assert_eq!(first.await, 1);
        assert_eq!(boxes.0.lock().len(), 1);
        drop(second);
        assert_eq!(boxes.0.lock().len(), 1, "what was given up is not kept");
    }

    #[tokio::test]
    async fn what_a_future_held_is_gone_before_its_box_waits() {
        let boxes = Arc::new(Boxes::default());
        let held = Arc::new(());
        for _ in 0..3 {
            let inside = held.clone();
            let holding = poll_fn(move |_| Poll::Ready(Arc::strong_count(&inside)));
            assert_eq!(boxes.hold(holding).await, 2);
            assert_eq!((Arc::strong_count(&held), boxes.0.lock().len()), (1, 1));
        }
    }
}
