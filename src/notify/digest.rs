//! What one message says: counts, the first few bans, jobs that fail. It never grows with the number
//! of bans, and every string that a client chose is made harmless here.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    config::NotifyOn,
    engine::{Ban, client::spelled},
    telemetry::{
        journal::date,
        status::{Snapshot, State},
    },
};

/// Bans shown one by one; the rest is only counted.
const SHOWN: usize = 5;
/// Characters of a path or a reason that are shown.
const LONGEST: usize = 120;

/// What happened since the last message.
#[derive(Clone, Debug, Default)]
pub(super) struct Digest {
    bans: u64,
    unbans: u64,
    expiries: u64,
    first: Vec<(NotifyOn, Arc<Ban>)>,
    /// Each job once, at its latest.
    jobs: Vec<Snapshot>,
    /// More happened at once than the ledger keeps.
    missed: bool,
    /// Sent by `notify test`.
    test: bool,
}

impl Digest {
    pub(super) fn test() -> Self {
        Self {
            test: true,
            ..Self::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count() == 0 && self.jobs.is_empty() && !self.missed && !self.test
    }

    pub(super) fn ban(&mut self, on: NotifyOn, ban: &Arc<Ban>) {
        match on {
            NotifyOn::Ban => self.bans += 1,
            NotifyOn::Unban => self.unbans += 1,
            NotifyOn::Expiry => self.expiries += 1,
            NotifyOn::Failing => return,
        }
        if self.first.len() < SHOWN {
            self.first.push((on, ban.clone()));
        }
    }

    pub(super) fn job(&mut self, job: Snapshot) {
        self.jobs.retain(|known| known.name != job.name);
        self.jobs.push(job);
    }

    pub(super) fn missed(&mut self) {
        self.missed = true;
    }

    /// Takes in what happened later; for a message that could not be sent.
    pub(super) fn absorb(&mut self, later: Self) {
        self.bans += later.bans;
        self.unbans += later.unbans;
        self.expiries += later.expiries;
        self.missed |= later.missed;
        let room = SHOWN - self.first.len();
        self.first.extend(later.first.into_iter().take(room));
        for job in later.jobs {
            self.job(job);
        }
    }

    fn count(&self) -> u64 {
        self.bans + self.unbans + self.expiries
    }

    /// `jailgate on HOST: 12 bans, 1 unban`. Nothing in it is a client's choice.
    pub(super) fn title(&self, host: &str) -> String {
        let mut news = Vec::new();
        for (number, one, many) in [
            (self.bans, "ban", "bans"),
            (self.unbans, "unban", "unbans"),
            (self.expiries, "ban ended", "bans ended"),
        ] {
            if number > 0 {
                let what = if number == 1 { one } else { many };
                news.push(format!("{number} {what}"));
            }
        }
        news.extend(self.jobs.iter().map(job_title));
        if self.missed {
            news.push("more bans than could be followed".to_owned());
        }
        if self.test {
            news.push("this is a test".to_owned());
        }
        format!("jailgate on {}: {}", cleaned(host), news.join(", "))
    }

    /// The lines under the title. `quote` makes a string of a client's choice harmless in the
    /// language of the receiver.
    pub(super) fn lines(&self, quote: &dyn Fn(&str) -> String) -> Vec<String> {
        let bans = self.first.iter();
        let mut lines: Vec<_> = bans.map(|(on, ban)| ban_line(*on, ban, quote)).collect();
        let more = self.count() - self.first.len() as u64;
        if more > 0 {
            lines.push(format!("… and {more} more"));
        }
        let failing = self.jobs.iter().filter(|job| job.state == State::Failing);
        for job in failing {
            let error = job.last_error.as_ref().map_or("", |(_, error)| error);
            lines.push(format!("{}: {}", job_title(job), quote(&cleaned(error))));
        }
        if self.test {
            lines.push("Messages about bans will arrive here.".to_owned());
        }
        lines
    }

    /// Whether somebody should look now.
    pub(super) fn is_urgent(&self) -> bool {
        self.jobs.iter().any(|job| job.state == State::Failing)
    }

    /// The value of a template's placeholder.
    pub(super) fn value(&self, name: &str, host: &str) -> Value {
        match name {
            "title" => self.title(host).into(),
            "text" => self.lines(&str::to_owned).join("\n").into(),
            "host" => host.into(),
            "count" => self.count().into(),
            "counts" => json!({
                "ban": self.bans, "unban": self.unbans, "expiry": self.expiries,
            }),
            "events" => self.first.iter().map(|(on, ban)| event(*on, ban)).collect(),
            "jobs" => self.jobs.iter().map(job).collect(),
            _ => Value::Null,
        }
    }
}

fn job_title(job: &Snapshot) -> String {
    match job.state {
        State::Failing => format!("{} fails", job.name),
        _ => format!("{} works again", job.name),
    }
}

/// `ban: 198.51.100.7 in web, failures (4 counted, last 401 on /login), until …`
fn ban_line(on: NotifyOn, ban: &Ban, quote: &dyn Fn(&str) -> String) -> String {
    let jail = ban.jail.as_deref().map_or("every jail", |jail| jail);
    let origin = ban.origin.label();
    let reason = quote(&cleaned(&ban.cause.to_string()));
    let mut line = format!(
        "{}: {} in {jail} by {origin}, {reason}",
        on.as_str(),
        spelled(ban.client)
    );
    if ban.count > 0 {
        line += &format!(
            " ({} counted, last {} on {})",
            ban.count,
            ban.last_status,
            quote(&cleaned(&ban.path))
        );
    }
    match (on, date(ban.until)) {
        (NotifyOn::Ban, Some(until)) => line + ", until " + &until,
        (NotifyOn::Ban, None) => line + ", for ever",
        _ => line,
    }
}

fn event(on: NotifyOn, ban: &Ban) -> Value {
    json!({
        "event": on.as_str(),
        "client": spelled(ban.client),
        "jail": ban.jail.as_deref(),
        "origin": &*ban.origin.label(),
        "reason": cleaned(&ban.cause.to_string()),
        "count": ban.count,
        "firstStatus": ban.first_status,
        "lastStatus": ban.last_status,
        "path": cleaned(&ban.path),
        "since": date(ban.since),
        "until": date(ban.until),
    })
}

fn job(job: &Snapshot) -> Value {
    let error = job.last_error.as_ref().map(|(_, error)| cleaned(error));
    json!({ "job": &*job.name, "state": job.state.as_str(), "error": error })
}

/// One line without what steers terminals, mail or the direction of writing.
pub(super) fn cleaned(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let mut out: String = text
        .chars()
        .take(LONGEST)
        .map(|c| if steers(c) { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        out.push('…');
    }
    out
}
