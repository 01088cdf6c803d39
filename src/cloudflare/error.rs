//! What can go wrong with Cloudflare, in words that never hold the token.

use std::time::Duration;

use reqwest::Method;

use crate::telemetry::in_full;

/// An exchange with Cloudflare that did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token or account is refused: trying again does not help.
    #[error("{call}: the token or the account is refused ({status}): {body}")]
    Auth {
        /// Method and URL.
        call: Call,
        /// HTTP status.
        status: u16,
        /// What it said, at most 500 characters.
        body: String,
    },
    /// Too many requests, or another operation is pending in the account.
    #[error("{call}: 429 {body}")]
    Limited {
        /// Method and URL.
        call: Call,
        /// What it said, at most 500 characters.
        body: String,
        /// How long to keep away.
        wait: Duration,
    },
    /// Any other answer than success.
    #[error("{call}: {status} {body}")]
    Refused {
        /// Method and URL.
        call: Call,
        /// HTTP status.
        status: u16,
        /// What it said, at most 500 characters.
        body: String,
    },
    /// No answer.
    #[error("{call}: {}", in_full(.source))]
    Transport {
        /// Method and URL.
        call: Call,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// A bulk operation ended badly; nothing of it took effect.
    #[error("bulk operation {id} failed: {error}")]
    Failed {
        /// The operation.
        id: String,
        /// Cloudflare's words.
        error: String,
    },
    /// A bulk operation did not end in time. It may still take effect.
    #[error("bulk operation {id} is still pending; nothing more is changed until it has ended")]
    Pending {
        /// The operation.
        id: String,
    },
    /// The time for this run is over.
    #[error("no time is left for this run")]
    OutOfTime,
    /// The list holds no addresses.
    #[error("the list {0} is not of kind `ip`")]
    Kind(String),
    /// The HTTP client cannot be set up, or the token is no header value.
    #[error("{0}")]
    Setup(String),
}

/// Method and URL of a request.
#[derive(Clone, Debug)]
pub struct Call {
    /// `GET`, …
    pub method: Method,
    /// Without credentials, which travel in a header.
    pub url: String,
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.url)
    }
}

impl Error {
    /// The quota of items is used up.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Failed { error, .. } if error.contains("maximum number of items"))
    }
}
