//! Puts a [`Guard`] around a service. All it knows travels with the request.

use tower::Layer;

use super::Guard;
use crate::time::Clock;

/// Makes [`Guard`]s.
#[derive(Clone, Copy, Debug)]
pub struct GuardLayer {
    /// For when an answer came.
    pub clock: Clock,
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard::new(inner, self.clock)
    }
}
