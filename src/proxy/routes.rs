//! Which route a request takes. Immutable once built; a reload builds the next one and swaps it
//! whole. What is done with a request on its way is not decided here.

use std::sync::Arc;

use super::upstream::Upstream;
use crate::config::Config;

/// Every route of a configuration with the services behind them.
#[derive(Debug)]
pub struct Routing {
    routes: Vec<(crate::config::Route, Target)>,
}

/// Where a route leads.
#[derive(Clone, Debug)]
pub enum Target {
    /// A configured service.
    Service(Arc<Upstream>),
    /// `whoami@internal`, answered by the gate.
    Whoami,
}

/// Why services could not be built; the old routing stays in force.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A route names a service that is not there.
    #[error("route {route} names the unknown service `{service}`")]
    UnknownService {
        /// Index of the route.
        route: usize,
        /// The name.
        service: Arc<str>,
    },
    /// `rootCAs` or the system's roots could not be read.
    #[error("service `{service}`: {why}")]
    Tls {
        /// The service.
        service: Arc<str>,
        /// What is wrong.
        why: String,
    },
}

impl Routing {
    /// Compiles routes and services. Servers that `previous` knew under the same address and
    /// transport keep their pooled connections and their health.
    pub fn build(_config: &Config, _previous: Option<&Routing>) -> Result<Self, BuildError> {
        todo!()
    }

    /// The first route that matches: its index in [`Config::routes`] and where it leads.
    pub fn find(&self, _host: &[u8], _path: &[u8]) -> Option<(usize, &Target)> {
        todo!()
    }
}
