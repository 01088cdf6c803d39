//! Brings one target its messages: gathers what happens, sends at most one message per interval, and
//! keeps what could not be sent for the next try. Memory is one digest, however long a target is away.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Error, digest::Digest, way::Way};
use crate::{
    config::{NotifyOn, NotifyTarget},
    engine::{Ban, Change, Lift},
    telemetry::{Metrics, Status, in_full, status::Snapshot},
    time::Clock,
};

/// So that the first ban of an attack does not go alone.
const GATHER: Duration = Duration::from_secs(1);
/// First pause after a failure; it doubles, and is shorter when the interval is.
const RETRY: Duration = Duration::from_secs(60);
/// Longest pause after failures.
const LONGEST_RETRY: Duration = Duration::from_secs(15 * 60);
/// For what is left when the program ends.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// One target with what it is to be told next.
#[derive(Debug)]
pub(super) struct Courier {
    pub(super) target: NotifyTarget,
    pub(super) job: String,
    pub(super) status: Status,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    pending: Mutex<Digest>,
    news: Notify,
}

impl Courier {
    pub(super) fn new(
        target: NotifyTarget,
        job: String,
        status: Status,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Self {
        Self {
            target,
            job,
            status,
            metrics,
            clock,
            pending: Mutex::default(),
            news: Notify::new(),
        }
    }

    /// Takes note of a change, if the target wants to know of such.
    pub(super) fn change(&self, change: &Change) {
        let on = match change.lift {
            None if change.updated => return,
            None => NotifyOn::Ban,
            Some(Lift::Unbanned | Lift::Withdrawn) => NotifyOn::Unban,
            Some(Lift::Expired | Lift::Evicted) => NotifyOn::Expiry,
        };
        if self.target.on.contains(&on) && self.concerns(&change.ban) {
            self.note(|digest| digest.ban(on, &change.ban));
        }
    }

    /// Takes note that more happened than was seen.
    pub(super) fn missed(&self) {
        if self.target.on.iter().any(|on| *on != NotifyOn::Failing) {
            self.note(Digest::missed);
        }
    }

    /// Takes note of a job that fails or works again; never of its own.
    pub(super) fn job(&self, job: &Snapshot) {
        if self.target.on.contains(&NotifyOn::Failing) && *job.name != *self.job {
            self.note(|digest| digest.job(job.clone()));
        }
    }

    fn note(&self, write: impl FnOnce(&mut Digest)) {
        write(&mut self.pending.lock());
        self.news.notify_one();
    }

    fn concerns(&self, ban: &Ban) -> bool {
        let jails = &self.target.jails;
        let jail = ban.jail.as_ref();
        let label = ban.origin.label();
        let from = |origin: &Arc<str>| {
            let rest = label.strip_prefix(&**origin);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        (jails.is_empty() || jail.is_none_or(|jail| jails.contains(jail)))
            && self.target.origins.iter().any(from)
    }

    /// Sends until `stop`, and then once more what is left.
    pub(super) async fn run(&self, way: &Way, stop: &CancellationToken) {
        self.status.ok(self.clock.now(), "nothing sent yet");
        let mut free = Duration::ZERO;
        let mut failures = 0;
        loop {
            let due = async {
                while self.pending.lock().is_empty() {
                    self.news.notified().await;
                }
                tokio::time::sleep(GATHER.min(self.target.interval)).await;
                tokio::time::sleep(free.saturating_sub(self.clock.elapsed())).await;
            };
            if stop.run_until_cancelled(due).await.is_none() {
                break;
            }
            let pause = match self.send(way).await {
                Ok(()) => {
                    failures = 0;
                    self.target.interval
                }
                Err(error) => {
                    let first = RETRY.min(self.target.interval);
                    let pause = first.saturating_mul(1 << failures).min(LONGEST_RETRY);
                    failures = (failures + 1).min(16);
                    pause.max(error.patience())
                }
            };
            free = self.clock.elapsed() + pause;
        }
        if !self.pending.lock().is_empty() {
            // A target that is slow now is not waited for.
            let _ = tokio::time::timeout(LAST_WORDS, self.send(way)).await;
        }
    }

    /// Sends what is pending; a failure puts it back before what came meanwhile.
    async fn send(&self, way: &Way) -> Result<(), Error> {
        let mut digest = std::mem::take(&mut *self.pending.lock());
        let sent = way.send(&digest).await;
        let now = self.clock.now();
        self.metrics.notified(&self.target.name, sent.is_ok());
        match &sent {
            Ok(()) => self.status.ok(now, "the latest message was taken"),
            Err(error) => {
                let error = in_full(&error);
                tracing::warn!(
                    target_name = &*self.target.name,
                    error,
                    "notification not sent"
                );
                self.status.failed(now, error);
                let mut pending = self.pending.lock();
                digest.absorb(std::mem::take(&mut pending));
                *pending = digest;
            }
        }
        sent
    }
}
