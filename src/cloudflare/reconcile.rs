//! When the list is brought in line: soon after a ban begins or ends by what is known of the list,
//! and each interval from a full reading. It has no queue: every run compares everything wanted
//! with everything listed, so a failed one costs nothing but time.

use std::{collections::BTreeSet, convert::Infallible, future::pending, time::Duration};

use futures_util::FutureExt;
use ipnet::IpNet;
use tokio::sync::watch;

use super::{
    Access, Client, Done, Error, Gauges, List, NAME, Policy, Settings, Shared,
    held::Held,
    plan::{Plan, Wanted, spell},
};
use crate::{
    config::{self, CloudflareSource},
    engine::{Follower, Since},
    telemetry::{
        Status,
        cloudflare::{CloudflareMetrics, Why},
    },
    time::{Clock, Millis},
};

/// How long changes are gathered after the first one.
const DEBOUNCE: Millis = 1000;
/// Changes taken from the ledger at a time.
const BATCH: usize = 4096;
/// After an error: doubled with each further one, up to the interval.
const BACK_OFF: Millis = 5000;
const LONGEST_BACK_OFF: Millis = 60_000;
/// After a refused token nothing but a person helps.
const REFUSED: Millis = 600_000;
/// After a full list was noticed, which is tried again with less at once.
const SOON: Millis = 1000;
/// Left-out bans named in the log.
const NAMED: usize = 10;

struct Reconciler {
    shared: Shared,
    status: Status,
    lapi: Option<watch::Receiver<bool>>,
    pushgateway: Option<String>,
    interval: Millis,
    follower: Follower,
    /// What is read of the ledger.
    cursor: u64,
    held: Held,
    list: List,
    /// While LAPI cannot be reached: what stays as it is.
    frozen: Option<BTreeSet<IpNet>>,
    /// Since when a change waits to reach the list.
    behind: Option<Millis>,
    next_full: Millis,
    not_before: Millis,
    failures: u32,
    left_out: usize,
}

/// What a run did.
#[derive(Debug, Default)]
struct Summary {
    added: usize,
    removed: usize,
    spared: usize,
    unfit: usize,
    plan: Plan,
}

/// Reconciles until dropped.
pub(super) async fn run(shared: Shared, settings: Settings) {
    let Some(cloudflare) = settings.cloudflare else {
        return pending().await;
    };
    let status = shared.statuses.add(NAME);
    match Reconciler::new(
        shared.clone(),
        status.clone(),
        cloudflare,
        settings.pushgateway,
    ) {
        Ok(reconciler) => reconciler.run().await,
        Err(error) => {
            tracing::error!(%error, "the Cloudflare list is not kept");
            status.failed(shared.clock.now(), error.to_string());
            pending().await
        }
    }
}

impl Reconciler {
    fn new(
        shared: Shared,
        status: Status,
        cloudflare: config::Cloudflare,
        pushgateway: Option<String>,
    ) -> Result<Self, Error> {
        let access = Access {
            base_url: cloudflare.base_url,
            account_id: cloudflare.account_id,
            list_id: cloudflare.list_id,
            token: cloudflare.api_token,
        };
        let policy = Policy {
            tag: cloudflare.tag,
            whole_list: cloudflare.whole_list,
            retag: cloudflare.whole_list,
            capacity: cloudflare.capacity,
        };
        let client = Client::new(access, shared.clock)?;
        let mut follower = Follower::new(shared.engine.clone(), NAME);
        // What is wanted is everything in force, not what is new since the last run.
        follower.at(0);
        let local = cloudflare.source == CloudflareSource::Local;
        Ok(Self {
            status,
            lapi: shared.lapi.clone().filter(|_| !local),
            pushgateway,
            interval: cloudflare.interval.as_millis() as Millis,
            follower,
            cursor: 0,
            held: Held::new(cloudflare.source),
            list: List::new(client, policy, shared.metrics.clone()),
            frozen: None,
            behind: Some(shared.clock.now()),
            next_full: 0,
            not_before: 0,
            failures: 0,
            left_out: 0,
            shared,
        })
    }

    async fn run(mut self) {
        if let Some(lapi) = &mut self.lapi {
            // An empty engine would empty the list.
            if lapi.wait_for(|complete| *complete).await.is_err() {
                return pending().await;
            }
        }
        let mut second = tokio::time::interval(Duration::from_secs(1));
        loop {
            let wait = self.due().saturating_sub(self.now());
            tokio::select! {
                biased;
                () = tokio::time::sleep(Duration::from_millis(wait)) => self.activate().await,
                () = changed(&mut self.lapi) => self.watch_lapi(),
                since = self.follower.next(BATCH) => self.take(since),
                _ = second.tick() => tell_lag(&self.shared.metrics, &self.status, self.behind, self.now()),
            }
        }
    }

    fn now(&self) -> Millis {
        self.shared.clock.now()
    }

    fn due(&self) -> Millis {
        let soon = self.behind.map(|at| at + DEBOUNCE);
        self.next_full
            .min(soon.unwrap_or(Millis::MAX))
            .max(self.not_before)
    }

    fn take(&mut self, since: Since) {
        let (Since::Changes { next, .. } | Since::Snapshot { next, .. }) = &since;
        self.cursor = *next;
        if self.held.take(since) {
            self.behind.get_or_insert(self.shared.clock.now());
        }
    }

    fn take_all(&mut self) {
        self.watch_lapi();
        while let Some(since) = self.follower.next(BATCH).now_or_never() {
            self.take(since);
        }
    }

    /// Freezes what is LAPI's when it goes out of reach. What the list holds beyond our own bans
    /// counts as LAPI's: its decisions may have left the engine already.
    fn watch_lapi(&mut self) {
        let complete = self.lapi.as_ref().is_none_or(|lapi| *lapi.borrow());
        match (&self.frozen, complete) {
            (None, false) => {
                let mut frozen = self.held.of_lapi();
                frozen.extend(self.list.ours_beyond(&self.held.wanted()));
                tracing::warn!(
                    items = frozen.len(),
                    "LAPI is out of reach: its part of the Cloudflare list stays as it is"
                );
                self.frozen = Some(frozen);
            }
            (Some(_), true) => {
                self.frozen = None;
                self.behind.get_or_insert(self.shared.clock.now());
            }
            _ => {}
        }
    }

    async fn activate(&mut self) {
        let began = self.now();
        let full = self.next_full <= began;
        let telling = keep_telling(
            self.shared.metrics.clone(),
            self.status.clone(),
            self.behind,
            self.shared.clock,
        );
        let outcome = tokio::select! {
            outcome = self.reconcile(full) => outcome,
            never = telling => match never {},
        };
        match &outcome {
            Ok(summary) => self.succeeded(summary, full.then_some(began)),
            Err(error) => self.failed(error),
        }
        tell_lag(&self.shared.metrics, &self.status, self.behind, self.now());
        self.push(outcome.ok().map(|summary| summary.plan.chosen));
    }

    async fn reconcile(&mut self, full: bool) -> Result<Summary, Error> {
        self.list.read(full).await?;
        let mut summary = Summary::default();
        loop {
            self.take_all();
            let mut wanted: Wanted = self.held.wanted();
            let engine = &self.shared.engine;
            summary.spared = wanted.spare(|net| engine.spares(net).is_some());
            summary.unfit = wanted.unfit;
            let now = self.shared.clock.now();
            match self.list.step(&wanted, self.frozen.as_ref(), now).await? {
                Done::Put(items) => summary.added += items,
                Done::Removed(items) => summary.removed += items,
                Done::Looked => {}
                Done::Nothing(plan) => {
                    summary.plan = plan;
                    return Ok(summary);
                }
            }
        }
    }

    fn succeeded(&mut self, summary: &Summary, full: Option<Millis>) {
        (self.failures, self.not_before, self.behind) = (0, 0, None);
        if let Some(began) = full {
            self.next_full = began + self.interval;
        }
        self.follower.acknowledge(self.cursor);
        let Summary { added, removed, .. } = *summary;
        let (items, wanted) = (self.list.items().unwrap_or(0), summary.plan.chosen);
        if added + removed > 0 {
            tracing::info!(
                added,
                removed,
                wanted,
                items,
                "Cloudflare list brought in line"
            );
        }
        self.tell_left_out(summary);
        self.status.ok(
            self.now(),
            format!("{items} items, {wanted} of them wanted"),
        );
    }

    fn tell_left_out(&mut self, summary: &Summary) {
        let metrics = &self.shared.metrics;
        let left_out = summary.plan.left_out.len();
        metrics.left_out(Why::Capacity, left_out);
        metrics.left_out(Why::Range, summary.unfit);
        metrics.left_out(Why::Spared, summary.spared);
        if left_out > self.left_out {
            let some = summary.plan.left_out.iter().take(NAMED);
            let some: Vec<String> = some.map(|net| spell(*net)).collect();
            tracing::warn!(
                left_out,
                among = some.join(" "),
                "the Cloudflare list is full"
            );
        }
        self.left_out = left_out;
    }

    fn failed(&mut self, error: &Error) {
        let doubled = BACK_OFF << self.failures.min(10);
        let usual = doubled
            .min(LONGEST_BACK_OFF)
            .min(self.interval.max(BACK_OFF));
        let wait = match error {
            Error::Auth { .. } => REFUSED,
            Error::Limited { wait, .. } => (wait.as_millis() as Millis).max(SOON),
            error if error.is_full() => SOON,
            _ => usual,
        };
        self.failures += 1;
        self.shared.metrics.errors.inc();
        let now = self.now();
        // Whatever it was, the list may be another one now.
        (self.not_before, self.next_full) = (now + wait, now + wait);
        self.status.failed(now, error.to_string());
        let again_in = wait / 1000;
        if matches!(error, Error::Auth { .. }) {
            tracing::error!(%error, again_in, "Cloudflare refuses the token: the list is not kept until that is mended");
        } else {
            tracing::warn!(%error, again_in, "the Cloudflare list could not be brought in line");
        }
    }

    fn push(&self, bans: Option<usize>) {
        let Some(gateway) = self.pushgateway.clone() else {
            return;
        };
        let gauges = Gauges {
            bans: bans.or(self.list.items()),
            success: bans.is_some() && self.frozen.is_none(),
            at: self.now(),
        };
        self.shared.tasks.spawn(async move {
            if let Err(error) = gauges.push(&gateway).await {
                tracing::warn!(error, "the gauges were not pushed");
            }
        });
    }
}

async fn changed(lapi: &mut Option<watch::Receiver<bool>>) {
    let gone = match lapi {
        Some(lapi) => lapi.changed().await.is_err(),
        None => true,
    };
    if gone {
        pending::<()>().await;
    }
}

fn tell_lag(metrics: &CloudflareMetrics, status: &Status, behind: Option<Millis>, now: Millis) {
    let lag = behind.map_or(0, |behind| now.saturating_sub(behind));
    metrics.lag_seconds.set(lag as f64 / 1000.0);
    status.lag(lag);
}

async fn keep_telling(
    metrics: CloudflareMetrics,
    status: Status,
    behind: Option<Millis>,
    clock: Clock,
) -> Infallible {
    loop {
        tell_lag(&metrics, &status, behind, clock.now());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
