//! Takes a judged request to its service and brings the response back: routes, upstream
//! connections, hop-by-hop rules, upgrades. It neither judges nor renders: the gate does.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};

pub use self::{
    body::Body,
    error::{BoxError, Error, Phase},
    routes::{BuildError, Routing, Target},
    upstream::Upstream,
};
use crate::{tasks::Tasks, time::Clock};

#[expect(dead_code, reason = "bodies follow")]
mod body;
mod error;
#[expect(dead_code, reason = "bodies follow")]
mod routes;
mod upstream;

/// Told of every 1xx response but 100 and 101, before the final one.
pub type Informational = Arc<dyn Fn(StatusCode, &HeaderMap) + Send + Sync>;

/// One worker's way to the services: its own pools, shared only by clones inside its thread.
#[derive(Clone, Debug)]
pub struct Proxy {
    _clock: Clock,
    _tasks: Tasks,
}

/// What `X-Forwarded-*` are written from. Make it once per connection: the address is kept as
/// text.
#[derive(Clone, Debug)]
pub struct Forwarded {
    _peer: Option<Arc<str>>,
    _trusted: bool,
    _https: bool,
}

impl Forwarded {
    /// `peer` is who the connection comes from (after a PROXY header), `None` on a unix socket;
    /// `trusted` whether its `X-Forwarded-*` are believed; `https` whether it speaks TLS.
    pub fn new(peer: Option<IpAddr>, trusted: bool, https: bool) -> Self {
        Self {
            _peer: peer.map(|ip| ip.to_canonical().to_string().into()),
            _trusted: trusted,
            _https: https,
        }
    }
}

impl Proxy {
    /// Inside the worker's runtime: starts the sweep of idle connections there.
    pub fn new(clock: Clock, tasks: Tasks) -> Self {
        Self {
            _clock: clock,
            _tasks: tasks,
        }
    }

    /// Sends `request` as it came from hyper's server (its `OnUpgrade` still in the extensions)
    /// to a server of `upstream` and answers with the response's head; its body streams.
    ///
    /// Its URI's path and query go upstream as they stand. The request body is not polled before
    /// the server can take it, so hyper's own `100 Continue` goes out at the right time.
    pub async fn forward<B>(
        &self,
        _upstream: &Arc<Upstream>,
        _request: Request<B>,
        _forwarded: &Forwarded,
        _informational: Option<Informational>,
    ) -> Result<Response<Body>, Error>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        todo!()
    }
}

/// Runs the active health checks of whatever routing `current` answers with, until `tasks` stop.
/// One task for the whole process.
pub async fn watch_health<F>(current: F, clock: Clock, tasks: Tasks)
where
    F: Fn() -> Arc<Routing> + Send + 'static,
{
    let (_, _) = (current(), clock);
    tasks.stopping().cancelled().await;
}
