//! The runtime allow list: whom operators let pass, for a while or for good.

use std::sync::Arc;

use axum::{Extension, Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Allowed, Problem, Refusal, Shared, ending, network};
use crate::{
    admin::{
        auth::Caller,
        names,
        problem::{Asked, Body},
    },
    engine::{self, ban::FOREVER, client::spelled},
};

/// Subjects in one request.
const MOST: usize = 1000;

/// Whom to allow.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Addresses, networks, DNS names, or `me` for the caller's own address.
    #[schema(example = json!(["me", "192.0.2.0/24", "home.example.org"]))]
    subjects: Vec<String>,
    /// How long: `2h`, `1day`, seconds, or `forever`. Absent: for ever.
    #[serde(rename = "for")]
    length: Option<String>,
    /// Why, for people.
    #[serde(default)]
    note: String,
}

/// The list, or a part of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct List {
    /// By subject.
    allowed: Vec<Allowed>,
}

/// Entries taken out.
#[derive(Debug, Serialize, ToSchema)]
pub struct Removed {
    /// As they stood.
    removed: Vec<Allowed>,
    /// Subjects that had no entry.
    missing: Vec<String>,
}

/// Whom operators allow now.
#[utoipa::path(get, path = "/allow", tag = "allow", operation_id = "listAllowed",
    responses((status = 200, body = List), (status = "4XX", response = Refusal)))]
pub async fn list(State(shared): State<Shared>) -> Json<List> {
    let allowed = shared.engine.allowed();
    Json(List {
        allowed: allowed.iter().map(Allowed::from).collect(),
    })
}

/// Lets addresses, networks or names pass every jail, uncounted.
#[utoipa::path(post, path = "/allow", tag = "allow", operation_id = "allow", request_body = Entry,
    responses((status = 200, body = List), (status = "4XX", response = Refusal)))]
pub async fn add(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Body(entry): Body<Entry>,
) -> Result<Json<List>, Problem> {
    if entry.subjects.is_empty() || entry.subjects.len() > MOST {
        return Err(Problem::invalid("name 1 to 1000 subjects"));
    }
    let now = shared.clock.now();
    let until = match &entry.length {
        Some(text) => ending(text, now)?,
        None => FOREVER,
    };
    let mut entries = Vec::new();
    for text in &entry.subjects {
        let (subject, nets) = subject(text, caller).await?;
        entries.push(engine::Allowed {
            subject,
            nets,
            note: entry.note.as_str().into(),
            since: now,
            until,
        });
    }
    for entry in &entries {
        shared.engine.allow(entry.clone());
    }
    shared.engine.allow_list().kept().wait_kept().await;
    Ok(Json(List {
        allowed: entries.iter().map(Allowed::from).collect(),
    }))
}

/// Takes entries (`subject`, several times) out again.
#[utoipa::path(delete, path = "/allow", tag = "allow", operation_id = "disallow",
    params(("subject" = Vec<String>, Query, description = "As it is listed, or `me`")),
    responses((status = 200, body = Removed), (status = "4XX", response = Refusal)))]
pub async fn remove(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Asked(query): Asked<Vec<(String, String)>>,
) -> Result<Json<Removed>, Problem> {
    let (mut removed, mut missing) = (Vec::new(), Vec::new());
    if query.is_empty() {
        return Err(Problem::invalid("name a `subject`"));
    }
    for (key, text) in query {
        if key != "subject" {
            return Err(Problem::invalid(format!("unknown parameter `{key}`")));
        }
        match shared.engine.disallow(&key_of(&text, caller)?) {
            Some(entry) => removed.push(Allowed::from(&entry)),
            None => missing.push(text),
        }
    }
    shared.engine.allow_list().kept().wait_kept().await;
    Ok(Json(Removed { removed, missing }))
}

/// The key of an entry and what passes by it. A name must resolve when it is entered, so that a
/// typing mistake is noticed.
async fn subject(text: &str, caller: Caller) -> Result<(Arc<str>, Vec<ipnet::IpNet>), Problem> {
    let key = key_of(text, caller)?;
    if let Ok(net) = network(&key) {
        return Ok((key, vec![net]));
    }
    match names::resolve(&key).await {
        Ok(nets) => Ok((key, nets)),
        Err(error) => Err(Problem::invalid(format!(
            "`{key}` cannot be resolved: {error}"
        ))),
    }
}

fn key_of(text: &str, Caller(caller): Caller) -> Result<Arc<str>, Problem> {
    let text = text.trim();
    if text == "me" {
        let caller = caller.ok_or_else(|| {
            Problem::invalid("`me` has no address on a unix socket; write the address")
        })?;
        return Ok(caller.to_string().into());
    }
    match network(text) {
        Ok(net) => Ok(spelled(net).into()),
        Err(_) if names::is_name(text) => Ok(text.to_ascii_lowercase().into()),
        Err(_) => Err(Problem::invalid(format!(
            "`{text}` is no address, network or DNS name"
        ))),
    }
}
