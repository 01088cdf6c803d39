//! The way through all alerts of ours at LAPI, a hundred at a time and the newest first. A longer
//! answer is not to be had: asked for more than there is, LAPI up to this day searches for ever
//! once a hundred of them end or are flushed meanwhile; and a whole list of 100,000 takes it
//! minutes. LAPI knows no offsets, but “no later than”, so each answer has to begin within the one
//! before. Pure; asking is `publish`'s.

use crate::time::Millis;

/// Alerts in one answer.
pub(super) const PAGE: usize = 100;
/// An answer tells whole seconds, and clocks are compared by whole seconds.
const VAGUE: Millis = 3_000;
const FIRST_STEP: Millis = 1_000;

/// What follows from an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask on.
    Ask,
    /// That was the last one.
    Done,
    /// More alerts came in one moment than an answer holds.
    Lost,
}

/// A walk under way.
#[derive(Debug)]
pub(super) struct Walk {
    /// The alerts of the last answer that joined the one before, and until when it was asked.
    last: Vec<u64>,
    at: Millis,
    step: Millis,
    /// Where LAPI says the next answer may begin, while that proves true.
    hint: Option<Millis>,
}

impl Walk {
    /// Begins with what is there `now`.
    pub(super) fn new(now: Millis) -> Self {
        Self {
            last: Vec::new(),
            at: now,
            step: FIRST_STEP,
            hint: None,
        }
    }

    /// Ask for alerts that came no later than this, by our clock.
    pub(super) fn until(&self) -> Millis {
        if self.last.is_empty() {
            return self.at;
        }
        let next = self.at.saturating_sub(self.step);
        self.hint.map_or(next, |hint| hint.min(next))
    }

    /// Takes the answer to [`until`](Self::until). `oldest` is the second in which its last alert
    /// came, by our clock.
    pub(super) fn take(&mut self, alerts: Vec<u64>, oldest: Option<Millis>) -> Next {
        let known = |id: &u64| self.last.contains(id);
        let joins = self.last.is_empty() || alerts.iter().any(known);
        if !joins {
            return self.shorter();
        }
        if alerts.len() < PAGE {
            return Next::Done;
        }
        self.at = self.until();
        self.hint = oldest.map(|oldest| oldest + VAGUE);
        match alerts.iter().filter(|id| !self.last.contains(id)).count() {
            0 => self.step *= 2,
            1..70 => self.step += self.step.div_ceil(4),
            _ => {}
        }
        self.last = alerts;
        Next::Ask
    }

    /// Between this answer and the last one some are missing.
    fn shorter(&mut self) -> Next {
        let stepped = self.at.saturating_sub(self.step);
        if self.hint.take().is_some_and(|hint| hint < stepped) {
            return Next::Ask;
        }
        if self.step == 1 {
            return Next::Lost;
        }
        self.step = (self.step / 4).max(1);
        Next::Ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = 1_700_000_000_000;
    const HOUR: Millis = 3_600_000;

    /// Walks through alerts that came so long ago, the newest first, at a LAPI whose clock and
    /// answers are `late`; answers how many were found in how many questions.
    fn walk(ages: &[Millis], late: impl Fn(u64) -> Millis) -> Result<(usize, u64), Next> {
        let (mut walk, mut found) = (Walk::new(NOW), std::collections::HashSet::new());
        for asked in 1.. {
            let until = walk.until() + late(asked);
            let then = ages
                .iter()
                .enumerate()
                .map(|(id, age)| (id as u64, NOW - age));
            let page: Vec<_> = then.filter(|(_, at)| *at <= until).take(PAGE).collect();
            let oldest = page.last().map(|(_, at)| at / 1000 * 1000);
            found.extend(page.iter().map(|(id, _)| *id));
            match walk.take(page.into_iter().map(|(id, _)| id).collect(), oldest) {
                Next::Ask => assert!(asked < 10_000, "it does not end"),
                Next::Done => return Ok((found.len(), asked)),
                Next::Lost => return Err(Next::Lost),
            }
        }
        unreachable!()
    }

    #[track_caller]
    fn check(ages: impl IntoIterator<Item = Millis>, most: u64) {
        let ages: Vec<_> = ages.into_iter().collect();
        for late in [|_| 0, |asked| asked * 7 % 20, |_| 990] {
            let (found, asked) = walk(&ages, late).expect("it gets through");
            assert_eq!(found, ages.len());
            assert!(asked <= most, "{asked} questions for {}", ages.len());
        }
    }

    #[test]
    fn every_alert_is_found_however_they_came() {
        check([], 1);
        check([1], 1);
        check((0..99).map(|n| n * 1000), 1);
        check((0..100).map(|n| n * 1000), 4);
        // now and then, a burst, and long silence between bursts
        check((0..1000).map(|n| n * 60_000), 15);
        check((0..20_000).map(|n| n * 10 / 17), 600);
        check((0..5000).map(|n| n / 1000 * HOUR + n % 1000), 300);
        check((0..150).map(|n| if n < 50 { n } else { 9 * HOUR + n }), 30);
    }

    #[test]
    fn too_many_of_one_moment_are_not_taken_for_all() {
        assert_eq!(walk(&[5; 150], |_| 0), Err(Next::Lost));
    }
}
