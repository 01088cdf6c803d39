//! Keeps one Cloudflare account list equal to the bans in force, so that a rule at the edge can
//! block before a request comes near. A follower of the ledger (`reconcile`), a pure comparison
//! (`plan`), and the list's API (`client`). It never decides who is banned.

mod allowance;
mod client;
mod error;
mod gauges;
mod held;
mod list;
mod plan;
mod reconcile;
mod wire;

use std::sync::Arc;

use tokio::sync::watch;

pub use client::{Access, Client};
pub use error::Error;
pub use gauges::Gauges;
pub use list::{Done, List, Policy};
pub use plan::{Wanted, Weight, read as spelled};

use crate::{
    config::{self, Config},
    engine::Engine,
    tasks::Tasks,
    telemetry::{Statuses, cloudflare::CloudflareMetrics},
    time::Clock,
};

/// What the reconciler is called among jobs and among followers of the ledger.
const NAME: &str = "cloudflare";

/// The parts of the configuration it follows, also over a reload.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// The list; `None`: nothing to do.
    pub cloudflare: Option<config::Cloudflare>,
    /// Where its gauges are pushed.
    pub pushgateway: Option<String>,
}

impl Settings {
    /// Its part of a configuration.
    pub fn of(config: &Config) -> Self {
        Self {
            cloudflare: config.cloudflare.clone(),
            pushgateway: config.pushgateway.clone(),
        }
    }
}

/// What it shares with the rest of the program.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Whose ledger is followed, and who says who is spared.
    pub engine: Arc<Engine>,
    /// Counted here.
    pub metrics: CloudflareMetrics,
    /// Reported here.
    pub statuses: Statuses,
    /// Time.
    pub clock: Clock,
    /// For the pushes of gauges.
    pub tasks: Tasks,
    /// True while the decisions in the engine are complete as of LAPI's last answer; `None` when
    /// nothing is taken from LAPI.
    pub lapi: Option<watch::Receiver<bool>>,
}

/// Starts the reconciler. It takes changed settings while it runs.
pub fn start(shared: &Shared, settings: &watch::Receiver<Settings>) {
    let (shared, settings) = (shared.clone(), settings.clone());
    let tasks = shared.tasks.clone();
    tasks.service(NAME, move || follow(shared.clone(), settings.clone()));
}

async fn follow(shared: Shared, mut settings: watch::Receiver<Settings>) {
    let stop = shared.tasks.stopping();
    loop {
        let now = settings.borrow_and_update().clone();
        tokio::select! {
            () = stop.cancelled() => return,
            changed = settings.changed() => if changed.is_err() { return },
            () = reconcile::run(shared.clone(), now) => {}
        }
    }
}
