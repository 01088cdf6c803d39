//! Boxes for requests under way, used again. A request's innermost future is large; inside every
//! layer's future it would be copied once per layer, and a box made for each costs as much.

use std::{
    any::Any,
    cell::RefCell,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// Empty boxes a thread keeps; a burst makes more and lets them go.
const KEPT: usize = 256;

/// A box, empty or with a future in it.
type Held<F> = Pin<Box<Option<F>>>;

thread_local! {
    /// The thread's empty boxes, a `Vec<Held<F>>`: all are for futures of one type, or else those
    /// of the last. A lock would cost four locked instructions a request.
    static FREE: RefCell<Box<dyn Any>> = RefCell::new(Box::new(()));
}

/// A future in a box of its thread's.
#[derive(Debug)]
pub struct Boxed<F> {
    /// `None` once it is done.
    held: Option<Held<F>>,
}

impl<F: 'static> Boxed<F> {
    /// Puts a future into a box.
    pub fn new(future: F) -> Self {
        let mut held = free(Vec::pop).unwrap_or_else(|| Box::pin(None));
        held.set(Some(future));
        Self { held: Some(held) }
    }
}

fn free<F: 'static, R>(with: impl FnOnce(&mut Vec<Held<F>>) -> R) -> R {
    FREE.with_borrow_mut(|free| {
        if !free.is::<Vec<Held<F>>>() {
            *free = Box::new(Vec::<Held<F>>::new());
        }
        let free = free.downcast_mut();
        with(free.expect("made so above"))
    })
}

impl<F: Future + 'static> Future for Boxed<F> {
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
            free(|free| {
                if free.len() < KEPT {
                    free.push(held);
                }
            });
        }
        Poll::Ready(outcome)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{poll_fn, ready},
        sync::Arc,
    };

    use super::*;

    fn kept<F: 'static>(_: &Boxed<F>) -> usize {
        free(|free: &mut Vec<Held<F>>| free.len())
    }

    #[tokio::test]
    async fn a_box_is_used_again_once_it_is_empty() {
        let (mut first, second) = (Boxed::new(ready(1)), Boxed::new(ready(1)));
        assert_eq!(((&mut first).await, kept(&first)), (1, 1));
        drop(second);
        assert_eq!(kept(&first), 1, "what was given up is not kept");
        let third = Boxed::new(ready(1));
        assert_eq!(kept(&third), 0);
    }

    #[tokio::test]
    async fn what_a_future_held_is_gone_before_its_box_waits() {
        let held = Arc::new(());
        for _ in 0..3 {
            let inside = held.clone();
            let holding =
                poll_fn(move |_: &mut Context<'_>| Poll::Ready(Arc::strong_count(&inside)));
            let mut boxed = Boxed::new(holding);
            assert_eq!((&mut boxed).await, 2);
            assert_eq!((Arc::strong_count(&held), kept(&boxed)), (1, 1));
        }
    }
}
