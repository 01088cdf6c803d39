//! Statuses seen by another server: its access log, followed or received by OTLP, counted here.
//!
//! `format` reads lines, `follow` finds the next one, `checkpoint` remembers where that was, `otlp`
//! listens, `intake` decides what an event is worth and hands it to the engine at its own time,
//! `sources` puts together what a configuration names.

pub mod checkpoint;
pub mod follow;
pub mod format;
pub mod intake;
pub mod otlp;
pub mod sources;

pub use sources::{Shared, Sources};

#[cfg(test)]
mod tests;
