//! The gate: takes connections, judges requests, forwards or refuses them. It decides nothing by
//! itself (the engine does) and speaks to no server by itself (the proxy does).
//!
//! [`bind`] takes the sockets, [`Opened::run`] starts the workers, [`Gate::reload`] swaps what is
//! in force, and when the tasks stop, [`Gate::drained`] waits for the last answer.

mod access_log;
mod admit;
mod block_log;
mod boxes;
pub mod client_ip;
mod connection;
mod exchange;
mod forward_auth;
mod guard;
mod identify;
mod limits;
mod link;
mod proxy_protocol;
mod respond;
mod scan;
mod server;
mod site;
mod socket;
mod stack;
mod streams;
mod strict;
#[cfg(test)]
mod tests;
mod tls;
mod whoami;
mod wire;

pub use self::{
    server::{Error, Gate, Left, Opened, bind, cores},
    site::{Site, doors},
    tls::Error as TlsError,
};
