//! Which header lines cross the proxy and which it writes itself: RFC 9110 §7.6.1 and Traefik's
//! rules for `X-Forwarded-*`. Framing (`Content-Length`, chunks) belongs to the codec.

use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};

use super::{Forwarded, spelt::Spelt};

/// A request's header lines as they go upstream, whatever the protocol there.
pub(super) struct Outgoing<'a> {
    pub(super) parts: &'a Parts,
    pub(super) forwarded: &'a Forwarded,
    /// What the client asked for: its Host or `:authority`.
    pub(super) client_host: &'a [u8],
    /// This machine's name, for `X-Forwarded-Server`.
    pub(super) machine: &'a str,
    /// The client asked for an upgrade and its `Upgrade` goes along.
    pub(super) upgrade: bool,
    /// HTTP/1.1 goes upstream.
    pub(super) h1: bool,
    /// The body can end in trailers there, so `Trailer` says something.
    pub(super) trailers: bool,
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What a believed peer said, noted in passing: looking each name up costs more than the rest.
#[derive(Default)]
struct Believed<'a> {
    /// The first `X-Forwarded-For` line, and how many there are.
    chain: Option<&'a [u8]>,
    chains: usize,
    real_ip: Option<&'a [u8]>,
    proto: Option<&'a [u8]>,
    host: Option<&'a [u8]>,
    port: Option<&'a [u8]>,
}

impl Outgoing<'_> {
    /// Emits every line but `Host`, the framing and `Expect`.
    pub(super) fn each(&self, emit: &mut impl FnMut(&str, &[u8])) {
        let headers = &self.parts.headers;
        let listed = Listed::of(headers);
        let (mut cookie, mut believed) = (false, Believed::default());
        for (name, value) in headers {
            let text = name.as_str();
            if self.forwarded.trusted {
                believed.note(text, value);
            }
            if is_hop_by_hop(text)
                || matches!(text, "host" | "content-length" | "expect")
                || self.is_ours(text)
                || listed.names(text)
                || (text == "trailer" && !self.trailers)
            {
                continue;
            }
            if name == header::COOKIE {
                // HTTP/2 may split it, HTTP/1.1 must not (RFC 9113 §8.2.3).
                if !std::mem::replace(&mut cookie, true) {
                    join(headers, name, b"; ", |joined| emit(text, joined));
                }
                continue;
            }
            emit(text, value.as_bytes());
        }
        if self.upgrade
            && let Some(protocol) = headers.get(header::UPGRADE)
        {
            emit("connection", b"upgrade");
            emit("upgrade", protocol.as_bytes());
        }
        if !self.upgrade && wants_trailers(headers) {
            if self.h1 {
                emit("connection", b"te");
            }
            emit("te", b"trailers");
        }
        self.each_forwarded(&believed, emit);
    }

    /// Lines written anew below, or dropped: any `X-Forwarded-*` from a peer that is not
    /// believed, and look-alikes such as `X_Forwarded_For` from everybody.
    fn is_ours(&self, name: &str) -> bool {
        match managed(name) {
            Managed::No => false,
            Managed::Alias => true,
            Managed::Yes => {
                !self.forwarded.trusted
                    || matches!(
                        name,
                        "x-forwarded-for"
                            | "x-forwarded-proto"
                            | "x-forwarded-host"
                            | "x-forwarded-port"
                            | "x-forwarded-server"
                            | "x-real-ip"
                    )
            }
        }
    }

    fn each_forwarded(&self, believed: &Believed<'_>, emit: &mut impl FnMut(&str, &[u8])) {
        let Forwarded { peer, https, .. } = self.forwarded;
        let peer = peer.as_ref().map(Spelt::as_bytes);
        self.append_forwarded_for(believed, peer, emit);
        if let Some(address) = believed.real_ip.or(peer) {
            emit("x-real-ip", address);
        }
        let proto = believed.proto.unwrap_or(match (self.upgrade, *https) {
            (true, true) => b"wss",
            (true, false) => b"ws",
            (false, true) => b"https",
            (false, false) => b"http",
        });
        emit("x-forwarded-proto", proto);
        emit(
            "x-forwarded-host",
            believed.host.unwrap_or(self.client_host),
        );
        let port = believed
            .port
            .or_else(|| port_of(self.client_host))
            .unwrap_or(match proto {
                b"https" | b"wss" => b"443",
                _ => b"80",
            });
        emit("x-forwarded-port", port);
        if !self.machine.is_empty() {
            emit("x-forwarded-server", self.machine.as_bytes());
        }
    }

    fn append_forwarded_for(
        &self,
        believed: &Believed<'_>,
        peer: Option<&[u8]>,
        emit: &mut impl FnMut(&str, &[u8]),
    ) {
        let several = match believed.chains {
            2.. => Some(self.parts.headers.get_all(X_FORWARDED_FOR)),
            _ => None,
        };
        let several = several.iter().flatten().map(HeaderValue::as_bytes);
        let mut chain = Vec::with_capacity(128);
        for part in believed
            .chain
            .into_iter()
            .chain(several.skip(1))
            .chain(peer)
        {
            if !part.is_empty() {
                if !chain.is_empty() {
                    chain.extend_from_slice(b", ");
                }
                chain.extend_from_slice(part);
            }
        }
        if !chain.is_empty() {
            emit("x-forwarded-for", &chain);
        }
    }
}

impl<'a> Believed<'a> {
    /// The first line of a name counts, and an empty one says nothing.
    fn note(&mut self, name: &str, value: &'a HeaderValue) {
        let kept = match name {
            "x-forwarded-for" => {
                self.chains += 1;
                self.chain.get_or_insert(value.as_bytes());
                return;
            }
            "x-real-ip" => &mut self.real_ip,
            "x-forwarded-proto" => &mut self.proto,
            "x-forwarded-host" => &mut self.host,
            "x-forwarded-port" => &mut self.port,
            _ => return,
        };
        if kept.is_none() && !value.is_empty() {
            *kept = Some(value.as_bytes());
        }
    }
}

/// The protocol a client asks to switch to, when it does so properly and it is one that may pass:
/// an upgrade to h2c would smuggle requests past the gate.
pub(super) fn upgrade_wanted(parts: &Parts) -> Option<&HeaderValue> {
    if parts.version != http::Version::HTTP_11 {
        return None;
    }
    let mut protocols = parts.headers.get_all(header::UPGRADE).iter();
    let (protocol, None) = (protocols.next()?, protocols.next()) else {
        return None;
    };
    let asked = tokens(&parts.headers, header::CONNECTION)
        .any(|token| token.eq_ignore_ascii_case(b"upgrade"));
    let h2c = list(protocol.as_bytes()).any(|token| {
        token
            .get(..3)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"h2c"))
    });
    (asked && !h2c && !protocol.is_empty()).then_some(protocol)
}

/// Takes out of a response what ended with the server's connection.
pub(super) fn strip_response(headers: &mut HeaderMap) {
    let listing: Vec<_> = headers
        .get_all(header::CONNECTION)
        .iter()
        .cloned()
        .collect();
    strip_listed(headers, &listing);
    for name in HOP_BY_HOP {
        headers.remove(*name);
    }
}

/// Takes out the lines that `Connection` lines name.
pub(super) fn strip_listed(headers: &mut HeaderMap, listing: &[HeaderValue]) {
    for token in listing.iter().flat_map(|value| list(value.as_bytes())) {
        if let Ok(name) = HeaderName::from_bytes(token)
            && !is_essential(name.as_str())
        {
            headers.remove(name);
        }
    }
}

/// Leaves of a trailer section what may stand there (RFC 9110 §6.5.1): nothing that frames,
/// routes or identifies.
pub(super) fn clean_trailers(trailers: &mut HeaderMap) {
    let refused: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| !is_trailer(name.as_str()))
        .cloned()
        .collect();
    for name in refused {
        trailers.remove(name);
    }
}

fn is_trailer(name: &str) -> bool {
    let refused = matches!(
        name,
        "host"
            | "content-length"
            | "content-type"
            | "content-encoding"
            | "content-range"
            | "trailer"
            | "expect"
            | "range"
            | "max-forwards"
            | "cache-control"
            | "authorization"
            | "cookie"
            | "set-cookie"
            | "location"
            | "www-authenticate"
            | "forwarded"
    );
    !refused && !is_hop_by_hop(name) && managed(name) == Managed::No
}

/// RFC 9110 §7.6.1, with what older clients and the h2c upgrade send.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

pub(super) fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Managed {
    No,
    Yes,
    /// Reads like one to a backend that folds `_ . ! ~` into `-` (CGI, WSGI).
    Alias,
}

fn managed(name: &str) -> Managed {
    let bytes = name.as_bytes();
    if bytes.len() < 8 || bytes[0] != b'x' {
        return Managed::No;
    }
    let folded = |byte: u8| match byte {
        b'_' | b'.' | b'!' | b'~' => b'-',
        byte => byte,
    };
    let reads_as = |prefix: &[u8]| {
        bytes.len() >= prefix.len() && bytes.iter().zip(prefix).all(|(b, p)| folded(*b) == *p)
    };
    let is = |name: &[u8]| bytes.len() == name.len() && reads_as(name);
    if !(reads_as(b"x-forwarded-") || is(b"x-real-ip") || is(b"x-scheme")) {
        return Managed::No;
    }
    match bytes.iter().any(|byte| folded(*byte) != *byte) {
        true => Managed::Alias,
        false => Managed::Yes,
    }
}

/// Names in `Connection` that a peer cannot take away from the message (CVE-2024-45410).
fn is_essential(name: &str) -> bool {
    matches!(
        name,
        "host"
            | "authorization"
            | "cookie"
            | "set-cookie"
            | "cache-control"
            | "date"
            | "location"
            | "trailer"
            | "x-real-ip"
            | "forwarded"
    ) || name.starts_with("content-")
        || name.starts_with("x-forwarded-")
}

/// The names that `Connection` declares to be for this hop only.
struct Listed<'a>(Option<&'a HeaderMap>);

impl<'a> Listed<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let usual = |token: &[u8]| {
            [&b"keep-alive"[..], b"close", b"upgrade", b"te"]
                .iter()
                .any(|name| token.eq_ignore_ascii_case(name))
        };
        let unusual = headers.contains_key(header::CONNECTION)
            && tokens(headers, header::CONNECTION).any(|token| !usual(token));
        Self(unusual.then_some(headers))
    }

    fn names(&self, name: &str) -> bool {
        self.0.is_some_and(|headers| {
            !is_essential(name)
                && tokens(headers, header::CONNECTION)
                    .any(|token| token.eq_ignore_ascii_case(name.as_bytes()))
        })
    }
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TE)
        && tokens(headers, header::TE).any(|token| token.eq_ignore_ascii_case(b"trailers"))
}

fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|value| list(value.as_bytes()))
}

/// The elements of a comma-separated list.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

fn join(headers: &HeaderMap, name: &HeaderName, glue: &[u8], emit: impl FnOnce(&[u8])) {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return };
    let Some(second) = values.next() else {
        return emit(first.as_bytes());
    };
    let mut joined = first.as_bytes().to_vec();
    for value in std::iter::once(second).chain(values) {
        joined.extend_from_slice(glue);
        joined.extend_from_slice(value.as_bytes());
    }
    emit(&joined);
}

/// The port in `host:port` or `[v6]:port`.
fn port_of(host: &[u8]) -> Option<&[u8]> {
    let colon = memchr::memrchr(b':', host)?;
    let port = &host[colon + 1..];
    let bare_v6 = host[..colon].contains(&b':') && host[..colon].last() != Some(&b']');
    (!bare_v6 && !port.is_empty() && port.iter().all(u8::is_ascii_digit)).then_some(port)
}

#[cfg(test)]
mod tests;
