//! Server-sent events: bans and their ends as the ledger tells them, once they are settled, and
//! what reloads and background jobs report. The number of a change is the event's id.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::IntoParams;

use super::{
    Reloaded, Shared,
    api::{Ban, Job, Refusal, status::Reload},
    problem::{Asked, Problem},
};
use crate::{
    engine::{Change, Follower, Since},
    telemetry::status::Snapshot,
};

/// Changes read from the ledger at a time.
const BATCH: usize = 256;
/// A comment so often, so that dead connections are noticed.
const ALIVE: Duration = Duration::from_secs(15);

/// Where to begin.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct From {
    /// Everything after this change; absent: from now on. The header Last-Event-ID wins.
    since: Option<u64>,
}

/// A ban that ended.
#[derive(Serialize)]
struct Ended {
    #[serde(flatten)]
    ban: Ban,
    lift: &'static str,
}

struct Listener {
    shared: Shared,
    follower: Follower,
    reloads: watch::Receiver<Reloaded>,
    changes: watch::Receiver<u64>,
    jobs: Vec<Snapshot>,
    seq: u64,
    _place: OwnedSemaphorePermit,
}

/// Bans, unbans, reloads and jobs as they happen: `hello`, `ban`, `change`, `unban`, `job`,
/// `reload`, and `reset` when so much was missed that everything must be read again.
#[utoipa::path(get, path = "/events", tag = "events", params(From,
        ("Last-Event-ID" = Option<String>, Header, description = "Resume after this change")),
    responses((status = 200, content_type = "text/event-stream", body = String),
        (status = "4XX", response = Refusal)))]
pub async fn events(
    State(shared): State<Shared>,
    Asked(from): Asked<From>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let last = headers.get("last-event-id");
    let last = last.and_then(|id| id.to_str().ok()?.parse().ok());
    let settled = *shared.engine.ledger().settled().borrow();
    let seq = last.or(from.since).unwrap_or(settled);
    let place = shared.listeners.clone().try_acquire_owned();
    let place = place.map_err(|_| {
        let detail = "too many listeners already";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    })?;
    let mut follower = Follower::new(shared.engine.clone(), "events");
    follower.at(seq);
    let listener = Listener {
        reloads: shared.reloads.clone(),
        changes: shared.statuses.watch(),
        jobs: shared.statuses.all(),
        follower,
        seq,
        _place: place,
        shared,
    };
    let hello = Event::default().event("hello").id(seq.to_string());
    let hello = hello.data(format!("{{\"seq\":{seq}}}"));
    let news = stream::unfold(listener, Listener::next).flat_map(stream::iter);
    let all = stream::iter([hello]).chain(news).map(Ok);
    Ok(Sse::new(all).keep_alive(KeepAlive::new().interval(ALIVE)))
}

impl Listener {
    /// The next few events; `None` when the program stops.
    async fn next(mut self) -> Option<(Vec<Event>, Self)> {
        let stop = self.shared.stop.clone();
        let events = tokio::select! {
            () = stop.cancelled() => return None,
            since = self.follower.next(BATCH) => self.told(since),
            changed = self.reloads.changed() => {
                changed.ok()?;
                let reload = Reload::from(&*self.reloads.borrow_and_update());
                vec![self.event("reload", &reload)]
            }
            changed = self.changes.changed() => {
                changed.ok()?;
                self.changed_jobs()
            }
        };
        Some((events, self))
    }

    fn told(&mut self, since: Since) -> Vec<Event> {
        match since {
            Since::Changes { changes, next } => {
                let events = changes.iter().map(|change| self.change(change)).collect();
                self.seq = next;
                events
            }
            Since::Snapshot { next, .. } => {
                self.seq = next;
                vec![self.event("reset", &serde_json::json!({}))]
            }
        }
    }

    fn change(&mut self, change: &Change) -> Event {
        self.seq = change.seq;
        let ban = Ban::from(&*change.ban);
        match change.lift {
            Some(lift) => {
                let lift = lift.as_str();
                self.event("unban", &Ended { ban, lift })
            }
            None if change.updated => self.event("change", &ban),
            None => self.event("ban", &ban),
        }
    }

    fn changed_jobs(&mut self) -> Vec<Event> {
        let now = self.shared.statuses.all();
        let was = std::mem::replace(&mut self.jobs, now.clone());
        let same = |job: &Snapshot| {
            let before = was.iter().find(|before| before.name == job.name);
            before.is_some_and(|before| before.state == job.state)
        };
        let changed = now.into_iter().filter(|job| !same(job));
        changed
            .map(|job| self.event("job", &Job::from(job)))
            .collect()
    }

    fn event(&self, name: &'static str, data: &impl Serialize) -> Event {
        // Plain data always becomes JSON, and JSON has no line ends in it.
        let data = serde_json::to_string(data).unwrap_or_default();
        let id = self.seq.to_string();
        Event::default().event(name).id(id).data(data)
    }
}

/// Listeners at once.
pub fn places() -> Arc<tokio::sync::Semaphore> {
    Arc::new(tokio::sync::Semaphore::new(64))
}
