//! From a configuration to a running program: bind, run, reload, drain. Everything is put
//! together here and nowhere else; nothing is decided here.

mod itself;
mod operate;
mod signals;
mod state;
mod supervisor;

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::{runtime::Runtime, sync::watch, time::MissedTickBehavior};

pub use signals::{Signal, Signals, signals};

use crate::{
    access_log::{self, checkpoint::Checkpoints},
    admin::{self, Reloaded},
    cloudflare,
    config::{Address, Config, Problems, reload::Watch},
    crowdsec,
    engine::{self, Engine, nets::NetSet},
    gate, notify, persist, proxy,
    tasks::Tasks,
    telemetry::{self, LogLevel, Metrics, Statuses, journal},
    time::Clock,
};

/// How often what expired is let go and sizes are measured.
const SWEEP: Duration = Duration::from_secs(1);
/// How often own addresses and gateways are looked up again.
const LOOK_AROUND: Duration = Duration::from_secs(60);
/// How long background tasks may take to end once the gate has drained.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long the disk may take for everything that was counted.
const LAST_SAVE: Duration = Duration::from_secs(10);

/// The program could not start, or could not take a new configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be read or used.
    #[error("{0}")]
    Config(#[from] Problems),
    /// A listener of the gate.
    #[error(transparent)]
    Gate(#[from] gate::Error),
    /// A listener's certificate.
    #[error(transparent)]
    Tls(#[from] gate::TlsError),
    /// Upstreams.
    #[error(transparent)]
    Routing(#[from] proxy::BuildError),
    /// The admin listener.
    #[error(transparent)]
    Admin(#[from] admin::Error),
    /// The OTLP listener.
    #[error(transparent)]
    Otlp(#[from] access_log::otlp::Error),
    /// The state on disk is somebody else's.
    #[error(transparent)]
    State(#[from] persist::Error),
    /// CrowdSec's certificate or key.
    #[error(transparent)]
    Crowdsec(#[from] crowdsec::Error),
    /// The operating system refused threads or signals.
    #[error("the operating system refused: {0}")]
    System(#[from] std::io::Error),
}

/// The runtime of everything but the gate: followers, logs, admin, disk.
pub fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("background")
        .enable_all()
        .build()
}

/// A program whose sockets are bound and which does not serve yet.
#[derive(Debug)]
pub struct App {
    config: Config,
    /// What `ignoreself` spares now.
    spared: Vec<IpNet>,
    engine: Arc<Engine>,
    metrics: Arc<Metrics>,
    clock: Clock,
    tasks: Tasks,
    level: Option<LogLevel>,
    routing: Arc<ArcSwap<proxy::Routing>>,
    gate: Option<gate::Opened>,
    site: gate::Site,
    logs: access_log::Sources,
    checkpoints: Checkpoints,
    state: Option<persist::State>,
    statuses: Statuses,
    admin: Option<admin::Bound>,
    admin_address: Address,
    ready: Arc<AtomicBool>,
    notifier: notify::Notifier,
    /// Whether the decisions taken from LAPI are complete as of its last answer.
    lapi: watch::Sender<bool>,
    cloudflare: watch::Sender<cloudflare::Settings>,
    desk: operate::Desk,
}

impl App {
    /// Binds every socket and compiles everything; nothing is served yet. `level` is the handle
    /// by which a reload changes the log level.
    pub async fn build(config: Config, level: Option<LogLevel>) -> Result<Self, Error> {
        let clock = Clock::start();
        let metrics = Arc::new(Metrics::new());
        let seed = RandomState::new().hash_one(clock.now());
        let engine = Arc::new(Engine::new(limits(&config), seed));
        let doors = gate::doors(&config)?;
        truncate(&config);
        let spared = itself::networks(&config);
        enforce(&engine, &config, spared.clone(), clock);
        let statuses = Statuses::new();
        let disk = || statuses.add("disk");
        let (state, checkpoints) = state::open(&config, &engine, &metrics, disk, clock)?;
        let routing = Arc::new(proxy::Routing::build(&config, None)?);
        let (judge, counts) = (engine.clone(), metrics.clone());
        let site = gate::Site::build(&config, doors, judge, counts, routing.clone());
        let gate = gate::bind(&config, gate::cores())?;
        let admin = admin::bind(&config.admin).await?;
        let tasks = Tasks::new();
        tasks.runtime("background");
        metrics.observe(tasks.clone(), statuses.clone());
        let notifier = notify::Notifier::new(notify::Shared {
            engine: engine.clone(),
            metrics: metrics.clone(),
            statuses: statuses.clone(),
            clock,
            tasks: tasks.clone(),
        });
        let shared = access_log::Shared {
            engine: engine.clone(),
            metrics: metrics.clone(),
            clock,
            tasks: tasks.clone(),
        };
        let itself = NetSet::build(spared.iter().copied());
        let logs = access_log::Sources::build(&config, shared, &itself, checkpoints.clone())?;
        let desk = operate::Desk::new(&config, &site, clock.now());
        Ok(Self {
            engine,
            metrics,
            clock,
            tasks,
            level,
            routing: Arc::new(ArcSwap::new(routing)),
            gate: Some(gate),
            site,
            logs,
            checkpoints,
            state,
            statuses,
            admin_address: admin.address(),
            admin: Some(admin),
            ready: Arc::default(),
            notifier,
            lapi: watch::Sender::new(false),
            cloudflare: watch::Sender::new(cloudflare::Settings::of(&config)),
            desk,
            spared,
            config,
        })
    }

    /// The engine, for whoever embeds the program.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The clock everything runs by.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// How each background job is doing.
    pub fn statuses(&self) -> &Statuses {
        &self.statuses
    }

    /// Where each listener of the gate was bound, by the name of its entry point.
    pub fn addresses(&self) -> Vec<(Arc<str>, Address)> {
        self.gate
            .as_ref()
            .map(gate::Opened::addresses)
            .unwrap_or_default()
    }

    /// Where the OTLP receiver was bound, for TCP.
    pub fn otlp_address(&self) -> Option<std::net::SocketAddr> {
        self.logs.otlp_address()
    }

    /// Where the admin listener was bound.
    pub fn admin_address(&self) -> &Address {
        &self.admin_address
    }

    /// Serves until told to stop, then drains.
    pub async fn run(mut self, mut signals: Signals) -> Result<(), Error> {
        self.announce();
        let disk = self.start_state()?;
        let gate = self.start(disk.as_ref().map(state::archive))?;
        let mut watch = Watch::start(&self.tasks, self.config.watched.clone());
        self.ready.store(true, Ordering::Release);
        supervisor::ready(&self.tasks);
        tracing::info!("ready");
        let mut look_around = tokio::time::interval(LOOK_AROUND);
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Stop => break,
                    Signal::Reload => drop(self.reload(&gate, &watch)),
                    Signal::Reopen => self.reopen_log(),
                },
                () = watch.changed() => drop(self.reload(&gate, &watch)),
                answer = self.desk.asked() => {
                    // Whoever asked may have gone.
                    let _ = answer.send(self.reload(&gate, &watch));
                }
                _ = look_around.tick() => self.look_around(),
            }
        }
        self.ready.store(false, Ordering::Release);
        supervisor::stopping();
        tracing::info!("draining");
        self.tasks.stopping().cancel();
        let left = gate.drained().await;
        if left.cut > 0 {
            tracing::warn!(connections = left.cut, "cut after the grace time");
        }
        if !self.tasks.drain(LAST_WORDS).await {
            tracing::warn!("some tasks did not end in time");
        }
        if let Some(disk) = disk
            && !disk.close(LAST_SAVE).await
        {
            tracing::warn!("the state was not written to its end in time");
        }
        tracing::info!("stopped");
        Ok(())
    }

    fn announce(&self) {
        for (name, address) in self.addresses() {
            tracing::info!(name = &*name, %address, "listening");
        }
        if let Some(address) = self.otlp_address() {
            tracing::info!(name = "otlp", %address, "listening");
        }
        tracing::info!(name = "admin", address = %self.admin_address, "listening");
        if self.config.jails.iter().any(|jail| jail.spec.ignore_self) {
            let networks = list(&self.spared);
            tracing::info!(networks, "never counted or banned (ignoreself)");
        }
    }

    fn start_state(&mut self) -> Result<Option<persist::Running>, Error> {
        let instant = state::instant(self.checkpoints.clone());
        let running = self.state.take().map(|state| state.start(instant));
        Ok(running.transpose()?)
    }

    fn start(&mut self, archive: Option<admin::Archive>) -> Result<gate::Gate, Error> {
        let stop = self.tasks.stopping();
        let (engine, metrics, clock) = (self.engine.clone(), self.metrics.clone(), self.clock);
        self.tasks.service("sweep", {
            let (engine, metrics, stop) = (engine.clone(), metrics.clone(), stop.clone());
            move || sweep(engine.clone(), metrics.clone(), clock, stop.clone())
        });
        self.tasks.service("journal", move || {
            journal::follow(engine.clone(), metrics.clone(), stop.clone())
        });
        self.tasks.service("health checks", {
            let (routing, tasks) = (self.routing.clone(), self.tasks.clone());
            move || {
                let routing = routing.clone();
                proxy::watch_health(move || routing.load_full(), clock, tasks.clone())
            }
        });
        self.logs.start();
        self.notifier.adopt(&self.config.notify);
        self.start_cloudflare();
        self.start_crowdsec()?;
        self.start_admin(archive);
        let gate = self.gate.take().expect("an app runs once");
        Ok(gate.run(&self.site, self.clock, &self.tasks)?)
    }

    fn start_cloudflare(&self) {
        let subscribed = self
            .config
            .crowdsec
            .as_ref()
            .and_then(|c| c.subscribe.as_ref());
        let shared = cloudflare::Shared {
            engine: self.engine.clone(),
            metrics: self.metrics.cloudflare.clone(),
            statuses: self.statuses.clone(),
            clock: self.clock,
            tasks: self.tasks.clone(),
            lapi: subscribed.map(|_| self.lapi.subscribe()),
        };
        cloudflare::start(&shared, &self.cloudflare.subscribe());
    }

    fn start_crowdsec(&self) -> Result<(), crowdsec::Error> {
        let shared = crowdsec::Shared {
            engine: self.engine.clone(),
            metrics: self.metrics.clone(),
            statuses: self.statuses.clone(),
            clock: self.clock,
            tasks: self.tasks.clone(),
            complete: self.lapi.clone(),
        };
        let config = self.config.crowdsec.as_ref();
        config.map_or(Ok(()), |config| crowdsec::start(config, &shared))
    }

    /// Puts a changed configuration in force, or keeps the old one and says why.
    fn reload(&mut self, gate: &gate::Gate, watch: &Watch) -> Reloaded {
        let _reloading = supervisor::reloading();
        let Some(file) = self.config.file.clone() else {
            let problem = "there is no configuration file to load again";
            tracing::warn!(problem);
            return Reloaded {
                at: self.clock.now(),
                problems: vec![problem.to_owned()],
            };
        };
        let outcome = Config::load(&file)
            .map_err(Error::from)
            .and_then(|config| self.adopt(config, gate));
        self.metrics
            .reload_successful
            .set(i64::from(outcome.is_ok()));
        let reloaded = self.desk.reloaded(&outcome, self.clock.now());
        match outcome {
            Ok(()) => {
                self.desk.adopt(&self.config, &self.site);
                watch.follow(self.config.watched.clone());
                tracing::info!("configuration reloaded");
            }
            Err(error) => {
                if let Error::Config(problems) = &error {
                    // A file that only the new configuration names may be what is missing.
                    let old = self.config.watched.iter().chain(problems.watched());
                    watch.follow(old.cloned().collect());
                }
                tracing::error!(%error, "configuration not reloaded, the old one stays");
            }
        }
        reloaded
    }

    fn reopen_log(&self) {
        if let Some(log) = &self.site.access_log {
            log.reopen();
        }
    }

    fn look_around(&mut self) {
        let spared = itself::networks(&self.config);
        if spared != self.spared {
            tracing::info!(networks = list(&spared), "own addresses changed");
            enforce(&self.engine, &self.config, spared.clone(), self.clock);
            self.spared = spared;
        }
    }

    fn adopt(&mut self, config: Config, gate: &gate::Gate) -> Result<(), Error> {
        let routing = Arc::new(proxy::Routing::build(&config, Some(&self.routing.load()))?);
        let doors = gate::doors(&config)?;
        for key in Config::needs_restart(&self.config, &config) {
            tracing::warn!(key, "changed, but takes effect at the next start only");
        }
        let spared = itself::networks(&config);
        enforce(&self.engine, &config, spared.clone(), self.clock);
        let (engine, metrics) = (self.engine.clone(), self.metrics.clone());
        let site = gate::Site::build(&config, doors, engine, metrics, routing.clone());
        gate.reload(&site);
        let itself = NetSet::build(spared.iter().copied());
        self.logs.adopt(&config, &itself);
        self.notifier.adopt(&config.notify);
        if let Some(level) = &self.level
            && let Err(error) = level.set(&config.log.level)
        {
            tracing::warn!(%error, "log level unchanged");
        }
        truncate(&config);
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let settings = cloudflare::Settings::of(&config);
        self.cloudflare.send_if_modified(|known| {
            let changed = *known != settings;
            *known = settings;
            changed
        });
        self.routing.store(routing);
        (self.config, self.site, self.spared) = (config, site, spared);
        Ok(())
    }
}

fn limits(config: &Config) -> engine::Limits {
    engine::Limits {
        tracked_clients: config.limits.tracked_clients,
        bans: config.limits.bans,
        aggregate_ipv6: config.limits.aggregate_ipv6,
    }
}

/// What of the log a reload changes besides its level.
fn truncate(config: &Config) {
    let (ipv4, ipv6) = config.log.truncate;
    telemetry::privacy::truncate(ipv4, ipv6);
}

fn enforce(engine: &Engine, config: &Config, spared: Vec<IpNet>, clock: Clock) {
    let jails = config.jails.iter().map(|jail| jail.spec.clone()).collect();
    engine.set_limits(limits(config));
    engine.configure(jails, NetSet::build(spared), clock.now());
}

fn list(nets: &[IpNet]) -> String {
    let nets: Vec<String> = nets.iter().map(ToString::to_string).collect();
    nets.join(" ")
}

async fn sweep(
    engine: Arc<Engine>,
    metrics: Arc<Metrics>,
    clock: Clock,
    stop: tokio_util::sync::CancellationToken,
) {
    let mut every = tokio::time::interval(SWEEP);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        engine.sweep(clock.now());
        metrics.sizes(&engine.stats());
    }
}
