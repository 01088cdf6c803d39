//! Connects [`Exchange`](super::exchange::Exchange)s to the rules of who a request is from: what
//! the peer may say of others, and what nobody may.

use std::net::IpAddr;

use http::HeaderMap;

use super::respond::Refusal;
use crate::config::SourceCriterion;

/// The client a jail counts.
pub fn client(
    peer: Option<IpAddr>,
    _trusted: bool,
    _headers: &HeaderMap,
    _source: &SourceCriterion,
) -> Result<IpAddr, Refusal> {
    peer.ok_or(Refusal::NoClient("X-Forwarded-For is missing"))
}

/// Drops what no peer may send: other spellings of headers that decide.
pub fn clean(_headers: &mut HeaderMap) {}

/// On a unix socket the peer has no address: it must say for whom it asks.
pub fn demand(peer: Option<IpAddr>, headers: &HeaderMap) -> Result<(), Refusal> {
    match peer {
        None if !headers.contains_key("x-forwarded-for") => Err(Refusal::NoClient(
            "X-Forwarded-For is required on a unix socket",
        )),
        _ => Ok(()),
    }
}
