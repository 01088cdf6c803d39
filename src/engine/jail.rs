//! One jail in its compiled form.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use super::{nets::NetSet, urls::UrlRules};

/// Index of a jail by name, stable for the life of the process, also over reloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JailId(pub(crate) u16);

/// Everything the engine enforces for one jail. Built by `config`, immutable.
#[derive(Clone, Debug)]
pub struct JailSpec {
    /// Name in the configuration.
    pub name: Arc<str>,
    /// `rules.enabled`: off makes every request exempt.
    pub enabled: bool,
    /// Denied always.
    pub denylist: Arc<NetSet>,
    /// Never denied, never counted here.
    pub allowlist: Arc<NetSet>,
    /// `urlregexps`.
    pub urls: Arc<UrlRules>,
    /// Window length.
    pub findtime: Duration,
    /// Length of a first ban.
    pub bantime: Duration,
    /// The N-th counted event bans; 0 and 1 ban at the first.
    pub maxretry: u32,
    /// Statuses that count; empty counts every request at `check`.
    pub statuses: Vec<RangeInclusive<u16>>,
    /// Count only these methods; empty is all.
    pub match_methods: Vec<http::Method>,
    /// Count only paths this matches (canonical path, without query).
    pub match_path: Option<regex::bytes::Regex>,
    /// Fixed or sliding.
    pub window: WindowKind,
    /// Growth of repeated bans.
    pub increment: Option<Increment>,
    /// Decide, log and count, never deny.
    pub simulate: bool,
    /// Spare trusted proxies, gateways and own addresses.
    pub ignore_self: bool,
    /// IPv6 prefix a client is folded to, 1 to 128.
    pub ipv6_prefix: u8,
}

/// Whether `status` is among those that count ([`JailSpec::statuses`]).
pub fn counts(statuses: &[RangeInclusive<u16>], status: u16) -> bool {
    statuses.iter().any(|range| range.contains(&status))
}

impl JailSpec {
    /// A jail with nothing but a name: no lists, no rules, and the documented defaults.
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            enabled: true,
            denylist: Arc::default(),
            allowlist: Arc::default(),
            urls: Arc::default(),
            findtime: Duration::from_secs(120),
            bantime: Duration::from_secs(300),
            maxretry: 5,
            statuses: Vec::new(),
            match_methods: Vec::new(),
            match_path: None,
            window: WindowKind::Fixed,
            increment: None,
            simulate: false,
            ignore_self: true,
            ipv6_prefix: 64,
        }
    }
}

/// How failures within `findtime` are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    /// Starts at the first counted event (the plugin, Fail2Ban).
    Fixed,
    /// The last `findtime` before each event.
    Sliding,
}

/// `bantimeIncrement`: ban time × factor × 2^min(earlier bans, 20), at most `maxtime`, plus a
/// random part below `rndtime`; bans are remembered for `remember` after they end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Increment {
    /// Multiplier of the grown time.
    pub factor: f64,
    /// Longest ban.
    pub maxtime: Duration,
    /// Upper bound of the random extra.
    pub rndtime: Duration,
    /// How long an ended ban still counts as an earlier one.
    pub remember: Duration,
}
