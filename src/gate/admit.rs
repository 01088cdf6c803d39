//! What happens to a request before anybody judges it: refused if it reads two ways, peers'
//! claims sorted from clients', the route found. In this order, in one place.

use std::{
    borrow::Cow,
    future::{Ready, ready},
    task::{Context, Poll},
};

use futures_util::future::Either;
use http::{Response, Uri};
use tower::{Layer, Service};

use super::{
    exchange::{Body, Exchange},
    identify,
    respond::Refusal,
    strict,
};
use crate::engine::urls::{canonical, is_plain, split};

/// Admits requests.
#[derive(Clone, Copy, Debug)]
pub struct Admit {
    /// Whether they go to a route.
    pub routed: bool,
}

/// See [`Admit`].
#[derive(Clone, Debug)]
pub struct Admission<S> {
    inner: S,
    routed: bool,
}

impl<S> Layer<S> for Admit {
    type Service = Admission<S>;

    fn layer(&self, inner: S) -> Admission<S> {
        Admission {
            inner,
            routed: self.routed,
        }
    }
}

impl<S> Service<Box<Exchange>> for Admission<S>
where
    S: Service<Box<Exchange>, Response = Response<Body>, Error = Refusal>,
{
    type Response = Response<Body>;
    type Error = Refusal;
    type Future = Either<Ready<Result<Response<Body>, Refusal>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut exchange: Box<Exchange>) -> Self::Future {
        match self.admit(&mut exchange) {
            Ok(()) => Either::Right(self.inner.call(exchange)),
            Err(refusal) => Either::Left(ready(Err(refusal))),
        }
    }
}

impl<S> Admission<S> {
    fn admit(&self, exchange: &mut Exchange) -> Result<(), Refusal> {
        let site = &exchange.site;
        let door = &site.doors[exchange.door];
        if exchange.link.must_refuse(exchange.number) {
            return Err(Refusal::Malformed("a fragment in the target"));
        }
        strict::admit(&mut exchange.head, &exchange.body, &door.limits)?;
        exchange.trusted = door.trusts(exchange.link.peer_ip());
        if !self.routed {
            return Ok(());
        }
        identify::demand(exchange)?;
        // The canonical path finds the route, so that no spelling leads around a route's jails.
        let target = exchange.target().as_bytes();
        let plain = is_plain(target);
        let canonical = match plain {
            true => Cow::Borrowed(target),
            false => canonical(target),
        };
        let (path, _) = split(&canonical);
        let route = site
            .routing
            .find(|| exchange.host(), path)
            .map(|(route, _)| route);
        if let (true, Cow::Owned(target)) = (door.canonical_path, canonical) {
            exchange.head.uri = Uri::try_from(target)
                .map_err(|_| Refusal::Malformed("a target that is not a path"))?;
        }
        (exchange.route, exchange.plain) = (route, plain);
        Ok(())
    }
}
