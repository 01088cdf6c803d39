//! When what is written: changes as soon as they are made, together as they come; counters now and
//! then, and after an operator lifted a ban; what is over once a minute.

mod disk;

use std::{
    fs::File,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::Arc,
    time::Duration,
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Error, Instant, Place, Setup,
    archive::{self, Order},
    of_database,
    store::{Batch, Save, Store},
};
use crate::{
    engine::{Change, Earlier, Engine, Lift, Since},
    time::Millis,
};

/// Changes read under one hold of the ledger's lock, and committed together: more would be held
/// in memory as well.
const BATCH: usize = 1024;
/// Between two saves of counters, at least; a long save is followed by a longer rest.
const SAVE_EVERY: Millis = 10_000;
/// How many times longer than a save the rest after it is.
const REST: Millis = 30;
/// Between two looks for what is over.
const TIDY_EVERY: Millis = 60_000;
/// Waits after a failure: the first, and the longest.
const RETRY: (Millis, Millis) = (500, 15_000);

/// Writes the state of one engine.
pub struct Writer {
    setup: Setup,
    /// `None` while the disk fails.
    store: Option<Store>,
    lock: Option<File>,
    /// Which file it is.
    inode: u64,
    /// The newest change on disk.
    cursor: u64,
    cursors: Vec<(Arc<str>, u64)>,
    /// The change of the allow list that is on disk.
    allowed: Option<u64>,
    /// The file holds bans that were never read.
    unread: bool,
    save: Option<(Save, Millis)>,
    /// Print of what the latest save writes: the same is not written again.
    saved: Option<u64>,
    save_at: Millis,
    tidy_at: Millis,
    failing: Option<Failing>,
}

struct Failing {
    since: Millis,
    wait: Millis,
    retry_at: Millis,
}

impl Writer {
    /// Keeps only these places, before anything runs.
    pub fn adopt(&mut self, places: &[Place]) -> bool {
        let Some(store) = &mut self.store else {
            return false;
        };
        let kept = store.adopt(places);
        if let Err(error) = &kept {
            tracing::warn!(%error, "places in access logs are not kept");
        }
        kept.is_ok()
    }

    /// Writes until told to stop, then a last time.
    pub async fn run(
        &mut self,
        instant: &Instant,
        asked: &mut mpsc::Receiver<Order>,
        stop: CancellationToken,
    ) {
        let _released = Released(self.setup.clone());
        let mut news = self.setup.engine.ledger().watch();
        let mut allowed = self.setup.engine.allow_list().kept().watch();
        let mut moves = self.setup.engine.cursors().kept().watch();
        loop {
            let rest = match self.step(instant) {
                true => Duration::ZERO,
                false => self.rest(),
            };
            tokio::select! {
                () = stop.cancelled() => break,
                _ = news.changed() => {}
                _ = moves.changed() => {}
                _ = allowed.changed() => {}
                Some(order) = asked.recv() => self.answer(instant, order),
                () = tokio::time::sleep(rest) => {}
            }
        }
        self.last(instant);
    }

    /// Answers a person, about everything told so far.
    pub(super) fn answer(&mut self, instant: &Instant, order: Order) {
        self.step(instant);
        archive::answer(self.store.as_mut().map(Store::connection), order);
    }

    /// Does what is due; answers whether there is more to do at once.
    pub fn step(&mut self, instant: &Instant) -> bool {
        let now = self.setup.clock.now();
        if self
            .failing
            .as_ref()
            .is_some_and(|failing| now < failing.retry_at)
        {
            self.lag(now);
            return false;
        }
        match self.work(instant, now) {
            Ok(more) => more,
            Err(error) => {
                self.fail(&error, now);
                false
            }
        }
    }

    fn rest(&self) -> Duration {
        let now = self.setup.clock.now();
        let next = match &self.failing {
            Some(failing) => failing.retry_at.min(now + 1000),
            None => self.save_at.min(self.tidy_at),
        };
        Duration::from_millis(next.saturating_sub(now).max(1))
    }

    fn work(&mut self, instant: &Instant, now: Millis) -> Result<bool, Error> {
        if self.store.is_none() {
            self.reopen(now)?;
        }
        if self.failing.is_some() {
            self.flush(instant, true)?;
            self.hold(true);
            self.save_at = now;
        }
        self.flush(instant, self.failing.is_some())?;
        if self.failing.is_some() {
            self.recovered(now);
        }
        if self.save.is_none() && now >= self.save_at {
            self.begin_save(instant, now);
            // What was banned before that instant, first.
            self.flush(instant, false)?;
        }
        let saving = self.save_some(now)?;
        Ok(saving | self.tidy(now)?)
    }

    /// Commits every change made so far; `forced` writes also when there is none.
    ///
    /// When an operator lifted a ban, lines counted before must not be read again: after a crash
    /// they would lead to that ban once more. So a whole save goes with the lift, before that is
    /// acknowledged.
    fn flush(&mut self, instant: &Instant, mut forced: bool) -> Result<(), Error> {
        let engine = self.setup.engine.clone();
        let (mut through, mut voided) = (newest(&engine), false);
        loop {
            let moves = *engine.cursors().kept().watch().borrow();
            let cursors = engine.cursors().all();
            let Some((changes, next)) = gather(&engine, self.cursor) else {
                self.rewrite()?;
                continue;
            };
            let unbanned = changes.iter().any(|c| c.lift == Some(Lift::Unbanned));
            let allowed = *engine.allow_list().kept().watch().borrow();
            let news =
                next != self.cursor || cursors != self.cursors || self.allowed != Some(allowed);
            if news || std::mem::take(&mut forced) {
                let list = (self.allowed != Some(allowed)).then(|| engine.allowed());
                self.commit(Batch {
                    earlier: earlier(&engine, &changes),
                    changes,
                    next,
                    cursors,
                    allowed: list,
                })?;
                engine.allow_list().kept().keep(allowed);
                self.allowed = Some(allowed);
            }
            engine.cursors().kept().keep(moves);
            if unbanned && follows(instant) {
                self.begin_save(instant, self.setup.clock.now());
                (through, voided) = (newest(&engine), true);
            }
            if self.cursor >= through {
                break;
            }
            if !voided {
                engine.ledger().settle(self.cursor);
            }
        }
        while voided && self.save_some(self.setup.clock.now())? {}
        engine.ledger().settle(self.cursor);
        Ok(())
    }

    fn commit(&mut self, batch: Batch) -> Result<(), Error> {
        let Setup {
            path,
            engine,
            clock,
            ..
        } = &self.setup;
        let store = self
            .store
            .as_mut()
            .ok_or_else(|| Error::Gone { path: path.clone() })?;
        store
            .commit(&batch, engine, clock.now())
            .map_err(of_database(path))?;
        (self.cursor, self.cursors) = (batch.next, batch.cursors);
        Ok(())
    }

    fn begin_save(&mut self, instant: &Instant, now: Millis) {
        let engine = &self.setup.engine;
        let mut taken = None;
        instant(&mut |places| {
            taken = Some((engine.counters(), engine.history(), places));
        });
        let Some((counters, history, places)) = taken else {
            return;
        };
        let print = BuildHasherDefault::<DefaultHasher>::new();
        let print = print.hash_one((&counters, &history, &places));
        if self.saved == Some(print) {
            self.save_at = now + SAVE_EVERY;
            return;
        }
        self.saved = Some(print);
        self.save = Some((Save::of(counters, history, places), now));
    }

    /// Goes on with the save under way; answers whether there is more of it.
    fn save_some(&mut self, now: Millis) -> Result<bool, Error> {
        let (Some((save, began)), Some(store)) = (&mut self.save, &mut self.store) else {
            return Ok(false);
        };
        let whole = store.save(save, &self.setup.engine);
        if !whole.map_err(of_database(&self.setup.path))? {
            return Ok(true);
        }
        let took = now.saturating_sub(*began);
        self.save_at = now + SAVE_EVERY.max(took * REST);
        self.save = None;
        Ok(false)
    }

    fn tidy(&mut self, now: Millis) -> Result<bool, Error> {
        let (Some(store), true) = (&mut self.store, now >= self.tidy_at) else {
            return Ok(false);
        };
        let path = &self.setup.path;
        if disk::inode(path).ok() != Some(self.inode) {
            return Err(Error::Gone { path: path.clone() });
        }
        let keep = self.setup.keep.as_millis() as Millis;
        let more = store.tidy(keep, now).map_err(of_database(path))?;
        if !more {
            self.tidy_at = now + TIDY_EVERY;
            self.well(now);
        }
        Ok(more)
    }

    fn well(&self, now: Millis) {
        let bans = self.setup.engine.ledger().len();
        self.setup.status.ok(now, format!("{bans} bans"));
    }

    fn lag(&self, now: Millis) {
        let lag = self
            .failing
            .as_ref()
            .map_or(0, |failing| now - failing.since);
        self.setup.status.lag(lag);
        self.setup.metrics.state_lag.set(lag as f64 / 1000.0);
    }

    /// Everything once more, when nothing else runs.
    pub(super) fn last(&mut self, instant: &Instant) {
        let now = self.setup.clock.now();
        let written = self.finish(instant, now);
        match written {
            Ok(()) => tracing::debug!("state written"),
            Err(error) => self.fail(&error, now),
        }
    }

    fn finish(&mut self, instant: &Instant, now: Millis) -> Result<(), Error> {
        if self.store.is_none() {
            self.reopen(now)?;
        }
        self.flush(instant, false)?;
        self.begin_save(instant, now);
        self.flush(instant, false)?;
        while self.save_some(now)? {}
        Ok(())
    }
}

/// What happened after a cursor, and up to which number; `None` when the ledger no longer knows.
fn gather(engine: &Engine, cursor: u64) -> Option<(Vec<Change>, u64)> {
    match engine.ledger().since(cursor, BATCH) {
        Since::Changes { changes, next } => Some((changes, next)),
        Since::Snapshot { .. } => None,
    }
}

/// How often those who are banned by these changes were banned so far.
fn earlier(engine: &Engine, changes: &[Change]) -> Vec<Earlier> {
    let begun = changes.iter().filter(|change| change.lift.is_none());
    begun
        .filter_map(|change| engine.earlier(&change.ban))
        .collect()
}

/// The newest change there is.
fn newest(engine: &Engine) -> u64 {
    *engine.ledger().watch().borrow()
}

/// Whether any log is followed.
fn follows(instant: &Instant) -> bool {
    let mut any = false;
    instant(&mut |places| any = !places.is_empty());
    any
}

/// However the writer ends, nobody waits for it afterwards.
struct Released(Setup);

impl Drop for Released {
    fn drop(&mut self) {
        self.0.engine.ledger().hold(false);
        self.0.engine.allow_list().kept().hold(false);
        self.0.engine.cursors().kept().hold(false);
        if std::thread::panicking() {
            let said = "the writer of the state has died; bans are in memory only until a restart";
            self.0.metrics.state_errors.inc();
            self.0.status.failed(self.0.clock.now(), said);
            tracing::error!("{said}");
        }
    }
}

#[cfg(test)]
impl Writer {
    pub(super) fn save_now(&mut self, instant: &Instant) {
        self.begin_save(instant, self.setup.clock.now());
    }

    pub(super) fn tidy_now(&mut self) {
        self.tidy_at = 0;
    }

    pub(super) fn retry_now(&mut self) {
        if let Some(failing) = &mut self.failing {
            failing.retry_at = 0;
        }
    }
}
