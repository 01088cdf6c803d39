//! The configuration in force, and loading it again.

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::{Problem, Refusal, Shared, status::Reload};

/// What is in force. Secrets are never shown.
#[derive(Debug, Serialize, ToSchema)]
pub struct InForce {
    /// The file it came from; null for `jailgate proxy`.
    file: Option<String>,
    /// What `jailgate check` prints of it.
    text: String,
}

/// The configuration in force, without secrets.
#[utoipa::path(get, path = "/config", tag = "config",
    responses((status = 200, body = InForce), (status = "4XX", response = Refusal)))]
pub async fn config(State(shared): State<Shared>) -> Json<InForce> {
    let config = shared.config.load();
    Json(InForce {
        file: config.file.as_ref().map(|file| file.display().to_string()),
        text: config.summary(),
    })
}

/// Loads the configuration again. A bad one is refused with every problem, and the old one stays.
#[utoipa::path(post, path = "/reload", tag = "config",
    responses((status = 200, body = Reload), (status = "4XX", response = Refusal)))]
pub async fn reload(State(shared): State<Shared>) -> Result<Json<Reload>, Problem> {
    let stopping = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "jailgate is stopping");
    let (answer, answered) = oneshot::channel();
    let asked = shared.reload.send(answer).await;
    asked.map_err(|_| stopping())?;
    let reloaded = answered.await.map_err(|_| stopping())?;
    if reloaded.problems.is_empty() {
        return Ok(Json(Reload::from(&reloaded)));
    }
    Err(Problem {
        problems: reloaded.problems,
        ..Problem::invalid("configuration not reloaded, the old one stays")
    })
}
