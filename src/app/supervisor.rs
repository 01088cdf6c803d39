//! Tells systemd (or whoever set `NOTIFY_SOCKET`) that the program is ready, reloads, stops, and
//! that it is alive: as long as every runtime, those of the gate's workers too, runs tasks. Without
//! such a supervisor it does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::tasks::Tasks;

/// Says that the reload is over, however it ended, when dropped.
#[derive(Debug)]
pub(super) struct Reloading;

/// Everything is bound and served; the watchdog beats from now on, if one was asked for.
pub(super) fn ready(tasks: &Tasks) {
    tell(&[NotifyState::Ready]);
    let Some(patience) = sd_notify::watchdog_enabled() else {
        return;
    };
    let watched = tasks.clone();
    tasks.service("watchdog", move || watch(watched.clone(), patience));
}

/// A reload begins.
pub(super) fn reloading() -> Reloading {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
    Reloading
}

/// The program drains and ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

impl Drop for Reloading {
    fn drop(&mut self) {
        tell(&[NotifyState::Ready]);
    }
}

/// Beats three times in the time the supervisor waits, whenever all runtimes answer within it.
async fn watch(tasks: Tasks, patience: Duration) {
    let stop = tasks.stopping();
    let mut beat = tokio::time::interval(patience / 3);
    while stop.run_until_cancelled(beat.tick()).await.is_some() {
        match tasks.answer(patience / 3).await {
            true => tell(&[NotifyState::Watchdog]),
            false => tracing::error!("a worker does not answer"),
        }
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the supervisor was not told");
    }
}
