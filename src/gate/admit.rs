//! What happens to a request before anybody judges it: refused if it reads two ways, peers'
//! claims sorted from clients', the route found. In this order, in one place.

use std::{
    future::{Ready, ready},
    task::{Context, Poll},
};

use futures_util::future::Either;
use http::Response;
use tower::{Layer, Service};

use super::{
    exchange::{Body, Exchange},
    identify,
    respond::Refusal,
    strict,
};

/// Admits requests to one entry point.
#[derive(Clone, Copy, Debug)]
pub struct Admit {
    /// Its index.
    pub door: usize,
}

/// See [`Admit`].
#[derive(Clone, Debug)]
pub struct Admission<S> {
    inner: S,
    door: usize,
}

impl<S> Layer<S> for Admit {
    type Service = Admission<S>;

    fn layer(&self, inner: S) -> Admission<S> {
        Admission {
            inner,
            door: self.door,
        }
    }
}

impl<S> Service<Exchange> for Admission<S>
where
    S: Service<Exchange, Response = Response<Body>, Error = Refusal>,
{
    type Response = Response<Body>;
    type Error = Refusal;
    type Future = Either<Ready<Result<Response<Body>, Refusal>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut exchange: Exchange) -> Self::Future {
        match self.admit(&mut exchange) {
            Ok(()) => Either::Right(self.inner.call(exchange)),
            Err(refusal) => Either::Left(ready(Err(refusal))),
        }
    }
}

impl<S> Admission<S> {
    fn admit(&self, exchange: &mut Exchange) -> Result<(), Refusal> {
        let site = exchange.site.clone();
        let door = &site.doors[self.door];
        strict::admit(exchange, &door.limits)?;
        exchange.trusted = door.trusts(exchange.link.peer_ip());
        identify::clean(&mut exchange.head.headers);
        identify::demand(exchange.link.peer_ip(), &exchange.head.headers)?;
        exchange.route = site
            .find(exchange.host(), exchange.head.uri.path().as_bytes())
            .map(|(route, _)| route);
        Ok(())
    }
}
