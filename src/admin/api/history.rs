//! Bans that ended, as far as the database keeps them.

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Ban, Problem, Refusal, Shared, network, time};
use crate::admin::problem::Asked;

/// Which bans.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Only of this address or network.
    client: Option<String>,
    /// At most so many, 1 to 1000; 100 unless said.
    limit: Option<usize>,
}

/// Bans that ended, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct History {
    /// False: there is no database, nothing is kept.
    kept: bool,
    /// The bans.
    bans: Vec<Ended>,
}

/// A ban that ended.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ended {
    /// As it stood.
    #[serde(flatten)]
    ban: Ban,
    /// When it ended, RFC 3339.
    ended: String,
    /// `expired`, `unbanned`, `withdrawn` or `evicted`.
    lift: String,
}

/// Bans that ended, newest first.
#[utoipa::path(get, path = "/history", tag = "bans", params(Wanted),
    responses((status = 200, body = History), (status = "4XX", response = Refusal)))]
pub async fn history(
    State(shared): State<Shared>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<History>, Problem> {
    let limit = wanted.limit.unwrap_or(100);
    if !(1..=1000).contains(&limit) {
        return Err(Problem::invalid("`limit` is 1 to 1000"));
    }
    let client = wanted.client.as_deref().map(network).transpose()?;
    let Some(archive) = &shared.archive else {
        return Ok(Json(History {
            kept: false,
            bans: Vec::new(),
        }));
    };
    let ended = (archive.history)(client, limit).await;
    let ended = ended.map_err(|error| Problem::new(StatusCode::SERVICE_UNAVAILABLE, error))?;
    let bans = ended.iter().map(|ended| Ended {
        ban: Ban::from(&*ended.ban),
        ended: time(ended.at),
        lift: ended.lift.to_owned(),
    });
    Ok(Json(History {
        kept: true,
        bans: bans.collect(),
    }))
}
