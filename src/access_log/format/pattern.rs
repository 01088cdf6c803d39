//! Lines read by a pattern of the user's, with named groups `ip`, `status`, `path`, `method`,
//! `host` and `time`.
//!
//! The pattern must match a line from end to end: one that floats would find an address inside a
//! path that an attacker chose (Fail2Ban's CVE-2013-2178 and its kin).

use regex::bytes::{Regex, RegexBuilder};

use super::{Chain, Event, Mark, Text, Unparsed, origin_form, status, time, without_port};

/// A compiled pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    regex: Regex,
    timed: bool,
}

impl Pattern {
    /// Compiles and anchors it.
    pub fn compile(text: &str) -> Result<Self, regex::Error> {
        let whole = format!(r"\A(?:{text})\z");
        // Without Unicode `.` also takes bytes that are no UTF-8, which a client may well send;
        // a pattern that asks for Unicode classes keeps it.
        let bytewise = RegexBuilder::new(&whole).unicode(false).build();
        let regex = bytewise.or_else(|_| Regex::new(&whole))?;
        let timed = regex.capture_names().flatten().any(|name| name == "time");
        Ok(Self { regex, timed })
    }

    /// Reads one line.
    pub fn parse<'a>(&self, line: &'a [u8]) -> Result<Event<'a>, Unparsed> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let groups = self.regex.captures(line).ok_or(Unparsed::Syntax)?;
        let group = |name| groups.name(name).map_or(&b""[..], |found| found.as_bytes());
        let peer = group("ip");
        if peer.is_empty() {
            return Err(Unparsed::Missing("ip"));
        }
        let at = if self.timed {
            Some(time::any(group("time")).ok_or(Unparsed::Bad("time"))?)
        } else {
            None
        };
        Ok(Event {
            time: at,
            chain: Chain {
                forwarded: peer.into(),
                ..Chain::default()
            },
            method: group("method").into(),
            host: without_port(group("host").into()),
            target: origin_form(group("path")).into(),
            status: status(group("status")).ok_or(Unparsed::Bad("status"))?,
            agent: Text::default(),
            mark: Mark::None,
            server: Text::default(),
        })
    }
}
