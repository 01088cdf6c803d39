//! A service and its servers: which one is asked next, and which are passed over. How one is
//! reached is `dial`'s, how its health is asked `health`'s.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use super::{Error, routes::BuildError, tls::ClientTls};
use crate::{
    config::{self, Scheme},
    time::Millis,
};

/// A service with its servers, shared by all workers.
#[derive(Debug)]
pub struct Upstream {
    name: Arc<str>,
    pub(super) pass_host_header: bool,
    pub(super) health_check: Option<config::HealthCheck>,
    pub(super) servers: Vec<Arc<Server>>,
    turn: AtomicUsize,
}

/// One server as long as its address and transport stay the same, over reloads too.
#[derive(Debug)]
pub(super) struct Server {
    /// Unique in this process; what the pools go by.
    pub(super) id: u64,
    /// `host:port` or the socket's path, for errors and logs.
    pub(super) label: Arc<str>,
    /// Its own Host header: `host`, with the port unless it is the scheme's.
    pub(super) authority: Box<str>,
    pub(super) config: config::Server,
    pub(super) transport: config::Transport,
    pub(super) tls: Option<ClientTls>,
    /// The last TLS handshake chose HTTP/2.
    pub(super) chose_h2: AtomicBool,
    pub(super) health: Health,
}

/// What is known of a server's health. After a failed connect it is passed over for 1 s, doubled
/// with each further one up to 30 s; then one request tries it while the others still pass it
/// over. A health check's verdict stands until the next one.
#[derive(Debug, Default)]
pub(super) struct Health {
    failures: AtomicU32,
    retry_at: AtomicU64,
    checked_down: AtomicBool,
}

impl Upstream {
    /// Compiles a service, taking over the servers of `previous` that did not change.
    pub(super) fn build(
        service: &config::Service,
        previous: Option<&Upstream>,
    ) -> Result<Self, BuildError> {
        let known = previous.map_or(&[][..], |previous| &previous.servers);
        let server = |server: &config::Server| {
            let same = |known: &&Arc<Server>| {
                known.config == *server && known.transport == service.transport
            };
            match known.iter().find(same) {
                Some(known) => Ok(known.clone()),
                None => Server::build(server, &service.transport).map(Arc::new),
            }
        };
        let servers = service.servers.iter().map(server);
        Ok(Self {
            name: service.name.clone(),
            pass_host_header: service.pass_host_header,
            health_check: service.health_check.clone(),
            servers: servers
                .collect::<Result<_, String>>()
                .map_err(|why| BuildError::Tls {
                    service: service.name.clone(),
                    why,
                })?,
            turn: AtomicUsize::new(0),
        })
    }

    /// The service's name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Every server as `host:port` with whether requests are sent to it now.
    pub fn servers(&self, now: Millis) -> impl Iterator<Item = (&Arc<str>, bool)> {
        self.servers
            .iter()
            .map(move |server| (&server.label, server.health.takes_requests(now)))
    }

    /// The next server in turn that is not among `tried`. When all are in their back-off, the
    /// one that leaves it first is tried all the same; those that a health check found down are
    /// not.
    pub(super) fn pick(&self, now: Millis, tried: &[u64]) -> Result<&Arc<Server>, Error> {
        if let ([only], []) = (&self.servers[..], tried)
            && !only.health.checked_down.load(Relaxed)
        {
            return Ok(only);
        }
        let turn = self.turn.fetch_add(1, Relaxed) % self.servers.len().max(1);
        let (later, first) = self.servers.split_at(turn);
        let left = || {
            first
                .iter()
                .chain(later)
                .filter(|server| !tried.contains(&server.id))
                .filter(|server| !server.health.checked_down.load(Relaxed))
        };
        left()
            .find(|server| server.health.admits(now))
            .or_else(|| left().min_by_key(|server| server.health.retry_at.load(Relaxed)))
            .ok_or_else(|| Error::NoServer {
                service: self.name.clone(),
            })
    }
}

impl Server {
    fn build(server: &config::Server, transport: &config::Transport) -> Result<Self, String> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let config::Server {
            scheme, host, port, ..
        } = server;
        let bracketed = match host.contains(':') && !host.starts_with('[') {
            true => format!("[{host}]"),
            false => host.to_string(),
        };
        let usual = matches!(
            (scheme, port),
            (Scheme::Https, 443) | (Scheme::Http | Scheme::H2c, 80)
        );
        let authority = match scheme {
            Scheme::Unix => "localhost".to_owned(),
            _ if usual => bracketed.clone(),
            _ => format!("{bracketed}:{port}"),
        };
        let label = match scheme {
            Scheme::Unix => format!("unix:{host}"),
            _ => format!("{bracketed}:{port}"),
        };
        let tls = match scheme {
            Scheme::Https => Some(ClientTls::build(host, transport)?),
            _ => None,
        };
        Ok(Self {
            id: NEXT_ID.fetch_add(1, Relaxed),
            label: label.into(),
            authority: authority.into(),
            config: server.clone(),
            transport: transport.clone(),
            tls,
            chose_h2: AtomicBool::new(false),
            health: Health::default(),
        })
    }

    /// HTTP/2 is what it speaks, as far as is known.
    pub(super) fn speaks_h2(&self) -> bool {
        match self.config.scheme {
            Scheme::H2c => true,
            Scheme::Https => self.chose_h2.load(Relaxed),
            Scheme::Http | Scheme::Unix => false,
        }
    }
}

impl Health {
    /// It was connected to, or answered.
    pub(super) fn alive(&self) {
        if self.failures.load(Relaxed) > 0 {
            self.failures.store(0, Relaxed);
            self.retry_at.store(0, Relaxed);
        }
    }

    /// No connection could be made.
    pub(super) fn failed(&self, now: Millis) {
        let failures = self.failures.fetch_add(1, Relaxed);
        self.retry_at.store(now + backoff(failures), Relaxed);
    }

    /// A health check's verdict. Answers whether it is news.
    pub(super) fn checked(&self, healthy: bool) -> bool {
        if healthy {
            self.alive();
        }
        self.checked_down.swap(!healthy, Relaxed) == healthy
    }

    fn takes_requests(&self, now: Millis) -> bool {
        !self.checked_down.load(Relaxed) && self.retry_at.load(Relaxed) <= now
    }

    /// Whether this request may go there. After a back-off only the first to ask may, until it
    /// is known what became of it or another back-off has passed.
    fn admits(&self, now: Millis) -> bool {
        let retry_at = self.retry_at.load(Relaxed);
        if retry_at == 0 {
            return true;
        }
        let failures = self.failures.load(Relaxed);
        retry_at <= now
            && self
                .retry_at
                .compare_exchange(retry_at, now + backoff(failures), Relaxed, Relaxed)
                .is_ok()
    }
}

fn backoff(failures: u32) -> Millis {
    (1_000 << failures.min(5)).min(30_000)
}
