//! The publisher's questions: what became of what it sent without a clear answer, and, walking
//! through LAPI's alerts a few at a time, what is there twice and what LAPI let go of by itself.

use std::{sync::Arc, time::Duration};

use super::{
    client::Error,
    listing::Page,
    plan::{self, Held, Key},
    publish::Publisher,
    walk::{Next, Walk},
};
use crate::{engine::Ban, telemetry::in_full, time::Millis};

/// Decisions in one alert that publishes again.
const DECISIONS: usize = 500;
/// Nothing new at LAPI for so long: it is through with what was under way.
const QUIET: Duration = Duration::from_secs(1);
/// A write that takes longer waited for others.
const AT_ONCE: Millis = 300;
/// More looks than this find somebody else publishing under our name.
const LOOKS: u32 = 30;
/// A walk takes LAPI at most one in so many seconds: at 100,000 alerts each question costs 1.4.6
/// half a second, and there are a thousand.
const SHARE: Millis = 10;

impl Publisher {
    /// Asks what became of what was sent without a clear answer. No more than one answer tells of
    /// was under way, and whatever LAPI holds beside it costs no more to ask.
    pub(super) async fn look(&mut self) -> Result<(), Error> {
        if self.first || !self.unsure.is_empty() {
            let page = self.settled().await?;
            self.found(page.held);
            self.unsure.retain(|key| !self.known.contains_key(key));
        }
        self.tidy().await?;
        let now = self.clock.now();
        self.aside.retain(|_, until| *until > now);
        self.sure = true;
        Ok(())
    }

    /// The newest alerts when no more arrive: LAPI also stores what was sent by a process that has
    /// been killed since. A heartbeat makes LAPI write, and waits for its disk as that does.
    async fn settled(&self) -> Result<Page, Error> {
        let mut before = None;
        let mut looks = 0;
        loop {
            let asked = self.clock.now();
            match self.calls.heartbeat().await {
                Err(Error::Refused { .. }) => {}
                beat => beat?,
            }
            let wrote_at_once = self.clock.now() - asked < AT_ONCE;
            let page = self.calls.newest().await?;
            let newest = page.alerts.first().copied();
            looks += 1;
            if (wrote_at_once && before == Some(newest)) || looks == LOOKS {
                return Ok(page);
            }
            before = Some(newest);
            tokio::time::sleep(QUIET).await;
        }
    }

    /// LAPI holds these; of several for a key the newest counts.
    fn found(&mut self, page: Vec<(Key, Held)>) {
        for (key, held) in page {
            let held = Held {
                walk: self.walks,
                ..held
            };
            let older = match self.known.get(&key) {
                Some(known) if known.alert > held.alert => Some(held),
                _ => self.known.insert(key.clone(), held),
            };
            let older = older.filter(|older| older.alert < self.known[&key].alert);
            self.stale.extend(older.map(|older| (key, older)));
        }
    }

    /// Takes back what newer versions replaced.
    pub(super) async fn tidy(&mut self) -> Result<(), Error> {
        while let Some((key, held)) = self.stale.last() {
            self.calls.remove(key, *held).await?;
            self.stale.pop();
        }
        Ok(())
    }

    /// A step of the walk; after the last one, publishes again what LAPI let go of by itself, and
    /// ends that grew.
    pub(super) async fn check(&mut self) -> Result<(), Error> {
        if !self.sure {
            self.look().await?;
        }
        let began = self.clock.now();
        let next = self.step().await?;
        let now = self.clock.now();
        self.next_check = now + self.pace.check;
        match next {
            Next::Ask => self.next_check = now + (now - began) * (SHARE - 1),
            Next::Done => self.publish_missing().await?,
            Next::Lost => tracing::debug!("too many alerts of one moment at LAPI, not reviewed"),
        }
        Ok(())
    }

    /// The whole walk at once.
    pub(super) async fn review_all(&mut self) -> Result<(), Error> {
        self.walk = None;
        while self.step().await? == Next::Ask {}
        Ok(())
    }

    async fn step(&mut self) -> Result<Next, Error> {
        let walk = self.walk.take().unwrap_or_else(|| {
            self.walks += 1;
            Walk::new(self.clock.now())
        });
        let walk = self.walk.insert(walk);
        let page = self.calls.before(walk.until()).await?;
        let oldest = page.oldest.map(|at| self.calls.our_time(at));
        let next = walk.take(page.alerts, oldest);
        self.found(page.held);
        self.tidy().await?;
        if next != Next::Ask {
            self.walk = None;
        }
        if next == Next::Done {
            let walks = self.walks;
            self.known.retain(|_, held| held.walk == walks);
        }
        Ok(next)
    }

    async fn publish_missing(&mut self) -> Result<(), Error> {
        let (bans, settled) = self.engine.ledger().snapshot();
        self.engine.ledger().wait_settled(settled).await;
        let now = self.clock.now();
        let old = |ban: &Arc<Ban>| ban.since + self.pace.check < now && !self.is_aside(ban);
        let mut missing = plan::missing(&bans, &self.known, now);
        missing.retain(old);
        let (grown, gone): (Vec<_>, Vec<_>) = missing
            .into_iter()
            .filter_map(|ban| Some((plan::key(&ban)?, ban)))
            .partition(|(key, _)| self.known.contains_key(key));
        self.send(grown.into_iter().map(|(_, ban)| ban).collect())
            .await?;
        self.publish_again(gone).await
    }

    async fn publish_again(&mut self, mut gone: Vec<(Key, Arc<Ban>)>) -> Result<(), Error> {
        if gone.is_empty() {
            return Ok(());
        }
        let listed = self.calls.allowlisted(&gone).await?;
        gone.retain(|(key, _)| !listed.contains_key(key));
        gone.sort_by(|(a, _), (b, _)| a.scenario.cmp(&b.scenario));
        let (now, count) = (self.clock.now(), gone.len());
        let same = |a: &(Key, Arc<Ban>), b: &(Key, Arc<Ban>)| a.0.scenario == b.0.scenario;
        for chunk in gone.chunk_by(same).flat_map(|jail| jail.chunks(DECISIONS)) {
            self.clear(chunk).await?;
            let shift = |at| self.calls.their_time(at);
            let alert = plan::collective(chunk, self.calls.origin(), now, shift);
            let ids = match self.calls.post(&[alert]).await {
                Err(
                    error @ Error::Refused {
                        status: 400..500, ..
                    },
                ) => {
                    tracing::warn!(
                        error = in_full(&error),
                        "LAPI does not take these bans again"
                    );
                    continue;
                }
                ids => ids?,
            };
            for ((key, ban), alert) in chunk.iter().zip(ids.iter().cycle()) {
                self.note(key, ban, *alert);
            }
        }
        tracing::info!(count, "LAPI had let go of bans of ours; published again");
        Ok(())
    }
}
