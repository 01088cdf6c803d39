//! Notifications: tells people of bans and of jobs that fail, by webhook, ntfy, Slack and e-mail. A
//! follower of the ledger that begins at now; what a target hears is summed up, never queued. It
//! decides nothing, and nothing waits for it.

mod courier;
mod digest;
mod guard;
#[cfg(test)]
mod tests;
mod way;

use std::{collections::HashSet, io, net::IpAddr, sync::Arc, time::Duration};

use reqwest::StatusCode;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use self::{courier::Courier, digest::Digest, way::Way};
use crate::{
    config::NotifyTarget,
    engine::{Engine, Follower, Since},
    tasks::Tasks,
    telemetry::{Metrics, Statuses, in_full, status::State},
    time::{Clock, Millis},
};

/// Changes taken from the ledger at a time.
const BATCH: usize = 1024;
/// How often jobs are looked at.
const ROUND: Duration = Duration::from_secs(5);
/// A job that fails for less than this is nobody's business.
const FAILING_FOR: Millis = 30_000;

/// What the notifier works with.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Whose ledger is followed.
    pub engine: Arc<Engine>,
    /// Where messages are counted.
    pub metrics: Arc<Metrics>,
    /// The jobs to watch, and where the notifier says how it is doing.
    pub statuses: Statuses,
    /// The clock everything runs by.
    pub clock: Clock,
    /// Where its tasks run.
    pub tasks: Tasks,
}

/// The targets in force and the tasks that serve them.
#[derive(Debug)]
pub struct Notifier {
    shared: Shared,
    targets: Vec<NotifyTarget>,
    stop: CancellationToken,
}

/// A message could not be sent. No text holds a URL, a header or a password.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is link-local or a cloud's metadata service.
    #[error("{0} is link-local or a metadata service; `allowLocal: true` permits it")]
    Refused(IpAddr),
    /// The host has no address.
    #[error("the host cannot be resolved")]
    Resolve(#[source] io::Error),
    /// The URL has no host.
    #[error("the URL cannot be used")]
    Url,
    /// The connection failed, or nothing came back in time.
    #[error("no answer")]
    Http(#[source] reqwest::Error),
    /// It answered with something else than success, and when to ask again.
    #[error("the answer is {0}{redirect}", redirect = if .0.is_redirection() { ", and redirects are not followed" } else { "" })]
    Status(StatusCode, Option<Duration>),
    /// The mail could not be written.
    #[error("the mail cannot be written")]
    Letter(#[source] lettre::error::Error),
    /// The mail server refused, or cannot be reached.
    #[error("the mail server did not take it")]
    Smtp(#[source] lettre::transport::smtp::Error),
}

impl Error {
    /// How long the receiver asked to be left alone.
    fn patience(&self) -> Duration {
        match self {
            Self::Status(_, Some(patience)) => *patience,
            _ => Duration::ZERO,
        }
    }
}

impl Notifier {
    /// Nobody is told yet.
    pub fn new(shared: Shared) -> Self {
        Self {
            stop: shared.tasks.stopping().child_token(),
            targets: Vec::new(),
            shared,
        }
    }

    /// Tells these targets, and no others, what happens from now on. Targets that are the same as
    /// before are not disturbed.
    pub fn adopt(&mut self, targets: &[NotifyTarget]) {
        if self.targets == targets {
            return;
        }
        self.stop.cancel();
        let now = self.shared.clock.now();
        for gone in &self.targets {
            self.status(gone).ok(now, "no longer configured");
        }
        self.targets = targets.to_vec();
        self.stop = self.shared.tasks.stopping().child_token();
        self.begin();
    }

    fn begin(&mut self) {
        let mut couriers = Vec::new();
        for target in &self.targets {
            match Way::build(target) {
                Ok(way) => couriers.push(self.courier(target, way)),
                Err(error) => self
                    .status(target)
                    .failed(self.shared.clock.now(), in_full(&error)),
            }
        }
        if couriers.is_empty() {
            return;
        }
        let couriers: Arc<[_]> = couriers.into();
        let (shared, stop) = (self.shared.clone(), self.stop.clone());
        let mut follower = Follower::new(shared.engine.clone(), "notify");
        follower.at(*shared.engine.ledger().watch().borrow());
        let follower = Arc::new(tokio::sync::Mutex::new(follower));
        shared.tasks.clone().service("notify", move || {
            let (follower, couriers) = (follower.clone(), couriers.clone());
            let (shared, stop) = (shared.clone(), stop.clone());
            async move {
                let follower = &mut *follower.lock().await;
                stop.run_until_cancelled(watch(&shared, follower, &couriers))
                    .await;
            }
        });
    }

    fn courier(&self, target: &NotifyTarget, way: Way) -> Arc<Courier> {
        let courier = Arc::new(Courier::new(
            target.clone(),
            job(target),
            self.status(target),
            self.shared.metrics.clone(),
            self.shared.clock,
        ));
        let (way, stop) = (Arc::new(way), self.stop.clone());
        self.shared.tasks.service(&job(target), {
            let courier = courier.clone();
            move || {
                let (courier, way, stop) = (courier.clone(), way.clone(), stop.clone());
                async move { courier.run(&way, &stop).await }
            }
        });
        courier
    }

    fn status(&self, target: &NotifyTarget) -> crate::telemetry::Status {
        self.shared.statuses.add(&job(target))
    }
}

fn job(target: &NotifyTarget) -> String {
    format!("notify {}", target.name)
}

/// Reads the ledger and the jobs for ever.
async fn watch(shared: &Shared, follower: &mut Follower, couriers: &[Arc<Courier>]) {
    let mut round = interval(ROUND);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = HashSet::new();
    loop {
        tokio::select! {
            since = follower.next(BATCH) => tell(couriers, &since),
            _ = round.tick() => look(shared, couriers, &mut failing),
        }
    }
}

fn tell(couriers: &[Arc<Courier>], since: &Since) {
    for courier in couriers {
        match since {
            Since::Changes { changes, .. } => {
                for change in changes {
                    courier.change(change);
                }
            }
            Since::Snapshot { .. } => courier.missed(),
        }
    }
}

fn look(shared: &Shared, couriers: &[Arc<Courier>], failing: &mut HashSet<Arc<str>>) {
    let now = shared.clock.now();
    for job in shared.statuses.all() {
        let news = match job.state {
            State::Failing if now.saturating_sub(job.since) >= FAILING_FOR => {
                failing.insert(job.name.clone())
            }
            State::Ok => failing.remove(&job.name),
            _ => false,
        };
        if news {
            for courier in couriers {
                courier.job(&job);
            }
        }
    }
}

/// Sends one test message to each target, whatever it wants to know of, and says what happened.
pub async fn test(targets: &[NotifyTarget]) -> Vec<(Arc<str>, Result<(), Error>)> {
    let mut outcomes = Vec::new();
    for target in targets {
        let outcome = match Way::build(target) {
            Ok(way) => way.send(&Digest::test()).await,
            Err(error) => Err(error),
        };
        outcomes.push((target.name.clone(), outcome));
    }
    outcomes
}
