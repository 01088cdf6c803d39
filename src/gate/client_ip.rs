//! Who a request is from: the peer, or whom a trusted peer says it speaks for. Pure functions of
//! address and headers; PROXY protocol has spoken before, and what to do with the answer is the
//! guard's.

use std::{fmt, net::IpAddr};

use http::{HeaderMap, HeaderName, header::ValueIter};

use crate::{
    config::SourceCriterion,
    engine::{client, nets::NetSet},
};

/// What is known of a request before its client is.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The other end of the connection, or what PROXY protocol said; `None` on a unix socket,
    /// where the peer is trusted and must send `X-Forwarded-For`.
    pub peer: Option<IpAddr>,
    /// Whether `trusted` has the peer. A unix socket's is believed anyway.
    pub believed: bool,
    /// As received: hop-by-hop headers not yet removed, so that `Connection` has no say here.
    pub headers: &'a HeaderMap,
    /// Peers whose forwarding headers are believed.
    pub trusted: &'a NetSet,
    /// The peer asks on behalf of its own peer (forwardAuth), whose address it has appended to
    /// `X-Forwarded-For`. Traefik's `depth` counts without that one.
    pub appended: bool,
}

/// The client and the rule that found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Canonical, not yet folded to a prefix.
    pub addr: IpAddr,
    /// Why it is this one.
    pub rule: Rule,
}

/// How the client's address was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It is the peer: not trusted to speak for others, or silent, or unintelligible.
    Peer,
    /// The first address of `X-Forwarded-For`, from the right, that is no trusted proxy; counted
    /// from 1.
    ForwardedFor {
        /// 1 is the rightmost.
        position: usize,
    },
    /// `ipStrategy.depth`.
    Depth(usize),
    /// `ipStrategy.excludedIPs` passed over some that `trustedIPs` would have stopped at.
    ExcludedIps {
        /// 1 is the rightmost.
        position: usize,
    },
    /// `requestHeaderName`.
    Header(HeaderName),
}

/// A unix socket's peer did not say, intelligibly, for whom it speaks: answer 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("X-Forwarded-For with the client's address is required on a unix socket")]
pub struct NoClient;

/// Elements of `X-Forwarded-For` read, from the right. A longer chain is cut here, not believed
/// further: the client is then the last one read.
pub const MOST_HOPS: usize = 64;

/// Bytes of `X-Forwarded-For` read, from the right, over all its lines. As for [`MOST_HOPS`].
pub const MOST_BYTES: usize = 8 << 10;

/// Establishes the client.
///
/// From an untrusted peer nothing is believed. From a trusted one, in this order:
/// 1. `requestHeaderName`, when the request has it once and it is one address. Two copies, a list
///    or anything else is not what a proxy sets, so it is passed over. (`X-Forwarded-For` named
///    here is no exception: its left end is the client's to write, so rule 3 reads it.)
/// 2. `depth`: the N-th address from the right of `X-Forwarded-For`, whose lines count as one.
///    When there are fewer, or it is no address, rule 3 decides; Traefik would share one bucket
///    among all such clients.
/// 3. From the right, the first address that is neither trusted nor excluded. An element that is
///    no address ends the walk, and the one to its right, nearer to us, is the client. When all
///    are proxies of ours, the leftmost is (as nginx's `real_ip_recursive` does).
///
/// `depth` outranks `excludedIPs`, as in Traefik.
#[inline]
pub fn establish(asked: &Asked<'_>, source: &SourceCriterion) -> Result<Client, NoClient> {
    match asked.peer {
        Some(peer) if !asked.believed => Ok(Client::peer(peer)),
        _ => believed(asked, source),
    }
}

impl Client {
    fn peer(peer: IpAddr) -> Self {
        Self {
            addr: client::canonical(peer),
            rule: Rule::Peer,
        }
    }
}

impl fmt::Display for Rule {
    /// For people: `whoami@internal` and `explain`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer => write!(f, "the peer"),
            Self::ForwardedFor { position } => {
                write!(
                    f,
                    "X-Forwarded-For, {position} from the right: first that is not trusted"
                )
            }
            Self::Depth(depth) => write!(f, "ipStrategy.depth {depth} of X-Forwarded-For"),
            Self::ExcludedIps { position } => {
                write!(
                    f,
                    "X-Forwarded-For, {position} from the right: first past excludedIPs"
                )
            }
            Self::Header(name) => write!(f, "requestHeaderName {name}"),
        }
    }
}

/// The chain of addresses that proxies append to.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The peer is trusted, or a unix socket's.
fn believed(asked: &Asked<'_>, source: &SourceCriterion) -> Result<Client, NoClient> {
    let walk = || Chain::of(asked.headers);
    if asked.peer.is_none() && walk().next().is_none() {
        return Err(NoClient);
    }
    if let Some(name) = &source.request_header_name
        && *name != FORWARDED_FOR
        && let Some(addr) = only_address(asked.headers, name)
    {
        return Ok(Client {
            addr,
            rule: Rule::Header(name.clone()),
        });
    }
    if source.depth > 0 {
        let before = source.depth - 1 + usize::from(asked.appended);
        if let Some(addr) = walk().nth(before).and_then(parse) {
            return Ok(Client {
                addr,
                rule: Rule::Depth(source.depth),
            });
        }
    }
    // The usual chain of one: there is no other to walk on to, trusted or not.
    if let Some(addr) = only_address(asked.headers, &FORWARDED_FOR) {
        let rule = Rule::ForwardedFor { position: 1 };
        return Ok(Client { addr, rule });
    }
    let excluded = source.excluded.as_deref().filter(|_| source.depth == 0);
    match walked(walk(), asked.trusted, excluded) {
        Some(client) => Ok(client),
        None => asked.peer.map(Client::peer).ok_or(NoClient),
    }
}

/// `None`: there was no address at all at the right end.
fn walked(chain: Chain<'_>, trusted: &NetSet, excluded: Option<&NetSet>) -> Option<Client> {
    let (mut last, mut by_exclusion) = (None, false);
    for (addr, position) in chain.map_while(parse).zip(1..) {
        let rule = match by_exclusion {
            true => Rule::ExcludedIps { position },
            false => Rule::ForwardedFor { position },
        };
        last = Some(Client { addr, rule });
        if !trusted.contains(addr) {
            if !excluded.is_some_and(|nets| nets.contains(addr)) {
                break;
            }
            by_exclusion = true;
        }
    }
    last
}

/// The elements of `X-Forwarded-For`, rightmost first, empty ones passed over as RFC 9110 §5.6.1
/// asks, within the bounds above.
struct Chain<'a> {
    lines: ValueIter<'a, http::HeaderValue>,
    rest: Option<&'a [u8]>,
    hops: usize,
    bytes: usize,
}

impl<'a> Chain<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let lines = headers.get_all(FORWARDED_FOR).into_iter();
        Self {
            lines,
            rest: None,
            hops: MOST_HOPS,
            bytes: MOST_BYTES,
        }
    }
}

impl<'a> Iterator for Chain<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let rest = match self.rest.take() {
                Some(rest) => rest,
                None => self.lines.next_back()?.as_bytes(),
            };
            // Looks for a comma no farther back than the bytes still allowed.
            let reach = rest.len().saturating_sub(self.bytes);
            let comma = memchr::memrchr(b',', &rest[reach..]).map(|at| reach + at);
            if comma.is_none() && reach > 0 {
                return None;
            }
            let element = &rest[comma.map_or(0, |at| at + 1)..];
            self.rest = comma.map(|at| &rest[..at]);
            self.bytes -= element.len();
            self.bytes = self.bytes.checked_sub(1)?;
            self.hops = self.hops.checked_sub(1)?;
            let element = element.trim_ascii();
            if !element.is_empty() {
                return Some(element);
            }
        }
    }
}

fn parse(element: &[u8]) -> Option<IpAddr> {
    client::read(element)
}

fn only_address(headers: &HeaderMap, name: &HeaderName) -> Option<IpAddr> {
    let mut values = headers.get_all(name).into_iter();
    let value = values.next()?;
    values
        .next()
        .is_none()
        .then(|| parse(value.as_bytes()))
        .flatten()
}

#[cfg(test)]
mod tests;
