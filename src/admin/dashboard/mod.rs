//! The page at `/`: what an operator sees first. It is complete for reading without JavaScript;
//! with it, the page's script takes over and asks the API like any other client.

mod view;

use askama::Template;
use axum::{
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use serde::Deserialize;

pub use self::view::source;
use self::view::{Entry, Left, Page, Row};
use super::{
    Shared,
    api::{bans, clients, time},
    problem::{Asked, Problem},
};
use crate::{
    engine::{Allowed, Ban, ban::FOREVER, client::spelled},
    telemetry::status::Snapshot,
    time::Millis,
};

/// Bans on the first page.
const ROWS: usize = 50;

/// What a link or a form of the page asks; everything else in a query is passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Question {
    text: String,
    jail: String,
    origin: String,
    cursor: Option<u64>,
    explain: String,
    url: String,
}

/// The dashboard. Who may see it was decided before.
pub async fn index(
    State(shared): State<Shared>,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(question) = question.unwrap_or_default();
    let mut page = page(&shared, &question);
    if !question.explain.is_empty() {
        match explained(&shared, &question).await {
            Ok(told) => page.explained = Some(told),
            Err(problem) => page.problem = Some(problem.detail),
        }
        page.asked = question.explain;
    }
    let text = page.render().map_err(|error| {
        let detail = format!("the page could not be made: {error}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    })?;
    let headers = [
        (header::CONTENT_SECURITY_POLICY, view::POLICY.as_str()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Html(text)).into_response())
}

fn page(shared: &Shared, question: &Question) -> Page {
    let (now, engine) = (shared.clock.now(), &shared.engine);
    let (config, stats) = (shared.config.load(), engine.stats());
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let filter = bans::Filter {
        jail: given(&question.jail),
        origin: given(&question.origin),
        text: given(question.text.trim()),
        cursor: question.cursor,
        ..bans::Filter::default()
    };
    let (found, next) = filter.page(shared, ROWS).unwrap_or_default();
    let origins = engine.ledger().tally(|ban| ban.origin.label());
    let mut origins: Vec<_> = origins.into_keys().collect();
    origins.sort_unstable();
    let reload = shared.reloads.borrow().problems.join("; ");
    Page {
        version: env!("CARGO_PKG_VERSION"),
        now: view::clock(&time(now)),
        started: view::clock(&time(now - shared.clock.uptime())),
        guarded: config.admin.token.is_some() || config.admin.read_token.is_some(),
        reload,
        filter: view::Filter {
            text: question.text.clone(),
            jail: question.jail.clone(),
            origin: question.origin.clone(),
        },
        total: stats.bans,
        tracked: stats.tracked_clients,
        jails: (config.jails.iter())
            .map(|jail| jail.spec.name.clone())
            .collect(),
        origins,
        jobs: (shared.statuses.all().into_iter())
            .map(|job| told(job, now))
            .collect(),
        rows: found.iter().map(|(_, ban)| row(ban, now)).collect(),
        next,
        allowed: (engine.allowed().iter())
            .map(|entry| allowed(entry, now))
            .collect(),
        config: config.summary(),
        ..Page::default()
    }
}

async fn explained(shared: &Shared, question: &Question) -> Result<clients::Explained, Problem> {
    // A network is explained by its first address.
    let (address, _) = (question.explain.split_once('/')).unwrap_or((&question.explain, ""));
    let url = question.url.trim();
    let asked = match url.is_empty() {
        true => Vec::new(),
        false => vec![("url".to_owned(), url.to_owned())],
    };
    let address = Path(address.trim().to_owned());
    let answer = clients::explain(State(shared.clone()), address, Asked(asked)).await?;
    Ok(answer.0)
}

fn row(ban: &Ban, now: Millis) -> Row {
    Row {
        client: spelled(ban.client),
        reason: ban.cause.to_string(),
        proof: proof(ban),
        jail: ban.jail.clone(),
        origin: ban.origin.label(),
        since: time(ban.since),
        left: left(ban.until, now),
    }
}

/// The counted requests behind a ban, in one line.
fn proof(ban: &Ban) -> String {
    let mut parts = Vec::new();
    if ban.count > 0 {
        let s = if ban.count == 1 { "" } else { "s" };
        parts.push(format!("{} counted request{s}", ban.count));
    }
    match (ban.first_status, ban.last_status) {
        (0, _) => {}
        (first, last) if first == last => parts.push(format!("status {first}")),
        (first, last) => parts.push(format!("status {first} to {last}")),
    }
    if !ban.path.is_empty() {
        parts.push(format!("last path {}", ban.path));
    }
    parts.join(", ")
}

fn told(job: Snapshot, now: Millis) -> view::Job {
    let ago = |at: Millis| Left(Some(now.saturating_sub(at)));
    let lag = match job.lag {
        0..50 => "no lag".to_owned(),
        lag => format!("lag {:.1} s", lag as f64 / 1000.0),
    };
    let last = job
        .last_ok
        .map(|at| format!("last success {} ago", ago(at)));
    let said = [
        Some(job.detail).filter(|detail| !detail.is_empty()),
        Some(lag),
        last,
    ];
    let said: Vec<_> = said.into_iter().flatten().collect();
    let fault = job.last_error;
    view::Job {
        name: job.name,
        state: job.state.as_str(),
        said: said.join(" · "),
        fault: fault.map_or_else(String::new, |(at, message)| {
            format!("{} ago: {message}", ago(at))
        }),
    }
}

fn allowed(entry: &Allowed, now: Millis) -> Entry {
    let addresses = entry.nets.iter().copied().map(spelled);
    let addresses: Vec<_> = addresses.filter(|net| *net != *entry.subject).collect();
    Entry {
        subject: entry.subject.clone(),
        addresses: addresses.join(", "),
        note: entry.note.clone(),
        left: left(entry.until, now),
    }
}

fn left(until: Millis, now: Millis) -> Left {
    Left((until != FOREVER).then(|| until.saturating_sub(now)))
}
