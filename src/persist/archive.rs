//! What people ask of the state while it is written: bans that ended, and to forget a client. The
//! writer's thread answers between two batches, so that it stays the only one with the file open.

use std::sync::Arc;

use ipnet::IpNet;
use rusqlite::{Connection, ToSql, params_from_iter};
use tokio::sync::{mpsc, oneshot};

use super::rows;
use crate::{
    engine::{Ban, Lift, client::spelled},
    time::Millis,
};

/// IPv6 clients are counted by prefixes no shorter than this.
const SITE: u8 = 48;

/// Clients looked for at once, below what SQLite takes.
const MANY: usize = 30_000;

/// The disk cannot answer now.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// It fails; bans are in memory only.
    #[error("the state on disk is out of reach")]
    OutOfReach,
    /// SQLite.
    #[error("the state on disk: {0}")]
    Database(#[from] rusqlite::Error),
}

/// A ban that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// As it stood.
    pub ban: Arc<Ban>,
    /// When it ended, Unix milliseconds.
    pub at: Millis,
    /// How.
    pub lift: Lift,
}

/// Asks the writer. Clones ask the same one.
#[derive(Clone, Debug)]
pub struct Archive(pub(super) mpsc::Sender<Order>);

/// One question, and where its answer goes.
#[derive(Debug)]
pub enum Order {
    /// Ended bans of a client or of everybody, newest first, at most so many.
    History(Option<IpNet>, usize, Reply<Vec<Ended>>),
    /// Erase a client.
    Forget(IpNet, Reply<()>),
}

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, Unanswered>>;

impl Archive {
    /// Bans that ended, newest first: of a client, with those of ranges that held it, or of all.
    pub async fn history(
        &self,
        client: Option<IpNet>,
        limit: usize,
    ) -> Result<Vec<Ended>, Unanswered> {
        self.ask(|reply| Order::History(client, limit, reply)).await
    }

    /// Erases a client or network from what ended, what was counted and how often it was banned; a
    /// single IPv6 address also as the prefixes it is counted by. Bans that stand stay.
    pub async fn forget(&self, client: IpNet) -> Result<(), Unanswered> {
        self.ask(|reply| Order::Forget(client, reply)).await
    }

    async fn ask<T>(&self, order: impl FnOnce(Reply<T>) -> Order) -> Result<T, Unanswered> {
        let (reply, answer) = oneshot::channel();
        let sent = self.0.send(order(reply)).await;
        sent.map_err(|_| Unanswered::OutOfReach)?;
        answer.await.map_err(|_| Unanswered::OutOfReach)?
    }
}

/// Answers one question; whoever asked may have gone.
pub fn answer(db: Option<&mut Connection>, order: Order) {
    match (db, order) {
        (Some(db), Order::History(client, limit, reply)) => {
            let _ = reply.send(history(db, client, limit).map_err(Into::into));
        }
        (Some(db), Order::Forget(client, reply)) => {
            let _ = reply.send(forget(db, client).map_err(Into::into));
        }
        (None, Order::History(_, _, reply)) => drop(reply.send(Err(Unanswered::OutOfReach))),
        (None, Order::Forget(_, reply)) => drop(reply.send(Err(Unanswered::OutOfReach))),
    }
}

fn history(db: &Connection, client: Option<IpNet>, limit: usize) -> rusqlite::Result<Vec<Ended>> {
    let mut values: Vec<Box<dyn ToSql>> = Vec::new();
    let mut wanted = String::new();
    if let Some(client) = client {
        let touches = |other: &IpNet| other.contains(&client) || client.contains(other);
        for text in clients(db, "past", client, 0, touches)?
            .into_iter()
            .take(MANY)
        {
            values.push(Box::new(text));
        }
        wanted = format!("WHERE client IN ({})", vec!["?"; values.len()].join(","));
    }
    values.push(Box::new(limit as i64));
    let sql = format!(
        "SELECT {}, ended, lift FROM past {wanted} ORDER BY rowid DESC LIMIT ?",
        rows::BAN
    );
    let mut statement = db.prepare(&sql)?;
    let found = statement.query_map(params_from_iter(values), |row| {
        Ok(Ended {
            ban: Arc::new(rows::ban(row, 0)?),
            at: row.get::<_, i64>(12)? as Millis,
            lift: rows::lift(&row.get::<_, String>(13)?),
        })
    })?;
    found.collect()
}

/// Lifts that followers still wait for keep no more than whom they lift, and go as soon as those
/// have come so far.
fn forget(db: &mut Connection, client: IpNet) -> rusqlite::Result<()> {
    let within = |other: &IpNet| {
        let wider = client.prefix_len() == 128 && other.prefix_len() >= SITE;
        client.contains(other) || (wider && other.contains(&client))
    };
    db.pragma_update(None, "secure_delete", true)?;
    let step = db.transaction()?;
    for table in ["past", "history", "counters"] {
        let gone = format!("DELETE FROM {table} WHERE client = ?1");
        for text in clients(&step, table, client, SITE, within)? {
            if table == "past" {
                step.execute(
                    "UPDATE past SET path = '', reason = NULL, count = 0, ended = 0 \
                     WHERE client = ?1",
                    [&text],
                )?;
                let told = "AND seq <= (SELECT ifnull(max(value), 0) FROM state \
                            WHERE key = 'floor')";
                step.execute(&format!("{gone} {told}"), [text])?;
            } else {
                step.execute(&gone, [text])?;
            }
        }
    }
    step.commit()?;
    // Not in the log of the database either. A reader may be in the way: later then.
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    db.pragma_update(None, "secure_delete", false)
}

/// The clients of a table that are wanted, as they stand there. Of a single address only the
/// prefixes that hold it are looked at, down to this length: that is what the index is for.
fn clients(
    db: &Connection,
    table: &str,
    client: IpNet,
    shortest: u8,
    wanted: impl Fn(&IpNet) -> bool,
) -> rusqlite::Result<Vec<String>> {
    if client.prefix_len() == client.max_prefix_len() && table == "past" {
        let lengths = shortest.min(client.max_prefix_len())..=client.max_prefix_len();
        let nets = lengths.filter_map(|length| IpNet::new(client.addr(), length).ok());
        return Ok(nets
            .map(|net| net.trunc())
            .filter(wanted)
            .map(spelled)
            .collect());
    }
    let mut statement = db.prepare(&format!("SELECT DISTINCT client FROM {table}"))?;
    let mut found = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = found.next()? {
        if rows::parsed(row, 0).is_ok_and(|net| wanted(&net)) {
            all.push(row.get(0)?);
        }
    }
    Ok(all)
}
