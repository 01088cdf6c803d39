//! nginx JSON written by a `log_format` with the usual variable names as keys.
//!
//! `remote_addr` is the peer; a forwarded chain, when logged, stands left of it and is believed
//! only as far as `trustedIPs` reach.

use super::{
    Chain, Event, Mark, Text, Unparsed,
    json::{Members, Value, once},
    origin_form, request_line, status, time, without_port,
};
use crate::time::Millis;

#[derive(Default)]
struct Fields<'a> {
    time: Option<Millis>,
    peer: Option<Text<'a>>,
    forwarded: Option<Text<'a>>,
    line: Option<Text<'a>>,
    method: Option<Text<'a>>,
    request_uri: Option<Text<'a>>,
    uri: Option<Text<'a>>,
    host: Option<Text<'a>>,
    status: Option<u16>,
    agent: Option<Text<'a>>,
    denied: bool,
}

/// Reads one line.
pub fn parse(line: &[u8]) -> Result<Event<'_>, Unparsed> {
    let mut fields = Fields::default();
    let mut members = Members::of(line)?;
    while let Some((key, value)) = members.next()? {
        fields.take(key, value)?;
    }
    fields.event()
}

impl<'a> Fields<'a> {
    fn take(&mut self, key: &[u8], value: Value<'a>) -> Result<(), Unparsed> {
        match key {
            b"remote_addr" => once(&mut self.peer, value.text()?, "remote_addr"),
            b"http_x_forwarded_for" | b"x_forwarded_for" => {
                once(&mut self.forwarded, value.text()?, "http_x_forwarded_for")
            }
            b"status" => {
                let code = status(value.digits()).ok_or(Unparsed::Bad("status"))?;
                once(&mut self.status, code, "status")
            }
            // Several time variables of one entry agree, so any of them will do.
            b"time_iso8601" | b"time_local" | b"msec" | b"time" | b"timestamp" | b"@timestamp" => {
                self.time = Some(time::any(value.digits()).ok_or(Unparsed::Bad("time"))?);
                Ok(())
            }
            b"request" => once(&mut self.line, value.text()?, "request"),
            b"request_method" | b"method" => {
                self.method.get_or_insert(value.text()?);
                Ok(())
            }
            b"request_uri" => once(&mut self.request_uri, value.text()?, "request_uri"),
            b"uri" => once(&mut self.uri, value.text()?, "uri"),
            b"host" | b"http_host" | b"server_name" => {
                self.host.get_or_insert(value.text()?);
                Ok(())
            }
            b"http_user_agent" => once(&mut self.agent, value.text()?, "http_user_agent"),
            b"sent_http_x_jailgate_reason" | b"jailgate_reason" => {
                self.denied = !matches!(&*value.text()?, b"" | b"-");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn event(self) -> Result<Event<'a>, Unparsed> {
        let (mut method, mut target) = (Text::default(), Text::default());
        if let Some((m, t)) = self.line.as_deref().and_then(request_line) {
            (method, target) = (m.to_vec().into(), t.to_vec().into());
        } else if self.line.is_none() {
            method = self.method.ok_or(Unparsed::Missing("request"))?;
            let uri = self
                .request_uri
                .or(self.uri)
                .ok_or(Unparsed::Missing("request_uri"))?;
            target = origin_form(&uri).to_vec().into();
        }
        let forwarded = self
            .forwarded
            .filter(|list| **list != *b"-")
            .unwrap_or_default();
        Ok(Event {
            time: Some(self.time.ok_or(Unparsed::Missing("time_iso8601"))?),
            chain: Chain {
                forwarded,
                peer: self.peer.ok_or(Unparsed::Missing("remote_addr"))?,
                believed: false,
            },
            method,
            host: without_port(self.host.unwrap_or_default()),
            target,
            status: self.status.ok_or(Unparsed::Missing("status"))?,
            agent: self.agent.unwrap_or_default(),
            mark: if self.denied {
                Mark::Header
            } else {
                Mark::None
            },
            server: Text::default(),
        })
    }
}
