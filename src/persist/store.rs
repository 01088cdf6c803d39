//! What is written and read, each whole or not at all: batches of changes, saves of counters, and
//! everything at a start. Decides nothing about when.

mod tidy;

use std::{path::Path, sync::Arc, vec};

use rusqlite::{
    Connection, OptionalExtension, Params, Row, Transaction, TransactionBehavior, params,
    params_from_iter, types::Value,
};

use super::{Error, Place, rows, schema};
use crate::{
    engine::{Allowed, Change, Earlier, Engine, Lift, Tracked, client::spelled},
    time::{Clock, Millis},
};

/// Rows of counters written in one transaction, so that bans wait for milliseconds at most.
const CHUNK: usize = 4096;

/// The open database.
#[derive(Debug)]
pub struct Store {
    db: Connection,
    /// Number of the save begun last.
    save: i64,
}

/// Changes to commit together.
#[derive(Debug)]
pub struct Batch {
    /// In order of number.
    pub changes: Vec<Change>,
    /// How often the clients of these changes were banned so far.
    pub earlier: Vec<Earlier>,
    /// Everything up to this number is on disk afterwards.
    pub next: u64,
    /// How far each follower has come.
    pub cursors: Vec<(Arc<str>, u64)>,
    /// The runtime allow list, if it changed.
    pub allowed: Option<Vec<Allowed>>,
}

/// Counters, history and places in logs of one instant, on their way to disk.
#[derive(Debug)]
pub struct Save {
    /// 0 until it has begun.
    id: i64,
    counters: vec::IntoIter<Tracked>,
    history: vec::IntoIter<Earlier>,
    places: Vec<Place>,
}

/// What a file held.
#[derive(Debug, Default)]
pub struct Kept {
    /// Active bans and lifts, in order of number.
    pub changes: Vec<Change>,
    /// Every lift after this number is there.
    pub floor: u64,
    /// Number of the newest change.
    pub newest: u64,
    /// Bans so far.
    pub history: Vec<Earlier>,
    /// Of the newest whole save.
    pub counters: Vec<Tracked>,
    /// Of the same instant.
    pub places: Vec<Place>,
    /// How far each follower had come.
    pub cursors: Vec<(Arc<str>, u64)>,
    /// The runtime allow list.
    pub allowed: Vec<Allowed>,
}

impl Save {
    /// What stands at this instant.
    pub fn of(counters: Vec<Tracked>, history: Vec<Earlier>, places: Vec<Place>) -> Self {
        Self {
            id: 0,
            counters: counters.into_iter(),
            history: history.into_iter(),
            places,
        }
    }
}

impl Store {
    /// Opens the file; `check` looks for damage first.
    pub fn open(path: &Path, check: bool, clock: Clock) -> Result<Self, Error> {
        let db = schema::connect(path, check, clock)?;
        let save = "SELECT max((SELECT ifnull(max(save), 0) FROM counters), \
                    (SELECT ifnull(max(save), 0) FROM history))";
        let save = db.query_row(save, [], |row| row.get(0));
        let save = save.map_err(|source| Error::Database {
            path: path.into(),
            source,
        })?;
        Ok(Self { db, save })
    }

    /// Opens the file where nothing can be written.
    pub fn open_to_read(path: &Path) -> Result<Self, Error> {
        let db = schema::connect_to_read(path)?;
        Ok(Self { db, save: 0 })
    }

    /// For whoever only asks.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.db
    }

    /// Everything, as `engine` takes it back.
    pub fn load(&self, engine: &Engine) -> rusqlite::Result<Kept> {
        let (floor, newest) = (self.number("floor")?, self.number("newest")?);
        let mut changes = self.standing()?;
        changes.extend(self.lifts(floor)?);
        changes.sort_unstable_by_key(|change| change.seq);
        let jail = |row: &Row<'_>| row.get(1).map(|name: Arc<str>| engine.intern_jail(&name));
        let history = "SELECT client, jail, bans, until FROM history";
        let history = self.read(history, [], |row| {
            Ok(Earlier {
                client: rows::parsed(row, 0)?,
                jail: jail(row)?,
                bans: row.get(2)?,
                until: row.get::<_, i64>(3)? as Millis,
            })
        })?;
        let counters = "SELECT client, jail, count, first_status, start, last, events \
                        FROM counters WHERE save = ?1";
        let counters = self.read(counters, [self.number("save")? as i64], |row| {
            Ok(Tracked {
                client: rows::parsed(row, 0)?,
                jail: jail(row)?,
                count: row.get(2)?,
                first_status: row.get(3)?,
                start: row.get::<_, i64>(4)? as Millis,
                last: row.get::<_, i64>(5)? as Millis,
                events: rows::parsed_events(row.get(6)?),
            })
        })?;
        let places = "SELECT path, dev, inode, offset, begin_len, begin_hash FROM logs \
                      ORDER BY rowid";
        let cursors = "SELECT name, seq FROM cursors";
        Ok(Kept {
            changes,
            floor,
            newest,
            history,
            counters,
            places: self.read(places, [], rows::parsed_log)?,
            cursors: self.read(cursors, [], |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)? as u64))
            })?,
            allowed: self.read(
                "SELECT subject, nets, note, since, until FROM allowed",
                [],
                rows::allowed,
            )?,
        })
    }

    fn standing(&self) -> rusqlite::Result<Vec<Change>> {
        let sql = format!("SELECT seq, {} FROM bans", rows::BAN);
        self.read(&sql, [], |row| {
            Ok(Change {
                seq: row.get::<_, i64>(0)? as u64,
                ban: Arc::new(rows::ban(row, 1)?),
                lift: None,
                updated: false,
            })
        })
    }

    fn lifts(&self, floor: u64) -> rusqlite::Result<Vec<Change>> {
        let sql = format!("SELECT seq, {}, lift FROM past WHERE seq > ?1", rows::BAN);
        self.read(&sql, [floor as i64], |row| {
            Ok(Change {
                seq: row.get::<_, i64>(0)? as u64,
                ban: Arc::new(rows::ban(row, 1)?),
                lift: Some(rows::lift(&row.get::<_, String>(13)?)),
                updated: false,
            })
        })
    }

    /// Rows as values. One that somebody wrote who does not know how is passed over and told of.
    fn read<T>(
        &self,
        sql: &str,
        params: impl Params,
        mut of: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        let mut statement = self.db.prepare(sql)?;
        let (mut rows, mut all) = (statement.query(params)?, Vec::new());
        while let Some(row) = rows.next()? {
            match of(row) {
                Ok(value) => all.push(value),
                Err(error @ rusqlite::Error::SqliteFailure(..)) => return Err(error),
                Err(error) => tracing::warn!(%error, "a row of the state is not understood"),
            }
        }
        Ok(all)
    }

    /// A number of the `state` table; 0 when it was never set.
    pub fn number(&self, key: &str) -> rusqlite::Result<u64> {
        let sql = "SELECT value FROM state WHERE key = ?1";
        let value = self.db.query_row(sql, [key], |row| row.get::<_, i64>(0));
        Ok(value.optional()?.unwrap_or(0) as u64)
    }

    /// Commits changes and cursors together.
    pub fn commit(&mut self, batch: &Batch, engine: &Engine, now: Millis) -> rusqlite::Result<()> {
        let save = self.save;
        let step = self.begin()?;
        for change in &batch.changes {
            match change.lift {
                None => put(&step, change)?,
                Some(lift) => end(&step, change, lift, now)?,
            }
        }
        for earlier in &batch.earlier {
            remember(&step, earlier, engine, save)?;
        }
        if let Some(allowed) = &batch.allowed {
            keep_allowed(&step, allowed)?;
        }
        keep_cursors(&step, &batch.cursors, batch.next)?;
        set(&step, "newest", batch.next)?;
        step.commit()
    }

    /// Writes all active bans anew, for a file that lost the thread. The lifts it holds are for
    /// people only from now on: their numbers may be those of another life.
    pub fn rewrite(&mut self, standing: &[Change], next: u64) -> rusqlite::Result<()> {
        let step = self.begin()?;
        step.execute("DELETE FROM bans", [])?;
        step.execute("UPDATE past SET seq = 0 WHERE seq <> 0", [])?;
        for change in standing {
            put(&step, change)?;
        }
        set(&step, "floor", next)?;
        set(&step, "newest", next)?;
        step.commit()
    }

    /// Writes some of a save; answers whether it is whole. Its instant must be covered by what was
    /// committed before: a place in a log is never ahead of the bans that lines before it began.
    pub fn save(&mut self, save: &mut Save, engine: &Engine) -> rusqlite::Result<bool> {
        if save.id == 0 {
            self.save += 1;
            save.id = self.save;
        }
        let step = self.begin()?;
        let mut room = CHUNK;
        for tracked in save.counters.by_ref().take(CHUNK) {
            count(&step, &tracked, engine, save.id)?;
            room -= 1;
        }
        for earlier in save.history.by_ref().take(room) {
            remember(&step, &earlier, engine, save.id)?;
        }
        let whole = save.counters.len() + save.history.len() == 0;
        if whole {
            set(&step, "save", save.id as u64)?;
            step.execute("DELETE FROM history WHERE save < ?1", [save.id])?;
            keep_places(&step, &save.places)?;
        }
        step.commit()?;
        Ok(whole)
    }

    /// Only places in logs, at a moment when nothing is read or counted yet.
    pub fn adopt(&mut self, places: &[Place]) -> rusqlite::Result<()> {
        let step = self.begin()?;
        keep_places(&step, places)?;
        step.commit()
    }

    /// Takes the write lock at once, so that a busy file is waited for here.
    fn begin(&mut self) -> rusqlite::Result<Transaction<'_>> {
        self.db
            .transaction_with_behavior(TransactionBehavior::Immediate)
    }
}

fn put(step: &Transaction<'_>, change: &Change) -> rusqlite::Result<()> {
    let sql = format!(
        "INSERT OR REPLACE INTO bans(seq, {}) \
         VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13)",
        rows::BAN
    );
    let values = [seq(change)].into_iter().chain(rows::values(&change.ban));
    step.prepare_cached(&sql)?
        .execute(params_from_iter(values))?;
    Ok(())
}

fn end(step: &Transaction<'_>, change: &Change, lift: Lift, now: Millis) -> rusqlite::Result<()> {
    let gone = "DELETE FROM bans WHERE client = ?1 AND ifnull(jail, '') = ifnull(?2, '') \
                AND origin = ?3 AND outside = ?4 AND seq < ?5";
    let place = rows::place(&change.ban).into_iter().chain([seq(change)]);
    step.prepare_cached(gone)?
        .execute(params_from_iter(place))?;
    let sql = format!(
        "INSERT INTO past(seq, {}, lift, ended) \
         VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15)",
        rows::BAN
    );
    let ended = match lift {
        Lift::Expired => change.ban.until.min(now),
        _ => now,
    };
    let values = [seq(change)].into_iter().chain(rows::values(&change.ban));
    let values = values.chain([lift.as_str().to_owned().into(), rows::time(ended)]);
    step.prepare_cached(&sql)?
        .execute(params_from_iter(values))?;
    Ok(())
}

/// A save that was taken earlier never undoes what a later ban has added.
fn remember(
    step: &Transaction<'_>,
    earlier: &Earlier,
    engine: &Engine,
    save: i64,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO history(client, jail, bans, until, save) VALUES (?1, ?2, ?3, ?4, ?5) \
               ON CONFLICT DO UPDATE SET save = max(save, excluded.save), \
               bans = iif(excluded.until >= until, excluded.bans, bans), \
               until = max(until, excluded.until)";
    let values = [
        spelled(earlier.client).into(),
        engine.jail_name(earlier.jail).to_string().into(),
        earlier.bans.into(),
        rows::time(earlier.until),
        Value::Integer(save),
    ];
    step.prepare_cached(sql)?
        .execute(params_from_iter(values))?;
    Ok(())
}

fn count(
    step: &Transaction<'_>,
    tracked: &Tracked,
    engine: &Engine,
    save: i64,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO counters(save, client, jail, count, first_status, start, last, events) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let values = [
        Value::Integer(save),
        spelled(tracked.client).into(),
        engine.jail_name(tracked.jail).to_string().into(),
        tracked.count.into(),
        tracked.first_status.into(),
        rows::time(tracked.start),
        rows::time(tracked.last),
        rows::events(&tracked.events),
    ];
    step.prepare_cached(sql)?
        .execute(params_from_iter(values))?;
    Ok(())
}

/// A cursor is never ahead of the changes that are kept.
fn keep_cursors(
    step: &Transaction<'_>,
    cursors: &[(Arc<str>, u64)],
    newest: u64,
) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO cursors(name, seq) VALUES (?1, ?2)";
    let mut statement = step.prepare_cached(sql)?;
    for (name, seq) in cursors {
        statement.execute(params![name, (*seq).min(newest) as i64])?;
    }
    Ok(())
}

fn keep_allowed(step: &Transaction<'_>, allowed: &[Allowed]) -> rusqlite::Result<()> {
    step.execute("DELETE FROM allowed", [])?;
    let sql = "INSERT INTO allowed(subject, nets, note, since, until) VALUES (?1, ?2, ?3, ?4, ?5)";
    let mut statement = step.prepare_cached(sql)?;
    for entry in allowed {
        statement.execute(params_from_iter(rows::allowed_values(entry)))?;
    }
    Ok(())
}

fn keep_places(step: &Transaction<'_>, places: &[Place]) -> rusqlite::Result<()> {
    step.execute("DELETE FROM logs", [])?;
    let sql = "INSERT INTO logs(path, dev, inode, offset, begin_len, begin_hash) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let mut statement = step.prepare_cached(sql)?;
    for place in places {
        statement.execute(params_from_iter(rows::log(place)))?;
    }
    Ok(())
}

fn set(step: &Transaction<'_>, key: &str, value: u64) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO state(key, value) VALUES (?1, ?2)";
    step.prepare_cached(sql)?
        .execute(params![key, value as i64])?;
    Ok(())
}

fn seq(change: &Change) -> Value {
    Value::Integer(change.seq as i64)
}
