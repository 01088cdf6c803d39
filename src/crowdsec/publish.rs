//! Follows the ledger and keeps LAPI's decisions of our origin equal to our bans. Each is there
//! once: after every doubt (start, timeout, error) it first asks what LAPI has got. What belongs
//! there is `plan`'s business, how LAPI is asked for it `review`'s.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{
    Jobs,
    calls::Calls,
    client::Error,
    lag::Lag,
    ours::{FOLLOWER, Ours},
    pace::{Pace, backoff},
    plan::{self, Held, Key, Known, Work},
    walk::{PAGE, Walk},
    wire::Alert,
};
use crate::{
    engine::{Ban, Engine, Follower, Origin, Since},
    telemetry::{in_full, privacy::logged},
    time::{Clock, Millis},
};

/// Changes taken from the ledger at a time: after a kill so many may have arrived that no cursor
/// on disk tells of, and one answer of LAPI's has to tell of all of them.
const BATCH: usize = PAGE;
/// Alerts in one request. LAPI stores fifty at a time; the fewer are under way, the sooner it is
/// through with those that nobody waits for any longer.
const ALERTS: usize = 50;
/// When what it holds is reviewed after a doubt.
const SOON: Millis = 3_000;
const HEARTBEAT: Millis = 60_000;
/// A ban that LAPI refuses so often, while it takes others, is set aside.
const ATTEMPTS: u32 = 8;

/// The publisher.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) calls: Calls,
    pub(super) engine: Arc<Engine>,
    ours: Arc<Ours>,
    pub(super) clock: Clock,
    jobs: Jobs,
    pub(super) pace: Pace,
    follower: Follower,
    acknowledged: u64,
    pub(super) known: Known,
    /// Whether it is known what became of all that was sent.
    pub(super) sure: bool,
    /// Perhaps at LAPI and not known to be. It stores decisions before their alerts: when it was
    /// cut off between, they stand there and no list of alerts shows them.
    pub(super) unsure: HashSet<Key>,
    /// Versions at LAPI that newer ones there have replaced.
    pub(super) stale: Vec<(Key, Held)>,
    /// An earlier life may have sent what comes first: it kept its cursor on disk before it went on.
    pub(super) first: bool,
    /// What LAPI does not take, and until which end that was.
    pub(super) aside: HashMap<Key, Millis>,
    refused: HashMap<Key, u32>,
    pub(super) walk: Option<Walk>,
    /// Walks begun.
    pub(super) walks: u32,
    pub(super) next_check: Millis,
    next_heartbeat: Millis,
}

impl Publisher {
    pub(super) fn new(
        calls: Calls,
        engine: Arc<Engine>,
        ours: Arc<Ours>,
        jobs: Jobs,
        pace: Pace,
    ) -> Self {
        let now = jobs.clock.now();
        let first = engine.cursors().get(FOLLOWER) < *engine.ledger().watch().borrow();
        Self {
            follower: Follower::new(engine.clone(), FOLLOWER),
            acknowledged: engine.cursors().get(FOLLOWER),
            calls,
            engine,
            ours,
            clock: jobs.clock,
            jobs,
            pace,
            known: Known::new(),
            sure: false,
            unsure: HashSet::new(),
            stale: Vec::new(),
            first,
            aside: HashMap::new(),
            refused: HashMap::new(),
            walk: None,
            walks: 0,
            next_check: now + SOON,
            next_heartbeat: now + HEARTBEAT,
        }
    }

    /// Publishes until told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut failures = 0;
        let (jobs, clock, engine) = (self.jobs.clone(), self.clock, self.engine.clone());
        let mut lag = Lag::new(engine);
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let outcome = {
                let mut turn = std::pin::pin!(self.turn());
                loop {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        outcome = &mut turn => break outcome,
                        _ = tick.tick() => jobs.lag(lag.measure(clock.now())),
                    }
                }
            };
            jobs.lag(lag.measure(clock.now()));
            match outcome {
                Ok(()) => {
                    if failures > 0 {
                        tracing::info!("publishing to LAPI again");
                    }
                    failures = 0;
                    let held = self.known.len();
                    jobs.ok(clock.now(), format!("{held} decisions of ours at LAPI"));
                }
                Err(error) => {
                    failures += 1;
                    self.doubt();
                    jobs.failed("bans are not published", failures, &error);
                    let pause = backoff(failures);
                    let wait = stop.run_until_cancelled(tokio::time::sleep(pause));
                    if wait.await.is_none() {
                        return;
                    }
                }
            }
        }
    }

    /// Whatever was under way may or may not have been done.
    fn doubt(&mut self) {
        self.sure = false;
        self.calls.forget_version();
        self.follower.at(self.acknowledged);
        self.next_check = self.clock.now() + SOON;
    }

    /// Waits for something to do and does it.
    async fn turn(&mut self) -> Result<(), Error> {
        let now = self.clock.now();
        let at = |at: Millis| tokio::time::sleep(Duration::from_millis(at.saturating_sub(now)));
        tokio::select! {
            biased;
            () = at(self.next_check + self.pace.check) => self.check().await,
            () = at(self.next_heartbeat) => self.heartbeat().await,
            since = self.follower.next(BATCH) => self.deliver(since).await,
            () = at(self.next_check) => self.check().await,
        }
    }

    async fn deliver(&mut self, since: Since) -> Result<(), Error> {
        if !self.sure {
            self.look().await?;
        }
        let now = self.clock.now();
        let (work, next, full) = match since {
            Since::Changes { changes, next } => {
                let full = changes.len() == BATCH;
                (plan::follow(changes, &self.known, now), next, full)
            }
            Since::Snapshot { bans, next } => {
                self.review_all().await?;
                let send = plan::missing(&bans, &self.known, now);
                let work = Work {
                    before: send.iter().filter_map(|ban| plan::key(ban)).collect(),
                    send,
                    withdraw: plan::surplus(&bans, &self.known),
                    over: Vec::new(),
                };
                (work, next, false)
            }
        };
        let idle = work.send.is_empty() && work.withdraw.is_empty();
        self.ours.took_back(work.over.iter().cloned(), now);
        self.ours.took_back(work.withdraw.iter().cloned(), now);
        for key in &work.over {
            self.forget(key);
        }
        self.unsure.extend(work.before);
        if std::mem::take(&mut self.first) {
            self.unsure
                .extend(work.send.iter().filter_map(|ban| plan::key(ban)));
        }
        self.send(work.send).await?;
        for key in &work.withdraw {
            self.withdraw(key).await?;
        }
        self.follower.acknowledge(next);
        if !idle {
            self.engine.cursors().kept().wait_kept().await;
        }
        self.acknowledged = next;
        if !idle && !full {
            tokio::time::sleep(self.pace.batch).await;
        }
        Ok(())
    }

    pub(super) async fn send(&mut self, bans: Vec<Arc<Ban>>) -> Result<(), Error> {
        let mut bans: Vec<(Key, Arc<Ban>)> = bans
            .into_iter()
            .filter(|ban| !self.is_aside(ban))
            .filter_map(|ban| Some((plan::key(&ban)?, ban)))
            .collect();
        if bans.is_empty() {
            return Ok(());
        }
        let listed = self.calls.allowlisted(&bans).await?;
        bans.retain(|(key, ban)| match listed.get(key) {
            Some(list) => {
                tracing::info!(client = %logged(ban.client), list, "on LAPI's allowlist, not published");
                self.aside.insert(key.clone(), plan::end(ban));
                false
            }
            None => true,
        });
        for chunk in bans.chunks(ALERTS) {
            self.clear(chunk).await?;
            let alerts: Vec<Alert> = chunk
                .iter()
                .map(|(key, ban)| self.alert(key, ban))
                .collect();
            match self.calls.post(&alerts).await {
                Ok(ids) if ids.len() == chunk.len() => {
                    for ((key, ban), id) in chunk.iter().zip(ids) {
                        self.replace(key, ban, id).await?;
                    }
                }
                // Newer ones drop what they refuse without a word.
                Ok(_) => self.one_by_one(chunk, true).await?,
                Err(Error::Refused {
                    status: 400..501, ..
                }) => {
                    self.one_by_one(chunk, false).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Lifts what may stand there unseen from an attempt without an answer.
    pub(super) async fn clear(&mut self, chunk: &[(Key, Arc<Ban>)]) -> Result<(), Error> {
        for (key, _) in chunk {
            if self.unsure.contains(key) && !self.known.contains_key(key) {
                self.calls.lift(key).await?;
            }
        }
        self.unsure.extend(chunk.iter().map(|(key, _)| key.clone()));
        Ok(())
    }

    /// After a batch that LAPI refused, perhaps having stored half of it: each by itself, so that
    /// one bad ban holds up no other.
    async fn one_by_one(&mut self, chunk: &[(Key, Arc<Ban>)], dropped: bool) -> Result<(), Error> {
        self.look().await?;
        if !dropped {
            self.clear(chunk).await?;
        }
        let mut failed = None;
        for (key, ban) in chunk {
            let until = plan::end(ban);
            if self
                .known
                .get(key)
                .is_some_and(|held| held.until.abs_diff(until) < 10_000)
            {
                continue;
            }
            let outcome = match dropped {
                true => Err(Error::Garbage("it was left out".into())),
                false => self.calls.post(&[self.alert(key, ban)]).await,
            };
            match outcome {
                Ok(ids) => match ids.first() {
                    Some(id) => self.replace(key, ban, *id).await?,
                    None => self.set_aside(key, ban, &Error::Garbage("it was left out".into())),
                },
                Err(error) if self.is_final(key, &error) => self.set_aside(key, ban, &error),
                Err(error @ Error::Refused { .. }) => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Whether asking again is of no use.
    fn is_final(&mut self, key: &Key, error: &Error) -> bool {
        match error {
            Error::Garbage(_) => true,
            Error::Refused {
                status: 408 | 429, ..
            } => false,
            Error::Refused {
                status: 400..500, ..
            } => true,
            // LAPI says 500 to what it cannot store and to what it cannot read.
            Error::Refused { message, .. } => {
                let refusals = ["validation failure", "invalid address", "unable to parse"];
                let attempts = self.refused.entry(key.clone()).or_default();
                *attempts += 1;
                let others = !self.known.is_empty();
                refusals.iter().any(|words| message.contains(words))
                    || (*attempts >= ATTEMPTS && others)
            }
            _ => false,
        }
    }

    fn set_aside(&mut self, key: &Key, ban: &Ban, error: &Error) {
        let (client, jail) = (logged(ban.client), ban.jail.as_deref());
        tracing::warn!(
            client,
            jail,
            error = in_full(error),
            "LAPI refuses this ban; set aside"
        );
        self.refused.remove(key);
        self.unsure.remove(key);
        self.aside.insert(key.clone(), plan::end(ban));
    }

    pub(super) fn is_aside(&self, ban: &Ban) -> bool {
        let known = plan::key(ban).and_then(|key| self.aside.get(&key).copied());
        known == Some(plan::end(ban))
    }

    fn alert(&self, key: &Key, ban: &Ban) -> Alert {
        let evidence = match ban.origin {
            Origin::Jail => plan::leading_to(ban, self.engine.evidence(ban.client)),
            _ => Vec::new(),
        };
        let shift = |at| self.calls.their_time(at);
        plan::alert(ban, key, &evidence, self.calls.origin(), shift)
    }

    /// Notes what was sent, and takes an older version of it back.
    async fn replace(&mut self, key: &Key, ban: &Ban, alert: u64) -> Result<(), Error> {
        self.note(key, ban, alert);
        self.tidy().await
    }

    pub(super) fn note(&mut self, key: &Key, ban: &Ban, alert: u64) {
        self.refused.remove(key);
        self.unsure.remove(key);
        let held = Held {
            until: plan::end(ban),
            alert,
            decision: None,
            walk: self.walks,
        };
        let older = self.known.insert(key.clone(), held);
        self.stale.extend(older.map(|older| (key.clone(), older)));
    }

    async fn withdraw(&mut self, key: &Key) -> Result<(), Error> {
        match self.calls.lift(key).await {
            Err(error) if self.is_final(key, &error) => {
                let (client, error) = (logged(key.net), in_full(&error));
                tracing::warn!(client, error, "LAPI does not lift this ban; set aside");
            }
            outcome => outcome?,
        }
        self.forget(key);
        Ok(())
    }

    fn forget(&mut self, key: &Key) {
        self.known.remove(key);
        self.aside.remove(key);
        self.refused.remove(key);
        self.unsure.remove(key);
    }

    /// Tells LAPI that this machine lives: cosmetic there, so that failing is nothing.
    async fn heartbeat(&mut self) -> Result<(), Error> {
        self.next_heartbeat = self.clock.now() + HEARTBEAT;
        if let Err(error) = self.calls.heartbeat().await {
            tracing::debug!(error = in_full(&error), "no heartbeat");
        }
        Ok(())
    }
}
