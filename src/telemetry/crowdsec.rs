//! What is counted of CrowdSec: how far publishing and subscribing are behind, how often they fail,
//! and decisions that were not enforced.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// Seconds as a gauge.
pub type Seconds = Gauge<f64, AtomicU64>;

/// Handles of `jailgate_crowdsec_*`. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct CrowdsecMetrics {
    /// `publish_lag_seconds`: age of the oldest change that LAPI has not got.
    pub publish_lag: Seconds,
    /// `publish_errors_total`.
    pub publish_errors: Counter,
    /// `subscribe_lag_seconds`: since the last pull, once one is overdue.
    pub subscribe_lag: Seconds,
    /// `subscribe_errors_total`.
    pub subscribe_errors: Counter,
    /// `subscribe_not_enforced_total`: decisions passed over, each time they are told.
    pub not_enforced: Counter,
}

impl CrowdsecMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("crowdsec");
        r.register(
            "publish_lag_seconds",
            "Age of the oldest change that LAPI has not got",
            self.publish_lag.clone(),
        );
        r.register(
            "publish_errors",
            "Failed attempts to publish",
            self.publish_errors.clone(),
        );
        r.register(
            "subscribe_lag_seconds",
            "Time since the last pull, once one is overdue",
            self.subscribe_lag.clone(),
        );
        r.register(
            "subscribe_errors",
            "Failed pulls",
            self.subscribe_errors.clone(),
        );
        r.register(
            "subscribe_not_enforced",
            "Decisions that are not enforced here",
            self.not_enforced.clone(),
        );
    }
}
