//! Where requests go: routes, services and how their servers are spoken to.

use std::{path::PathBuf, sync::Arc, time::Duration};

/// One routing rule.
#[derive(Clone, Debug)]
pub struct Route {
    /// `app.example.com`, `*.example.com` or any host.
    pub host: Option<Arc<str>>,
    /// Path prefix, segment-wise as Traefik's `PathPrefix`; `/` by default.
    pub path_prefix: Arc<str>,
    /// Name of a service, or `whoami@internal`.
    pub service: Arc<str>,
    /// Names of jails, checked in order. Where the file names none, `default` stands here when
    /// that jail exists; empty means that nobody judges.
    pub jails: Vec<Arc<str>>,
}

/// One upstream with its servers.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its key in the file.
    pub name: Arc<str>,
    /// Balanced; at least one.
    pub servers: Vec<Server>,
    /// Send the client's Host (the default) or the server's.
    pub pass_host_header: bool,
    /// Active health check.
    pub health_check: Option<HealthCheck>,
    /// Timeouts, pool and TLS towards the servers.
    pub transport: Transport,
}

/// One server of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `http`, `https`, `h2c` or `unix`.
    pub scheme: Scheme,
    /// Host name or address; for `unix` the socket's path.
    pub host: Arc<str>,
    /// Port; 80 or 443 by default.
    pub port: u16,
    /// Path put before the request's, without a trailing slash; usually empty.
    pub base_path: Arc<str>,
}

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP/1.1 in the clear.
    Http,
    /// TLS; h2 when the server offers it, HTTP/1.1 otherwise.
    Https,
    /// HTTP/2 in the clear, by prior knowledge.
    H2c,
    /// HTTP/1.1 over a unix socket.
    Unix,
}

/// Traefik's `healthCheck`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Path asked for.
    pub path: Arc<str>,
    /// How often. 30 s.
    pub interval: Duration,
    /// Until it counts as failed. 5 s.
    pub timeout: Duration,
}

/// Traefik's `serversTransport`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Connect, TLS handshake included. 5 s.
    pub dial_timeout: Duration,
    /// From the request's last byte to the response's head. 60 s; zero: no limit.
    pub response_header_timeout: Duration,
    /// Between two reads of a response body. 60 s; zero: no limit.
    pub body_timeout: Duration,
    /// An unused pooled connection. 90 s.
    pub idle_timeout: Duration,
    /// Connections that were not used for 5 s, kept per server and worker. 200; zero: none is kept.
    pub max_idle: usize,
    /// Extra roots, PEM.
    pub root_ca: Option<PathBuf>,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
    /// Name expected in the certificate when it is not the server's host.
    pub server_name: Option<Arc<str>>,
    /// How often a request that is safe to repeat is tried on another connection. 2.
    pub retries: u32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            path: "/".into(),
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
        }
    }
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            dial_timeout: Duration::from_secs(5),
            response_header_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(90),
            max_idle: 200,
            root_ca: None,
            insecure_skip_verify: false,
            server_name: None,
            retries: 2,
        }
    }
}
