//! Traefik's JSON access log, and the same fields as OTLP attributes: which field means what.
//!
//! The source of the rules is Traefik's `accesslog` package. `OriginStatus` 0 (made by Traefik or
//! a middleware) is not dropped: Basic auth's 401 and the 404 of no route are exactly those.

use std::borrow::Cow;

use super::{
    Chain, Event, Mark, Text, Unparsed,
    json::{Members, Value, once},
    origin_form, status, time, without_port,
};
use crate::time::Millis;

/// The fields that are read, by their Traefik names, whatever they came in.
#[derive(Debug, Default)]
pub struct Fields<'a> {
    /// `ClientAddr`, the peer as `ip:port`.
    pub client_addr: Option<Text<'a>>,
    /// `ClientHost`, all of a believed `X-Forwarded-For`, else the peer.
    pub client_host: Option<Text<'a>>,
    /// `ClientUsername`, where `headerField` puts our reason.
    pub username: Option<Text<'a>>,
    /// `DownstreamStatus`.
    pub status: Option<u16>,
    /// `OriginStatus`; 0 when no service answered.
    pub origin_status: Option<u16>,
    /// `Duration`, nanoseconds.
    pub duration: Option<u64>,
    /// `StartUTC`, when the request began.
    pub started: Option<Millis>,
    /// `time`, when the entry was written.
    pub written: Option<Millis>,
    /// `RequestMethod`.
    pub method: Option<Text<'a>>,
    /// `RequestHost`.
    pub host: Option<Text<'a>>,
    /// `RequestPath`, path and query.
    pub path: Option<Text<'a>>,
    /// `request_User-Agent`.
    pub agent: Option<Text<'a>>,
    /// `ServiceAddr`, host and port of the server chosen.
    pub server: Option<Text<'a>>,
    /// `downstream_X-Jailgate-Reason` was there and not empty.
    pub denied: bool,
}

/// An OTLP attribute's value, as far as Traefik uses them.
#[derive(Clone, Copy, Debug)]
pub enum Attribute<'a> {
    /// A string.
    Text(&'a [u8]),
    /// A whole number.
    Int(i64),
}

impl<'a> Fields<'a> {
    /// What the fields say, or which one is missing.
    pub fn event(self) -> Result<Event<'a>, Unparsed> {
        let peer = self.client_addr.unwrap_or_default();
        let host = self.client_host.unwrap_or_default();
        if peer.is_empty() && host.is_empty() {
            return Err(Unparsed::Missing("ClientHost"));
        }
        // The answer's time is what findtime is about; the entry's own has whole seconds only.
        let finished = self
            .started
            .map(|t| t + self.duration.unwrap_or(0) / 1_000_000);
        let mark = match (self.denied, self.origin_status, self.username) {
            (true, _, _) => Mark::Header,
            (_, None | Some(0), Some(user)) if !matches!(&*user, b"-" | b"") => Mark::Stamp(user),
            _ => Mark::None,
        };
        let path = self.path.ok_or(Unparsed::Missing("RequestPath"))?;
        Ok(Event {
            time: Some(
                finished
                    .or(self.written)
                    .ok_or(Unparsed::Missing("StartUTC"))?,
            ),
            chain: Chain {
                forwarded: host,
                peer,
                believed: true,
            },
            method: self.method.ok_or(Unparsed::Missing("RequestMethod"))?,
            host: without_port(self.host.unwrap_or_default()),
            target: match path {
                Cow::Borrowed(path) => Cow::Borrowed(origin_form(path)),
                Cow::Owned(path) => Cow::Owned(origin_form(&path).to_vec()),
            },
            status: self.status.ok_or(Unparsed::Missing("DownstreamStatus"))?,
            agent: self.agent.unwrap_or_default(),
            mark,
            server: self.server.unwrap_or_default(),
        })
    }

    /// Takes one attribute of an OTLP record. Whole numbers come as such, the start as
    /// nanoseconds since 1970.
    pub fn attribute(&mut self, key: &str, value: Attribute<'a>) -> Result<(), Unparsed> {
        match (key, value) {
            ("StartUTC", Attribute::Int(nanos)) => {
                let at = Millis::try_from(nanos / 1_000_000).ok();
                once(
                    &mut self.started,
                    at.ok_or(Unparsed::Bad("StartUTC"))?,
                    "StartUTC",
                )
            }
            (_, Attribute::Text(text)) => self.take(key.as_bytes(), Value::Text(text, false)),
            ("DownstreamStatus", Attribute::Int(code)) => {
                once(&mut self.status, whole(code)?, "DownstreamStatus")
            }
            ("OriginStatus", Attribute::Int(code)) => {
                once(&mut self.origin_status, whole(code)?, "OriginStatus")
            }
            ("Duration", Attribute::Int(nanos)) => {
                let nanos = u64::try_from(nanos).map_err(|_| Unparsed::Bad("Duration"))?;
                once(&mut self.duration, nanos, "Duration")
            }
            _ => Ok(()),
        }
    }

    // By length first: of the forty keys of a line most are turned away without a comparison.
    #[inline(always)]
    fn take(&mut self, key: &[u8], value: Value<'a>) -> Result<(), Unparsed> {
        match key.len() {
            4 if key == b"time" => once(&mut self.written, moment(value)?, "time"),
            8 if key == b"Duration" => {
                let nanos = integer(value.digits()).ok_or(Unparsed::Bad("Duration"))?;
                once(&mut self.duration, nanos, "Duration")
            }
            8 if key == b"StartUTC" => once(&mut self.started, moment(value)?, "StartUTC"),
            10 if key == b"ClientAddr" => once(&mut self.client_addr, value.text()?, "ClientAddr"),
            10 if key == b"ClientHost" => once(&mut self.client_host, value.text()?, "ClientHost"),
            11 if key == b"RequestHost" => once(&mut self.host, value.text()?, "RequestHost"),
            11 if key == b"RequestPath" => once(&mut self.path, value.text()?, "RequestPath"),
            11 if key == b"ServiceAddr" => once(&mut self.server, value.text()?, "ServiceAddr"),
            12 if key == b"OriginStatus" => {
                once(&mut self.origin_status, code(value)?, "OriginStatus")
            }
            13 if key == b"RequestMethod" => once(&mut self.method, value.text()?, "RequestMethod"),
            14 if key == b"ClientUsername" => {
                once(&mut self.username, value.text()?, "ClientUsername")
            }
            16 if key == b"DownstreamStatus" => {
                once(&mut self.status, code(value)?, "DownstreamStatus")
            }
            18 if key == b"request_User-Agent" => {
                once(&mut self.agent, value.text()?, "request_User-Agent")
            }
            28 if key == b"downstream_X-Jailgate-Reason" => {
                self.denied = !value.text()?.is_empty();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Reads one line.
pub fn parse(line: &[u8]) -> Result<Event<'_>, Unparsed> {
    let mut members = Members::of(line)?;
    let mut fields = Fields::default();
    while let Some((key, value)) = members.next()? {
        fields.take(key, value)?;
    }
    fields.event()
}

fn whole(code: i64) -> Result<u16, Unparsed> {
    let in_range = code == 0 || (100..1000).contains(&code);
    let code = u16::try_from(code).ok().filter(|_| in_range);
    code.ok_or(Unparsed::Bad("status"))
}

fn code(value: Value<'_>) -> Result<u16, Unparsed> {
    status(value.digits()).ok_or(Unparsed::Bad("status"))
}

fn moment(value: Value<'_>) -> Result<Millis, Unparsed> {
    time::rfc3339(value.digits()).ok_or(Unparsed::Bad("time"))
}

fn integer(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |n, b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        n.checked_mul(10)?.checked_add(digit)
    })
}
