//! Every metric jailgate exposes, under the names of the interface, with handles kept by those
//! who count. A label never holds an address.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64},
};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use super::{
    Statuses,
    cloudflare::CloudflareMetrics,
    observed::{Observed, Process},
    striped::Striped,
};
use crate::{
    engine::{Exempt, Reason, Stats, Verdict},
    tasks::Tasks,
};

/// Labels of `jailgate_requests_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    jail: Arc<str>,
    verdict: &'static str,
    reason: &'static str,
}

/// Labels of what belongs to a jail.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JailLabels {
    jail: Arc<str>,
}

/// Labels of bans. A ban that holds in every jail has the jail `*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BanLabels {
    jail: Arc<str>,
    origin: Arc<str>,
}

/// Labels of `jailgate_notifications_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NotifyLabels {
    target: Arc<str>,
    result: &'static str,
}

/// All metrics and the registry they stand in. One per process, shared by `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    process: Registry,
    observed: Arc<Observed>,
    requests: Family<RequestLabels, Counted>,
    failures: Family<JailLabels, Counted>,
    bans_active: Family<BanLabels, Gauge>,
    bans_total: Family<BanLabels, Counter>,
    /// The same over all labels, not exposed.
    bans_begun: Counter,
    tracked_clients: Gauge,
    evictions: Counter,
    notifications: Family<NotifyLabels, Counter>,
    jails: Mutex<HashMap<Arc<str>, Arc<JailMetrics>>>,
    /// `jailgate_decision_seconds`: one whole decision over all jails of a request.
    pub decision_seconds: Histogram,
    /// `jailgate_upstream_seconds`: from forwarding to the response's head.
    pub upstream_seconds: Histogram,
    /// `jailgate_access_log_lines_total`.
    pub log_lines: Counter,
    /// `jailgate_access_log_unparsed_total`.
    pub log_unparsed: Counter,
    /// `jailgate_access_log_lag_bytes`, over all files.
    pub log_lag_bytes: Gauge,
    /// `jailgate_state_errors_total`: failed attempts to write the state.
    pub state_errors: Counter,
    /// `jailgate_state_lag_seconds`: for how long changes have not been on disk.
    pub state_lag: Gauge<f64, AtomicU64>,
    /// `jailgate_crowdsec_*`.
    pub crowdsec: super::crowdsec::CrowdsecMetrics,
    /// `jailgate_config_last_reload_successful`: 1 or 0.
    pub reload_successful: Gauge,
    /// `jailgate_cloudflare_*`.
    pub cloudflare: CloudflareMetrics,
}

/// What was counted since the process began, over all jails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests judged, once per jail.
    pub requests: u64,
    /// Requests denied.
    pub denied: u64,
    /// Counted events.
    pub failures: u64,
    /// Bans that began.
    pub bans: u64,
}

/// Counts requests: both workers do so all the time.
type Counted = Counter<u64, Striped>;

/// Cached counters of one jail: counting costs one atomic add to a line of the thread's own.
#[derive(Debug)]
pub struct JailMetrics {
    pass: Counted,
    exempt: [Counted; 4],
    simulated: [Counted; 4],
    deny: [Counted; 4],
    /// `jailgate_failures_total`: counted events.
    pub failures: Counted,
}

/// Requests judged, by who refused them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// All of them.
    pub all: u64,
    /// Refused by our own bans, lists and rules.
    pub ours: u64,
    /// Refused by outside decisions.
    pub decisions: u64,
}

const REASONS: [Reason; 4] = [
    Reason::Banned,
    Reason::Denylist,
    Reason::Rule,
    Reason::Decision,
];
const EXEMPTS: [(Exempt, &str); 4] = [
    (Exempt::Disabled, "disabled"),
    (Exempt::Itself, "self"),
    (Exempt::Allowlist, "allowlist"),
    (Exempt::AllowRule, "rule"),
];

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers everything under the prefix `jailgate`.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("jailgate"),
            process: Registry::default(),
            observed: Arc::default(),
            requests: Family::default(),
            failures: Family::default(),
            bans_active: Family::default(),
            bans_total: Family::default(),
            bans_begun: Counter::default(),
            tracked_clients: Gauge::default(),
            evictions: Counter::default(),
            notifications: Family::default(),
            jails: Mutex::default(),
            decision_seconds: Histogram::new(exponential_buckets(250e-9, 2.0, 14)),
            upstream_seconds: Histogram::new(exponential_buckets(250e-6, 2.0, 17)),
            log_lines: Counter::default(),
            log_unparsed: Counter::default(),
            log_lag_bytes: Gauge::default(),
            state_errors: Counter::default(),
            state_lag: Gauge::default(),
            crowdsec: Default::default(),
            reload_successful: Gauge::default(),
            cloudflare: CloudflareMetrics::default(),
        };
        metrics.reload_successful.set(1);
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        self.process.register_collector(Box::new(Process));
        let r = &mut self.registry;
        r.register_collector(Box::new(self.observed.clone()));
        r.register("requests", "Requests judged", self.requests.clone());
        r.register(
            "failures",
            "Counted failures and requests",
            self.failures.clone(),
        );
        r.register("bans_active", "Bans in force", self.bans_active.clone());
        r.register("bans", "Bans begun", self.bans_total.clone());
        r.register(
            "tracked_clients",
            "Clients with an open count",
            self.tracked_clients.clone(),
        );
        r.register(
            "evictions",
            "Counts and bans dropped because a cap was reached",
            self.evictions.clone(),
        );
        r.register(
            "notifications",
            "Messages to the targets of `notify`",
            self.notifications.clone(),
        );
        r.register(
            "decision_seconds",
            "Time to judge one request",
            self.decision_seconds.clone(),
        );
        r.register(
            "upstream_seconds",
            "Time until the upstream's response head",
            self.upstream_seconds.clone(),
        );
        r.register(
            "access_log_lines",
            "Access-log lines read",
            self.log_lines.clone(),
        );
        r.register(
            "access_log_unparsed",
            "Access-log lines that could not be parsed",
            self.log_unparsed.clone(),
        );
        r.register(
            "access_log_lag_bytes",
            "Access-log bytes not read yet",
            self.log_lag_bytes.clone(),
        );
        r.register(
            "state_errors",
            "Failed attempts to write the state to disk",
            self.state_errors.clone(),
        );
        r.register(
            "state_lag_seconds",
            "For how long changes have not been on disk",
            self.state_lag.clone(),
        );
        r.register(
            "config_last_reload_successful",
            "Whether the last reload took effect",
            self.reload_successful.clone(),
        );
        self.cloudflare.register(r);
        self.crowdsec.register(r);
    }

    /// The handles of one jail, made at its first use.
    pub fn jail(&self, name: &Arc<str>) -> Arc<JailMetrics> {
        let mut jails = self.jails.lock();
        if let Some(known) = jails.get(name) {
            return known.clone();
        }
        let request = |verdict, reason| {
            self.requests.get_or_create_owned(&RequestLabels {
                jail: name.clone(),
                verdict,
                reason,
            })
        };
        let made = Arc::new(JailMetrics {
            pass: request("pass", "none"),
            exempt: EXEMPTS.map(|(_, reason)| request("exempt", reason)),
            simulated: REASONS.map(|reason| request("simulated", reason.as_str())),
            deny: REASONS.map(|reason| request("deny", reason.as_str())),
            failures: self
                .failures
                .get_or_create_owned(&JailLabels { jail: name.clone() }),
        });
        jails.insert(name.clone(), made.clone());
        made
    }

    /// Requests judged so far, over all jails.
    pub fn judged(&self) -> Judged {
        let mut judged = Judged::default();
        for jail in self.jails.lock().values() {
            let free = jail
                .exempt
                .iter()
                .chain(&jail.simulated)
                .chain([&jail.pass]);
            judged.all += free.map(Counter::get).sum::<u64>();
            for (reason, denied) in REASONS.into_iter().zip(&jail.deny) {
                judged.all += denied.get();
                match reason {
                    Reason::Decision => judged.decisions += denied.get(),
                    _ => judged.ours += denied.get(),
                }
            }
        }
        judged
    }

    /// Counts a ban that began.
    pub fn ban_begun(&self, jail: &Arc<str>, origin: &Arc<str>) {
        let labels = ban_labels(jail, origin);
        self.bans_total.get_or_create(&labels).inc();
        self.bans_begun.inc();
        self.bans_active.get_or_create(&labels).inc();
    }

    /// Counts a ban that ended.
    pub fn ban_ended(&self, jail: &Arc<str>, origin: &Arc<str>) {
        self.bans_active
            .get_or_create(&ban_labels(jail, origin))
            .dec();
    }

    /// Starts the active bans anew, for a follower that took a snapshot.
    pub fn bans_reset(&self) {
        self.bans_active.clear();
    }

    /// Counts a ban that is in force without having begun now (snapshot, restored).
    pub fn ban_stands(&self, jail: &Arc<str>, origin: &Arc<str>) {
        self.bans_active
            .get_or_create(&ban_labels(jail, origin))
            .inc();
    }

    /// Counts a message to a target of `notify`.
    pub fn notified(&self, target: &Arc<str>, sent: bool) {
        let labels = NotifyLabels {
            target: target.clone(),
            result: if sent { "sent" } else { "failed" },
        };
        self.notifications.get_or_create(&labels).inc();
    }

    /// The sums that charts are drawn from.
    pub fn totals(&self) -> Totals {
        let sum = |counters: &[Counted]| counters.iter().map(Counted::get).sum::<u64>();
        let mut totals = Totals {
            bans: self.bans_begun.get(),
            ..Totals::default()
        };
        for jail in self.jails.lock().values() {
            let denied = sum(&jail.deny);
            totals.denied += denied;
            totals.failures += jail.failures.get();
            totals.requests += jail.pass.get() + denied + sum(&jail.exempt) + sum(&jail.simulated);
        }
        totals
    }

    /// Takes over the engine's sizes; call it about every second.
    pub fn sizes(&self, stats: &Stats) {
        self.tracked_clients.set(stats.tracked_clients as i64);
        let evicted = stats.evicted_clients + stats.evicted_bans;
        self.evictions
            .inc_by(evicted.saturating_sub(self.evictions.get()));
    }

    /// From now on the runtimes known to `tasks` and these jobs are measured too.
    pub fn observe(&self, tasks: Tasks, jobs: Statuses) {
        // A second time changes nothing: there is one set of tasks per process.
        let _ = self.observed.of.set((tasks, jobs));
    }

    /// Everything in the Prometheus text format.
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode_registry(&mut out, &self.registry)
            .and_then(|()| text::encode_registry(&mut out, &self.process))
            .and_then(|()| text::encode_eof(&mut out));
        out
    }
}

impl Totals {
    /// What was counted after `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            denied: self.denied.saturating_sub(earlier.denied),
            failures: self.failures.saturating_sub(earlier.failures),
            bans: self.bans.saturating_sub(earlier.bans),
        }
    }

    /// Puts both together.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.denied += other.denied;
        self.failures += other.failures;
        self.bans += other.bans;
    }
}

impl JailMetrics {
    /// Counts one judged request.
    pub fn judged(&self, verdict: &Verdict) {
        match verdict {
            Verdict::Pass => self.pass.inc(),
            Verdict::Exempt(why) => self.exempt[*why as usize].inc(),
            Verdict::Simulated(denial) => self.simulated[denial.reason as usize].inc(),
            Verdict::Deny(denial) => self.deny[denial.reason as usize].inc(),
        };
    }
}

fn ban_labels(jail: &Arc<str>, origin: &Arc<str>) -> BanLabels {
    BanLabels {
        jail: jail.clone(),
        origin: origin.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Denial, JailId};

    #[test]
    fn counts_appear_under_the_names_of_the_interface() {
        let metrics = Metrics::new();
        let web: Arc<str> = "web".into();
        let jail = metrics.jail(&web);
        for (index, (why, _)) in EXEMPTS.into_iter().enumerate() {
            assert_eq!(why as usize, index);
            jail.judged(&Verdict::Exempt(why));
        }
        for (index, reason) in REASONS.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            jail.judged(&Verdict::Deny(Denial {
                reason,
                jail: JailId(0),
                until: None,
            }));
        }
        jail.judged(&Verdict::Pass);
        metrics.ban_begun(&web, &"jail".into());
        metrics.decision_seconds.observe(300e-9);
        let text = metrics.render();
        for line in [
            r#"jailgate_requests_total{jail="web",verdict="pass",reason="none"} 1"#,
            r#"jailgate_requests_total{jail="web",verdict="exempt",reason="allowlist"} 1"#,
            r#"jailgate_requests_total{jail="web",verdict="deny",reason="decision"} 1"#,
            r#"jailgate_bans_active{jail="web",origin="jail"} 1"#,
            r#"jailgate_bans_total{jail="web",origin="jail"} 1"#,
            r#"jailgate_decision_seconds_count 1"#,
            r#"jailgate_config_last_reload_successful 1"#,
        ] {
            assert!(text.contains(line), "missing {line} in\n{text}");
        }
    }
}
