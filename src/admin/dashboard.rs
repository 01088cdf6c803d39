//! The page at `/`.

use axum::{extract::State, response::Html};

use super::Shared;

/// The dashboard.
pub async fn index(State(_): State<Shared>) -> Html<&'static str> {
    Html(
        "<!doctype html><title>jailgate</title><p>The API is at <a href=/api/v1/openapi.json>/api/v1</a>.",
    )
}
