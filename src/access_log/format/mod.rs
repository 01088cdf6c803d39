//! One line of an access log to one [`Event`]: pure, one file per family of formats.
//!
//! Strict on purpose: what has two readings is [`Unparsed`], never guessed, because path, user and
//! agent are the attacker's text. Who the client is follows from the chain alone ([`Chain`]).

mod caddy;
mod clf;
mod json;
mod nginx;
mod pattern;
mod time;
pub mod traefik;

use std::{borrow::Cow, net::IpAddr};

use thiserror::Error;

use crate::{
    config::LogLineFormat,
    engine::{client, host_name, nets::NetSet},
    time::Millis,
};

/// A text of the log, unescaped only when it had to be.
pub type Text<'a> = Cow<'a, [u8]>;

/// What one line says about one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// When the response was complete, Unix milliseconds; `None` only when a `regex` pattern has
    /// no `time` group.
    pub time: Option<Millis>,
    /// Who asked, through whom.
    pub chain: Chain<'a>,
    /// `GET`; empty when the request line was not HTTP.
    pub method: Text<'a>,
    /// Host without port; empty when the format does not carry it.
    pub host: Text<'a>,
    /// Origin-form target; empty when the request line was not HTTP.
    pub target: Text<'a>,
    /// What the client got; 0 when there was no answer.
    pub status: u16,
    /// `User-Agent`; empty when not logged.
    pub agent: Text<'a>,
    /// What marks the answer as jailgate's own.
    pub mark: Mark<'a>,
    /// Address and port of the server that answered, where the format carries it.
    pub server: Text<'a>,
}

/// What marks a logged answer as jailgate's own denial.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mark<'a> {
    /// Nothing.
    #[default]
    None,
    /// The response header `X-Jailgate-Reason` was logged. A client cannot set it.
    Header,
    /// Traefik's `headerField` put this into `ClientUsername` and no service answered. A client
    /// can put words there too (Basic auth, userinfo), so it counts with our denial status only.
    Stamp(Text<'a>),
}

/// The addresses a request came through, as logged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain<'a> {
    /// `X-Forwarded-For` as the logging server believed or received it; may be empty.
    pub forwarded: Text<'a>,
    /// The TCP peer of the logging server, right of everything forwarded; may be empty.
    pub peer: Text<'a>,
    /// The logging server itself believed `forwarded` (Traefik): a peer missing from `trustedIPs`
    /// is then a configuration to warn about.
    pub believed: bool,
}

/// Who a chain names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The rightmost address that is not a trusted proxy.
    pub addr: IpAddr,
    /// The logging server believed its peer's `X-Forwarded-For`, we do not: every client behind
    /// that peer counts as the peer.
    pub unlisted_peer: bool,
}

/// Why a line says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unparsed {
    /// Not the grammar of the format.
    #[error("not in this format")]
    Syntax,
    /// More than one reading, for example a key that occurs twice.
    #[error("`{0}` has more than one reading")]
    Ambiguous(&'static str),
    /// A field that must be there is not.
    #[error("no `{0}`")]
    Missing(&'static str),
    /// A field is there and makes no sense.
    #[error("bad `{0}`")]
    Bad(&'static str),
    /// Longer than a line may be.
    #[error("line over 64 KiB")]
    TooLong,
}

/// A compiled line format.
#[derive(Clone, Debug)]
pub enum Format {
    /// Traefik's JSON.
    TraefikJson,
    /// Common Log Format, also Traefik's `common` and `genericCLF`.
    Clf,
    /// nginx's and Apache's `combined`, also with `"$http_x_forwarded_for"` at the end.
    Combined,
    /// Caddy's JSON.
    CaddyJson,
    /// nginx JSON with the usual variable names.
    NginxJson,
    /// A pattern that matches whole lines.
    Regex(pattern::Pattern),
}

impl Format {
    /// Compiles what the configuration says; fails only for a pattern that does not compile.
    pub fn compile(format: &LogLineFormat) -> Result<Self, regex::Error> {
        Ok(match format {
            LogLineFormat::TraefikJson => Self::TraefikJson,
            LogLineFormat::Clf => Self::Clf,
            LogLineFormat::Combined => Self::Combined,
            LogLineFormat::CaddyJson => Self::CaddyJson,
            LogLineFormat::NginxJson => Self::NginxJson,
            LogLineFormat::Regex(text) => Self::Regex(pattern::Pattern::compile(text)?),
        })
    }

    /// Reads one line, without its newline.
    pub fn parse<'a>(&self, line: &'a [u8]) -> Result<Event<'a>, Unparsed> {
        match self {
            Self::TraefikJson => traefik::parse(line),
            Self::Clf => clf::parse(line, clf::Dialect::Clf),
            Self::Combined => clf::parse(line, clf::Dialect::Combined),
            Self::CaddyJson => caddy::parse(line),
            Self::NginxJson => nginx::parse(line),
            Self::Regex(pattern) => pattern.parse(line),
        }
    }

    /// The name the configuration uses.
    pub fn name(&self) -> &'static str {
        match self {
            Self::TraefikJson => "traefik-json",
            Self::Clf => "clf",
            Self::Combined => "combined",
            Self::CaddyJson => "caddy-json",
            Self::NginxJson => "nginx-json",
            Self::Regex(_) => "regex",
        }
    }

    /// The format that reads most of these lines, and at least half of them.
    pub fn detect<'l>(lines: impl Iterator<Item = &'l [u8]> + Clone) -> Option<Self> {
        let total = lines.clone().count();
        [
            Self::TraefikJson,
            Self::CaddyJson,
            Self::NginxJson,
            Self::Combined,
            Self::Clf,
        ]
        .into_iter()
        .map(|format| {
            let read = lines.clone().filter(|line| format.parse(line).is_ok());
            (read.count(), format)
        })
        .filter(|(read, _)| *read > 0 && read * 2 >= total)
        .reduce(|best, next| if next.0 > best.0 { next } else { best })
        .map(|(_, format)| format)
    }
}

impl Chain<'_> {
    /// Right to left, past trusted proxies, to the first address that is none; an element that is
    /// no address stops the walk at the one to its right. `None` when not even the rightmost
    /// element is an address.
    pub fn client(&self, trusted: &NetSet) -> Option<Client> {
        let peer = address(&self.peer);
        if !self.peer.is_empty() && peer.is_none() {
            return None;
        }
        let mut found = peer;
        if let Some(addr) = peer
            && !trusted.contains(addr)
        {
            let unlisted_peer = self.believed
                && !self.names_peer_alone()
                && self.rightmost().is_some_and(|last| last != addr);
            return Some(Client {
                addr,
                unlisted_peer,
            });
        }
        for element in self.forwarded.rsplit(|b| *b == b',').take(MAX_HOPS) {
            let Some(addr) = address(element) else { break };
            found = Some(addr);
            if !trusted.contains(addr) {
                break;
            }
        }
        found.map(|addr| Client {
            addr,
            unlisted_peer: false,
        })
    }

    /// Nothing was forwarded but the peer's own v4 address, as in nearly every line.
    fn names_peer_alone(&self) -> bool {
        let port = self.peer.strip_prefix(&*self.forwarded);
        port.is_some_and(|port| matches!(port, [] | [b':', ..])) && !self.forwarded.contains(&b':')
    }

    fn rightmost(&self) -> Option<IpAddr> {
        self.forwarded.rsplit(|b| *b == b',').find_map(address)
    }
}

/// Elements of a chain looked at; what is further left is never believed.
const MAX_HOPS: usize = 32;

fn address(text: &[u8]) -> Option<IpAddr> {
    client::read(text.trim_ascii())
}

/// Splits `METHOD target HTTP/x`. Anything else is not an HTTP request line and names neither.
fn request_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (method, rest) = split_at(text, b' ')?;
    let (target, protocol) = split_at(rest, b' ')?;
    let sound = !method.is_empty()
        && method.iter().all(u8::is_ascii_graphic)
        && protocol.starts_with(b"HTTP/")
        && !protocol.contains(&b' ');
    sound.then_some((method, origin_form(target)))
}

fn split_at(text: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(byte, text)?;
    Some((&text[..at], &text[at + 1..]))
}

/// The path and query of a request target; absolute-form loses scheme and authority.
fn origin_form(target: &[u8]) -> &[u8] {
    if target.first().is_none_or(|b| *b == b'/') {
        return target;
    }
    let Some(scheme) = memchr::memmem::find(target, b"://") else {
        return b"";
    };
    let rest = &target[scheme + 3..];
    memchr::memchr(b'/', rest).map_or(b"/", |slash| &rest[slash..])
}

/// A host without its port.
fn without_port(host: Text<'_>) -> Text<'_> {
    let end = host_name(&host).len();
    match host {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..end]),
        Cow::Owned(mut text) => {
            text.truncate(end);
            Cow::Owned(text)
        }
    }
}

/// A status of exactly three digits, or 0.
fn status(text: &[u8]) -> Option<u16> {
    match text {
        b"0" | b"000" => Some(0),
        [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
            Some(u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0'))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
