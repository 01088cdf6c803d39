//! A ban, who imposed it and why: the one value that log, metric, page, API and dashboard read.

use std::{fmt, sync::Arc};

use ipnet::IpNet;

use crate::time::Millis;

/// Why a request is refused, as the one fixed word in `X-Jailgate-Reason` and in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// An active ban of ours.
    Banned,
    /// The jail's denylist.
    Denylist,
    /// A `block` URL rule.
    Rule,
    /// A decision made elsewhere.
    Decision,
}

impl Reason {
    /// `banned`, `denylist`, `rule` or `decision`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Banned => "banned",
            Self::Denylist => "denylist",
            Self::Rule => "rule",
            Self::Decision => "decision",
        }
    }
}

/// What stands in place of a reason where jailgate could not judge, and refused to.
pub const REFUSED: &str = "refused";

/// Who imposed a ban. Nothing is ever sent back to where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// Our own counting or URL rules.
    Jail,
    /// An operator, by command or API.
    Manual,
    /// Somebody else, by name: `crowdsec/CAPI`, `crowdsec/cscli`, a cluster peer.
    Outside(Arc<str>),
}

impl Origin {
    /// How logs, metrics and the API name it.
    pub fn label(&self) -> Arc<str> {
        match self {
            Self::Jail => "jailgate".into(),
            Self::Manual => "manual".into(),
            Self::Outside(name) => name.clone(),
        }
    }
}

/// What led to a ban.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// `maxretry` counted responses or requests within `findtime`.
    Failures,
    /// A `block` rule, by its pattern as configured.
    Rule(Arc<str>),
    /// An operator's words.
    Manual(Arc<str>),
    /// A decision's scenario.
    Decision(Arc<str>),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failures => f.write_str("failures"),
            Self::Rule(pattern) => write!(f, "rule {pattern}"),
            Self::Manual(text) if text.is_empty() => f.write_str("by hand"),
            Self::Manual(text) => f.write_str(text),
            Self::Decision(scenario) => f.write_str(scenario),
        }
    }
}

/// One active ban. A client and a jail (or every jail) and an origin have at most one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// One address, a folded IPv6 prefix, or a range.
    pub client: IpNet,
    /// The jail it holds in; `None` holds in every jail.
    pub jail: Option<Arc<str>>,
    /// Who imposed it.
    pub origin: Origin,
    /// What led to it.
    pub cause: Cause,
    /// Counted events; 0 for bans by hand and outside decisions.
    pub count: u32,
    /// Status of the first counted event; 0 when there was none.
    pub first_status: u16,
    /// Status of the last counted event; 0 when there was none.
    pub last_status: u16,
    /// Path of the last counted event, without its query, at most 256 bytes, lossy UTF-8.
    pub path: Box<str>,
    /// When it began, Unix milliseconds.
    pub since: Millis,
    /// When it ends, Unix milliseconds; `FOREVER` never.
    pub until: Millis,
}

/// The end of a ban that does not end.
pub const FOREVER: Millis = Millis::MAX;
