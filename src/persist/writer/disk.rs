//! Opening the file, at the start and again after it failed, and what is done when it fails: bans
//! go on in memory, nobody waits, a damaged file goes out of the way, and when the disk is back
//! everything that was missed is written.

use std::{collections::HashSet, fs, os::unix::fs::MetadataExt, path::Path, sync::Arc};

use super::{Failing, RETRY, SAVE_EVERY, Writer};
use crate::{
    engine::Ban,
    persist::{
        Error, Place, Setup, of_database, schema,
        store::{Kept, Store},
    },
    telemetry::in_full,
    time::Millis,
};

impl Writer {
    /// Opens the file and restores the engine; also answers where logs were left.
    pub fn open(setup: Setup) -> Result<(Self, Vec<Place>), Error> {
        let now = setup.clock.now();
        let mut this = Self {
            store: None,
            lock: None,
            inode: 0,
            cursor: 0,
            cursors: Vec::new(),
            allowed: None,
            unread: false,
            save: None,
            saved: None,
            save_at: now + SAVE_EVERY,
            tidy_at: now,
            failing: None,
            setup,
        };
        this.hold(true);
        let places = match this.first(now) {
            Ok(places) => places,
            Err(error) if is_refusal(&error) => return Err(error),
            Err(error) => {
                let places = this.only_read(now);
                this.fail(&error, now);
                places
            }
        };
        Ok((this, places))
    }

    /// A full disk can still be read: what it holds is in force from the start.
    fn only_read(&mut self, now: Millis) -> Vec<Place> {
        let Setup { path, engine, .. } = &self.setup;
        let kept = Store::open_to_read(path);
        let kept = kept.and_then(|store| store.load(engine).map_err(of_database(path)));
        match kept {
            Ok(kept) => {
                self.inode = inode(path).unwrap_or(0);
                let places = kept.places.clone();
                self.restore(kept, now);
                places
            }
            Err(_) => {
                self.unread = fs::metadata(path).is_ok_and(|meta| meta.len() > 0);
                Vec::new()
            }
        }
    }

    /// The first look at the file; a damaged one is set aside and a fresh one made.
    fn first(&mut self, now: Millis) -> Result<Vec<Place>, Error> {
        let kept = match self.connect(true) {
            Err(Error::Database { source, .. }) if schema::is_unusable(&source) => {
                self.set_aside(&source, now)?;
                self.connect(true)?
            }
            other => other?,
        };
        let places = kept.places.clone();
        self.restore(kept, now);
        Ok(places)
    }

    /// Opens the file and reads it.
    fn connect(&mut self, check: bool) -> Result<Kept, Error> {
        let Setup {
            path,
            clock,
            engine,
            ..
        } = &self.setup;
        if self.lock.is_none() {
            self.lock = Some(schema::lock(path)?);
        }
        let store = Store::open(path, check, *clock)?;
        let kept = store.load(engine).map_err(of_database(path))?;
        self.inode = inode(path)?;
        self.store = Some(store);
        Ok(kept)
    }

    fn restore(&mut self, kept: Kept, now: Millis) {
        let engine = &self.setup.engine;
        let (bans, counters) = (kept.changes.len(), kept.counters.len());
        engine.restore(kept.changes, kept.floor, kept.newest, now);
        engine.restore_history(kept.history);
        engine.restore_counters(kept.counters);
        engine.cursors().restore(kept.cursors);
        engine.restore_allowed(kept.allowed);
        engine.ledger().settle(kept.newest);
        engine.sweep(now);
        (self.cursor, self.cursors) = (kept.newest, engine.cursors().all());
        let path = self.setup.path.display();
        let active = engine.ledger().len();
        tracing::info!(%path, active, lifted = bans.saturating_sub(active), counters, "state restored");
        self.well(now);
    }

    /// Opens the file again after a failure. Unless it is where it was left, it is written anew.
    pub(super) fn reopen(&mut self, now: Millis) -> Result<(), Error> {
        let kept = self.connect(false)?;
        if std::mem::take(&mut self.unread) {
            self.late(kept, now);
            return self.rewrite();
        }
        match kept.newest == self.cursor {
            true => Ok(()),
            false => self.rewrite(),
        }
    }

    /// Takes in bans of a file that could not be read at the start: those that nobody has banned
    /// otherwise meanwhile.
    fn late(&self, kept: Kept, now: Millis) {
        let engine = &self.setup.engine;
        let place = |ban: &Ban| (ban.client, ban.jail.clone(), ban.origin.clone());
        let standing: HashSet<_> = engine
            .ledger()
            .bans()
            .iter()
            .map(|ban| place(ban))
            .collect();
        let missing = kept
            .changes
            .into_iter()
            .filter(|change| change.lift.is_none() && !standing.contains(&place(&change.ban)));
        for change in missing {
            engine.ban(Arc::unwrap_or_clone(change.ban), now);
        }
        engine.restore_history(kept.history);
        engine.restore_counters(kept.counters);
    }

    pub(super) fn rewrite(&mut self) -> Result<(), Error> {
        let (standing, next) = self.setup.engine.ledger().standing();
        let path = &self.setup.path;
        let store = self
            .store
            .as_mut()
            .ok_or_else(|| Error::Gone { path: path.clone() })?;
        store.rewrite(&standing, next).map_err(of_database(path))?;
        self.cursor = next;
        Ok(())
    }

    /// Nothing is held up by a disk that fails.
    pub(super) fn fail(&mut self, error: &Error, now: Millis) {
        let Setup {
            metrics,
            status,
            path,
            ..
        } = &self.setup;
        metrics.state_errors.inc();
        self.hold(false);
        let text = in_full(error);
        status.failed(now, &text);
        let last = self.failing.take();
        if last.is_none() {
            tracing::error!(error = text, "state not kept on disk, bans go on in memory");
        }
        let wait = last
            .as_ref()
            .map_or(RETRY.0, |last| (last.wait * 2).min(RETRY.1));
        self.failing = Some(Failing {
            since: last.map_or(now, |last| last.since),
            wait,
            retry_at: now + wait,
        });
        (self.store, self.save, self.saved, self.allowed) = (None, None, None, None);
        if let Error::Database { source, .. } = error
            && schema::is_damage(source)
        {
            self.unread = false;
            if let Err(error) = set_aside(path, source, now) {
                tracing::error!(
                    error = in_full(&error),
                    "a damaged state cannot be moved away"
                );
            }
        }
        self.lag(now);
    }

    pub(super) fn recovered(&mut self, now: Millis) {
        self.failing = None;
        tracing::info!(path = %self.setup.path.display(), "state kept on disk again");
        self.well(now);
        self.lag(now);
    }

    /// Whether the world waits for the disk.
    pub(super) fn hold(&self, held: bool) {
        self.setup.engine.ledger().hold(held);
        self.setup.engine.allow_list().kept().hold(held);
        self.setup.engine.cursors().kept().hold(held);
    }

    fn set_aside(&mut self, why: &rusqlite::Error, now: Millis) -> Result<(), Error> {
        self.store = None;
        set_aside(&self.setup.path, why, now)
    }
}

fn set_aside(path: &Path, why: &rusqlite::Error, now: Millis) -> Result<(), Error> {
    let aside = schema::set_aside(path, now).map_err(|source| Error::File {
        path: path.into(),
        source,
    })?;
    tracing::error!(
        error = %why, path = %path.display(), aside = %aside.display(),
        "the state is damaged and was set aside, a fresh one is begun"
    );
    Ok(())
}

/// Whether the file is somebody else's: never written, and a reason not to start.
fn is_refusal(error: &Error) -> bool {
    matches!(
        error,
        Error::Taken { .. } | Error::Newer { .. } | Error::Foreign { .. }
    )
}

pub(super) fn inode(path: &Path) -> Result<u64, Error> {
    let meta = fs::metadata(path).map_err(|source| Error::File {
        path: path.into(),
        source,
    })?;
    Ok(meta.ino())
}
