//! The gate's workers: one thread per core, pinned, each with its own runtime, listeners,
//! connections and upstream pools. They share the engine and the configuration, nothing else.

use std::{
    future::poll_fn,
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Cache};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    connection::{Front, Stack},
    limits::Crowd,
    link::Ticker,
    site::{FORWARD_AUTH, Site},
    socket::{Bound, Listener, Socketed},
    stack::{asked, stack},
};
use crate::{
    config::{Address, Config},
    proxy::Proxy,
    tasks::Tasks,
    time::Clock,
};

/// The gate cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address is taken, forbidden or not ours.
    #[error("cannot listen on {address} (entry point `{name}`)")]
    Bind {
        /// The entry point.
        name: Arc<str>,
        /// Its address.
        address: String,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// A worker could not be started.
    #[error("cannot start a worker")]
    Start(#[source] io::Error),
}

/// Sockets are bound, nobody accepts yet.
#[derive(Debug)]
pub struct Opened {
    doors: Vec<(Arc<str>, Bound)>,
    workers: usize,
}

/// The running gate.
#[derive(Debug)]
pub struct Gate {
    workers: Vec<Arc<Swapped>>,
    ended: Vec<oneshot::Receiver<Left>>,
}

type Swapped = ArcSwap<Site>;

/// What a worker's configuration is read by, with the one it was last.
pub type Sites = Cache<Arc<Swapped>, Arc<Site>>;

/// What a worker had to leave at the end of the grace time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Connections that were closed in the middle of a request.
    pub cut: usize,
}

/// One worker: everything its connections share.
#[derive(Debug)]
pub struct Worker {
    /// Reads the time.
    pub clock: Clock,
    /// The way to the services, with this worker's pools.
    pub proxy: Proxy,
    /// Coarse time and the open connections.
    pub ticker: Arc<Ticker>,
    /// Spawns.
    pub tasks: Tasks,
    /// The configuration in force.
    site: Arc<Swapped>,
    /// Requests begun.
    begun: AtomicU32,
}

/// One request of a worker in so many is timed, and its first.
const TIMED: u32 = 16;

impl Worker {
    /// Counts a request, and answers whether to time it: reading the clock and moving a shared
    /// histogram for each would cost more than the decision.
    pub fn times_the_next(&self) -> bool {
        // The worker's own thread alone counts: no lock.
        let before = self.begun.load(Relaxed);
        self.begun.store(before.wrapping_add(1), Relaxed);
        before.is_multiple_of(TIMED)
    }

    /// The configuration in force.
    pub fn site(&self) -> Arc<Site> {
        self.site.load_full()
    }

    /// The same for who asks often.
    pub fn sites(&self) -> Sites {
        Cache::new(self.site.clone())
    }
}

/// Binds every entry point, and the forwardAuth listener, for as many workers. Port 0 is allowed.
pub fn bind(config: &Config, workers: usize) -> Result<Opened, Error> {
    let bind = |(name, address): (Arc<str>, &Address)| {
        let bound = Bound::bind(address, workers).map_err(|source| Error::Bind {
            name: name.clone(),
            address: match address {
                Address::Tcp(address) => address.to_string(),
                Address::Unix(path) => format!("unix:{}", path.display()),
            },
            source,
        })?;
        Ok((name, bound))
    };
    let entries = config
        .entry_points
        .iter()
        .map(|entry| (entry.name.clone(), &entry.address));
    let auth = config
        .forward_auth
        .iter()
        .map(|auth| (FORWARD_AUTH.into(), &auth.address));
    Ok(Opened {
        doors: entries
            .chain(auth)
            .map(bind)
            .collect::<Result<_, Error>>()?,
        workers,
    })
}

/// As many workers as this process may use cores.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Opened {
    /// Name and address of every entry point, the chosen port in place of 0.
    pub fn addresses(&self) -> Vec<(Arc<str>, Address)> {
        self.doors
            .iter()
            .map(|(name, bound)| (name.clone(), bound.address()))
            .collect()
    }

    /// Starts the workers. They drain when `tasks` stop, for at most the longest `grace`.
    pub fn run(self, site: &Site, clock: Clock, tasks: &Tasks) -> Result<Gate, Error> {
        let mut shares: Vec<Vec<(Socketed, Arc<Crowd>)>> = Vec::new();
        shares.resize_with(self.workers, Vec::new);
        for (_, bound) in self.doors {
            let crowd = Arc::new(Crowd::default());
            let sockets = bound.share(self.workers).map_err(Error::Start)?;
            for (share, socket) in shares.iter_mut().zip(sockets) {
                share.push((socket, crowd.clone()));
            }
        }
        let cores = allowed_cores();
        let mut gate = Gate {
            workers: Vec::new(),
            ended: Vec::new(),
        };
        for (index, share) in shares.into_iter().enumerate() {
            let (done, ended) = oneshot::channel();
            let sites = Arc::new(ArcSwap::from_pointee(site.clone()));
            gate.workers.push(sites.clone());
            gate.ended.push(ended);
            let core = cores.get(index % cores.len().max(1)).copied();
            let tasks = tasks.clone();
            Tasks::thread(format!("gate-{index}"), move || {
                if let Some(core) = core {
                    pin(core);
                }
                let left = work(share, sites, clock, tasks);
                let _ = done.send(left);
            })
            .map_err(Error::Start)?;
        }
        Ok(gate)
    }
}

impl Gate {
    /// Puts another configuration in force. Requests under way end under the old one; sockets and
    /// connections stay.
    pub fn reload(&self, site: &Site) {
        for worker in &self.workers {
            let doors = worker.load().doors.clone();
            worker.store(Arc::new(site.clone().behind(&doors)));
        }
    }

    /// Waits until every worker has drained; `tasks` must have been told to stop.
    pub async fn drained(self) -> Left {
        let mut total = Left::default();
        for ended in self.ended {
            total.cut += ended.await.unwrap_or_default().cut;
        }
        total
    }
}

/// A worker's life, on its own thread.
fn work(
    share: Vec<(Socketed, Arc<Crowd>)>,
    site: Arc<Swapped>,
    clock: Clock,
    tasks: Tasks,
) -> Left {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "a worker has no runtime");
            return Left::default();
        }
    };
    runtime.block_on(async move {
        tasks.runtime(std::thread::current().name().unwrap_or("gate"));
        let worker = Arc::new(Worker {
            clock,
            proxy: Proxy::new(clock, tasks.clone()),
            ticker: Arc::default(),
            tasks: tasks.clone(),
            site,
            begun: AtomicU32::default(),
        });
        worker.ticker.tick(clock.now());
        let stop = tasks.stopping();
        for (door, (socket, crowd)) in share.into_iter().enumerate() {
            match socket.listen() {
                Ok(listener) => open(&worker, door, listener, crowd),
                Err(error) => tracing::error!(%error, "a worker cannot listen"),
            }
        }
        tick(&worker, &stop).await;
        drain(&worker).await
    })
}

/// Starts to accept at one door.
fn open(worker: &Arc<Worker>, door: usize, listener: Listener, crowd: Arc<Crowd>) {
    let stop = worker.tasks.stopping();
    let name = worker.site().doors[door].name.clone();
    if &*name == FORWARD_AUTH {
        let front = Front::new(worker.clone(), door, asked(worker));
        worker.tasks.spawn(accept(front, listener, crowd, stop));
    } else {
        let front = Front::new(worker.clone(), door, stack(worker));
        worker.tasks.spawn(accept(front, listener, crowd, stop));
    }
}

/// Moves the coarse clock until the end begins.
async fn tick(worker: &Worker, stop: &CancellationToken) {
    let mut period = resolution(&worker.site());
    let mut ticks = tokio::time::interval(period);
    loop {
        tokio::select! {
            _ = ticks.tick() => worker.ticker.tick(worker.clock.now()),
            () = stop.cancelled() => return,
        }
        let wanted = resolution(&worker.site());
        if wanted != period {
            period = wanted;
            ticks = tokio::time::interval(period);
            ticks.reset();
        }
    }
}

/// Fine enough for the shortest timeout, and no finer: every tick looks at every connection.
fn resolution(site: &Site) -> Duration {
    site.doors
        .iter()
        .flat_map(|door| [door.timeouts.header, door.timeouts.body, door.timeouts.idle])
        .filter(|timeout| !timeout.is_zero())
        .map(|timeout| timeout / 8)
        .min()
        .unwrap_or(Duration::from_secs(1))
        .clamp(Duration::from_millis(20), Duration::from_secs(1))
}

/// Lets open requests finish for the grace time and cuts the rest.
async fn drain(worker: &Worker) -> Left {
    let grace = worker
        .site()
        .doors
        .iter()
        .map(|door| door.timeouts.grace)
        .max();
    worker.ticker.each(super::link::Link::drain);
    let gone = async {
        while worker.ticker.open() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            worker.ticker.each(super::link::Link::drain);
        }
    };
    let _ = tokio::time::timeout(grace.unwrap_or_default(), gone).await;
    let cut = AtomicUsize::new(0);
    worker.ticker.each(|link| {
        link.end();
        cut.fetch_add(1, Relaxed);
    });
    // The ended connections are woken; let them close before the runtime goes.
    tokio::task::yield_now().await;
    Left {
        cut: cut.into_inner(),
    }
}

/// Takes connections until the end begins.
async fn accept<S: Stack>(
    mut front: Front<S>,
    listener: Listener,
    crowd: Arc<Crowd>,
    stop: CancellationToken,
) {
    let tasks = front.worker.tasks.clone();
    // One for all: each would take its place among those who wait for the end anew.
    let mut stopped = std::pin::pin!(stop.cancelled());
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = poll_fn(|cx| listener.poll_accept(cx)) => accepted,
            () = &mut stopped => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                failing = false;
                let site = front.site();
                let Some(place) = crowd.enter(&site.doors[front.door].limits) else {
                    continue;
                };
                // In a box, or the runtime would copy all of it several times.
                let served = Box::pin(front.clone().connect(site, stream, peer, place));
                tasks.spawn(served);
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "cannot accept connections");
                }
                // Out of descriptors or memory: closing connections must come first.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// The cores this process may run on.
fn allowed_cores() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else {
        return Vec::new();
    };
    (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|core| set.is_set(*core))
        .collect()
}

/// A worker that stays on its core keeps its cache; p99 halves (facts in ARCHITECTURE.md).
fn pin(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        tracing::debug!(%error, core, "a worker is not pinned");
    }
}
