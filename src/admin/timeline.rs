//! What happened in each minute of the last day, from the totals that metrics count anyway.

use std::{collections::VecDeque, time::Duration};

use parking_lot::Mutex;

use super::Shared;
use crate::{telemetry::metrics::Totals, time::Millis};

/// Length of a bucket.
pub const MINUTE: Millis = 60_000;
/// Buckets kept: a day.
pub const MINUTES: usize = 1440;
/// How often totals are read, so that a minute's share is about right.
const EVERY: Duration = Duration::from_secs(5);

/// The last day, minute by minute. Minutes without a sample count as nothing.
#[derive(Debug, Default)]
pub struct Timeline {
    past: Mutex<Past>,
}

#[derive(Debug, Default)]
struct Past {
    seen: Totals,
    minutes: VecDeque<(Millis, Totals)>,
}

impl Timeline {
    /// Puts what was counted since the last sample into the present minute.
    pub fn sample(&self, totals: Totals, now: Millis) {
        let mut past = self.past.lock();
        let news = totals.since(&past.seen);
        past.seen = totals;
        let at = now / MINUTE * MINUTE;
        match past.minutes.back_mut() {
            Some((last, held)) if *last == at => held.add(&news),
            _ => past.minutes.push_back((at, news)),
        }
        while past.minutes.len() > MINUTES {
            past.minutes.pop_front();
        }
    }

    /// Every minute from `first` to the present one.
    pub fn since(&self, first: Millis, now: Millis) -> Vec<(Millis, Totals)> {
        let past = self.past.lock();
        let held = |at: Millis| {
            let found = past.minutes.binary_search_by_key(&at, |(at, _)| *at);
            found.map_or_else(|_| Totals::default(), |index| past.minutes[index].1)
        };
        (first / MINUTE..=now / MINUTE)
            .map(|minute| (minute * MINUTE, held(minute * MINUTE)))
            .collect()
    }
}

/// Samples for ever.
pub async fn follow(shared: Shared) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = every.tick() => {}
        }
        let totals = shared.metrics.totals();
        shared.timeline.sample(totals, shared.clock.now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(denied: u64) -> Totals {
        Totals {
            denied,
            ..Totals::default()
        }
    }

    #[test]
    fn each_minute_gets_its_share_and_gaps_are_nothing() {
        let timeline = Timeline::default();
        for (at, denied) in [(1, 2), (59_999, 5), (60_000, 6), (4 * MINUTE, 10)] {
            timeline.sample(totals(denied), at);
        }
        let seen = timeline.since(0, 4 * MINUTE + 7);
        let seen: Vec<u64> = seen.iter().map(|(_, totals)| totals.denied).collect();
        assert_eq!(seen, [5, 1, 0, 0, 4]);
    }

    #[test]
    fn no_more_than_a_day_is_kept() {
        let timeline = Timeline::default();
        for minute in 0..3000 {
            timeline.sample(totals(minute), minute * MINUTE);
        }
        assert_eq!(timeline.past.lock().minutes.len(), MINUTES);
    }
}
