//! Notices that a file of the configuration changed and has been written to its end. Loading and
//! swapping are the caller's.

use std::path::PathBuf;

use crate::tasks::Tasks;

/// Tells when one of the followed files changed.
#[derive(Debug)]
pub struct Watch {}

impl Watch {
    /// Follows these files (`Config::watched`) from their present state on.
    pub fn start(_tasks: &Tasks, _files: Vec<PathBuf>) -> Self {
        todo!()
    }

    /// Follows other files from now on: call it after each load.
    pub fn follow(&self, _files: Vec<PathBuf>) {
        todo!()
    }

    /// Resolves when a followed file has changed and lies still; safe to drop and call again.
    pub async fn changed(&mut self) {
        todo!()
    }
}
