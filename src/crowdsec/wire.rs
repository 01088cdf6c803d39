//! What LAPI's JSON says: alerts out, decisions in, addresses, Go durations. Shapes follow the
//! server's source where its swagger differs. Nothing here talks to anybody.

use std::{borrow::Cow, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{engine::client::canonical, time::Millis};

/// One alert as `POST /v1/alerts` takes it. Everything LAPI requires is there; what has no meaning
/// here is empty. An empty hash marks the scenario as nobody's but ours, so that it is not shared.
#[derive(Debug, Serialize)]
pub(super) struct Alert {
    pub(super) scenario: String,
    pub(super) scenario_hash: &'static str,
    pub(super) scenario_version: &'static str,
    pub(super) message: String,
    pub(super) events_count: i32,
    pub(super) start_at: String,
    pub(super) stop_at: String,
    pub(super) capacity: i32,
    pub(super) leakspeed: &'static str,
    pub(super) simulated: bool,
    pub(super) remediation: bool,
    pub(super) events: Vec<Event>,
    pub(super) source: Source,
    pub(super) decisions: Vec<Sent>,
}

/// Whom an alert is about.
#[derive(Debug, Default, Serialize)]
pub(super) struct Source {
    pub(super) scope: String,
    pub(super) value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) range: Option<String>,
}

/// One counted request.
#[derive(Debug, Serialize)]
pub(super) struct Event {
    pub(super) timestamp: String,
    pub(super) meta: Vec<Meta>,
}

/// A name and its value, of an event.
#[derive(Debug, Serialize)]
pub(super) struct Meta {
    pub(super) key: &'static str,
    pub(super) value: String,
}

/// A decision as it is sent. It ends at the alert's `stop_at` plus `duration`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sent {
    pub(super) origin: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) scope: &'static str,
    pub(super) value: String,
    pub(super) duration: String,
    pub(super) scenario: String,
}

/// A decision as LAPI tells it, in a stream or inside an alert.
#[derive(Debug, Deserialize)]
pub(super) struct Decision<'a> {
    #[serde(default)]
    pub(super) id: u64,
    #[serde(borrow, default)]
    pub(super) origin: Cow<'a, str>,
    #[serde(borrow, default, rename = "type")]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) scope: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) value: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) duration: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) scenario: Cow<'a, str>,
}

/// What is read of an alert that LAPI holds.
#[derive(Debug, Deserialize)]
pub(super) struct Held<'a> {
    #[serde(default)]
    pub(super) id: u64,
    #[serde(borrow, default)]
    pub(super) created_at: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) decisions: Option<Vec<Decision<'a>>>,
}

/// `POST /v1/watchers/login` and `POST /v1/watchers`.
#[derive(Debug, Serialize)]
pub(super) struct Login<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) machine_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) password: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) registration_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scenarios: Option<[&'static str; 0]>,
}

/// The answer to a login.
#[derive(Debug, Deserialize)]
pub(super) struct Token {
    pub(super) token: String,
}

/// What LAPI says when it refuses.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Refusal {
    #[serde(default)]
    pub(super) message: String,
}

/// The answer to `POST /v1/allowlists/check`: only what is listed.
#[derive(Debug, Deserialize)]
pub(super) struct Allowlisted {
    #[serde(default)]
    pub(super) results: Option<Vec<Target>>,
}

/// One address or network that an allowlist holds.
#[derive(Debug, Deserialize)]
pub(super) struct Target {
    pub(super) target: String,
    #[serde(default)]
    pub(super) allowlists: Vec<String>,
}

/// Scope and value as LAPI wants them: `Ip` and a bare address, or `Range` and a network.
pub(super) fn place(net: &IpNet) -> (&'static str, String) {
    match net.prefix_len() == net.max_prefix_len() {
        true => ("Ip", net.addr().to_string()),
        false => ("Range", net.trunc().to_string()),
    }
}

/// An address or a network, whichever the scope is called; host bits masked, v4-mapped as v4.
pub(super) fn network(value: &str) -> Option<IpNet> {
    let value = value.trim();
    if let Ok(addr) = value.parse::<IpAddr>() {
        return Some(IpNet::from(canonical(addr)));
    }
    let net: IpNet = value.parse().ok()?;
    match (net, canonical(net.addr())) {
        (IpNet::V6(v6), addr @ IpAddr::V4(_)) => {
            let length = v6.prefix_len().checked_sub(96)?;
            IpNet::new(addr, length).ok().map(|net| net.trunc())
        }
        _ => Some(net.trunc()),
    }
}

/// A Go duration (`3h59m59.264s`, `-830.2ms`, `1h30m`) in milliseconds; also days, as newer servers
/// have them.
pub(super) fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0.0;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let number: f64 = number.parse().ok()?;
        let letters = after.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, next) = after.split_at(letters.unwrap_or(after.len()));
        total += number
            * match unit {
                "ns" => 1e-6,
                "us" | "µs" | "μs" => 1e-3,
                "ms" => 1.0,
                "s" => 1e3,
                "m" => 6e4,
                "h" => 3.6e6,
                "d" => 8.64e7,
                _ => return None,
            };
        rest = next;
        if rest.is_empty() {
            return Some((sign * total) as i64);
        }
    }
}

/// RFC 3339 with milliseconds, UTC.
pub(super) fn timestamp(at: Millis) -> String {
    i64::try_from(at)
        .ok()
        .and_then(|at| jiff::Timestamp::from_millisecond(at).ok())
        .map_or_else(|| "1970-01-01T00:00:00Z".into(), |at| format!("{at:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_writes_them() {
        #[track_caller]
        fn check(text: &str, expected: impl Into<Option<i64>>) {
            assert_eq!(duration(text), expected.into(), "{text:?}");
        }
        check("3h59m49.264032632s", 14_389_264);
        check("-830.23113ms", -830);
        check("1.67247603s", 1672);
        check("4h", 14_400_000);
        check("1h30m", 5_400_000);
        check("87600h0m0s", 315_360_000_000);
        check("7d", 604_800_000);
        check("250µs", 0);
        check("0s", 0);
        check("0", 0);
        for bad in ["", "4", "h", "4x", "1h 3m", "-", "1..2s"] {
            check(bad, None);
        }
    }

    #[test]
    fn values_read_as_networks_whatever_their_scope() {
        #[track_caller]
        fn check(value: &str, expected: Option<&str>) {
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(network(value), expected, "{value:?}");
        }
        check("192.0.2.1", Some("192.0.2.1/32"));
        check("192.0.2.1/32", Some("192.0.2.1/32"));
        check("198.18.5.7/16", Some("198.18.0.0/16"));
        check("2001:db8::1", Some("2001:db8::1/128"));
        check("2001:db8::1/64", Some("2001:db8::/64"));
        check("::ffff:192.0.2.1", Some("192.0.2.1/32"));
        check("::ffff:192.0.2.1/120", Some("192.0.2.0/24"));
        check("0.0.0.0/0", Some("0.0.0.0/0"));
        check("bob", None);
        check("", None);
    }

    #[test]
    fn places_are_written_as_lapi_finds_them() {
        let written = |net: &str| place(&net.parse().unwrap());
        assert_eq!(written("192.0.2.1/32"), ("Ip", "192.0.2.1".into()));
        assert_eq!(written("2001:db8::/64"), ("Range", "2001:db8::/64".into()));
        assert_eq!(written("2001:db8::1/128"), ("Ip", "2001:db8::1".into()));
        assert_eq!(timestamp(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
    }
}
