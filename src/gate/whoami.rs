//! `whoami@internal`: the request as it was received, who it is taken to be from and by which
//! rule, and what each jail said. The place to look when the wrong client is banned.

use std::fmt::Write;

use bytes::Bytes;
use http::{HeaderValue, Response, header};

use super::{
    exchange::{Body, Exchange},
    identify,
};
use crate::engine::Verdict;

/// Answers with a page of plain text.
pub fn answer(exchange: &Exchange) -> Response<Body> {
    let text = page(exchange);
    let length = HeaderValue::from(text.len());
    let body = match exchange.head.method {
        http::Method::HEAD => Body::empty(),
        _ => Bytes::from(text).into(),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_LENGTH, length);
    response
}

fn page(exchange: &Exchange) -> String {
    let mut out = String::with_capacity(512);
    // Writing to a String cannot fail.
    match exchange.link.peer {
        Some(peer) => _ = writeln!(out, "peer: {peer}"),
        None => out.push_str("peer: unix socket\n"),
    }
    let trusted = if exchange.trusted {
        "believed"
    } else {
        "not believed (not in trustedIPs)"
    };
    _ = writeln!(out, "forwarding headers of this peer: {trusted}");
    let judged = exchange.client.is_some();
    if let Some(client) = exchange
        .client
        .clone()
        .or_else(|| identify::shown(exchange))
    {
        _ = writeln!(out, "client: {} (found by: {})", client.addr, client.rule);
    }
    if !judged {
        out.push_str("verdict: pass, no jail judges this route\n");
    }
    for (jail, verdict) in &exchange.verdicts {
        _ = writeln!(out, "jail {jail}: {}", words(verdict));
    }
    _ = writeln!(
        out,
        "\n{} {} {:?}",
        exchange.head.method,
        exchange.target(),
        exchange.head.version
    );
    for (name, value) in &exchange.head.headers {
        _ = writeln!(out, "{name}: {}", value.as_bytes().escape_ascii());
    }
    out
}

fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Pass => "pass".to_owned(),
        Verdict::Exempt(why) => format!("pass, not counted ({why:?})"),
        Verdict::Simulated(denial) => format!(
            "would deny ({}), but only simulates",
            denial.reason.as_str()
        ),
        Verdict::Deny(denial) => format!("deny ({})", denial.reason.as_str()),
    }
}
