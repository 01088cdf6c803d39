//! Which route a request takes. Immutable once built; a reload builds the next one and swaps it
//! whole. What is done with a request on its way is not decided here.

use std::{collections::HashMap, sync::Arc};

use super::upstream::Upstream;
use crate::{config::Config, engine::host_name};

/// Every route of a configuration with the services behind them.
#[derive(Debug)]
pub struct Routing {
    routes: Box<[Route]>,
    /// Whether any route asks for a host.
    by_host: bool,
    services: Vec<Arc<Upstream>>,
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
    /// A root certificate could not be read, or a name cannot stand in a certificate.
    #[error("service `{service}`: {why}")]
    Tls {
        /// The service.
        service: Arc<str>,
        /// What is wrong.
        why: String,
    },
}

#[derive(Debug)]
struct Route {
    host: Host,
    prefix: Arc<str>,
    target: Target,
}

#[derive(Debug)]
enum Host {
    Any,
    Exact(Arc<str>),
    /// `.example.com` of `*.example.com`: one label or more must stand before it.
    Below(Box<str>),
}

impl Routing {
    /// Compiles routes and services. A server that `previous` knew in the same service with the
    /// same address and transport keeps its pooled connections and its health.
    pub fn build(config: &Config, previous: Option<&Routing>) -> Result<Self, BuildError> {
        let known = |name: &str| {
            previous?
                .services
                .iter()
                .find(|known| **known.name() == *name)
        };
        let services = config.services.iter();
        let services = services
            .map(|service| {
                let known = known(&service.name).map(Arc::as_ref);
                Upstream::build(service, known).map(Arc::new)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let by_name: HashMap<_, _> = services
            .iter()
            .map(|service| (&**service.name(), service))
            .collect();
        let routes = config.routes.iter().enumerate();
        let routes = routes.map(|(index, route)| {
            let target = match (&*route.service, by_name.get(&*route.service)) {
                ("whoami@internal", _) => Target::Whoami,
                (_, Some(service)) => Target::Service(Arc::clone(service)),
                (_, None) => {
                    return Err(BuildError::UnknownService {
                        route: index,
                        service: route.service.clone(),
                    });
                }
            };
            Ok(Route {
                host: Host::of(route.host.as_ref()),
                prefix: route.path_prefix.clone(),
                target,
            })
        });
        let routes: Box<[Route]> = routes.collect::<Result<_, _>>()?;
        Ok(Self {
            by_host: routes.iter().any(|route| !matches!(route.host, Host::Any)),
            routes,
            services,
        })
    }

    /// The first route that matches: its index in [`Config::routes`] and where it leads.
    ///
    /// `host` is the request's, in any case and with or without a port; it is asked for when a
    /// route has one. `path` is its path alone; give the canonical one, so that `/%61pp` takes the
    /// route of `/app`. A prefix matches whole segments: `/app` takes `/app` and `/app/x`, not
    /// `/apple` (Traefik's `PathPrefix` takes that too, its Gateway API form does not).
    pub fn find<'h>(
        &self,
        host: impl FnOnce() -> &'h [u8],
        path: &[u8],
    ) -> Option<(usize, &Target)> {
        let host = match self.by_host {
            true => name(host()),
            false => b"",
        };
        self.routes
            .iter()
            .enumerate()
            .find(|(_, route)| route.host.matches(host) && is_below(path, route.prefix.as_bytes()))
            .map(|(index, route)| (index, &route.target))
    }

    /// Where a route that was found leads.
    pub fn target(&self, route: usize) -> &Target {
        &self.routes[route].target
    }

    /// The services, in the configuration's order.
    pub fn services(&self) -> &[Arc<Upstream>] {
        &self.services
    }
}

impl Host {
    fn of(host: Option<&Arc<str>>) -> Self {
        match host {
            None => Self::Any,
            Some(host) if &**host == "*" => Self::Any,
            Some(host) => match host.strip_prefix('*') {
                Some(rest) => Self::Below(rest.into()),
                None => Self::Exact(host.clone()),
            },
        }
    }

    fn matches(&self, host: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => host.eq_ignore_ascii_case(name.as_bytes()),
            Self::Below(rest) => host
                .len()
                .checked_sub(rest.len())
                .is_some_and(|cut| cut > 0 && host[cut..].eq_ignore_ascii_case(rest.as_bytes())),
        }
    }
}

fn is_below(path: &[u8], prefix: &[u8]) -> bool {
    match path.strip_prefix(prefix) {
        Some(rest) => rest.is_empty() || rest[0] == b'/' || prefix.ends_with(b"/"),
        // `OPTIONS *` is for the whole server.
        None => prefix == b"/" && path == b"*",
    }
}

/// `example.com.:80` → `example.com`.
fn name(host: &[u8]) -> &[u8] {
    let host = host_name(host);
    host.strip_suffix(b".").unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::{Host, is_below, name};

    #[track_caller]
    fn host(rule: Option<&str>, host: &str, expected: bool) {
        let rule = Host::of(rule.map(Into::into).as_ref());
        assert_eq!(rule.matches(name(host.as_bytes())), expected, "{host}");
    }

    #[test]
    fn hosts_match_without_case_port_and_final_dot() {
        host(None, "anything", true);
        host(None, "", true);
        host(Some("app.example.com"), "APP.example.COM:8080", true);
        host(Some("app.example.com"), "app.example.com.", true);
        host(Some("app.example.com"), "xapp.example.com", false);
        host(Some("app.example.com"), "app.example.com.evil.org", false);
        host(Some("*.example.com"), "a.b.example.com:443", true);
        host(Some("*.example.com"), "example.com", false);
        host(Some("*.example.com"), ".example.com", false);
        host(Some("*.example.com"), "badexample.com", false);
        host(Some("[::1]"), "[::1]:80", true);
        host(Some("[::1]"), "[::1]", true);
    }

    #[track_caller]
    fn prefix(prefix: &str, path: &str, expected: bool) {
        assert_eq!(
            is_below(path.as_bytes(), prefix.as_bytes()),
            expected,
            "{path}"
        );
    }

    #[test]
    fn prefixes_match_whole_segments() {
        prefix("/", "/", true);
        prefix("/", "/anything", true);
        prefix("", "/anything", true);
        prefix("/", "*", true);
        prefix("/app", "*", false);
        prefix("/app", "/app", true);
        prefix("/app", "/app/", true);
        prefix("/app", "/app/x", true);
        prefix("/app", "/apple", false);
        prefix("/app", "/ap", false);
        prefix("/app/", "/app/x", true);
        prefix("/app/", "/app", false);
    }
}
