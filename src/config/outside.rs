//! Who jailgate hears from and talks to: access logs, OTLP, CrowdSec, Cloudflare.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{Address, Secret};
use crate::engine::nets::NetSet;

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
    /// With this token the machine enters itself where LAPI allows it (auto registration, 1.6.5).
    pub registration_token: Option<Secret>,
    /// How often batches go out. 1 s.
    pub interval: Duration,
    /// How often LAPI is asked what it still holds. 1 min.
    pub check_interval: Duration,
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
    /// Only scenarios with one of these in their name; empty is all.
    pub scenarios_containing: Vec<String>,
    /// No scenarios with one of these in their name.
    pub scenarios_not_containing: Vec<String>,
    /// What becomes of types other than `ban`. `ban`.
    pub fallback: Fallback,
    /// How often what was done is told to LAPI; zero is never. 15 min.
    pub metrics_interval: Duration,
}

/// What becomes of decisions whose type is not `ban`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// Every type is enforced as a ban.
    Ban,
    /// `captcha` is enforced as a ban, others are ignored.
    Captcha,
    /// Bans only.
    Ignore,
}

/// A client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// PEM chain.
    pub cert: Option<PathBuf>,
    /// PEM key.
    pub key: Option<PathBuf>,
    /// The root that vouches for LAPI, in place of the system's, PEM.
    pub ca: Option<PathBuf>,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
}

/// The Cloudflare list.
#[derive(Clone, Debug, PartialEq)]
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
    /// Begins the comment of every item it writes. `jailgate`.
    pub tag: String,
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
