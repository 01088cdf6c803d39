//! Takes a judged request to its service and brings the response back: routes, upstream
//! connections, hop-by-hop rules, upgrades. It neither judges nor renders: the gate does.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header, request::Parts};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use tokio::time::sleep;

pub use self::{
    body::Body,
    error::{BoxError, Error, Phase},
    health::watch_health,
    routes::{BuildError, Routing, Target},
    spare::keep_fields,
    splice::{Splice, is_stand_in},
    upstream::Upstream,
};
use self::{
    body::RequestBody,
    h1::{Answer, Answered, Ask, Connection, Exchange, Failure, Line, Sends},
    headers::{Outgoing, upgrade_wanted},
    pool::Pool,
    reach::Reached,
    spelt::Spelt,
    upstream::Server,
};
use crate::{
    tasks::Tasks,
    time::{Clock, Millis},
};

mod body;
mod dial;
mod error;
mod h1;
mod h2;
mod headers;
mod health;
mod pool;
mod reach;
mod routes;
mod spare;
mod spelt;
mod splice;
mod timer;
mod tls;
mod upgrade;
mod upstream;

/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(5);

/// Told of every 1xx response but 100 and 101, before the final one.
pub type Informational<'a> = &'a (dyn Fn(StatusCode, &HeaderMap) + Send + Sync);

/// One worker's way to the services: its own pools, shared only by clones inside its thread.
#[derive(Clone, Debug)]
pub struct Proxy(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    tasks: Tasks,
    pool: Pool,
    /// This machine's name.
    machine: Box<str>,
}

/// What `X-Forwarded-*` are written from. Make it once per connection: the address is kept as
/// text.
#[derive(Clone, Debug)]
pub struct Forwarded {
    peer: Option<Spelt>,
    trusted: bool,
    https: bool,
}

impl Forwarded {
    /// `peer` is who the connection comes from (after a PROXY header), `None` on a unix socket;
    /// `trusted` whether its `X-Forwarded-*` are believed; `https` whether it speaks TLS.
    pub fn new(peer: Option<IpAddr>, trusted: bool, https: bool) -> Self {
        Self {
            peer: peer.map(|ip| Spelt::new(ip.to_canonical())),
            trusted,
            https,
        }
    }

    /// The same of a peer that is believed.
    pub fn believed(self) -> Self {
        Self {
            trusted: true,
            ..self
        }
    }
}

/// A request with what is known of it before a server is chosen.
struct Errand<'a> {
    parts: &'a Parts,
    forwarded: &'a Forwarded,
    informational: Option<Informational<'a>>,
    pass_host_header: bool,
    upgrade: bool,
    expect: bool,
    sends: Sends,
}

impl Proxy {
    /// Inside the worker's runtime: starts the sweep of idle connections there.
    pub fn new(clock: Clock, tasks: Tasks) -> Self {
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let proxy = Self(Arc::new(Inner {
            clock,
            tasks: tasks.clone(),
            pool: Pool::default(),
            machine: machine.trim().into(),
        }));
        let inner = Arc::downgrade(&proxy.0);
        let stopping = tasks.stopping();
        tasks.spawn(async move {
            loop {
                let stop = tokio::select! {
                    () = sleep(SWEEP) => false,
                    () = stopping.cancelled() => true,
                };
                match inner.upgrade() {
                    Some(inner) if !stop => inner.pool.sweep(inner.clock.now()),
                    Some(inner) => return inner.pool.clear(),
                    None => return,
                }
            }
        });
        proxy
    }

    /// Sends a request as it came from hyper's server (its `OnUpgrade` still in the extensions)
    /// to a server of `upstream` and answers with the response's head; its body streams.
    ///
    /// Its URI's path and query go upstream as they stand. The request body is not polled before
    /// the server can take it, so hyper's own `100 Continue` goes out at the right time. `now` is
    /// when it came. The head is left as it is; once done with, its headers are for [`keep_fields`].
    pub async fn forward<B>(
        &self,
        upstream: &Arc<Upstream>,
        parts: &mut Parts,
        body: B,
        forwarded: &Forwarded,
        informational: Option<Informational<'_>>,
        now: Millis,
    ) -> Result<Response<Body>, Error>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let body = RequestBody::new(body);
        let client = parts.extensions.remove::<OnUpgrade>();
        let errand = Errand {
            parts,
            forwarded,
            informational,
            pass_host_header: upstream.pass_host_header,
            upgrade: client.is_some() && upgrade_wanted(parts).is_some(),
            expect: expects_continue(parts, &body),
            sends: sends(parts, &body),
        };
        match self.run(upstream, &errand, body, now).await? {
            Reply::H1(answer) => self.finish(answer, client, now),
            Reply::H2(response) => Ok(response.map(Body::h2)),
        }
    }

    /// Tries servers until one answers, as far as trying again is safe: a server that cannot be
    /// connected to got nothing, so the next one is asked, whatever the method; a pooled
    /// connection that turns out to be closed is replaced by a fresh one (see [`Failure::Stale`]).
    async fn run(
        &self,
        upstream: &Upstream,
        errand: &Errand<'_>,
        mut body: RequestBody,
        now: Millis,
    ) -> Result<Reply, Error> {
        let mut server = upstream.pick(now, &[])?;
        let mut tried = Vec::new();
        let mut repeats = 0;
        if let Some(connection) = self.0.pool.take(server, now) {
            match self.ask_h1(server, connection, errand, body, now).await {
                Ok(answer) => return Ok(Reply::H1(answer)),
                Err(Failure::Stale(untouched, _)) if server.transport.retries > 0 => {
                    body = untouched;
                    repeats = 1;
                }
                Err(Failure::Stale(_, error) | Failure::Final(error)) => return Err(error),
            }
        }
        loop {
            match Box::pin(self.ask_anew(server, errand, body)).await {
                Ok(reply) => return Ok(reply),
                Err(Attempt::Unreached(untouched, error)) => {
                    body = untouched;
                    tried.push(server.id);
                    server.health.failed(self.0.clock.now());
                    tracing::debug!(server = %server.label, %error, "passed over");
                    server = match upstream.pick(self.0.clock.now(), &tried) {
                        Ok(next) => next,
                        Err(_) => return Err(error),
                    };
                }
                Err(Attempt::Failed(Failure::Stale(untouched, error))) => {
                    if repeats >= server.transport.retries {
                        return Err(error);
                    }
                    repeats += 1;
                    body = untouched;
                }
                Err(Attempt::Failed(Failure::Final(error))) => return Err(error),
            }
        }
    }
    async fn ask_h1(
        &self,
        server: &Server,
        connection: Box<Connection>,
        errand: &Errand<'_>,
        body: RequestBody,
        now: Millis,
    ) -> Result<Answer, Failure> {
        let outgoing = errand.outgoing(self, true);
        let line = Line {
            base_path: &server.config.base_path,
            host: errand.host(server, outgoing.client_host),
            sends: errand.sends,
            expect: errand.expect,
        };
        let ask = Ask {
            method: &errand.parts.method,
            upgrade: errand.upgrade,
            informational: errand.informational,
            clock: &self.0.clock,
            now,
        };
        let answer = Exchange::new(connection, &line, &outgoing, body, ask)
            .run()
            .await;
        if answer.is_ok() {
            server.health.alive();
        }
        answer
    }

    async fn ask_anew(
        &self,
        server: &Arc<Server>,
        errand: &Errand<'_>,
        body: RequestBody,
    ) -> Result<Reply, Attempt> {
        match self.reach(server, errand.upgrade).await {
            Err(error) => Err(Attempt::Unreached(body, error)),
            Ok(Reached::H1(connection)) => {
                server.health.alive();
                let now = self.0.clock.now();
                let answer = self.ask_h1(server, connection, errand, body, now).await;
                answer.map(Reply::H1).map_err(Attempt::Failed)
            }
            Ok(Reached::H2(session)) => {
                server.health.alive();
                let outgoing = errand.outgoing(self, false);
                let host = errand.host(server, outgoing.client_host);
                let answer = session.ask(&outgoing, host, body, server, &self.0.clock);
                answer.await.map(Reply::H2).map_err(Attempt::Failed)
            }
        }
    }

    fn finish(
        &self,
        mut answer: Answer,
        client: Option<OnUpgrade>,
        now: Millis,
    ) -> Result<Response<Body>, Error> {
        let status = answer.status();
        if let (StatusCode::SWITCHING_PROTOCOLS, Some(client)) = (status, client) {
            return Ok(self.switch(answer, client));
        }
        let headers = answer.headers();
        let body = match answer.body(self) {
            Answered::Streams(body) => Body::h1(body),
            Answered::Whole(bytes, connection) => {
                if let Some(connection) = connection {
                    // as of the request's beginning: idle a little early costs nothing
                    self.0.pool.put(connection, now);
                }
                Body::whole(bytes)
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    fn switch(&self, mut answer: Answer, client: OnUpgrade) -> Response<Body> {
        let mut response = Response::new(Body::whole(Bytes::new()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = answer.headers();
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = answer.upgrade() {
            headers.insert(header::UPGRADE, protocol.clone());
        }
        upgrade::tunnel(client, *answer.into_connection(), &self.0.tasks);
        response
    }

    /// Takes back a connection that can serve another request.
    fn rest(&self, connection: Box<Connection>) {
        self.0.pool.put(connection, self.0.clock.now());
    }
}

enum Reply {
    H1(Answer),
    H2(Response<h2::Streaming>),
}

enum Attempt {
    /// Nothing was sent.
    Unreached(RequestBody, Error),
    Failed(Failure),
}

impl Errand<'_> {
    fn outgoing<'a>(&'a self, proxy: &'a Proxy, h1: bool) -> Outgoing<'a> {
        let host = self.parts.headers.get(header::HOST);
        let authority = || {
            self.parts
                .uri
                .authority()
                .map(|authority| authority.as_str())
        };
        Outgoing {
            parts: self.parts,
            forwarded: self.forwarded,
            client_host: match host {
                Some(host) => host.as_bytes(),
                None => authority().unwrap_or_default().as_bytes(),
            },
            machine: &proxy.0.machine,
            upgrade: self.upgrade && h1,
            h1,
            trailers: !h1 || self.sends == Sends::Chunks,
        }
    }

    fn host<'a>(&self, server: &'a Server, client: &'a [u8]) -> &'a [u8] {
        match self.pass_host_header && !client.is_empty() {
            true => client,
            false => server.authority.as_bytes(),
        }
    }
}

fn expects_continue(parts: &Parts, body: &RequestBody) -> bool {
    let expects = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    parts.version == Version::HTTP_11
        && !body.is_end_stream()
        && parts.headers.get(header::EXPECT).is_some_and(expects)
}

fn sends(parts: &Parts, body: &RequestBody) -> Sends {
    if !body.is_end_stream() {
        return body
            .size_hint()
            .exact()
            .map_or(Sends::Chunks, Sends::Exactly);
    }
    // These mean a body (RFC 9110 §8.6); of others a length of 0 is kept when it was sent.
    let has_one = matches!(parts.method, Method::POST | Method::PUT | Method::PATCH);
    match has_one || parts.headers.contains_key(header::CONTENT_LENGTH) {
        true => Sends::Exactly(0),
        false => Sends::Nothing,
    }
}

#[cfg(test)]
mod tests;
