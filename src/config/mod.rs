//! The configuration as it is meant: validated, with every default filled in, free of serde.
//!
//! `raw` says what a file holds, `compile` turns the one into the other and reports every problem
//! at once, `reload` watches. Adapters read these types and never a file.

mod compile;
pub mod duration;
mod flags;
pub mod import;
mod jail;
mod listen;
mod nets;
mod notify;
mod outside;
mod problem;
mod raw;
mod read;
pub mod reload;
mod report;
mod shape;
mod statuscode;
mod upstream;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

pub use duration::{length as parse_duration, show as show_duration};
pub use flags::ProxyFlags;
pub use jail::{DenyResponse, Jail, SourceCriterion};
pub use listen::{Address, Admin, ClientLimits, ClientTimeouts, EntryPoint, ForwardAuth, Tls};
pub use notify::{Channel, Email, EmailTls, NotifyOn, NotifyTarget, PLACEHOLDERS, Template};
pub use outside::{
    AccessLog, ClientTls, Cloudflare, CloudflareSource, Crowdsec, CrowdsecPublish,
    CrowdsecSubscribe, Fallback, LogLineFormat, Otlp,
};
pub use problem::{Kind as ProblemKind, Pos, Problem, Problems};
pub use upstream::{HealthCheck, Route, Scheme, Server, Service, Transport};

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
    /// What survives a restart; `None` keeps state in memory only.
    pub state: Option<State>,
    /// Caps on memory.
    pub limits: Limits,
    /// CrowdSec's LAPI.
    pub crowdsec: Option<Crowdsec>,
    /// The Cloudflare list.
    pub cloudflare: Option<Cloudflare>,
    /// Who is told of bans and failures, in file order.
    pub notify: Vec<NotifyTarget>,
    /// Where `sync` and `run` push their gauges.
    pub pushgateway: Option<String>,
    /// The admin listener.
    pub admin: Admin,
    /// What is logged and how.
    pub log: Log,
    /// Every file that, when it changes, asks for a reload: the configuration, lists, pages,
    /// secrets and certificates.
    pub watched: Vec<PathBuf>,
    /// What is odd but loads; `check` and the start of `run` print it.
    pub warnings: Vec<Problem>,
}

/// The state on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The database, absolute.
    pub path: PathBuf,
    /// How long ended bans are kept for people. 30 d.
    pub keep: Duration,
}

/// Caps on memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Clients counted at once, over all jails. 1,000,000.
    pub tracked_clients: usize,
    /// Bans held at once, outside decisions included. 1,000,000.
    pub bans: usize,
    /// When counters run full, count new IPv6 clients by /48. Off.
    pub aggregate_ipv6: bool,
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
    /// Addresses in logs are cut to these prefix lengths, IPv4 and IPv6. 32 and 128.
    pub truncate: (u8, u8),
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

impl Config {
    /// Loads a file and everything it names; every problem at once.
    pub fn load(file: &Path) -> Result<Self, Problems> {
        compile::compile_file(file, &|name| std::env::var(name).ok())
    }

    /// Reads how to reach a program that runs by this file; the rest of it may be wrong.
    pub fn load_admin(file: &Path) -> Result<Admin, Problems> {
        compile::admin_of(file, &|name| std::env::var(name).ok())
    }

    /// `./jailgate.yaml`, else `/etc/jailgate/jailgate.yaml`.
    pub fn default_file() -> Result<&'static Path, Problems> {
        let places = ["./jailgate.yaml", "/etc/jailgate/jailgate.yaml"].map(Path::new);
        let found = places.into_iter().find(|place| place.exists());
        found.ok_or_else(|| {
            Problem::whole(
                places[0],
                "not found, and neither is /etc/jailgate/jailgate.yaml; name one with `-c FILE`",
            )
            .into()
        })
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tracked_clients: 1_000_000,
            bans: 1_000_000,
            aggregate_ipv6: false,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            json: false,
            access: AccessLogTarget::Off,
            truncate: (32, 128),
        }
    }
}

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
