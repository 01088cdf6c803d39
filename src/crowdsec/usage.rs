//! Tells LAPI what its decisions did here, as remediation components do (`POST /v1/usage-metrics`,
//! LAPI 1.6.3). Counting is done elsewhere.

use std::{sync::Arc, time::Duration};

use serde::Serialize;

use super::{book::Book, client::Bouncer};
use crate::{
    telemetry::{Metrics, in_full, metrics::Judged},
    time::Millis,
};

/// What was told last, and when.
#[derive(Debug)]
pub(super) struct Usage {
    metrics: Arc<Metrics>,
    /// The origin of our own bans.
    origin: Arc<str>,
    every: Duration,
    started: Millis,
    last: Millis,
    told: Judged,
    /// LAPI is too old for it.
    unknown: bool,
}

#[derive(Serialize)]
struct Report {
    remediation_components: [Component; 1],
}

#[derive(Serialize)]
struct Component {
    name: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    version: &'static str,
    os: System,
    utc_startup_timestamp: u64,
    last_pull: u64,
    feature_flags: [&'static str; 0],
    metrics: [Window; 1],
}

#[derive(Serialize)]
struct System {
    name: &'static str,
    family: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct Window {
    meta: Times,
    items: Vec<Item>,
}

#[derive(Serialize)]
struct Times {
    window_size_seconds: u64,
    utc_now_timestamp: u64,
}

#[derive(Serialize)]
struct Item {
    name: &'static str,
    value: u64,
    unit: &'static str,
    labels: serde_json::Map<String, serde_json::Value>,
}

impl Usage {
    pub(super) fn new(
        metrics: Arc<Metrics>,
        origin: Arc<str>,
        every: Duration,
        now: Millis,
    ) -> Self {
        Self {
            told: metrics.judged(),
            metrics,
            origin,
            every,
            started: now,
            last: now,
            unknown: false,
        }
    }

    /// Tells, when it is time. Counts go on from what was told successfully.
    pub(super) async fn push(&mut self, bouncer: &Bouncer, book: &Book, now: Millis) {
        let window = now.saturating_sub(self.last);
        if self.unknown || self.every.is_zero() || u128::from(window) < self.every.as_millis() {
            return;
        }
        let judged = self.metrics.judged();
        let report = self.report(&judged, book, window, now);
        match bouncer.post("/v1/usage-metrics", &report).await {
            Ok(response) if response.status().is_success() => {
                (self.told, self.last) = (judged, now);
            }
            Ok(response) if response.status() == http::StatusCode::NOT_FOUND => {
                self.unknown = true;
                tracing::info!("this LAPI takes no usage metrics (it is older than 1.6.3)");
            }
            Ok(response) => {
                tracing::debug!(status = response.status().as_u16(), "usage metrics refused");
            }
            Err(error) => tracing::debug!(error = in_full(&error), "no usage metrics"),
        }
    }

    fn report(&self, judged: &Judged, book: &Book, window: Millis, now: Millis) -> Report {
        let item = |name, value, unit, labels: &[(&str, &str)]| Item {
            name,
            value,
            unit,
            labels: labels
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).into()))
                .collect(),
        };
        let counts = book.counts();
        let ban = ("remediation", "ban");
        let mut items = vec![
            item("processed", judged.all - self.told.all, "request", &[]),
            item(
                "dropped",
                judged.ours - self.told.ours,
                "request",
                &[("origin", &self.origin), ban],
            ),
        ];
        // Which decision refused a request is not counted: it is known when there is one origin.
        let refused = judged.decisions - self.told.decisions;
        items.push(match &*counts {
            [(origin, _)] => item("dropped", refused, "request", &[("origin", origin), ban]),
            _ => item("dropped", refused, "request", &[ban]),
        });
        for (origin, by_version) in &counts {
            for (version, held) in ["ipv4", "ipv6"].into_iter().zip(by_version) {
                let labels = [("origin", &**origin), ("ip_type", version)];
                items.push(item("active_decisions", *held, "ip", &labels));
            }
        }
        Report {
            remediation_components: [Component {
                name: "jailgate",
                kind: "crowdsec-jailgate-bouncer",
                version: concat!("v", env!("CARGO_PKG_VERSION")),
                os: System {
                    name: std::env::consts::OS,
                    family: std::env::consts::FAMILY,
                    version: "",
                },
                utc_startup_timestamp: self.started / 1000,
                last_pull: now / 1000,
                feature_flags: [],
                metrics: [Window {
                    meta: Times {
                        window_size_seconds: window / 1000,
                        utc_now_timestamp: now / 1000,
                    },
                    items,
                }],
            }],
        }
    }
}
