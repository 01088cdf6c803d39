//! A service and its servers: which one is asked next, and which are passed over.

use std::sync::Arc;

/// A service with its servers, shared by all workers.
#[derive(Debug)]
pub struct Upstream {
    name: Arc<str>,
}

impl Upstream {
    /// The service's name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }
}
