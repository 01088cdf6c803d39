//! The API's own description: OpenAPI 3.1, made from the types that answer.

use axum::{Router, body::Bytes, http::header::CONTENT_TYPE, routing::get};
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
    // As text: the tree takes half a megabyte, and what a handler holds is copied for each connection.
    let text = serde_json::to_vec(&document).expect("its keys are strings");
    let text = Bytes::from(text);
    let answer = move || std::future::ready(([(CONTENT_TYPE, "application/json")], text));
    router.route("/api/v1/openapi.json", get(answer))
}
