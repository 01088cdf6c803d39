//! The routes under `/api/v1` and the words they share: one file per kind of thing. What a route
//! does is the engine's or the application's; here it becomes JSON.

mod allow;
pub mod bans;
pub mod clients;
mod config;
mod history;
mod stats;
pub mod status;

use std::str::FromStr;

use axum::http::StatusCode;
use ipnet::IpNet;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Shared, events, problem::Problem};
use crate::{
    engine::{
        self,
        ban::FOREVER,
        client::{self, spelled},
    },
    telemetry::status::Snapshot,
    time::{Millis, rfc3339},
};

/// A ban, as `bans --json`, the API and its events tell it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ban {
    /// One address, or a network in CIDR notation.
    pub client: String,
    /// Where it holds; null: in every jail.
    pub jail: Option<String>,
    /// `jailgate`, `manual`, or who decided elsewhere: `crowdsec/CAPI`.
    pub origin: String,
    /// `failures`, `rule PATTERN`, an operator's words, or a scenario.
    pub reason: String,
    /// Counted events; 0 for bans by hand and from elsewhere.
    pub count: u32,
    /// Status of the first of them; 0 when there was none.
    pub first_status: u16,
    /// Status of the last of them; 0 when there was none.
    pub last_status: u16,
    /// Path of the last of them, without its query.
    pub path: String,
    /// When it began, RFC 3339.
    pub since: String,
    /// When it ends, RFC 3339; null: never.
    pub until: Option<String>,
}

/// A counted request.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Evidence {
    /// When it came, RFC 3339.
    pub at: String,
    /// Who asked.
    pub client: String,
    /// The jail that counted it.
    pub jail: String,
    /// Method.
    pub method: String,
    /// Host.
    pub host: String,
    /// Path, without its query.
    pub path: String,
    /// User agent.
    pub agent: String,
    /// What was answered; 0: the request itself counted.
    pub status: u16,
}

/// A background job.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// `disk`, `crowdsec publish`, `cloudflare` …
    pub name: String,
    /// `starting`, `ok` or `failing`.
    pub state: &'static str,
    /// Since when.
    pub since: Option<String>,
    /// Its latest success.
    pub last_ok: Option<String>,
    /// Its latest failure.
    pub last_error: Option<Failure>,
    /// How far it is behind.
    pub lag_seconds: f64,
    /// What there is to say while all is well.
    pub detail: String,
}

/// One failure.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Failure {
    /// When.
    pub at: String,
    /// In which words.
    pub message: String,
}

/// An entry of the runtime allow list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Allowed {
    /// An address, a network, or a DNS name.
    pub subject: String,
    /// What passes now.
    pub addresses: Vec<String>,
    /// The operator's words.
    pub note: String,
    /// When it was entered.
    pub since: String,
    /// When it ends; null: never.
    pub until: Option<String>,
}

/// Every route of the API, with its description.
pub fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(status::status))
        .routes(routes!(status::jails))
        .routes(routes!(status::tasks))
        .routes(routes!(bans::list, bans::ban, bans::unban))
        .routes(routes!(clients::explain, clients::forget))
        .routes(routes!(allow::list, allow::add, allow::remove))
        .routes(routes!(config::config))
        .routes(routes!(config::reload))
        .routes(routes!(stats::stats))
        .routes(routes!(history::history))
        .routes(routes!(events::events))
}

impl From<&engine::Ban> for Ban {
    fn from(ban: &engine::Ban) -> Self {
        Self {
            client: spelled(ban.client),
            jail: ban.jail.as_ref().map(ToString::to_string),
            origin: ban.origin.label().to_string(),
            reason: ban.cause.to_string(),
            count: ban.count,
            first_status: ban.first_status,
            last_status: ban.last_status,
            path: ban.path.to_string(),
            since: time(ban.since),
            until: end(ban.until),
        }
    }
}

impl From<engine::Evidence> for Evidence {
    fn from(seen: engine::Evidence) -> Self {
        Self {
            at: time(seen.at),
            client: spelled(seen.client),
            jail: seen.jail.to_string(),
            method: seen.method.into(),
            host: seen.host.into(),
            path: seen.path.into(),
            agent: seen.agent.into(),
            status: seen.status,
        }
    }
}

impl From<Snapshot> for Job {
    fn from(job: Snapshot) -> Self {
        Self {
            name: job.name.to_string(),
            state: job.state.as_str(),
            since: (job.since > 0).then(|| time(job.since)),
            last_ok: job.last_ok.map(time),
            last_error: job.last_error.map(|(at, message)| Failure {
                at: time(at),
                message,
            }),
            lag_seconds: job.lag as f64 / 1000.0,
            detail: job.detail,
        }
    }
}

impl From<&engine::Allowed> for Allowed {
    fn from(entry: &engine::Allowed) -> Self {
        Self {
            subject: entry.subject.to_string(),
            addresses: entry.nets.iter().copied().map(spelled).collect(),
            note: entry.note.to_string(),
            since: time(entry.since),
            until: end(entry.until),
        }
    }
}

/// RFC 3339, or empty for a time no calendar knows.
pub fn time(at: Millis) -> String {
    rfc3339(at).unwrap_or_default()
}

/// As [`time`]; `None` never ends.
pub fn end(until: Millis) -> Option<String> {
    (until != FOREVER).then(|| rfc3339(until)).flatten()
}

/// An address as proxies write it, or a network.
fn network(text: &str) -> Result<IpNet, Problem> {
    let text = text.trim();
    let plain = client::parse(text).map(IpNet::from);
    let net = plain.or_else(|| IpNet::from_str(text).ok());
    net.map(engine::client::canonical_net)
        .ok_or_else(|| Problem::invalid(format!("`{text}` is neither an address nor a network")))
}

/// When something that lasts `text` from now on ends.
fn ending(text: &str, now: Millis) -> Result<Millis, Problem> {
    if matches!(text, "forever" | "never") {
        return Ok(FOREVER);
    }
    let length = crate::config::parse_duration(text).map_err(Problem::invalid)?;
    if length.is_zero() {
        return Err(Problem::invalid("a duration longer than nothing is needed"));
    }
    let length = Millis::try_from(length.as_millis()).unwrap_or(FOREVER);
    Ok(now.saturating_add(length))
}

/// A jail in force, or 422 with the names of those that are.
fn jail(shared: &Shared, name: &str) -> Result<engine::JailId, Problem> {
    shared.engine.jail(name).ok_or_else(|| {
        let config = shared.config.load();
        let known: Vec<&str> = config.jails.iter().map(|jail| &*jail.spec.name).collect();
        Problem::invalid(format!("no jail `{name}`; there is {}", known.join(", ")))
    })
}

/// A bad request of the whole API, for the OpenAPI description.
#[derive(Debug, utoipa::ToResponse)]
#[response(
    description = "What was wrong",
    content_type = "application/problem+json"
)]
#[expect(dead_code, reason = "described only")]
pub struct Refusal(Problem);

/// The time and number of the newest change, once it may be told.
async fn settled(shared: &Shared) {
    let newest = *shared.engine.ledger().watch().borrow();
    shared.engine.ledger().wait_settled(newest).await;
}

/// 404 of one thing.
fn missing(what: impl Into<String>) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, what)
}
