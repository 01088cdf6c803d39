//! Says when a ban begins and when it ends: one log line each, and the gauges of active bans.
//! A follower of the ledger like any other, so that nothing is said twice or forgotten, and
//! nothing that a crash could take back.

use std::{fmt::Display, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Metrics, privacy::logged};
use crate::{
    engine::{Ban, Change, Engine, Follower, Origin, Since, ban::FOREVER},
    time::{Millis, rfc3339},
};

/// Changes taken from the ledger at a time.
const BATCH: usize = 256;
/// How long the last changes may take to be on disk when the program ends.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Follows the ledger from now on until `stop`. What stands already is counted, not said; what
/// ended since the state was restored is said, and no longer counted.
pub async fn follow(engine: Arc<Engine>, metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut follower = Follower::new(engine.clone(), "journal");
    let told = *engine.ledger().settled().borrow();
    follower.at(told);
    let mut journal = Journal {
        told,
        counted: take_stock(&engine, &metrics),
        engine,
        metrics,
    };
    while let Some(since) = stop.run_until_cancelled(follower.next(BATCH)).await {
        journal.tell(since);
    }
    let last = *journal.engine.ledger().watch().borrow();
    let rest = async {
        while journal.told < last {
            journal.tell(follower.next(BATCH).await);
        }
    };
    // Late is as good as never here: the program ends.
    let _ = tokio::time::timeout(LAST_WORDS, rest).await;
}

struct Journal {
    engine: Arc<Engine>,
    metrics: Arc<Metrics>,
    /// Everything up to this change is said.
    told: u64,
    /// Up to this change the gauges were counted, not added up.
    counted: u64,
}

impl Journal {
    fn tell(&mut self, since: Since) {
        self.told = match since {
            Since::Changes { changes, next } => {
                for change in changes {
                    say(&change);
                    if change.seq > self.counted {
                        count(&change, &self.metrics);
                    }
                }
                next
            }
            Since::Snapshot { next, .. } => {
                tracing::warn!("so many bans changed at once that not each is logged");
                self.counted = take_stock(&self.engine, &self.metrics);
                next
            }
        };
    }
}

fn take_stock(engine: &Engine, metrics: &Metrics) -> u64 {
    let (bans, next) = engine.ledger().snapshot();
    metrics.bans_reset();
    for ban in bans {
        metrics.ban_stands(&jail(&ban), &ban.origin.label());
    }
    next
}

fn count(change: &Change, metrics: &Metrics) {
    let (jail, origin) = (jail(&change.ban), change.ban.origin.label());
    match change.lift {
        None if change.updated => {}
        None => metrics.ban_begun(&jail, &origin),
        Some(_) => metrics.ban_ended(&jail, &origin),
    }
}

fn say(change: &Change) {
    let ban = &*change.ban;
    match change.lift {
        None if change.updated => tracing::debug!(
            jail = &*jail(ban),
            client = %logged(ban.client),
            until = until(ban),
            "ban changes"
        ),
        None => said(ban, &ban.cause, "ban begins"),
        Some(lift) => said(ban, &lift.as_str(), "ban ends"),
    }
}

/// Of decisions made elsewhere there are a hundred thousand: who took them in says how many.
fn said(ban: &Ban, reason: &dyn Display, what: &str) {
    if let Origin::Outside(origin) = &ban.origin {
        tracing::debug!(client = %logged(ban.client), %origin, %reason, until = until(ban), "{what}");
        return;
    }
    tracing::info!(
        jail = &*jail(ban),
        client = %logged(ban.client),
        origin = &*ban.origin.label(),
        %reason,
        count = ban.count,
        first_status = ban.first_status,
        last_status = ban.last_status,
        path = &*ban.path,
        until = until(ban),
        "{what}"
    );
}

/// A ban that holds everywhere has the jail `*`.
fn jail(ban: &Ban) -> Arc<str> {
    ban.jail.clone().unwrap_or_else(|| "*".into())
}

fn until(ban: &Ban) -> String {
    date(ban.until).unwrap_or_else(|| "never".to_owned())
}

/// A moment as logs and messages write it; `None` for one that never comes.
pub fn date(at: Millis) -> Option<String> {
    (at != FOREVER).then(|| rfc3339(at)).flatten()
}
