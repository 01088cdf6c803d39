//! What is let go of: counters of older saves, ended bans that neither people nor followers need.

use rusqlite::{params, params_from_iter};

use super::{CHUNK, Store, set};
use crate::time::Millis;

/// Ended bans kept for people, the newest.
const PAST: i64 = 1_000_000;
/// Lifts kept for followers that are behind; whoever is further behind reads everything anew.
const LIFTS: i64 = 131_072;

impl Store {
    /// Lets go of what nobody needs any more, some rows at a time; answers whether there is more.
    /// Ended bans stay for `keep` and, further back than that, as long as a follower needs them;
    /// outside decisions only for followers.
    pub fn tidy(&mut self, keep: Millis, now: Millis) -> rusqlite::Result<bool> {
        let floor = self.raise_floor()?;
        let step = self.begin()?;
        let over = now.saturating_sub(keep) as i64;
        let chunk = CHUNK as i64;
        let counters = step.execute(
            "DELETE FROM counters WHERE rowid IN (SELECT rowid FROM counters WHERE save < \
             (SELECT value FROM state WHERE key = 'save') LIMIT ?1)",
            [chunk],
        )?;
        let past = step.execute(
            "DELETE FROM past WHERE rowid IN (SELECT rowid FROM past \
             WHERE (ended < ?1 OR outside) AND seq <= ?2 LIMIT ?3)",
            params![over, floor as i64, chunk],
        )?;
        let crowd = step.execute(
            "DELETE FROM past WHERE rowid IN (SELECT rowid FROM past WHERE seq <= ?1 ORDER BY rowid \
             LIMIT min(?2, max(0, (SELECT count(*) FROM past) - ?3)))",
            params![floor as i64, chunk, PAST],
        )?;
        step.commit()?;
        self.db.execute_batch("PRAGMA incremental_vacuum(256)")?;
        Ok([counters, past, crowd].contains(&CHUNK))
    }

    /// Lifts up to where every follower has come are no longer kept for them.
    fn raise_floor(&mut self) -> rusqlite::Result<u64> {
        let step = self.begin()?;
        let one = |sql, params: &[i64]| {
            step.query_row(sql, params_from_iter(params), |row| {
                row.get::<_, Option<i64>>(0)
            })
        };
        let floor = one("SELECT max(value) FROM state WHERE key = 'floor'", &[])?.unwrap_or(0);
        let reached = one(
            "SELECT coalesce((SELECT min(seq) FROM cursors), (SELECT value FROM state \
             WHERE key = 'newest'))",
            &[],
        )?;
        let crowded = "SELECT max(seq) FROM (SELECT seq FROM past WHERE seq > ?1 \
                       ORDER BY seq DESC LIMIT -1 OFFSET ?2)";
        let crowded = one(crowded, &[floor, LIFTS])?;
        let next = floor.max(reached.unwrap_or(0)).max(crowded.unwrap_or(0));
        if next > floor {
            set(&step, "floor", next as u64)?;
        }
        step.commit()?;
        Ok(next as u64)
    }
}
