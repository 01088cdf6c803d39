//! Takes LAPI's decisions: a full pull at first and every two hours, changes in between. What a
//! decision means here is `admission`'s business, what stands for an address is `book`'s.

use std::{sync::Arc, time::Duration};

use reqwest::Response;
use tokio::{sync::watch, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{
    Jobs, Shared,
    admission::{Admission, Admitted},
    book::{Book, PREFIX},
    client::{Bouncer, Error},
    ours::Ours,
    pieces::{List, Pieces},
    usage::Usage,
    wire,
};
use crate::{
    config::{Crowdsec, CrowdsecSubscribe, Fallback},
    engine::{Engine, Origin},
    time::{Clock, Millis},
};

/// LAPI lets go of old alerts without telling anybody; and answers cut short look whole.
const RESYNC: Millis = 2 * 3600 * 1000;
/// Decisions told to the engine at a time.
const PORTION: usize = 256;
/// Pulls in a row that fail before `unreachable: open` opens.
const GIVE_UP: u32 = 3;

/// What is configured, as it is used.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    interval: Duration,
    /// `unreachable: open`.
    open: bool,
    query: Vec<(&'static str, String)>,
    fallback: Fallback,
    metrics_interval: Duration,
}

/// The subscriber.
#[derive(Debug)]
pub(super) struct Subscriber {
    bouncer: Arc<Bouncer>,
    settings: Settings,
    engine: Arc<Engine>,
    clock: Clock,
    jobs: Jobs,
    admission: Admission,
    book: Book,
    usage: Usage,
    complete: watch::Sender<bool>,
    /// The next pull is a full one.
    full: bool,
    /// The first full pull replaces what was kept over a restart.
    pulled: Option<Millis>,
}

impl Settings {
    pub(super) fn new(crowdsec: &Crowdsec, subscribe: &CrowdsecSubscribe) -> Self {
        Self {
            interval: subscribe.interval,
            open: crowdsec.open_when_unreachable,
            query: query(subscribe),
            fallback: subscribe.fallback,
            metrics_interval: subscribe.metrics_interval,
        }
    }
}

impl Subscriber {
    pub(super) fn new(
        bouncer: Arc<Bouncer>,
        settings: Settings,
        shared: &Shared,
        ours: Option<Arc<Ours>>,
        jobs: Jobs,
    ) -> Self {
        let name = ours.as_ref().map(|ours| ours.origin().clone());
        let usage = Usage::new(
            shared.metrics.clone(),
            name.unwrap_or_else(|| "jailgate".into()),
            settings.metrics_interval,
            shared.clock.now(),
        );
        let engine = shared.engine.clone();
        Self {
            bouncer,
            clock: shared.clock,
            admission: Admission::new(settings.fallback, engine.clone(), ours, jobs.clone()),
            settings,
            book: Book::default(),
            engine,
            jobs,
            usage,
            complete: shared.complete.clone(),
            full: true,
            pulled: None,
        }
    }

    /// Pulls until told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut failures = 0;
        let mut tick = tokio::time::interval(self.settings.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = tokio::time::interval(Duration::from_secs(1));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (jobs, clock) = (self.jobs.clone(), self.clock);
        let mut last = clock.now();
        let usual = self.settings.interval.as_millis() as u64 + 1000;
        loop {
            let outcome = {
                let mut turn = std::pin::pin!(async {
                    tick.tick().await;
                    self.pull().await
                });
                loop {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        outcome = &mut turn => break outcome,
                        _ = look.tick() => {
                            let late = clock.now().saturating_sub(last);
                            jobs.lag(if late > usual { late } else { 0 });
                        }
                    }
                }
            };
            match outcome {
                Ok(()) => {
                    if failures > 0 {
                        tracing::info!("taking decisions from LAPI again");
                    }
                    failures = 0;
                    last = clock.now();
                    jobs.lag(0);
                    jobs.ok(last, format!("{} decisions", self.book.len()));
                    self.complete
                        .send_if_modified(|known| !std::mem::replace(known, true));
                    self.usage.push(&self.bouncer, &self.book, last).await;
                }
                Err(error) => {
                    failures += 1;
                    self.complete.send_if_modified(std::mem::take);
                    jobs.failed("decisions are not taken", failures, &error);
                    if self.settings.open && failures == GIVE_UP {
                        self.let_go();
                    }
                }
            }
        }
    }

    /// `unreachable: open`: enforces nothing that nobody can confirm.
    fn let_go(&mut self) {
        tracing::warn!("LAPI is out of reach: its decisions are not enforced until it is back");
        self.book.clear();
        self.full = true;
        let ours = |origin: &Origin, _| is_lapi(origin).is_some();
        self.engine.withdraw(ours, self.clock.now());
    }

    async fn pull(&mut self) -> Result<(), Error> {
        let now = self.clock.now();
        let full = self.full || self.pulled.is_none_or(|at| now > at + RESYNC);
        let mut query: Vec<_> = self
            .settings
            .query
            .iter()
            .map(|(key, value)| (*key, &**value))
            .collect();
        query.push(("startup", if full { "true" } else { "false" }));
        let response = match self.bouncer.stream(&query).await {
            Ok(response) => response,
            Err(error) => {
                // When a connection was never made, LAPI did not move on without us either.
                self.full |= !matches!(&error, Error::Unreachable(cause) if cause.is_connect());
                return Err(error);
            }
        };
        // Whatever stops us from here on: LAPI counts these changes as told.
        self.full = true;
        let answered = self.clock.now();
        self.read(response, full).await?;
        self.full = false;
        if full {
            self.pulled = Some(now);
            let (decisions, millis) = (self.book.len(), self.clock.now() - answered);
            tracing::info!(decisions, millis, "LAPI's decisions are in force");
        }
        Ok(())
    }

    async fn read(&mut self, mut response: Response, full: bool) -> Result<(), Error> {
        let mut pieces = Pieces::new();
        if full {
            self.book.begin();
        }
        let unreachable = |error: reqwest::Error| Error::Unreachable(error.without_url());
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            pieces.feed(&chunk, |list, object| self.take(list, object, full))?;
        }
        pieces.end()?;
        let now = self.clock.now();
        for late in self.admission.undecided(now) {
            self.book.enter(late.told(), now);
        }
        self.hand_over();
        if full {
            self.book.finish();
            let gone = |origin: &Origin, net| {
                is_lapi(origin).is_some_and(|origin| !self.book.holds(origin, net))
            };
            self.engine.withdraw(gone, now);
        } else {
            self.book.prune(now);
        }
        Ok(())
    }

    fn take(&mut self, list: List, object: &[u8], full: bool) -> Result<(), Error> {
        // A full pull's list of what is over is long and says nothing.
        if list == List::Other || (full && list == List::Deleted) {
            return Ok(());
        }
        let decision: wire::Decision<'_> =
            serde_json::from_slice(object).map_err(|error| Error::Garbage(error.to_string()))?;
        let now = self.clock.now();
        if list == List::Deleted {
            if let Some(told) = Admission::struck(&decision) {
                self.book.strike(told, now);
            }
        } else if let Admitted::Enforce(told) = self.admission.judge(&decision, now) {
            self.book.enter(told, now);
        }
        if self.book.pending() >= PORTION {
            self.hand_over();
        }
        Ok(())
    }

    fn hand_over(&mut self) {
        let now = self.clock.now();
        for (origin, delta) in self.book.take() {
            self.engine.apply(&origin, delta, now);
        }
    }
}

/// LAPI's origin, of an origin in the engine.
fn is_lapi(origin: &Origin) -> Option<&str> {
    match origin {
        Origin::Outside(name) => name.strip_prefix(PREFIX),
        _ => None,
    }
}

/// Each decision by itself: chosen per address by LAPI, ours would be missing where filters hide
/// the longest one.
fn query(config: &CrowdsecSubscribe) -> Vec<(&'static str, String)> {
    let lists = [
        ("scopes", &config.scopes),
        ("origins", &config.origins),
        ("scenarios_containing", &config.scenarios_containing),
        ("scenarios_not_containing", &config.scenarios_not_containing),
    ];
    let given = lists.into_iter().filter(|(_, list)| !list.is_empty());
    let mut query: Vec<_> = given.map(|(key, list)| (key, list.join(","))).collect();
    query.push(("dedup", "false".to_owned()));
    query
}
