//! Where jailgate listens: entry points, the forwardAuth and admin listeners, and what one client
//! connection may cost there.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use super::Secret;
use crate::engine::nets::NetSet;

/// A socket to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `host:port`; `:port` means every address, v6 and v4.
    Tcp(SocketAddr),
    /// `unix:/path`.
    Unix(PathBuf),
}

/// One listener of the gate.
#[derive(Clone, Debug)]
pub struct EntryPoint {
    /// Its key in the file.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: Address,
    /// Peers whose `X-Forwarded-*` are believed.
    pub forwarded_trusted: Arc<NetSet>,
    /// Peers that send a PROXY protocol header.
    pub proxy_trusted: Arc<NetSet>,
    /// TLS; `None` is plain text (HTTP/1.1 and h2c by prior knowledge).
    pub tls: Option<Tls>,
    /// Timeouts towards the client.
    pub timeouts: ClientTimeouts,
    /// Limits on what a client may send and hold.
    pub limits: ClientLimits,
    /// Send the canonical request line upstream instead of the one received.
    pub canonical_path: bool,
}

/// A certificate for a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// PEM files.
    Files {
        /// Certificate chain, leaf first.
        cert: PathBuf,
        /// Private key.
        key: PathBuf,
    },
    /// Made at start.
    SelfSigned,
}

/// Traefik's `transport.respondingTimeouts` and `lifeCycle`. Zero durations mean no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTimeouts {
    /// From the first byte of a request head to its last, and for a TLS handshake. 30 s.
    pub header: Duration,
    /// Between two reads of a request body or two writes of a response. 60 s.
    pub body: Duration,
    /// A connection without a request. 180 s.
    pub idle: Duration,
    /// How long open requests may finish after SIGTERM. 10 s.
    pub grace: Duration,
}

/// What one client connection may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Bytes of one request head; more is 431. 64 KiB.
    pub header_bytes: usize,
    /// Header lines; more is 431. 100.
    pub headers: usize,
    /// Bytes of the request target; more is 414. 16 KiB.
    pub uri_bytes: usize,
    /// Connections open at once; more are refused. 10,000 (0: no limit).
    pub connections: usize,
    /// The same per client address, trusted peers excepted. 512 (0: no limit).
    pub connections_per_client: usize,
    /// Bytes of a request body; more is 413. 0: no limit.
    pub body_bytes: u64,
    /// HTTP/2 streams open at once on one connection. 100.
    pub concurrent_streams: u32,
}

/// The forwardAuth listener.
#[derive(Clone, Debug)]
pub struct ForwardAuth {
    /// Where it listens.
    pub address: Address,
    /// The proxies that may ask.
    pub trusted: Arc<NetSet>,
    /// TLS.
    pub tls: Option<Tls>,
}

/// The admin listener.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where it listens. `127.0.0.1:9180`.
    pub address: Address,
    /// Bearer token; mandatory off loopback.
    pub token: Option<Secret>,
    /// Bearer token that may look and change nothing.
    pub read_token: Option<Secret>,
    /// Names a browser may call it by besides loopback and the address itself.
    pub hosts: Vec<String>,
}

impl Address {
    /// Reads `host:port`, `:port` or `unix:/path`. The error says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" => Err("`unix:` needs a path, as in `unix:/run/jailgate.sock`".to_owned()),
                path => Ok(Self::Unix(path.into())),
            };
        }
        let wrong = || format!("`{text}` is not host:port, :port or unix:/path");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let port: u16 = port
            .parse()
            .map_err(|_| format!("port {port} does not exist; the last one is 65535"))?;
        let ip = match host {
            "" => Ipv6Addr::UNSPECIFIED.into(),
            "localhost" => IpAddr::from([127, 0, 0, 1]),
            _ => match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
                Some(v6) => v6.parse::<Ipv6Addr>().map_err(|_| wrong())?.into(),
                None => host.parse::<std::net::Ipv4Addr>().map_err(|_| {
                    format!("`{host}` is no address to listen on; write an IP, [v6] or nothing for all")
                })?.into(),
            },
        };
        Ok(Self::Tcp(SocketAddr::new(ip, port)))
    }

    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Default for ClientTimeouts {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(30),
            body: Duration::from_secs(60),
            idle: Duration::from_secs(180),
            grace: Duration::from_secs(10),
        }
    }
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            header_bytes: 64 << 10,
            headers: 100,
            uri_bytes: 16 << 10,
            connections: 10_000,
            connections_per_client: 512,
            body_bytes: 0,
            concurrent_streams: 100,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            address: Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 9180))),
            token: None,
            read_token: None,
            hosts: Vec::new(),
        }
    }
}
