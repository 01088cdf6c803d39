//! What a decision of LAPI's means here: whether it is enforced, is one of our own coming back, or
//! must not be enforced because it would lock out those who are never to be. Says so once.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    Jobs,
    book::Told,
    ours::Ours,
    plan::Key,
    wire::{Decision, duration, network},
};
use crate::{
    config::Fallback,
    engine::{Engine, Exempt},
    telemetry::privacy::logged,
    time::Millis,
};

/// Shorter prefixes hold too much of the internet to be meant.
const WIDEST_V4: u8 = 8;
const WIDEST_V6: u8 = 16;
/// Decisions refused that are named in the log, each once.
const NAMED: usize = 1000;
/// Our own decisions this short before their end are not told from those that just ended.
const ENDING: i64 = 3000;

/// What to do with a decision.
#[derive(Debug)]
pub(super) enum Admitted<'a> {
    Enforce(Told<'a>),
    /// Not now, perhaps never.
    No,
}

/// A decision with our origin, kept until all are read.
#[derive(Debug)]
pub(super) struct Late {
    key: Key,
    origin: Arc<str>,
    id: u64,
    until: Millis,
}

impl Late {
    pub(super) fn told(&self) -> Told<'_> {
        Told {
            id: self.id,
            net: self.key.net,
            origin: &self.origin,
            scenario: &self.key.scenario,
            until: self.until,
        }
    }
}

/// Judges decisions.
#[derive(Debug)]
pub(super) struct Admission {
    fallback: Fallback,
    engine: Arc<Engine>,
    ours: Option<Arc<Ours>>,
    jobs: Jobs,
    late: Vec<Late>,
    named: HashSet<IpNet>,
    /// Scopes and types said to mean nothing here.
    unknown: BTreeSet<String>,
}

impl Admission {
    pub(super) fn new(
        fallback: Fallback,
        engine: Arc<Engine>,
        ours: Option<Arc<Ours>>,
        jobs: Jobs,
    ) -> Self {
        Self {
            fallback,
            engine,
            ours,
            jobs,
            late: Vec::new(),
            named: HashSet::new(),
            unknown: BTreeSet::new(),
        }
    }

    /// Which decision one in LAPI's list of ended ones is.
    pub(super) fn struck<'a>(decision: &'a Decision<'_>) -> Option<Told<'a>> {
        Some(Told {
            id: decision.id,
            net: network(&decision.value)?,
            origin: &decision.origin,
            scenario: &decision.scenario,
            until: 0,
        })
    }

    /// What to do with a decision that LAPI says is in force.
    pub(super) fn judge<'a>(&mut self, decision: &'a Decision<'_>, now: Millis) -> Admitted<'a> {
        let Some((net, left)) = self.readable(decision) else {
            return Admitted::No;
        };
        if !self.harmless(net, decision) {
            return Admitted::No;
        }
        let told = Told {
            id: decision.id,
            net,
            origin: &decision.origin,
            scenario: &decision.scenario,
            until: now.saturating_add_signed(left),
        };
        if let Some(ours) = &self.ours
            && **ours.origin() == *decision.origin
        {
            if left > ENDING {
                self.late.push(Late {
                    key: Key {
                        net,
                        scenario: (*decision.scenario).into(),
                    },
                    origin: ours.origin().clone(),
                    id: told.id,
                    until: told.until,
                });
            }
            return Admitted::No;
        }
        Admitted::Enforce(told)
    }

    /// Decisions with our origin that are none of ours: to be enforced like any other.
    pub(super) fn undecided(&mut self, now: Millis) -> Vec<Late> {
        let mut late = std::mem::take(&mut self.late);
        if let Some(ours) = &self.ours {
            let asked = late.iter().map(|late| late.key.clone()).collect();
            let claimed = ours.claim(&asked, now);
            late.retain(|late| !claimed.contains(&late.key));
        }
        late
    }

    fn readable(&mut self, decision: &Decision<'_>) -> Option<(IpNet, i64)> {
        let scope = decision.scope.to_ascii_lowercase();
        if !matches!(&*scope, "ip" | "range") {
            let why = match &*scope {
                "country" | "as" => "no lookup of countries and networks is configured",
                _ => "requests have no such thing",
            };
            self.pass_over("scope", &decision.scope, why);
            return None;
        }
        let enforced = match (self.fallback, &*decision.kind) {
            (_, "ban") | (Fallback::Ban, _) | (Fallback::Captcha, "captcha") => true,
            (Fallback::Captcha | Fallback::Ignore, _) => false,
        };
        if !enforced {
            self.pass_over("type", &decision.kind, "see `crowdsec.subscribe.fallback`");
            return None;
        }
        let read = network(&decision.value).zip(duration(&decision.duration));
        if read.is_none() {
            let value = &decision.value;
            self.pass_over("value", value, "no address with a duration");
        }
        read.filter(|(_, left)| *left > 0)
    }

    /// A decision must not lock out the operator, the proxies in front or half of the world.
    fn harmless(&mut self, net: IpNet, decision: &Decision<'_>) -> bool {
        let widest = match net {
            IpNet::V4(_) => WIDEST_V4,
            IpNet::V6(_) => WIDEST_V6,
        };
        let why = if net.prefix_len() < widest {
            "it is too wide to be meant"
        } else if self.engine.spares(&net) == Some(Exempt::Itself) {
            "it covers own addresses or trusted proxies"
        } else {
            return true;
        };
        self.jobs.not_enforced.inc();
        if self.named.len() < NAMED && self.named.insert(net) {
            let (origin, scenario) = (&*decision.origin, &*decision.scenario);
            tracing::warn!(
                net = %logged(net),
                origin,
                scenario,
                why,
                "a decision of LAPI's is not enforced"
            );
        }
        false
    }

    fn pass_over(&mut self, what: &'static str, word: &str, why: &'static str) {
        self.jobs.not_enforced.inc();
        let word: String = word.chars().take(100).collect();
        if self.unknown.len() < NAMED && self.unknown.insert(format!("{what} {word}")) {
            tracing::warn!(what, word, why, "decisions like this one are not enforced");
        }
    }
}
