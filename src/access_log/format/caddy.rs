//! Caddy's JSON access log (`http.log.access`). The client is `client_ip`, which Caddy 2.7 derives
//! from its own `trusted_proxies`, else `remote_ip`.

use super::{
    Chain, Event, Mark, Text, Unparsed,
    json::{Members, Value, once},
    origin_form, status, time, without_port,
};
use crate::time::Millis;

#[derive(Default)]
struct Request<'a> {
    client_ip: Option<Text<'a>>,
    remote_ip: Option<Text<'a>>,
    method: Option<Text<'a>>,
    host: Option<Text<'a>>,
    uri: Option<Text<'a>>,
    agent: Option<Text<'a>>,
}

/// Reads one line.
pub fn parse(line: &[u8]) -> Result<Event<'_>, Unparsed> {
    let (mut at, mut code, mut request) = (None, None, None);
    let mut mark = Mark::None;
    let mut members = Members::of(line)?;
    while let Some((key, value)) = members.next()? {
        match key {
            b"ts" => once(&mut at, moment(value)?, "ts")?,
            b"status" => {
                let number = status(value.digits()).ok_or(Unparsed::Bad("status"))?;
                once(&mut code, number, "status")?;
            }
            b"request" => once(&mut request, read_request(value)?, "request")?,
            b"resp_headers" if denied(value)? => mark = Mark::Header,
            _ => {}
        }
    }
    let request = request.ok_or(Unparsed::Missing("request"))?;
    let peer = request
        .client_ip
        .or(request.remote_ip)
        .ok_or(Unparsed::Missing("remote_ip"))?;
    let uri = request.uri.ok_or(Unparsed::Missing("uri"))?;
    Ok(Event {
        time: Some(at.ok_or(Unparsed::Missing("ts"))?),
        chain: Chain {
            peer,
            ..Chain::default()
        },
        method: request.method.ok_or(Unparsed::Missing("method"))?,
        host: without_port(request.host.unwrap_or_default()),
        target: origin_form(&uri).to_vec().into(),
        status: code.ok_or(Unparsed::Missing("status"))?,
        agent: request.agent.unwrap_or_default(),
        mark,
        server: Text::default(),
    })
}

fn read_request(value: Value<'_>) -> Result<Request<'_>, Unparsed> {
    let mut request = Request::default();
    let mut members = object(value)?;
    while let Some((key, value)) = members.next()? {
        match key {
            b"client_ip" => once(&mut request.client_ip, value.text()?, "client_ip")?,
            b"remote_ip" => once(&mut request.remote_ip, value.text()?, "remote_ip")?,
            b"method" => once(&mut request.method, value.text()?, "method")?,
            b"host" => once(&mut request.host, value.text()?, "host")?,
            b"uri" => once(&mut request.uri, value.text()?, "uri")?,
            b"headers" => {
                request.agent = header(value, b"User-Agent")?;
            }
            _ => {}
        }
    }
    Ok(request)
}

fn denied(headers: Value<'_>) -> Result<bool, Unparsed> {
    Ok(header(headers, b"X-Jailgate-Reason")?.is_some_and(|reason| !reason.is_empty()))
}

/// The first value of a header; Caddy logs each as an array of strings.
fn header<'a>(headers: Value<'a>, name: &[u8]) -> Result<Option<Text<'a>>, Unparsed> {
    let mut members = object(headers)?;
    while let Some((key, value)) = members.next()? {
        if key.eq_ignore_ascii_case(name) {
            let Value::Nested([b'[', inside @ .., b']']) = value else {
                return Ok(None);
            };
            return first_string(inside).map(Some);
        }
    }
    Ok(None)
}

fn first_string(inside: &[u8]) -> Result<Text<'_>, Unparsed> {
    if inside.trim_ascii().is_empty() {
        return Ok(Text::default());
    }
    match super::json::first(inside)? {
        Value::Nested(_) => Ok(Text::default()),
        value => value.text(),
    }
}

fn object(value: Value<'_>) -> Result<Members<'_>, Unparsed> {
    match value {
        Value::Nested(raw) => Members::of(raw),
        _ => Err(Unparsed::Syntax),
    }
}

/// `unix_seconds_float`, Caddy's default, or one of its RFC 3339 forms.
fn moment(value: Value<'_>) -> Result<Millis, Unparsed> {
    time::any(value.digits()).ok_or(Unparsed::Bad("ts"))
}
