//! Counting within `findtime`, and how long the ban is that follows. Pure arithmetic on times;
//! it holds no clients and no locks.

use std::{
    hash::{BuildHasher, Hash},
    time::Duration,
};

use super::{
    jail::{Increment, JailSpec},
    table::Keyed,
};
use crate::time::Millis;

/// A window that starts at the first counted event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fixed {
    pub(super) start: Millis,
    pub(super) last: Millis,
    pub(super) count: u32,
}

/// What one more event did to a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Counted, and it is the earliest of the window.
    First,
    /// Counted.
    Next,
    /// Too old to belong to the window that runs: changes nothing.
    Stale,
}

impl Fixed {
    pub(super) fn starting(at: Millis) -> Self {
        Self {
            start: at,
            last: at,
            count: 1,
        }
    }

    /// At exactly `start + findtime` the window is over, as in the plugin. Log lines come late and
    /// out of order: an event before the start moves the start back only if the window still
    /// holds everything counted, so it never takes the place of newer ones.
    pub(super) fn add(&mut self, at: Millis, findtime: Millis) -> Step {
        if at >= self.start.saturating_add(findtime) {
            *self = Self::starting(at);
            return Step::First;
        }
        let earlier = at < self.start;
        if earlier && self.last >= at.saturating_add(findtime) {
            return Step::Stale;
        }
        self.start = self.start.min(at);
        self.last = self.last.max(at);
        self.count = self.count.saturating_add(1);
        if earlier { Step::First } else { Step::Next }
    }
}

/// Adds one event (time and status) to a sliding window: `events` are sorted and lie within
/// `findtime` of the newest.
pub(super) fn slide(
    events: &mut Vec<(Millis, u16)>,
    event: (Millis, u16),
    findtime: Millis,
) -> Step {
    let newest = events.last().map_or(event.0, |last| last.0.max(event.0));
    let over = |at: Millis| at.saturating_add(findtime) <= newest;
    if event.0 < newest && over(event.0) {
        return Step::Stale;
    }
    events.retain(|held| !over(held.0));
    let place = events.partition_point(|held| held.0 <= event.0);
    events.insert(place, event);
    if place == 0 { Step::First } else { Step::Next }
}

/// How long a ban of `client` lasts that begins at `since`, after `earlier` remembered ones. A
/// first ban is `bantime`; grown ones follow Fail2Ban's `bantime.increment`. The random part is a
/// keyed hash, so that a repeated run decides the same.
pub(super) fn ban_length(
    jail: &JailSpec,
    earlier: u32,
    client: impl Hash,
    since: Millis,
    seed: Keyed,
) -> Millis {
    let Some(increment) = jail.increment.filter(|_| earlier > 0) else {
        return millis(jail.bantime);
    };
    let grown = millis(jail.bantime) as f64 * increment.factor * f64::from(1 << earlier.min(20));
    let grown = (grown as Millis).min(millis(increment.maxtime));
    grown.saturating_add(random_part(increment, client, since, seed))
}

fn random_part(increment: Increment, client: impl Hash, since: Millis, seed: Keyed) -> Millis {
    match millis(increment.rndtime) {
        0 => 0,
        bound => seed.hash_one((client, since)) % bound,
    }
}

/// Durations beyond what milliseconds can hold never end.
pub(super) fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
