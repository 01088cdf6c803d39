//! The admin listener: the API, the dashboard, probes and metrics. It talks to operators, never to
//! clients, and takes what other adapters know from the application.

mod api;
mod auth;
mod dashboard;
mod events;
mod names;
mod openapi;
mod problem;
mod serve;
mod timeline;

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use ipnet::IpNet;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{Semaphore, mpsc, oneshot, watch},
};
use tokio_util::sync::CancellationToken;

pub use auth::Keys;
pub use events::places;
pub use timeline::Timeline;

use self::serve::Limits;
use crate::{
    config::{Address, Admin, Config},
    engine::{Ban, Engine},
    tasks::Tasks,
    telemetry::{Metrics, status::Statuses},
    time::{Clock, Millis},
};

/// What the handlers read. Cheap to clone.
#[derive(Clone)]
pub struct Shared {
    /// Bans, counters, evidence.
    pub engine: Arc<Engine>,
    /// The metrics to render.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Clock,
    /// True from the moment every listener is bound until shutdown begins.
    pub ready: Arc<AtomicBool>,
    /// The configuration in force.
    pub config: Arc<ArcSwap<Config>>,
    /// How background jobs are doing.
    pub statuses: Statuses,
    /// What runs.
    pub tasks: Tasks,
    /// Asks for the configuration to be loaded again; what came of it is answered.
    pub reload: mpsc::Sender<oneshot::Sender<Reloaded>>,
    /// The latest load, whoever asked for it.
    pub reloads: watch::Receiver<Reloaded>,
    /// Who a request would be from, and which jails would judge it.
    pub arrive: Arrive,
    /// What is on disk; `None` keeps nothing.
    pub archive: Option<Archive>,
    /// Who may do what.
    pub keys: Arc<auth::Keys>,
    /// Denials and bans by the minute.
    pub timeline: Arc<timeline::Timeline>,
    /// Room for listeners to events.
    pub listeners: Arc<Semaphore>,
    /// Resolves when shutdown begins.
    pub stop: CancellationToken,
}

/// What came of loading the configuration.
#[derive(Clone, Debug, Default)]
pub struct Reloaded {
    /// When, Unix milliseconds.
    pub at: Millis,
    /// What was wrong; empty: it is in force.
    pub problems: Vec<String>,
}

/// A request that somebody asks about, before it is known who it is from.
#[derive(Clone, Debug)]
pub struct Approach {
    /// The address that would connect.
    pub peer: IpAddr,
    /// What it would send.
    pub headers: HeaderMap,
    /// Method.
    pub method: http::Method,
    /// Host; empty: any.
    pub host: String,
    /// Path and query; `None`: no request in particular.
    pub target: Option<String>,
    /// Only this jail.
    pub jail: Option<Arc<str>>,
}

/// Who a jail takes a request to be from.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// The jail.
    pub jail: Arc<str>,
    /// The client.
    pub client: IpAddr,
    /// Which rule found it, in words.
    pub from: String,
}

/// Who a request would be from, in each jail that would judge it.
pub type Arrive = Arc<dyn Fn(&Approach) -> Vec<Arrived> + Send + Sync>;

/// Bans of a client (or of everybody) that ended.
pub type History = Arc<dyn Fn(Option<IpNet>, usize) -> Answer<Vec<Ended>> + Send + Sync>;

/// What is answered from the disk; errors in words.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send>>;

/// What the database can tell and must forget; errors in words.
#[derive(Clone)]
pub struct Archive {
    /// Bans of a client (or of everybody) that ended, newest first, at most so many.
    pub history: History,
    /// Erases a client.
    pub forget: Arc<dyn Fn(IpNet) -> Answer<()> + Send + Sync>,
}

/// A ban that ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// As it stood.
    pub ban: Arc<Ban>,
    /// When it ended, Unix milliseconds.
    pub at: Millis,
    /// How.
    pub lift: &'static str,
}

/// A bound admin listener, not yet serving.
#[derive(Debug)]
pub enum Bound {
    /// On TCP, with the port that was given or found.
    Tcp(TcpListener, SocketAddr),
    /// On a unix socket, mode 0600 by the umask of the process.
    Unix(UnixListener, PathBuf),
}

/// The admin listener could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("admin: cannot listen on {address}: {source}")]
pub struct Error {
    address: String,
    #[source]
    source: io::Error,
}

/// Binds the listener. A unix socket left behind by a dead process is replaced.
pub async fn bind(admin: &Admin) -> Result<Bound, Error> {
    let failed = |address: String| move |source| Error { address, source };
    match &admin.address {
        Address::Tcp(address) => {
            let listener = TcpListener::bind(address)
                .await
                .map_err(failed(address.to_string()))?;
            let address = listener.local_addr().map_err(failed(address.to_string()))?;
            Ok(Bound::Tcp(listener, address))
        }
        Address::Unix(path) => {
            let listener = bind_unix(path).map_err(failed(path.display().to_string()))?;
            Ok(Bound::Unix(listener, path.clone()))
        }
    }
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let stale = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path).is_err();
    if stale {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, owner_only)?;
    Ok(listener)
}

impl Bound {
    /// Where it listens, as a configuration would write it.
    pub fn address(&self) -> Address {
        match self {
            Self::Tcp(_, address) => Address::Tcp(*address),
            Self::Unix(_, path) => Address::Unix(path.clone()),
        }
    }

    /// Serves until shutdown begins.
    pub async fn serve(self, shared: Shared) {
        let (tasks, stop) = (shared.tasks.clone(), shared.stop.clone());
        serve::serve(&self, router(shared), Limits::default(), tasks, stop).await;
        if let Self::Unix(_, path) = self {
            // Gone already is as good.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Shared {
    /// Starts what the API needs around it.
    pub fn follow(&self) {
        let shared = self.clone();
        self.tasks
            .service("timeline", move || timeline::follow(shared.clone()));
        let shared = self.clone();
        self.tasks
            .service("allowed names", move || names::follow(shared.clone()));
    }
}

fn router(shared: Shared) -> Router {
    openapi::described()
        .route("/", get(dashboard::index))
        .route("/metrics", get(metrics))
        .route("/login", post(auth::login))
        .route("/logout", post(auth::logout))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::not_allowed)
        .layer(middleware::from_fn_with_state(shared.clone(), auth::guard))
        .with_state(shared)
}

async fn ready(State(shared): State<Shared>) -> Response {
    if shared.ready.load(Ordering::Acquire) {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], shared.metrics.render()).into_response()
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
