//! The guard: asks the engine before a request is forwarded and tells it what came back.
//!
//! For each jail of the route, in order: who is the client, may it pass? The first refusal ends
//! it, and the service is never touched. Afterwards every jail that let it pass counts the status,
//! and the response that crosses a limit is replaced by the denial. Policy is the engine's; this
//! is a thin adapter, tested with a closure in place of the service.

mod future;
mod layer;
mod service;
#[cfg(test)]
mod tests;

pub use self::{
    future::Guarding,
    layer::GuardLayer,
    service::{Guard, deny},
};
