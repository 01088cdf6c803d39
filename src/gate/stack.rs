//! The way of a request, on one screen. Every layer stands where it does for a reason.

use std::{convert::Infallible, sync::Arc};

use http::Response;
use tower::{Service, ServiceBuilder};

use super::{
    access_log::{Record, Recorded},
    admit::Admit,
    boxes::Boxed,
    exchange::{Body, Exchange, Served},
    forward_auth,
    guard::GuardLayer,
    respond::{Refusal, Respond},
    server::Worker,
    whoami,
};
use crate::proxy::Target;

/// What a request is answered with, and the line to write when that is done.
pub type Answer = (Response<Body>, Option<Arc<Record>>);

/// The stack of one worker's entry points.
pub fn stack(
    worker: &Arc<Worker>,
) -> impl Service<Box<Exchange>, Response = Answer, Error = Infallible, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static
+ use<> {
    let clock = worker.clock;
    let worker = worker.clone();
    ServiceBuilder::new()
        // Outermost: it must see what the client gets, refusals and replaced answers too.
        .layer(Recorded { clock })
        // Above everything that refuses: the one place where refusals become responses.
        .layer(Respond { clock })
        // Before anything matches, routes or counts: a request that reads two ways has no route.
        .layer(Admit { routed: true })
        // Around the service alone: it judges before, counts after, and needs the route's jails.
        .layer(GuardLayer { clock })
        .service(tower::service_fn(move |exchange| {
            Boxed::new(serve(worker.clone(), exchange))
        }))
}

/// The stack of the forwardAuth listener: as above, but nothing is routed or forwarded.
pub fn asked(
    worker: &Arc<Worker>,
) -> impl Service<Box<Exchange>, Response = Answer, Error = Infallible, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static
+ use<> {
    let clock = worker.clock;
    ServiceBuilder::new()
        .layer(Recorded { clock })
        .layer(Respond { clock })
        .layer(Admit { routed: false })
        // No guard around it: it judges another request than the one that came.
        .service(tower::service_fn(forward_auth::answer))
}

/// Innermost: what a judged request came for. The exchange goes back to the guard, whole.
async fn serve(worker: Arc<Worker>, mut exchange: Box<Exchange>) -> Result<Served, Infallible> {
    let answer = answer(&worker, &mut exchange).await;
    Ok((answer, exchange))
}

async fn answer(worker: &Worker, exchange: &mut Exchange) -> Result<Response<Body>, Refusal> {
    let site = &exchange.site;
    let upstream = match exchange.route.map(|route| site.routing.target(route)) {
        None => return Err(Refusal::NoRoute),
        Some(Target::Whoami) => return Ok(whoami::answer(exchange)),
        Some(Target::Service(upstream)) => upstream,
    };
    if let Some(record) = &exchange.record {
        record.judge(|judged| judged.service = Some(upstream.name().clone()));
    }
    let link = &exchange.link;
    let began = exchange.timed.then(|| worker.clock.elapsed());
    let answer = worker
        .proxy
        .forward(
            upstream,
            &mut exchange.head,
            std::mem::take(&mut exchange.body),
            link.forwarded(exchange.trusted),
            Some(&|status, headers| link.inform(status, headers)),
            exchange.now,
        )
        .await;
    if let Some(began) = began {
        let took = worker.clock.seconds_since(began);
        site.metrics.upstream_seconds.observe(took);
    }
    answer
        .map(|response| {
            response.map(|body| match link.h2() {
                true => body.one_of_many().into(),
                false => body.spliced(|| link.splice()).into(),
            })
        })
        .map_err(|error| Refusal::Upstream(Box::new(error)))
}
