//! One jail: the engine's part and what adapters do around it.

use std::sync::Arc;

use crate::engine::{JailSpec, nets::NetSet};

/// One jail: the engine's part and what adapters do around it.
#[derive(Clone, Debug)]
pub struct Jail {
    /// Rules, lists, windows: what the engine enforces.
    pub spec: JailSpec,
    /// Where the client's address comes from.
    pub source: SourceCriterion,
    /// What a denied client gets.
    pub response: DenyResponse,
    /// Log denied requests.
    pub block_logs: bool,
}

/// Traefik's `sourceCriterion`.
#[derive(Clone, Debug, Default)]
pub struct SourceCriterion {
    /// Header that names the client, lower case; believed from trusted peers only.
    pub request_header_name: Option<http::HeaderName>,
    /// Take the N-th address of `X-Forwarded-For` from the right; 0 is off.
    pub depth: usize,
    /// Addresses passed over, right to left.
    pub excluded: Option<Arc<NetSet>>,
}

/// What a denied client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenyResponse {
    /// Status; 403 by default.
    pub status: http::StatusCode,
    /// Send `Retry-After`.
    pub retry_after: bool,
    /// HTML template, already read.
    pub page: Option<Arc<str>>,
}

impl Default for DenyResponse {
    fn default() -> Self {
        Self {
            status: http::StatusCode::FORBIDDEN,
            retry_after: true,
            page: None,
        }
    }
}
