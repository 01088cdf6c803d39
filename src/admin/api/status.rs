//! How the program is doing: the whole, its jails, its background work.

use std::sync::atomic::Ordering;

use axum::{Extension, Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Job, Refusal, Shared, time};
use crate::{
    admin::auth::{Access, Caller},
    config,
    engine::{jail::WindowKind, urls::Mode},
};

/// The whole at a glance.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Of jailgate.
    version: &'static str,
    /// Now, RFC 3339.
    now: String,
    /// When this process started.
    started: String,
    /// How long it has run.
    uptime_seconds: u64,
    /// Every listener is bound and it is not shutting down.
    ready: bool,
    /// What you may do: `read` or `full`.
    access: &'static str,
    /// Your address, as jailgate sees it; null on a unix socket.
    caller: Option<String>,
    /// Active bans, decisions from elsewhere included.
    bans: usize,
    /// Clients with counted failures.
    tracked_clients: usize,
    /// Bans dropped because the table was full.
    evicted_bans: u64,
    /// Counters dropped because the table was full.
    evicted_clients: u64,
    /// The newest change: resume events from it.
    seq: u64,
    /// Jails in force.
    jails: Vec<String>,
    /// The last time the configuration was loaded.
    reload: Reload,
    /// Background jobs.
    jobs: Vec<Job>,
}

/// One attempt to load the configuration.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Reload {
    /// When.
    at: String,
    /// It is in force; else the one before it is.
    ok: bool,
    /// What was wrong.
    message: String,
}

/// Jails in force.
#[derive(Debug, Serialize, ToSchema)]
pub struct Jails {
    /// In file order.
    jails: Vec<Jail>,
}

/// One jail.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Jail {
    /// Its name.
    name: String,
    /// Off: everything passes.
    enabled: bool,
    /// Decides and counts, denies nothing.
    simulate: bool,
    /// `fixed` or `sliding`.
    window: &'static str,
    /// Length of the window.
    findtime_seconds: f64,
    /// Length of a first ban.
    bantime_seconds: f64,
    /// The N-th counted event bans.
    maxretry: u32,
    /// Statuses that count, `401,403-499`; empty: every request.
    statuscode: String,
    /// Only these methods count; empty: all.
    methods: Vec<String>,
    /// URL rules that ban at once.
    block_rules: Vec<String>,
    /// URL rules that pass uncounted.
    allow_rules: Vec<String>,
    /// Ranges on the allowlist.
    allowlist: usize,
    /// Ranges on the denylist.
    denylist: usize,
    /// Spares trusted proxies, gateways and own addresses.
    ignoreself: bool,
    /// Repeated bans grow.
    growing: bool,
    /// IPv6 clients are counted by this prefix.
    ipv6_prefix: u8,
    /// Its active bans.
    bans: usize,
}

/// Background work.
#[derive(Debug, Serialize, ToSchema)]
pub struct Work {
    /// What reports how it is doing.
    jobs: Vec<Job>,
    /// Everything that runs.
    tasks: Vec<Task>,
}

/// One long-lived task.
#[derive(Debug, Serialize, ToSchema)]
pub struct Task {
    /// Its name.
    name: String,
    /// It runs.
    running: bool,
    /// How often it was started again after a panic.
    restarts: u32,
}

/// The program at a glance.
#[utoipa::path(get, path = "/status", tag = "status",
    responses((status = 200, body = Status), (status = "4XX", response = Refusal)))]
pub async fn status(
    State(shared): State<Shared>,
    Extension(access): Extension<Access>,
    Extension(Caller(caller)): Extension<Caller>,
) -> Json<Status> {
    let (now, uptime) = (shared.clock.now(), shared.clock.uptime());
    let stats = shared.engine.stats();
    let config = shared.config.load();
    Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        now: time(now),
        started: time(now - uptime),
        uptime_seconds: uptime / 1000,
        ready: shared.ready.load(Ordering::Acquire),
        access: access.as_str(),
        caller: caller.map(|caller| caller.to_string()),
        bans: stats.bans,
        tracked_clients: stats.tracked_clients,
        evicted_bans: stats.evicted_bans,
        evicted_clients: stats.evicted_clients,
        seq: *shared.engine.ledger().settled().borrow(),
        jails: config
            .jails
            .iter()
            .map(|jail| jail.spec.name.to_string())
            .collect(),
        reload: Reload::from(&*shared.reloads.borrow()),
        jobs: jobs(&shared),
    })
}

/// Jails in force, and what they do.
#[utoipa::path(get, path = "/jails", tag = "status",
    responses((status = 200, body = Jails), (status = "4XX", response = Refusal)))]
pub async fn jails(State(shared): State<Shared>) -> Json<Jails> {
    let config = shared.config.load();
    let held = shared.engine.ledger().tally(|ban| ban.jail.clone());
    let jails = config.jails.iter();
    Json(Jails {
        jails: jails
            .map(|jail| {
                let name = Some(jail.spec.name.clone());
                Jail::new(jail, held.get(&name).copied().unwrap_or(0))
            })
            .collect(),
    })
}

/// Background jobs and tasks.
#[utoipa::path(get, path = "/tasks", tag = "status",
    responses((status = 200, body = Work), (status = "4XX", response = Refusal)))]
pub async fn tasks(State(shared): State<Shared>) -> Json<Work> {
    let tasks = shared.tasks.named().into_iter().map(|task| Task {
        name: task.name.to_string(),
        running: task.running,
        restarts: task.restarts,
    });
    Json(Work {
        jobs: jobs(&shared),
        tasks: tasks.collect(),
    })
}

fn jobs(shared: &Shared) -> Vec<Job> {
    shared.statuses.all().into_iter().map(Job::from).collect()
}

impl From<&crate::admin::Reloaded> for Reload {
    fn from(last: &crate::admin::Reloaded) -> Self {
        Self {
            at: time(last.at),
            ok: last.problems.is_empty(),
            message: last.problems.join("\n"),
        }
    }
}

impl Jail {
    fn new(jail: &config::Jail, bans: usize) -> Self {
        let spec = &jail.spec;
        let statuses = spec.statuses.iter().map(|range| {
            let (from, to) = (range.start(), range.end());
            if from == to {
                from.to_string()
            } else {
                format!("{from}-{to}")
            }
        });
        let rules = |mode: Mode| {
            spec.urls
                .patterns(mode)
                .map(|rule| rule.to_string())
                .collect()
        };
        Self {
            name: spec.name.to_string(),
            enabled: spec.enabled,
            simulate: spec.simulate,
            window: match spec.window {
                WindowKind::Fixed => "fixed",
                WindowKind::Sliding => "sliding",
            },
            findtime_seconds: spec.findtime.as_secs_f64(),
            bantime_seconds: spec.bantime.as_secs_f64(),
            maxretry: spec.maxretry,
            statuscode: statuses.collect::<Vec<_>>().join(","),
            methods: spec.match_methods.iter().map(ToString::to_string).collect(),
            block_rules: rules(Mode::Block),
            allow_rules: rules(Mode::Allow),
            allowlist: spec.allowlist.len(),
            denylist: spec.denylist.len(),
            ignoreself: spec.ignore_self,
            growing: spec.increment.is_some(),
            ipv6_prefix: spec.ipv6_prefix,
            bans,
        }
    }
}
