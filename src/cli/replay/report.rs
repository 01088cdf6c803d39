//! What a replay found, as data for `--json`, and as a table for people.

use std::{collections::HashMap, fmt::Write};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    source::Source,
    tally::{JailTally, Tally},
};
use crate::{
    engine::{Ban, ban::Cause, client::spelled},
    time::Millis,
};

/// The whole report. Times are RFC 3339, UTC.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The logs, as given.
    pub logs: Vec<LogRow>,
    /// Events that named a client and a status.
    pub events: u64,
    /// jailgate's own denials, left out.
    pub own_denials: u64,
    /// First event.
    pub first: Option<String>,
    /// Last event.
    pub last: Option<String>,
    /// Totals by jail.
    pub jails: Vec<JailRow>,
    /// Every ban, oldest first.
    pub bans: Vec<BanRow>,
    /// Everybody banned, by jail, most bans first.
    pub clients: Vec<ClientRow>,
}

/// One log.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogRow {
    /// As given.
    pub path: String,
    /// What it was read as.
    pub format: &'static str,
    /// Lines.
    pub lines: u64,
    /// Lines not understood.
    pub unparsed: u64,
}

/// One jail.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JailRow {
    /// Its name.
    pub jail: String,
    /// Clients seen.
    pub clients_seen: usize,
    /// Clients banned at least once.
    pub clients_banned: usize,
    /// Of those, how many also had successes.
    pub likely_real_users: usize,
    /// Events counted.
    pub failures: u64,
    /// Bans begun.
    pub bans: u64,
    /// Requests that would have been denied.
    pub denied: u64,
    /// By hour.
    pub hours: Vec<HourRow>,
}

/// One hour of a jail; hours without anything are left out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HourRow {
    /// Its beginning.
    pub hour: String,
    /// Unix milliseconds of it, for drawing.
    #[serde(skip)]
    pub at: Millis,
    /// Events counted.
    pub failures: u64,
    /// Bans begun.
    pub bans: u64,
    /// Requests that would have been denied.
    pub denied: u64,
}

/// One ban, in the words of `jailgate bans --json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BanRow {
    /// Address or prefix.
    pub client: String,
    /// Jail.
    pub jail: String,
    /// Always `jail`: nobody else bans in a replay.
    pub origin: &'static str,
    /// `failures`, or the URL rule.
    pub reason: String,
    /// Events counted.
    pub count: u32,
    /// Status of the first of them.
    pub first_status: u16,
    /// Status of the last of them.
    pub last_status: u16,
    /// Path of the last of them.
    pub path: String,
    /// When it would have begun.
    pub since: String,
    /// When it would have ended; absent: never.
    pub until: Option<String>,
}

/// One banned client of a jail.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientRow {
    /// Address or prefix.
    pub client: String,
    /// Jail.
    pub jail: String,
    /// How often it would have been banned.
    pub bans: u32,
    /// When first.
    pub first_ban: String,
    /// What the first ban was for.
    pub reason: String,
    /// Path that led to the first ban.
    pub path: String,
    /// Last status before the first ban.
    pub last_status: u16,
    /// All its requests.
    pub requests: u32,
    /// Those answered with 2xx or 3xx.
    pub successes: u32,
    /// Those that would have been denied.
    pub denied: u32,
    /// It had successes too: look twice before enforcing.
    pub likely_real_user: bool,
}

impl Report {
    /// Sums up.
    pub fn new(sources: &[Source], tally: &Tally) -> Self {
        let log = |source: &Source| LogRow {
            path: source.path.display().to_string(),
            format: source.format.name(),
            lines: source.lines,
            unparsed: source.unparsed,
        };
        let mut bans: Vec<_> = tally
            .jails()
            .iter()
            .flat_map(|jail| jail.bans.iter().map(move |ban| (jail, ban)))
            .collect();
        bans.sort_by_key(|(_, ban)| ban.since);
        let per_jail: Vec<_> = tally.jails().iter().map(clients).collect();
        let jails = tally.jails().iter().zip(&per_jail);
        Self {
            logs: sources.iter().map(log).collect(),
            events: tally.events,
            own_denials: tally.own,
            first: tally.span.map(|(first, _)| time(first)),
            last: tally.span.map(|(_, last)| time(last)),
            jails: jails
                .map(|(jail, clients)| jail_row(jail, clients))
                .collect(),
            bans: bans
                .into_iter()
                .map(|(jail, ban)| ban_row(jail, ban))
                .collect(),
            clients: per_jail.into_iter().flatten().collect(),
        }
    }

    /// The table. Everything from a log is stripped of control characters.
    pub fn table(&self) -> String {
        let mut out = String::new();
        for log in &self.logs {
            let LogRow {
                path,
                format,
                lines,
                unparsed,
            } = log;
            let _ = writeln!(
                out,
                "{path}: {format}, {lines} lines, {unparsed} not understood"
            );
        }
        if let (Some(first), Some(last)) = (&self.first, &self.last) {
            let _ = writeln!(out, "{} events from {first} to {last}", self.events);
        }
        for jail in &self.jails {
            let _ = writeln!(
                out,
                "\njail {}: {} bans of {} clients, {} of them with successes too (likely real users); \
                 {} failures counted, {} requests denied",
                jail.jail,
                jail.bans,
                jail.clients_banned,
                jail.likely_real_users,
                jail.failures,
                jail.denied
            );
            let rows: Vec<_> = self
                .clients
                .iter()
                .filter(|row| row.jail == jail.jail)
                .collect();
            if !rows.is_empty() {
                out.push_str(&columns(&rows));
            }
            for hour in &jail.hours {
                let HourRow {
                    hour,
                    failures,
                    bans,
                    denied,
                    ..
                } = hour;
                let _ = writeln!(
                    out,
                    "  {hour}  {failures:>8} failures {bans:>6} bans {denied:>8} denied"
                );
            }
        }
        out
    }
}

fn columns(rows: &[&ClientRow]) -> String {
    let head = [
        "CLIENT",
        "BANS",
        "FIRST BAN",
        "FOR",
        "STATUS",
        "PATH",
        "REQUESTS",
        "SUCCESSES",
        "DENIED",
    ];
    let mut cells = vec![head.map(str::to_owned)];
    cells.extend(rows.iter().map(|row| {
        [
            row.client.clone(),
            row.bans.to_string(),
            row.first_ban.clone(),
            printable(&row.reason, 32),
            row.last_status.to_string(),
            printable(&row.path, 40),
            row.requests.to_string(),
            row.successes.to_string() + if row.likely_real_user { " !" } else { "" },
            row.denied.to_string(),
        ]
    }));
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..head.len())
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let line = |row: &[String; 9]| {
        let padded = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        format!("  {}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    cells.iter().map(line).collect()
}

/// At most `max` characters, none of which a terminal would act on.
fn printable(text: &str, max: usize) -> String {
    let short = text.chars().take(max);
    let mut out: String = short
        .map(|c| if c.is_control() { '\u{FFFD}' } else { c })
        .collect();
    if text.chars().count() > max {
        out.push('…');
    }
    out
}

fn jail_row(jail: &JailTally, clients: &[ClientRow]) -> JailRow {
    let sum = |of: fn(&super::tally::Hour) -> u64| jail.hours.values().map(of).sum();
    let shown = jail
        .hours
        .iter()
        .filter(|(_, hour)| hour.failures + hour.bans + hour.denied > 0);
    JailRow {
        jail: jail.name.to_string(),
        clients_seen: jail.seen.len(),
        clients_banned: clients.len(),
        likely_real_users: clients.iter().filter(|row| row.likely_real_user).count(),
        failures: sum(|hour| hour.failures),
        bans: sum(|hour| hour.bans),
        denied: sum(|hour| hour.denied),
        hours: shown
            .map(|(at, hour)| HourRow {
                hour: time(*at),
                at: *at,
                failures: hour.failures,
                bans: hour.bans,
                denied: hour.denied,
            })
            .collect(),
    }
}

fn clients(jail: &JailTally) -> Vec<ClientRow> {
    let mut at: HashMap<IpNet, usize> = HashMap::new();
    let mut rows: Vec<ClientRow> = Vec::new();
    for ban in &jail.bans {
        let index = *at.entry(ban.client).or_insert(rows.len());
        if index == rows.len() {
            rows.push(client_row(jail, ban));
        }
        rows[index].bans += 1;
    }
    rows.sort_by(|a, b| {
        (b.bans, b.requests)
            .cmp(&(a.bans, a.requests))
            .then_with(|| a.client.cmp(&b.client))
    });
    rows
}

fn client_row(jail: &JailTally, ban: &Ban) -> ClientRow {
    let seen = jail.seen.get(&ban.client).copied().unwrap_or_default();
    ClientRow {
        client: spelled(ban.client),
        jail: jail.name.to_string(),
        bans: 0,
        first_ban: time(ban.since),
        reason: reason(ban),
        path: ban.path.to_string(),
        last_status: ban.last_status,
        requests: seen.requests,
        successes: seen.successes,
        denied: seen.denied,
        likely_real_user: seen.successes > 0,
    }
}

fn ban_row(jail: &JailTally, ban: &Ban) -> BanRow {
    BanRow {
        client: spelled(ban.client),
        jail: jail.name.to_string(),
        origin: "jail",
        reason: reason(ban),
        count: ban.count,
        first_status: ban.first_status,
        last_status: ban.last_status,
        path: ban.path.to_string(),
        since: time(ban.since),
        until: (ban.until != crate::engine::ban::FOREVER).then(|| time(ban.until)),
    }
}

fn reason(ban: &Ban) -> String {
    match &ban.cause {
        Cause::Failures => "failures".into(),
        Cause::Rule(pattern) => format!("rule {pattern}"),
        Cause::Manual(text) | Cause::Decision(text) => text.to_string(),
    }
}

/// RFC 3339, whole seconds, UTC.
pub fn time(at: Millis) -> String {
    let stamp = i64::try_from(at / 1000)
        .ok()
        .and_then(|s| Timestamp::from_second(s).ok());
    stamp.map_or_else(|| at.to_string(), |stamp| stamp.to_string())
}
