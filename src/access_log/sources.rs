//! Every source of statuses that a configuration names, put together and swapped on reload.

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{
    checkpoint::Checkpoints,
    follow::{Follow, follow},
    format::Format,
    intake::{Intake, OwnAddresses},
    otlp::{self, Listener, Receiver},
};
use crate::{
    config::{Address, Config, Jail},
    engine::{Engine, nets::NetSet},
    tasks::Tasks,
    telemetry::Metrics,
    time::Clock,
};

/// What all sources share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Counts and bans.
    pub engine: Arc<Engine>,
    /// Lines, unparsed lines, lag, failures.
    pub metrics: Arc<Metrics>,
    /// The clock.
    pub clock: Clock,
    /// Runs them.
    pub tasks: Tasks,
}

/// The sources of one process.
#[derive(Debug)]
pub struct Sources {
    shared: Shared,
    checkpoints: Checkpoints,
    logs: watch::Sender<Vec<Follow>>,
    otlp: Option<(Option<Listener>, Arc<ArcSwap<Receiver>>)>,
}

impl Sources {
    /// Binds the OTLP listener, if there is one. Nothing is read or served yet. `itself` is what
    /// `ignoreself` spares, `checkpoints` say where logs were left.
    pub fn build(
        config: &Config,
        shared: Shared,
        itself: &NetSet,
        checkpoints: Checkpoints,
    ) -> Result<Self, otlp::Error> {
        let mut this = Self {
            logs: watch::Sender::new(Vec::new()),
            otlp: None,
            checkpoints,
            shared,
        };
        if let Some(wanted) = &config.otlp {
            let listener = Listener::bind(&wanted.address)?;
            let receiver = this.receiver(config, wanted, itself);
            this.otlp = Some((Some(listener), Arc::new(ArcSwap::from_pointee(receiver))));
        }
        this.logs.send_replace(this.follows(config, itself));
        Ok(this)
    }

    /// Where the OTLP listener was bound, for TCP.
    pub fn otlp_address(&self) -> Option<std::net::SocketAddr> {
        self.otlp.as_ref()?.0.as_ref()?.local_addr()
    }

    /// Starts to follow and to serve, once.
    pub fn start(&mut self) {
        let Shared { tasks, .. } = &self.shared;
        let stop = tasks.stopping();
        let logs = self.logs.subscribe();
        tasks.service("access logs", {
            let stop = stop.clone();
            move || follow_all(logs.clone(), stop.clone())
        });
        if let Some((listener, receiver)) = &mut self.otlp
            && let Some(listener) = listener.take()
        {
            tasks.spawn(otlp::serve(listener, receiver.clone(), tasks.clone(), stop));
        }
    }

    /// Goes over to another configuration; no line is lost or read twice. The OTLP address itself
    /// changes at the next start only.
    pub fn adopt(&self, config: &Config, itself: &NetSet) {
        self.logs.send_replace(self.follows(config, itself));
        if let (Some((_, receiver)), Some(wanted)) = (&self.otlp, &config.otlp) {
            receiver.store(Arc::new(self.receiver(config, wanted, itself)));
        }
    }

    fn follows(&self, config: &Config, itself: &NetSet) -> Vec<Follow> {
        let mut follows: Vec<Follow> = Vec::new();
        for log in &config.access_logs {
            let path = &log.path;
            if follows.iter().any(|other| other.path == *path) {
                warn!(path = %path.display(), "named twice in accessLogs, the first one holds");
                continue;
            }
            let format = match Format::compile(&log.format) {
                Ok(format) => format,
                Err(error) => {
                    error!(path = %path.display(), %error, "not followed");
                    continue;
                }
            };
            let name = path.display().to_string();
            follows.push(Follow {
                intake: Arc::new(self.intake(&name, config, &log.jails, &log.trusted, itself)),
                path: path.clone(),
                format,
                checkpoints: self.checkpoints.clone(),
                clock: self.shared.clock,
                stop: CancellationToken::new(),
            });
        }
        follows
    }

    fn receiver(&self, config: &Config, wanted: &crate::config::Otlp, itself: &NetSet) -> Receiver {
        Receiver {
            intake: Arc::new(self.intake("otlp", config, &wanted.jails, &wanted.trusted, itself)),
            token: wanted.token.clone(),
            clock: self.shared.clock,
        }
    }

    fn intake(
        &self,
        name: &str,
        config: &Config,
        jails: &[Arc<str>],
        trusted: &Arc<NetSet>,
        itself: &NetSet,
    ) -> Intake {
        let by_name = |name: &Arc<str>| config.jails.iter().find(|jail| jail.spec.name == *name);
        let jails: Vec<&Jail> = jails.iter().filter_map(by_name).collect();
        let Shared {
            engine, metrics, ..
        } = self.shared.clone();
        let own = OwnAddresses {
            ports: ports(config),
            itself: Arc::new(itself.clone()),
        };
        Intake::new(name, engine, metrics, &jails, trusted.clone(), own)
    }
}

/// Follows what is wanted until told to stop, and starts over when something else is wanted.
async fn follow_all(mut wanted: watch::Receiver<Vec<Follow>>, stop: CancellationToken) {
    loop {
        let round = stop.child_token();
        let logs = wanted.borrow_and_update().clone();
        let following = join_all(logs.into_iter().map(|log| {
            follow(Follow {
                stop: round.clone(),
                ..log
            })
        }));
        let changed = async {
            let gone = tokio::select! {
                changed = wanted.changed() => changed.is_err(),
                () = stop.cancelled() => true,
            };
            round.cancel();
            gone
        };
        // Both ends: only then has the last of the old ones noted where it stopped.
        if let (_, true) = tokio::join!(following, changed) {
            return;
        }
    }
}

fn ports(config: &Config) -> Vec<u16> {
    let port = |address: &Address| match address {
        Address::Tcp(socket) => Some(socket.port()),
        Address::Unix(_) => None,
    };
    config
        .entry_points
        .iter()
        .filter_map(|entry| port(&entry.address))
        .collect()
}
