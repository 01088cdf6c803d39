//! CrowdSec's Local API: our bans out (`publish`), others' decisions in (`subscribe`). What is
//! banned is decided by the engine; this room only carries. The request path knows nothing of it:
//! both ends share the engine and nothing else with it.

mod admission;
mod book;
mod calls;
mod client;
mod lag;
mod listing;
mod ours;
mod pace;
mod pieces;
mod plan;
mod publish;
mod review;
mod subscribe;
mod usage;
mod walk;
mod wire;

use std::sync::Arc;

use tokio::sync::watch;

pub use client::Error;

use crate::{
    config::Crowdsec,
    engine::Engine,
    tasks::Tasks,
    telemetry::{
        Metrics, Status, Statuses,
        crowdsec::{CrowdsecMetrics, Seconds},
        in_full,
    },
    time::{Clock, Millis},
};

/// What both ends work with.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Bans go out of it, decisions into it.
    pub engine: Arc<Engine>,
    /// Where failures are counted.
    pub metrics: Arc<Metrics>,
    /// Where operators see how it goes.
    pub statuses: Statuses,
    /// The clock everything runs by.
    pub clock: Clock,
    /// Who spawns.
    pub tasks: Tasks,
    /// True while the decisions in the engine are complete as of the last pull.
    pub complete: watch::Sender<bool>,
}

/// Where one end reports.
#[derive(Clone, Debug)]
struct Jobs {
    clock: Clock,
    status: Status,
    lag: Seconds,
    errors: prometheus_client::metrics::counter::Counter,
    not_enforced: prometheus_client::metrics::counter::Counter,
}

/// Starts what is configured. Certificates and keys are read now; LAPI is not asked for anything
/// yet, and need not be there.
pub fn start(config: &Crowdsec, shared: &Shared) -> Result<(), Error> {
    let metrics = &shared.metrics.crowdsec;
    let ours = config.publish.as_ref().map(|publish| {
        let ours = ours::Ours::new(shared.engine.clone(), publish.origin.clone());
        Arc::new(ours)
    });
    if let (Some(publish), Some(ours)) = (&config.publish, &ours) {
        let jobs = Jobs::new(
            shared,
            "crowdsec publish",
            &metrics.publish_lag,
            &metrics.publish_errors,
        );
        let machine = Arc::new(client::Machine::new(config, publish, shared.clock)?);
        let (engine, ours) = (shared.engine.clone(), ours.clone());
        let (pace, stop) = (pace::Pace::new(publish), shared.tasks.stopping());
        shared.tasks.service("crowdsec publish", move || {
            let publisher = publish::Publisher::new(
                calls::Calls::new(machine.clone(), ours.origin().clone(), jobs.clock),
                engine.clone(),
                ours.clone(),
                jobs.clone(),
                pace,
            );
            publisher.run(stop.clone())
        });
    }
    if let Some(subscribe) = &config.subscribe {
        let jobs = Jobs::new(
            shared,
            "crowdsec subscribe",
            &metrics.subscribe_lag,
            &metrics.subscribe_errors,
        );
        let bouncer = Arc::new(client::Bouncer::new(config, subscribe, shared.clock)?);
        let (shared, stop) = (shared.clone(), shared.tasks.stopping());
        let settings = subscribe::Settings::new(config, subscribe);
        shared.tasks.clone().service("crowdsec subscribe", move || {
            let subscriber = subscribe::Subscriber::new(
                bouncer.clone(),
                settings.clone(),
                &shared,
                ours.clone(),
                jobs.clone(),
            );
            subscriber.run(stop.clone())
        });
    }
    Ok(())
}

impl Jobs {
    fn new(
        shared: &Shared,
        name: &str,
        lag: &Seconds,
        errors: &prometheus_client::metrics::counter::Counter,
    ) -> Self {
        let CrowdsecMetrics { not_enforced, .. } = &shared.metrics.crowdsec;
        Self {
            clock: shared.clock,
            status: shared.statuses.add(name),
            lag: lag.clone(),
            errors: errors.clone(),
            not_enforced: not_enforced.clone(),
        }
    }

    fn ok(&self, now: Millis, detail: String) {
        self.status.ok(now, detail);
    }

    fn lag(&self, millis: Millis) {
        self.status.lag(millis);
        self.lag.set(millis as f64 / 1000.0);
    }

    /// Counts a failure; says the first of a row and then ever more seldom.
    fn failed(&self, what: &'static str, failures: u32, error: &Error) {
        self.errors.inc();
        let error = in_full(error);
        if failures.is_power_of_two() {
            tracing::warn!(error, failures, "{what}; trying again");
        }
        self.status.failed(self.clock.now(), error);
    }
}
