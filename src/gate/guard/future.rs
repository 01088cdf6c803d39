//! After the answer: its status is counted, and the answer that crosses a limit is replaced.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Response, StatusCode};
use pin_project_lite::pin_project;

use super::service::{Clients, deny};
use crate::{
    engine::Outcome,
    gate::{
        exchange::{Body, Exchange, Served},
        respond::Refusal,
    },
    proxy,
    time::Clock,
};

pin_project! {
    /// A request being answered, or refused already.
    #[derive(Debug)]
    pub struct Guarding<F> {
        #[pin]
        stage: Stage<F>,
    }
}

pin_project! {
    #[project = StageProjection]
    #[derive(Debug)]
    enum Stage<F> {
        Refused { refusal: Option<Refusal> },
        Passing { #[pin] inner: F, clients: Clients, clock: Clock },
    }
}

impl<F> Guarding<F> {
    pub(super) fn refused(refusal: Refusal) -> Self {
        Self {
            stage: Stage::Refused {
                refusal: Some(refusal),
            },
        }
    }

    pub(super) fn passing(inner: F, clients: Clients, clock: Clock) -> Self {
        Self {
            stage: Stage::Passing {
                inner,
                clients,
                clock,
            },
        }
    }
}

impl<F> Future for Guarding<F>
where
    F: Future<Output = Result<Served, Infallible>>,
{
    type Output = Result<Response<Body>, Refusal>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().stage.project() {
            StageProjection::Refused { refusal } => {
                // Polled once more after completion, there is nothing left to say.
                Poll::Ready(Err(refusal.take().unwrap_or(Refusal::NoRoute)))
            }
            StageProjection::Passing {
                inner,
                clients,
                clock,
            } => {
                let Ok((answer, mut exchange)) = ready!(inner.poll(cx));
                let refusal =
                    counted(&answer).and_then(|status| observe(&exchange, clients, status, *clock));
                proxy::keep_fields(std::mem::take(&mut exchange.head.headers));
                match refusal {
                    // Dropping the answer drops its body, and with it the server's connection.
                    Some(refusal) => Poll::Ready(Err(refusal)),
                    None => Poll::Ready(answer),
                }
            }
        }
    }
}

/// The status jails may count: an outage must not ban everyone, and what we refuse ourselves is
/// no failure of the client's, except to ask for what is not there.
fn counted(answer: &Result<Response<Body>, Refusal>) -> Option<StatusCode> {
    match answer {
        Ok(response) => match response.status() {
            StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => None,
            status if status.as_u16() == 499 => None,
            status => Some(status),
        },
        Err(Refusal::NoRoute) => Some(StatusCode::NOT_FOUND),
        Err(_) => None,
    }
}

/// Every jail counts; the first that has banned answers in place of the service.
fn observe(
    exchange: &Exchange,
    clients: &Clients,
    status: StatusCode,
    clock: Clock,
) -> Option<Refusal> {
    let site = &exchange.site;
    let wardens = site.wardens(exchange.route);
    // Nearly every answer is none that counts: then neither clock nor engine is asked.
    if !(clients.each()).any(|(index, _)| wardens[index].counts(status)) {
        return None;
    }
    let now = clock.now();
    let mut refusal = None;
    for (index, client) in clients.each() {
        let warden = &wardens[index];
        let request = exchange.by(client);
        match (site.engine).observe(warden.id, &request, status.as_u16(), now) {
            Outcome::Ignored => {}
            Outcome::Counted(_) => _ = warden.metrics.failures.inc(),
            Outcome::Simulated { begun, .. } => {
                if begun {
                    warden.metrics.failures.inc();
                }
            }
            Outcome::Banned { denial, begun } => {
                if begun {
                    warden.metrics.failures.inc();
                }
                if refusal.is_none() {
                    let record = exchange.record.as_deref();
                    refusal = Some(deny(warden, denial, &request, now, record));
                }
            }
        }
    }
    refusal
}
