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
    /// The alert it came with. No alert of ours holds two for one key, and later ones are newer.
    pub(super) alert: u64,
    /// Its own number, where LAPI has told it.
    pub(super) decision: Option<u64>,
    /// The walk through LAPI's alerts that found it last, or under which it was sent.
    pub(super) walk: u32,
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
    /// Of those to send, some that stood before: LAPI may hold what is not known here.
    pub(super) before: Vec<Key>,
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
        let Some(Change {
            ban, lift, updated, ..
        }) = last.remove(&key)
        else {
            continue;
        };
        match lift {
            None if wanted(&ban, known.get(&key), now, Growth::Patient) => {
                work.send.push(ban);
                work.before.extend(updated.then_some(key));
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Cause;

    const NOW: Millis = 1_700_000_000_000;
    const HOUR: Millis = 3_600_000;

    fn ban(client: &str, origin: Origin, jail: Option<&str>, length: Millis) -> Ban {
        Ban {
            client: client.parse().unwrap(),
            jail: jail.map(Into::into),
            origin,
            cause: Cause::Failures,
            count: 3,
            first_status: 404,
            last_status: 401,
            path: "/login".into(),
            since: NOW,
            until: NOW.saturating_add(length),
        }
    }

    fn change(seq: u64, ban: Ban, lift: Option<Lift>) -> Change {
        Change {
            seq,
            ban: Arc::new(ban),
            lift,
            updated: false,
        }
    }

    /// `send … withdraw … over …`, by last octet.
    #[track_caller]
    fn check(changes: Vec<Change>, held: &[(&str, Millis)], expected: &str) {
        let known = held.iter().map(|(client, until)| {
            let ban = ban(client, Origin::Jail, Some("web"), 0);
            let held = Held {
                until: NOW + until,
                alert: 1,
                decision: Some(1),
                walk: 0,
            };
            (key(&ban).unwrap(), held)
        });
        let work = follow(changes, &known.collect(), NOW);
        let last = |net: &IpNet| {
            net.addr()
                .to_string()
                .rsplit('.')
                .next()
                .unwrap()
                .to_owned()
        };
        let send: Vec<_> = work.send.iter().map(|ban| last(&ban.client)).collect();
        let keys = |keys: &[Key]| keys.iter().map(|key| last(&key.net)).collect::<Vec<_>>();
        let (withdraw, over) = (keys(&work.withdraw), keys(&work.over));
        let found = [send, withdraw, over]
            .map(|list| list.join(" "))
            .join(" | ");
        assert_eq!(found, expected);
    }

    #[test]
    fn what_changes_is_sent_once_and_withdrawn_exactly() {
        let web = |client: &str, length| ban(client, Origin::Jail, Some("web"), length);
        let one = || web("192.0.2.1/32", HOUR);
        check(vec![change(1, one(), None)], &[], "1 |  | ");
        check(
            vec![change(1, one(), None)],
            &[("192.0.2.1/32", HOUR)],
            " |  | ",
        );
        let said_a_bit_later = HOUR - 3000;
        check(
            vec![change(1, one(), None)],
            &[("192.0.2.1/32", said_a_bit_later)],
            " |  | ",
        );
        check(
            vec![
                change(1, one(), None),
                change(2, one(), Some(Lift::Unbanned)),
            ],
            &[],
            " | 1 | ",
        );
        check(
            vec![
                change(1, one(), Some(Lift::Unbanned)),
                change(2, one(), None),
            ],
            &[("192.0.2.1/32", HOUR / 2)],
            "1 |  | ",
        );
        for (lift, expected) in [
            (Lift::Expired, " |  | 1"),
            (Lift::Withdrawn, " | 1 | "),
            (Lift::Evicted, " | 1 | "),
        ] {
            check(vec![change(1, one(), Some(lift))], &[], expected);
        }
        let outside = ban(
            "192.0.2.1/32",
            Origin::Outside("crowdsec/CAPI".into()),
            None,
            HOUR,
        );
        check(vec![change(1, outside.clone(), None)], &[], " |  | ");
        check(
            vec![change(1, outside, Some(Lift::Unbanned))],
            &[],
            " |  | ",
        );
        check(vec![change(1, web("192.0.2.1/32", 0), None)], &[], " |  | ");
    }

    #[test]
    fn growth_is_sent_in_steps_and_shortening_at_once() {
        let hour = |extra: Millis| {
            vec![change(
                1,
                ban("192.0.2.1/32", Origin::Jail, Some("web"), HOUR + extra),
                None,
            )]
        };
        let held: &[(&str, Millis)] = &[("192.0.2.1/32", HOUR)];
        check(hour(60_000), held, " |  | ");
        check(hour(90_000), held, "1 |  | ");
        check(hour(HOUR), held, "1 |  | ");
        let half = ban("192.0.2.1/32", Origin::Jail, Some("web"), HOUR / 2);
        check(vec![change(1, half, None)], held, "1 |  | ");
        let grown = [Arc::new(ban(
            "192.0.2.1/32",
            Origin::Jail,
            Some("web"),
            HOUR + 60_000,
        ))];
        let known = Known::from([(
            key(&grown[0]).unwrap(),
            Held {
                until: NOW + HOUR,
                alert: 1,
                decision: None,
                walk: 0,
            },
        )]);
        assert_eq!(missing(&grown, &known, NOW).len(), 1, "the look finds it");
        assert_eq!(surplus(&grown, &known), []);
        assert_eq!(surplus(&[], &known).len(), 1);
    }

    #[test]
    fn no_two_bans_of_an_address_share_a_decision() {
        let name = |origin, jail| {
            key(&ban("192.0.2.1/32", origin, jail, HOUR))
                .unwrap()
                .scenario
        };
        assert_eq!(&*name(Origin::Jail, Some("web")), "jailgate/web");
        assert_eq!(&*name(Origin::Manual, Some("web")), "jailgate/web/manual");
        assert_eq!(&*name(Origin::Manual, None), "jailgate/manual");
    }

    #[test]
    fn alerts_say_what_lapi_requires() {
        let ban = ban("2001:db8::/64", Origin::Jail, Some("web"), 14_400_001);
        let key = key(&ban).unwrap();
        let seen = |at: Millis, status, agent: &str| Evidence {
            at,
            client: "2001:db8::1/128".parse().unwrap(),
            jail: "web".into(),
            method: "POST".into(),
            host: "app.example.com".into(),
            path: "/login".into(),
            agent: agent.into(),
            status,
        };
        let long = "é".repeat(5000);
        let seen = vec![
            seen(NOW - 9000, 404, "old"),
            seen(NOW - 3000, 404, "first"),
            seen(NOW - 2000, 404, "middle"),
            seen(NOW, 401, &long),
            seen(NOW + 1, 401, "later"),
        ];
        let seen = leading_to(&ban, seen);
        let alert = alert(&ban, &key, &seen, "jailgate", |at| at + 60_000);
        let json = serde_json::to_value(&alert).unwrap();
        let decision = serde_json::json!({
            "origin": "jailgate", "type": "ban", "scope": "Range", "value": "2001:db8::/64",
            "duration": "14401s", "scenario": "jailgate/web",
        });
        assert_eq!(json["decisions"], serde_json::json!([decision]));
        assert_eq!(
            json["stop_at"], "2023-11-14T22:14:20.000Z",
            "in LAPI's time"
        );
        assert_eq!(json["start_at"], "2023-11-14T22:14:17.000Z");
        assert_eq!(json["source"]["range"], "2001:db8::/64");
        let events = json["events"].as_array().unwrap();
        assert_eq!(events.len(), 2, "first and last");
        assert!(events[0].to_string().contains("first"));
        assert!(events[1].to_string().len() < 8191);
        for key in [
            "scenario_hash",
            "scenario_version",
            "leakspeed",
            "capacity",
            "simulated",
        ] {
            assert!(!json[key].is_null(), "{key}");
        }
        assert_eq!(super::alert(&ban, &key, &[], "j", |at| at).events.len(), 2);
        let forever = Ban {
            until: FOREVER,
            ..ban
        };
        let alert = super::alert(&forever, &key, &[], "j", |at| at);
        assert_eq!(alert.decisions[0].duration, "315360000s");
    }
}
