//! Says when a ban begins and when it ends: one log line each, and the gauges of active bans.
//! A follower of the ledger like any other, so that nothing is said twice or forgotten.

use std::sync::Arc;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::Metrics;
use crate::engine::{Ban, Engine, Lift, Since, ban::FOREVER};

/// Changes taken from the ledger at a time.
const BATCH: usize = 1024;

/// Follows the ledger from now on until `stop`. What stands already is counted, not said.
pub async fn follow(engine: Arc<Engine>, metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut news = engine.ledger().watch();
    let mut cursor = take_stock(&engine, &metrics);
    loop {
        cursor = read(&engine, &metrics, cursor);
        tokio::select! {
            () = stop.cancelled() => break,
            changed = news.changed() => if changed.is_err() { break },
        }
    }
    read(&engine, &metrics, cursor);
}

fn take_stock(engine: &Engine, metrics: &Metrics) -> u64 {
    let (bans, next) = engine.ledger().snapshot();
    metrics.bans_reset();
    for ban in bans {
        metrics.ban_stands(&jail(&ban), &ban.origin.label());
    }
    next
}

fn read(engine: &Engine, metrics: &Metrics, mut cursor: u64) -> u64 {
    loop {
        match engine.ledger().since(cursor, BATCH) {
            Since::Changes { changes, next } => {
                let done = changes.is_empty();
                for change in changes {
                    match change.lift {
                        None if change.updated => extended(&change.ban),
                        None => begun(&change.ban, metrics),
                        Some(lift) => ended(&change.ban, lift, metrics),
                    }
                }
                cursor = next;
                if done {
                    return cursor;
                }
            }
            Since::Snapshot { .. } => {
                tracing::warn!("so many bans changed at once that not each is logged");
                cursor = take_stock(engine, metrics);
            }
        }
    }
}

fn begun(ban: &Ban, metrics: &Metrics) {
    metrics.ban_begun(&jail(ban), &ban.origin.label());
    tracing::info!(
        jail = &*jail(ban),
        client = %ban.client,
        origin = &*ban.origin.label(),
        reason = %ban.cause,
        count = ban.count,
        first_status = ban.first_status,
        last_status = ban.last_status,
        path = &*ban.path,
        until = until(ban),
        "ban begins"
    );
}

fn extended(ban: &Ban) {
    tracing::debug!(
        jail = &*jail(ban),
        client = %ban.client,
        until = until(ban),
        "ban changes"
    );
}

fn ended(ban: &Ban, lift: Lift, metrics: &Metrics) {
    metrics.ban_ended(&jail(ban), &ban.origin.label());
    tracing::info!(
        jail = &*jail(ban),
        client = %ban.client,
        origin = &*ban.origin.label(),
        reason = lift.as_str(),
        count = ban.count,
        first_status = ban.first_status,
        last_status = ban.last_status,
        path = &*ban.path,
        until = until(ban),
        "ban ends"
    );
}

/// A ban that holds everywhere has the jail `*`.
fn jail(ban: &Ban) -> Arc<str> {
    ban.jail.clone().unwrap_or_else(|| "*".into())
}

fn until(ban: &Ban) -> String {
    if ban.until == FOREVER {
        return "never".to_owned();
    }
    i64::try_from(ban.until)
        .ok()
        .and_then(|until| Timestamp::from_millisecond(until).ok())
        .map_or_else(|| "never".to_owned(), |until| until.to_string())
}
