//! jailgate as a program, over real sockets, with real peers from Debian's packages.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "tests stand outside the house: they own their clock, threads, locks and panics"
)]

mod admin;
mod cloudflare;
mod contrib;
mod crowdsec;
mod dashboard;
mod documents;
mod gate;
mod kill;
mod logs;
mod notify;
mod peers;
mod program;
mod service;
mod simulator;
mod state;
mod support;
mod sync;
