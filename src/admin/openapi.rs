//! The API's own description: OpenAPI 3.1, made from the types that answer.

use axum::{Json, Router, routing::get};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        self,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;

use super::{Shared, api};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "jailgate admin API",
        description = "See who is banned and why, and act on it. Errors are problem+json \
                       (RFC 9457), times RFC 3339 in UTC. Off loopback a token is mandatory.",
    ),
    components(responses(api::Refusal)),
    modifiers(&Keys),
    security(("token" = []), ("session" = [])),
)]
struct Document;

struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let session = ApiKey::Cookie(ApiKeyValue::new("jailgate_session"));
        let parts = document.components.get_or_insert_default();
        parts.add_security_scheme("token", SecurityScheme::Http(token));
        parts.add_security_scheme("session", SecurityScheme::ApiKey(session));
    }
}

/// The routes of the API, and beside them what describes them.
pub fn described() -> Router<Shared> {
    let (router, document) = OpenApiRouter::with_openapi(Document::openapi())
        .nest("/api/v1", api::routes())
        .split_for_parts();
    let answer = Json(document);
    router.route(
        "/api/v1/openapi.json",
        get(move || std::future::ready(answer.clone())),
    )
}
