//! Before the request is forwarded: who is it, and may it pass?

use std::{
    convert::Infallible,
    net::IpAddr,
    task::{Context, Poll},
};

use http::Response;
use tower::Service;

use super::Guarding;
use crate::{
    engine::{Denial, Request, Verdict, urls::split},
    gate::{
        exchange::{Body, Exchange, Served},
        identify,
        respond::{Denied, Refusal},
        site::Warden,
    },
    proxy::Target,
    telemetry::privacy::logged,
    time::{Clock, Millis},
};

/// Judges requests before the inner service sees them.
#[derive(Clone, Debug)]
pub struct Guard<S> {
    inner: S,
    clock: Clock,
}

/// Whom each jail counts, by its place among the route's jails and in their order. One jail is the
/// rule and needs no memory.
#[derive(Debug, Default)]
pub enum Clients {
    #[default]
    None,
    One(usize, IpAddr),
    Many(Vec<(usize, IpAddr)>),
}

impl Clients {
    fn push(&mut self, jail: usize, client: IpAddr) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(jail, client),
            Self::One(first, earlier) => Self::Many(vec![(first, earlier), (jail, client)]),
            Self::Many(mut all) => {
                all.push((jail, client));
                Self::Many(all)
            }
        };
    }

    pub(super) fn each(&self) -> impl Iterator<Item = (usize, IpAddr)> {
        let (one, many) = match self {
            Self::None => (None, &[][..]),
            Self::One(jail, client) => (Some((*jail, *client)), &[][..]),
            Self::Many(all) => (None, all.as_slice()),
        };
        one.into_iter().chain(many.iter().copied())
    }
}

impl<S> Guard<S> {
    pub(super) fn new(inner: S, clock: Clock) -> Self {
        Self { inner, clock }
    }
}

impl<S> Service<Box<Exchange>> for Guard<S>
where
    S: Service<Box<Exchange>, Response = Served, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Refusal;
    type Future = Guarding<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        self.inner.poll_ready(cx).map_err(|never| match never {})
    }

    fn call(&mut self, mut exchange: Box<Exchange>) -> Self::Future {
        let began = exchange.timed.then(|| self.clock.elapsed());
        let judged = judge(&mut exchange);
        if let Some(began) = began {
            let took = self.clock.seconds_since(began);
            exchange.site.metrics.decision_seconds.observe(took);
        }
        match judged {
            Err(refusal) => Guarding::refused(refusal),
            Ok(clients) => Guarding::passing(self.inner.call(exchange), clients, self.clock),
        }
    }
}

/// Asks every jail in order; answers whom each will count.
fn judge(exchange: &mut Exchange) -> Result<Clients, Refusal> {
    let site = &exchange.site;
    let explained = exchange
        .route
        .is_some_and(|route| matches!(site.routing.target(route), Target::Whoami));
    let mut clients = Clients::None;
    let mut first = None;
    let mut verdicts = Vec::new();
    for (index, warden) in site.wardens(exchange.route).iter().enumerate() {
        let client = identify::client(exchange, warden)?;
        let request = exchange.by(client.addr);
        let verdict = site.engine.check(warden.id, &request, exchange.now);
        warden.metrics.judged(&verdict);
        match &verdict {
            Verdict::Pass | Verdict::Simulated(_) => clients.push(index, client.addr),
            Verdict::Exempt(_) => {}
            Verdict::Deny(denial) => {
                let record = exchange.record.as_deref();
                return Err(deny(warden, denial.clone(), &request, exchange.now, record));
            }
        }
        first.get_or_insert(client);
        if explained {
            verdicts.push((warden.name.clone(), verdict));
        }
    }
    (exchange.client, exchange.verdicts) = (first, verdicts);
    if let Some(record) = &exchange.record {
        let client = exchange
            .client
            .clone()
            .or_else(|| identify::shown(exchange));
        record.judge(|judged| judged.client = client.map(|client| client.addr));
    }
    Ok(clients)
}

/// A denial as a refusal, said in the log when the jail wants it.
pub fn deny(
    warden: &Warden,
    denial: Denial,
    request: &Request<'_>,
    now: Millis,
    record: Option<&crate::gate::access_log::Record>,
) -> Refusal {
    let client = request.client;
    if let Some(unsaid) = warden
        .block_log
        .as_ref()
        .and_then(|log| log.admit(client, now))
    {
        let (path, _) = split(request.target);
        tracing::info!(
            jail = %warden.name,
            client = %logged(client),
            reason = denial.reason.as_str(),
            method = %String::from_utf8_lossy(request.method),
            path = %path.escape_ascii(),
            unsaid,
            "denied"
        );
    }
    if let Some(record) = record {
        record.judge(|judged| {
            judged.client = Some(client);
            judged.jail = Some(warden.name.clone());
            judged.reason = Some(denial.reason);
        });
    }
    Refusal::Denied(Box::new(Denied {
        denial,
        jail: warden.name.clone(),
        client,
        response: warden.response.clone(),
    }))
}
