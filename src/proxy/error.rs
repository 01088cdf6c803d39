//! Why a request did not come back from its service, and the status each cause stands for. The
//! gate renders the answer; nothing here does.

use std::{fmt, io, sync::Arc};

use http::StatusCode;

/// Any boxed error, as bodies hand it over.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong, with the server it went wrong with (`host:port`, or a socket's path).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Every server of the service is down by its health check. 503.
    #[error("no server of service `{service}` is healthy")]
    NoServer {
        /// The service.
        service: Arc<str>,
    },
    /// No connection; nothing was sent. 502.
    #[error("cannot connect to {server}")]
    Connect {
        /// The server tried last.
        server: Arc<str>,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The TLS handshake failed; nothing was sent. 502.
    #[error("TLS handshake with {server} failed")]
    Tls {
        /// The server.
        server: Arc<str>,
        /// rustls' word.
        #[source]
        source: io::Error,
    },
    /// The server took too long. 504.
    #[error("{server} took too long: {phase}")]
    Timeout {
        /// The server.
        server: Arc<str>,
        /// Which limit passed.
        phase: Phase,
    },
    /// An answer that is not HTTP, or could be read in two ways. 502.
    #[error("{server} sent a bad response: {why}")]
    BadResponse {
        /// The server.
        server: Arc<str>,
        /// What was wrong with it.
        why: &'static str,
    },
    /// The connection ended before the answer did. 502.
    #[error("{server} closed the connection")]
    Reset {
        /// The server.
        server: Arc<str>,
        /// The system's word; none for an orderly close.
        #[source]
        source: Option<io::Error>,
    },
    /// The HTTP/2 exchange failed. 502.
    #[error("HTTP/2 with {server} failed")]
    Http2 {
        /// The server.
        server: Arc<str>,
        /// hyper's word.
        #[source]
        source: hyper::Error,
    },
    /// The request's body ended early or was refused by the layer it came through. 400, unless
    /// that layer knows better (look at the source).
    #[error("the request body broke off")]
    ClientBody(#[source] BoxError),
}

/// The limits of [`crate::config::Transport`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// `dial_timeout`.
    Dial,
    /// `response_header_timeout`.
    ResponseHeader,
    /// `body_timeout`, while the response was read.
    ResponseBody,
    /// `body_timeout`, while the server did not take the request.
    RequestBody,
}

impl Error {
    /// The status a client should see.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoServer { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::ClientBody(_) => StatusCode::BAD_REQUEST,
            Self::Connect { .. }
            | Self::Tls { .. }
            | Self::BadResponse { .. }
            | Self::Reset { .. }
            | Self::Http2 { .. } => StatusCode::BAD_GATEWAY,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dial => "no connection within dialTimeout",
            Self::ResponseHeader => "no response head within responseHeaderTimeout",
            Self::ResponseBody => "nothing more of the response body within bodyTimeout",
            Self::RequestBody => "took nothing more of the request body within bodyTimeout",
        })
    }
}
