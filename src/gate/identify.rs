//! Connects [`Exchange`]s to the rules of who a request is from ([`client_ip`]).

use super::{
    client_ip::{self, Asked, Client},
    exchange::Exchange,
    respond::Refusal,
    site::Warden,
};
use crate::config::SourceCriterion;

const NO_CLIENT: Refusal =
    Refusal::NoClient("X-Forwarded-For with the client's address is required on a unix socket");

/// The client a jail counts.
pub fn client(exchange: &Exchange, warden: &Warden) -> Result<Client, Refusal> {
    by(exchange, &warden.source, false)
}

/// The client a proxy asks about, which has appended its own peer's address.
pub fn asked_about(exchange: &Exchange, warden: &Warden) -> Result<Client, Refusal> {
    by(exchange, &warden.source, true)
}

/// The client as it is shown where no jail says how to find it.
pub fn shown(exchange: &Exchange) -> Option<Client> {
    by(exchange, &SourceCriterion::default(), false).ok()
}

/// Refuses what cannot be judged by any jail.
pub fn demand(exchange: &Exchange) -> Result<(), Refusal> {
    match exchange.link.peer {
        Some(_) => Ok(()),
        None => by(exchange, &SourceCriterion::default(), false).map(drop),
    }
}

fn by(exchange: &Exchange, source: &SourceCriterion, appended: bool) -> Result<Client, Refusal> {
    let asked = Asked {
        peer: exchange.link.peer_ip(),
        // Admission has looked it up.
        believed: exchange.trusted,
        headers: &exchange.head.headers,
        trusted: &exchange.site.doors[exchange.door].trusted,
        appended,
    };
    client_ip::establish(&asked, source).map_err(|_| NO_CLIENT)
}
