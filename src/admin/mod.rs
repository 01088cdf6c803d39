//! The admin listener: probes and metrics. It talks to operators, never to clients.
//!
//! Off loopback a bearer token is mandatory (the configuration refuses to load without one);
//! `/healthz` and `/readyz` stay open for probes.

use std::{
    future::{Future, IntoFuture},
    io,
    net::SocketAddr,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, UnixListener};

use crate::{
    config::{Address, Admin, Secret},
    telemetry::Metrics,
};

/// What the handlers read. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The metrics to render.
    pub metrics: Arc<Metrics>,
    /// True from the moment every listener is bound until shutdown begins.
    pub ready: Arc<AtomicBool>,
    /// Bearer token for everything but the probes.
    pub token: Option<Secret>,
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

    /// Serves until `stop` resolves.
    pub async fn serve<S>(self, shared: Shared, stop: S)
    where
        S: Future<Output = ()> + Send + 'static,
    {
        let router = router(shared);
        let result = match self {
            Self::Tcp(listener, _) => {
                axum::serve(listener, router)
                    .with_graceful_shutdown(stop)
                    .into_future()
                    .await
            }
            Self::Unix(listener, path) => {
                let served = axum::serve(listener, router)
                    .with_graceful_shutdown(stop)
                    .into_future()
                    .await;
                // Gone already is as good.
                let _ = std::fs::remove_file(path);
                served
            }
        };
        if let Err(error) = result {
            tracing::error!(%error, "admin listener stopped");
        }
    }
}

fn router(shared: Shared) -> Router {
    let guarded = Router::new()
        .route("/metrics", get(metrics))
        .route_layer(middleware::from_fn_with_state(shared.clone(), authorise));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .merge(guarded)
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

async fn authorise(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let Some(token) = &shared.token else {
        return next.run(request).await;
    };
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    match given {
        Some(given) if bool::from(given.ct_eq(token.expose().as_bytes())) => {
            next.run(request).await
        }
        _ => (
            StatusCode::UNAUTHORIZED,
            [(header::WWW_AUTHENTICATE, "Bearer")],
            "a bearer token is required (admin.tokenFile)\n",
        )
            .into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use tower::ServiceExt;

    fn shared(token: Option<&str>, ready: bool) -> Shared {
        Shared {
            metrics: Arc::new(Metrics::new()),
            ready: Arc::new(AtomicBool::new(ready)),
            token: token.map(Secret::new),
        }
    }

    #[track_caller]
    fn check(token: Option<&str>, ready: bool, path: &str, given: Option<&str>, expected: u16) {
        let mut request = Request::builder().uri(path);
        if let Some(given) = given {
            request = request.header("authorization", given);
        }
        let request = request.body(Body::empty()).unwrap();
        let answer = router(shared(token, ready)).oneshot(request);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        assert_eq!(
            runtime.block_on(answer).unwrap().status(),
            expected,
            "{path}"
        );
    }

    #[test]
    fn probes_are_open_and_everything_else_asks_for_the_token() {
        check(Some("s3cret"), true, "/healthz", None, 200);
        check(Some("s3cret"), true, "/readyz", None, 200);
        check(Some("s3cret"), false, "/readyz", None, 503);
        check(Some("s3cret"), true, "/metrics", None, 401);
        check(Some("s3cret"), true, "/metrics", Some("Bearer s3cre"), 401);
        check(Some("s3cret"), true, "/metrics", Some("s3cret"), 401);
        check(Some("s3cret"), true, "/metrics", Some("Bearer s3cret"), 200);
        check(None, true, "/metrics", None, 200);
        check(None, true, "/nothing", None, 404);
    }
}
