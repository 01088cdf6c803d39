//! What is measured of the Cloudflare list. Its handles are kept by the reconciler.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Handles; clones count the same.
#[derive(Clone, Debug, Default)]
pub struct CloudflareMetrics {
    /// `jailgate_cloudflare_list_items`: items in the list, those of others included.
    pub list_items: Gauge,
    /// `jailgate_cloudflare_lag_seconds`: how long the oldest change waits to reach the list.
    pub lag_seconds: Gauge<f64, AtomicU64>,
    /// `jailgate_cloudflare_errors_total`.
    pub errors: Counter,
    operations: Family<Operation, Counter>,
    left_out: Family<LeftOut, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LeftOut {
    reason: &'static str,
}

/// What a bulk operation was to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Put items in.
    Add,
    /// Take items out.
    Remove,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It took effect.
    Completed,
    /// Cloudflare gave it up.
    Failed,
    /// It had not ended when we stopped looking.
    Pending,
    /// It was not taken, or nobody answered.
    Refused,
}

/// Why a ban is not in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// No room.
    Capacity,
    /// A range wider than lists take.
    Range,
    /// Trusted, our own, or on an allowlist.
    Spared,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Remove => "remove",
        }
    }
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Pending => "pending",
            Self::Refused => "refused",
        }
    }
}

impl Why {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Capacity => "capacity",
            Self::Range => "range",
            Self::Spared => "spared",
        }
    }
}

impl CloudflareMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "cloudflare_list_items",
            "Items in the Cloudflare list",
            self.list_items.clone(),
        );
        r.register(
            "cloudflare_lag_seconds",
            "Age of the oldest change that has not reached the Cloudflare list",
            self.lag_seconds.clone(),
        );
        r.register(
            "cloudflare_operations",
            "Bulk operations on the Cloudflare list",
            self.operations.clone(),
        );
        r.register(
            "cloudflare_errors",
            "Exchanges with Cloudflare that failed",
            self.errors.clone(),
        );
        r.register(
            "cloudflare_left_out",
            "Bans that are not in the Cloudflare list",
            self.left_out.clone(),
        );
    }

    /// Counts one bulk operation.
    pub fn operation(&self, kind: Kind, outcome: Outcome) {
        let (kind, outcome) = (kind.as_str(), outcome.as_str());
        let labels = Operation { kind, outcome };
        self.operations.get_or_create(&labels).inc();
    }

    /// How many bans stay out.
    pub fn left_out(&self, reason: Why, bans: usize) {
        let reason = reason.as_str();
        let gauge = self.left_out.get_or_create(&LeftOut { reason });
        gauge.set(bans as i64);
    }
}
