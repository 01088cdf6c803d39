//! The configuration as it is meant: validated, with every default filled in, free of serde.
//!
//! `raw` says what a file may hold, `compile` turns the one into the other and reports every
//! problem at once, `reload` watches. Adapters read these types and never a file.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use crate::engine::{JailSpec, nets::NetSet};

/// A whole configuration, ready to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from; `None` for `jailgate proxy`.
    pub file: Option<PathBuf>,
    /// Where it proxies, in file order.
    pub entry_points: Vec<EntryPoint>,
    /// First match wins.
    pub routes: Vec<Route>,
    /// Everything a route may name except `whoami@internal`.
    pub services: Vec<Service>,
    /// The forwardAuth listener.
    pub forward_auth: Option<ForwardAuth>,
    /// Access logs to follow.
    pub access_logs: Vec<AccessLog>,
    /// The OTLP receiver.
    pub otlp: Option<Otlp>,
    /// In file order.
    pub jails: Vec<Jail>,
    /// The database; `None` keeps state in memory only.
    pub state: Option<PathBuf>,
    /// Caps on memory.
    pub limits: Limits,
    /// CrowdSec's LAPI.
    pub crowdsec: Option<Crowdsec>,
    /// The Cloudflare list.
    pub cloudflare: Option<Cloudflare>,
    /// Where `sync` and `run` push their gauges.
    pub pushgateway: Option<String>,
    /// The admin listener.
    pub admin: Admin,
    /// What is logged and how.
    pub log: Log,
    /// Every file that, when it changes, asks for a reload: the configuration and its lists.
    pub watched: Vec<PathBuf>,
}

/// A socket to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `host:port`; `:port` means every address, v6 and v4.
    Tcp(SocketAddr),
    /// `unix:/path`.
    Unix(PathBuf),
}

/// One listener of the gate.
#[derive(Clone, Debug)]
pub struct EntryPoint {
    /// Its key in the file.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: Address,
    /// Peers whose `X-Forwarded-*` are believed.
    pub forwarded_trusted: Arc<NetSet>,
    /// Peers that send a PROXY protocol header.
    pub proxy_trusted: Arc<NetSet>,
    /// TLS; `None` is plain text (HTTP/1.1 and h2c by prior knowledge).
    pub tls: Option<Tls>,
    /// Timeouts towards the client.
    pub timeouts: ClientTimeouts,
    /// Limits on what a client may send and hold.
    pub limits: ClientLimits,
    /// Send the canonical request line upstream instead of the one received.
    pub canonical_path: bool,
}

/// A certificate for a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// PEM files.
    Files {
        /// Certificate chain, leaf first.
        cert: PathBuf,
        /// Private key.
        key: PathBuf,
    },
    /// Made at start.
    SelfSigned,
}

/// Traefik's `transport.respondingTimeouts` and `lifeCycle`. Zero durations mean no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTimeouts {
    /// From the first byte of a request head to its last, and for a TLS handshake. 30 s.
    pub header: Duration,
    /// Between two reads of a request body or two writes of a response. 60 s.
    pub body: Duration,
    /// A connection without a request. 180 s.
    pub idle: Duration,
    /// How long open requests may finish after SIGTERM. 10 s.
    pub grace: Duration,
}

/// What one client connection may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Bytes of one request head; more is 431. 64 KiB.
    pub header_bytes: usize,
    /// Header lines; more is 431. 100.
    pub headers: usize,
    /// Bytes of the request target; more is 414. 16 KiB.
    pub uri_bytes: usize,
    /// Connections open at once; more are refused. 10,000 (0: no limit).
    pub connections: usize,
    /// The same per client address, trusted peers excepted. 512 (0: no limit).
    pub connections_per_client: usize,
    /// Bytes of a request body; more is 413. 0: no limit.
    pub body_bytes: u64,
    /// HTTP/2 streams open at once on one connection. 100.
    pub concurrent_streams: u32,
}

/// One routing rule.
#[derive(Clone, Debug)]
pub struct Route {
    /// `app.example.com`, `*.example.com` or any host.
    pub host: Option<Arc<str>>,
    /// Path prefix, segment-wise as Traefik's `PathPrefix`; `/` by default.
    pub path_prefix: Arc<str>,
    /// Name of a service, or `whoami@internal`.
    pub service: Arc<str>,
    /// Names of jails, checked in order.
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
    /// Unused connections kept per server and worker. 200.
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

/// The forwardAuth listener.
#[derive(Clone, Debug)]
pub struct ForwardAuth {
    /// Where it listens.
    pub address: Address,
    /// The proxies that may ask.
    pub trusted: Arc<NetSet>,
    /// TLS.
    pub tls: Option<Tls>,
}

/// A log to follow.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// File or glob, absolute.
    pub path: PathBuf,
    /// Proxies in front of the server that wrote it.
    pub trusted: Arc<NetSet>,
    /// How its lines read.
    pub format: LogLineFormat,
    /// Names of jails.
    pub jails: Vec<Arc<str>>,
}

/// Line formats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogLineFormat {
    /// Traefik's JSON access log.
    TraefikJson,
    /// Common Log Format (also Traefik's `common`).
    Clf,
    /// nginx and Apache `combined`.
    Combined,
    /// Caddy's JSON.
    CaddyJson,
    /// nginx JSON with the usual variable names.
    NginxJson,
    /// Named groups `ip`, `status`, `path`, `method`, `host`, `time`; already checked to compile.
    Regex(Arc<str>),
}

/// The OTLP receiver.
#[derive(Clone, Debug)]
pub struct Otlp {
    /// Where it listens.
    pub address: Address,
    /// Bearer token; mandatory off loopback.
    pub token: Option<Secret>,
    /// As in [`AccessLog::trusted`].
    pub trusted: Arc<NetSet>,
    /// Names of jails.
    pub jails: Vec<Arc<str>>,
}

/// One jail: the engine's part and what adapters do around it.
#[derive(Clone, Debug)]
pub struct Jail {
    /// Rules, lists, windows: what the engine enforces.
    pub spec: JailSpec,
    /// Where the client's address comes from.
    pub source: SourceCriterion,
    /// What a denied client gets.
    pub response: DenyResponse,
    /// Log denied requests.
    pub block_logs: bool,
}

/// Traefik's `sourceCriterion`.
#[derive(Clone, Debug, Default)]
pub struct SourceCriterion {
    /// Header that names the client, lower case; believed from trusted peers only.
    pub request_header_name: Option<http::HeaderName>,
    /// Take the N-th address of `X-Forwarded-For` from the right; 0 is off.
    pub depth: usize,
    /// Addresses passed over, right to left.
    pub excluded: Option<Arc<NetSet>>,
}

/// What a denied client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenyResponse {
    /// Status; 403 by default.
    pub status: http::StatusCode,
    /// Send `Retry-After`.
    pub retry_after: bool,
    /// HTML template, already read.
    pub page: Option<Arc<str>>,
}

/// Caps on memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Clients counted at once, over all jails. 1,000,000.
    pub tracked_clients: usize,
    /// Bans held at once, outside decisions included. 1,000,000.
    pub bans: usize,
}

/// CrowdSec's LAPI.
#[derive(Clone, Debug)]
pub struct Crowdsec {
    /// Base URL.
    pub url: String,
    /// Send our bans.
    pub publish: Option<CrowdsecPublish>,
    /// Take its decisions.
    pub subscribe: Option<CrowdsecSubscribe>,
    /// Client certificate in place of key or password.
    pub tls: Option<ClientTls>,
    /// Stop enforcing its decisions when it cannot be reached (`open`) or go on (`lastKnown`).
    pub open_when_unreachable: bool,
}

/// The machine login.
#[derive(Clone, Debug)]
pub struct CrowdsecPublish {
    /// Machine id.
    pub machine_id: String,
    /// Its password; `None` with a client certificate.
    pub password: Option<Secret>,
    /// How often batches go out. 1 s.
    pub interval: Duration,
    /// Origin of our decisions. `jailgate`.
    pub origin: Arc<str>,
}

/// The bouncer login.
#[derive(Clone, Debug)]
pub struct CrowdsecSubscribe {
    /// Bouncer key; `None` with a client certificate.
    pub api_key: Option<Secret>,
    /// How often the stream is asked. 10 s.
    pub interval: Duration,
    /// Lower-case scopes. `ip`, `range`.
    pub scopes: Vec<String>,
    /// Only these origins; empty is all.
    pub origins: Vec<String>,
}

/// A client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// PEM chain.
    pub cert: Option<PathBuf>,
    /// PEM key.
    pub key: Option<PathBuf>,
    /// Extra root, PEM.
    pub ca: Option<PathBuf>,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
}

/// The Cloudflare list.
#[derive(Clone, Debug)]
pub struct Cloudflare {
    /// Account.
    pub account_id: String,
    /// The one list written.
    pub list_id: String,
    /// Token with list edit rights.
    pub api_token: Secret,
    /// What it should hold.
    pub source: CloudflareSource,
    /// Full reconcile. 2 min.
    pub interval: Duration,
    /// Own every item of the list, or only the tagged ones.
    pub whole_list: bool,
    /// Items at most. 10,000.
    pub capacity: usize,
    /// API base.
    pub base_url: String,
}

/// Where the desired set comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloudflareSource {
    /// LAPI decisions only.
    Lapi,
    /// Our bans only.
    Local,
    /// Both, as far as there.
    Auto,
}

/// The admin listener.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where it listens. `127.0.0.1:9180`.
    pub address: Address,
    /// Bearer token; mandatory off loopback.
    pub token: Option<Secret>,
}

/// Logging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace` or a tracing filter.
    pub level: String,
    /// One JSON object a line instead of text.
    pub json: bool,
    /// One line a request: nowhere, on standard output, or appended to a file.
    pub access: AccessLogTarget,
}

/// Where jailgate's own access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Not written.
    Off,
    /// Standard output.
    Stdout,
    /// Appended to this file, reopened on SIGUSR1.
    File(PathBuf),
}

/// A value that never appears in a log, a dump or an error.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<secret>")
    }
}
