//! What LAPI should hold of our bans against what it holds: what to send, replace and withdraw, and
//! how a ban reads as an alert. Pure; sending is `publish`'s.

use std::{collections::HashMap, sync::Arc};

use ipnet::IpNet;

use super::wire::{Alert, Event, Meta, Sent, Source, place, timestamp};
use crate::{
    engine::{Ban, Change, Evidence, Lift, Origin, ban::FOREVER},
    time::Millis,
};

/// Scenarios of ours begin so.
pub(super) const PREFIX: &str = "jailgate/";
/// A ban that does not end is sent as ten years: LAPI's durations are finite.
const LONGEST: Millis = 87_600 * 3_600_000;
/// Ends are told as a remaining time, read some time after it was written.
const SLACK: Millis = 5_000;
/// LAPI drops or refuses what is longer.
const LONGEST_VALUE: usize = 1_000;

/// What a decision of ours is found by. One ban has one, and two bans do not share one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) net: IpNet,
    pub(super) scenario: Arc<str>,
}

/// A decision that LAPI holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) until: Millis,
    pub(super) id: Id,
}

/// How to find it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Id {
    Decision(u64),
    /// It was just sent: only its alert is known.
    Alert(u64),
}

/// What LAPI holds of ours, as far as known.
pub(super) type Known = HashMap<Key, Held>;

/// What is to be done at LAPI.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Send these; where LAPI holds an older version, it goes once the new one is there.
    pub(super) send: Vec<Arc<Ban>>,
    /// Take these back.
    pub(super) withdraw: Vec<Key>,
    /// These end by themselves.
    pub(super) over: Vec<Key>,
}

/// How far a longer end may be behind before it is worth an alert of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    /// Two hundredths of the ban: a `block` rule extends a ban with every hit.
    Patient,
    /// Every difference that is one.
    Exact,
}

/// Where a ban of ours is found at LAPI; `None` when it came from elsewhere.
pub(super) fn key(ban: &Ban) -> Option<Key> {
    let scenario = match (&ban.origin, &ban.jail) {
        (Origin::Outside(_), _) => return None,
        (Origin::Jail, Some(jail)) => format!("{PREFIX}{jail}"),
        (Origin::Jail, None) => format!("{PREFIX}*"),
        (Origin::Manual, None) => format!("{PREFIX}manual"),
        (Origin::Manual, Some(jail)) => format!("{PREFIX}{jail}/manual"),
    };
    Some(Key {
        net: ban.client,
        scenario: scenario.into(),
    })
}

/// When a ban ends as LAPI is told.
pub(super) fn end(ban: &Ban) -> Millis {
    match ban.until {
        FOREVER => ban.since + LONGEST,
        until => until.min(ban.since.saturating_add(LONGEST)),
    }
}

/// What changes mean for LAPI; of several for one ban the last counts.
pub(super) fn follow(changes: Vec<Change>, known: &Known, now: Millis) -> Work {
    let mut last: HashMap<Key, Change> = HashMap::new();
    let mut order = Vec::new();
    for change in changes {
        let Some(key) = key(&change.ban) else {
            continue;
        };
        if last.insert(key.clone(), change).is_none() {
            order.push(key);
        }
    }
    let mut work = Work::default();
    for key in order {
        let Some(Change { ban, lift, .. }) = last.remove(&key) else {
            continue;
        };
        match lift {
            None if wanted(&ban, known.get(&key), now, Growth::Patient) => work.send.push(ban),
            None => {}
            Some(Lift::Expired) => work.over.push(key),
            Some(Lift::Unbanned | Lift::Withdrawn | Lift::Evicted) => work.withdraw.push(key),
        }
    }
    work
}

/// What of these bans LAPI does not hold as it should.
pub(super) fn missing(bans: &[Arc<Ban>], known: &Known, now: Millis) -> Vec<Arc<Ban>> {
    let lacking = |ban: &&Arc<Ban>| {
        key(ban).is_some_and(|key| wanted(ban, known.get(&key), now, Growth::Exact))
    };
    bans.iter().filter(lacking).cloned().collect()
}

/// What LAPI holds and these bans do not.
pub(super) fn surplus(bans: &[Arc<Ban>], known: &Known) -> Vec<Key> {
    let ours: std::collections::HashSet<Key> = bans.iter().filter_map(|ban| key(ban)).collect();
    let mut gone: Vec<Key> = known
        .keys()
        .filter(|key| !ours.contains(key))
        .cloned()
        .collect();
    gone.sort_unstable();
    gone
}

/// Of all that is known of a client, what led to this ban.
pub(super) fn leading_to(ban: &Ban, mut seen: Vec<Evidence>) -> Vec<Evidence> {
    seen.retain(|seen| Some(&seen.jail) == ban.jail.as_ref() && seen.at <= ban.since);
    let counted = (ban.count as usize).min(seen.len());
    seen.split_off(seen.len() - counted)
}

fn wanted(ban: &Ban, held: Option<&Held>, now: Millis, growth: Growth) -> bool {
    let end = end(ban);
    if end <= now {
        return false;
    }
    let Some(held) = held else {
        return true;
    };
    let patience = match growth {
        Growth::Patient => (end.saturating_sub(ban.since) / 50).max(2 * SLACK),
        Growth::Exact => 2 * SLACK,
    };
    end + SLACK < held.until || end > held.until + patience
}

/// A ban as an alert of its own. `evidence` is what led to it, oldest first; `shift` brings our time
/// to LAPI's.
pub(super) fn alert(
    ban: &Ban,
    key: &Key,
    evidence: &[Evidence],
    origin: &str,
    shift: impl Fn(Millis) -> Millis,
) -> Alert {
    let (scope, value) = place(&ban.client);
    let seconds = end(ban).saturating_sub(ban.since).div_ceil(1000);
    let (ip, range) = match scope {
        "Ip" => (Some(value.clone()), None),
        _ => (None, Some(value.clone())),
    };
    Alert {
        scenario: clipped(&key.scenario),
        message: message(ban, &value),
        events_count: i32::try_from(ban.count).unwrap_or(i32::MAX),
        start_at: timestamp(shift(evidence.first().map_or(ban.since, |first| first.at))),
        stop_at: timestamp(shift(ban.since)),
        events: events(ban, &value, evidence, &shift),
        source: Source {
            scope: scope.to_owned(),
            value: value.clone(),
            ip,
            range,
        },
        decisions: vec![sent(key, origin, seconds)],
        ..empty()
    }
}

/// Bans of one scenario that stand for long already, as one alert with many decisions: LAPI counts
/// alerts when it lets go of old ones.
pub(super) fn collective(
    bans: &[(Key, Arc<Ban>)],
    origin: &str,
    now: Millis,
    shift: impl Fn(Millis) -> Millis,
) -> Alert {
    let left = |ban: &Ban| end(ban).saturating_sub(now).div_ceil(1000);
    let decisions = bans.iter().map(|(key, ban)| sent(key, origin, left(ban)));
    let scenario = bans.first().map(|(key, _)| clipped(&key.scenario));
    Alert {
        scenario: scenario.unwrap_or_default(),
        message: format!("{} bans still in force, published again", bans.len()),
        events_count: 0,
        start_at: timestamp(shift(now)),
        stop_at: timestamp(shift(now)),
        events: Vec::new(),
        source: Source::default(),
        decisions: decisions.collect(),
        ..empty()
    }
}

fn empty() -> Alert {
    Alert {
        scenario: String::new(),
        scenario_hash: "",
        scenario_version: "",
        message: String::new(),
        events_count: 0,
        start_at: String::new(),
        stop_at: String::new(),
        capacity: 0,
        leakspeed: "0",
        simulated: false,
        remediation: true,
        events: Vec::new(),
        source: Source::default(),
        decisions: Vec::new(),
    }
}

fn sent(key: &Key, origin: &str, seconds: u64) -> Sent {
    let (scope, value) = place(&key.net);
    Sent {
        origin: origin.to_owned(),
        kind: "ban",
        scope,
        value,
        duration: format!("{}s", seconds.max(1)),
        scenario: clipped(&key.scenario),
    }
}

fn message(ban: &Ban, value: &str) -> String {
    let jail = ban.jail.as_deref().unwrap_or("*");
    let counted = match ban.count {
        0 => String::new(),
        count => format!(", {count} counted"),
    };
    let statuses = match (ban.first_status, ban.last_status) {
        (0, 0) => String::new(),
        (first, last) => format!(", first status {first}, last {last}"),
    };
    let path = match &*ban.path {
        "" => String::new(),
        path => format!(", last path {path}"),
    };
    let text = format!(
        "{value} in jail {jail}: {}{counted}{statuses}{path}",
        ban.cause
    );
    clipped(&text)
}

/// First and last counted request, under the names that CrowdSec's own parsers use. Where the
/// engine keeps them no longer, what the ban itself says of them.
fn events(
    ban: &Ban,
    value: &str,
    evidence: &[Evidence],
    shift: impl Fn(Millis) -> Millis,
) -> Vec<Event> {
    let Some((first, rest)) = evidence.split_first() else {
        return remembered(ban, value, shift(ban.since));
    };
    let ends = std::iter::once(first).chain(rest.last());
    let event = |seen: &Evidence| {
        let (status, client) = (word(seen.status), seen.client.addr().to_string());
        let meta = [
            ("source_ip", &*client),
            ("target_fqdn", &*seen.host),
            ("http_verb", &*seen.method),
            ("http_path", &*seen.path),
            ("http_status", &*status),
            ("http_user_agent", &*seen.agent),
        ];
        self::event(shift(seen.at), &meta)
    };
    ends.map(event).collect()
}

fn remembered(ban: &Ban, value: &str, at: Millis) -> Vec<Event> {
    let (first, last) = (word(ban.first_status), word(ban.last_status));
    let early = [("source_ip", value), ("http_status", &*first)];
    let late = [
        ("source_ip", value),
        ("http_path", &*ban.path),
        ("http_status", &*last),
    ];
    match ban.count {
        0 => Vec::new(),
        1 => vec![event(at, &late)],
        _ => vec![event(at, &early), event(at, &late)],
    }
}

fn event(at: Millis, meta: &[(&'static str, &str)]) -> Event {
    let always = [("service", "http"), ("log_type", "jailgate")];
    let told = meta.iter().chain(&always);
    Event {
        timestamp: timestamp(at),
        meta: told
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| Meta {
                key,
                value: clipped(value),
            })
            .collect(),
    }
}

/// A status that is there.
fn word(status: u16) -> String {
    match status {
        0 => String::new(),
        status => status.to_string(),
    }
}

/// At most so many bytes, cut between characters.
fn clipped(text: &str) -> String {
    text[..text.floor_char_boundary(LONGEST_VALUE)].to_owned()
}
