//! What requests are served under and a reload swaps whole: jails with their answers, routing,
//! trusted peers, limits, certificates. It opens no socket and decides nothing.

use std::{collections::HashMap, net::IpAddr, ops::RangeInclusive, sync::Arc};

use http::StatusCode;

use super::{access_log::AccessLog, forward_auth::Suspicion, tls};
use crate::{
    config::{self, ClientLimits, Config, DenyResponse, SourceCriterion, Tls},
    engine::{Engine, JailId, jail, nets::NetSet},
    proxy::Routing,
    telemetry::{Metrics, metrics::JailMetrics},
};

/// A configuration in force. Every worker holds a copy of its own, so that no count of references
/// is shared between cores.
#[derive(Clone, Debug)]
pub struct Site {
    /// Judges.
    pub engine: Arc<Engine>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Finds the service.
    pub routing: Arc<Routing>,
    /// Its entry points, in file order, and the forwardAuth listener after them.
    pub doors: Arc<[Door]>,
    /// Whether forwardAuth seems to be told the wrong client.
    pub suspicion: Arc<Suspicion>,
    /// Writes a line a request.
    pub access_log: Option<AccessLog>,
    /// The jails each route is judged by, by index of the route.
    routes: Arc<[Arc<[Warden]>]>,
    /// Who judges what matches no route: the jail `default`, when there is one.
    stray: Arc<[Warden]>,
    /// Every jail, for forwardAuth.
    wardens: Arc<Wardens>,
}

/// Found by name for each question of a trusted proxy, which names a jail of ours or none.
type Wardens = HashMap<Arc<str>, Warden, foldhash::fast::RandomState>;

/// The forwardAuth listener among the doors.
pub const FORWARD_AUTH: &str = "forwardAuth";

/// One entry point's part of the configuration.
#[derive(Clone)]
pub struct Door {
    /// Its key in the file.
    pub name: Arc<str>,
    /// Peers whose forwarding headers are believed, or that may ask.
    pub trusted: Arc<NetSet>,
    /// Peers that send a PROXY header.
    pub proxy_trusted: Arc<NetSet>,
    /// Limits on a client.
    pub limits: ClientLimits,
    /// Timeouts towards a client.
    pub timeouts: config::ClientTimeouts,
    /// Accepts TLS.
    pub tls: Option<tokio_rustls::TlsAcceptor>,
    /// Send the canonical target upstream.
    pub canonical_path: bool,
}

/// A jail as the gate sees it: whom it takes a request to be from, and what it answers.
#[derive(Clone, Debug)]
pub struct Warden {
    /// Its id in the engine.
    pub id: JailId,
    /// Its name.
    pub name: Arc<str>,
    /// Where the client's address comes from.
    pub source: Arc<SourceCriterion>,
    /// What a denied client gets.
    pub response: Arc<DenyResponse>,
    /// The same for nginx' `auth_request`, which takes nothing but 403 for a denial.
    pub to_nginx: Arc<DenyResponse>,
    /// Logs denied requests, when the jail wants it.
    pub block_log: Option<Arc<super::block_log::BlockLog>>,
    /// Its counters.
    pub metrics: Arc<JailMetrics>,
    /// The statuses it counts. Asked before the engine is: nearly no answer has one of them.
    statuses: Arc<[RangeInclusive<u16>]>,
}

/// The doors of a configuration: entry points in file order, then forwardAuth. Reads the
/// certificates, so it comes before anything else of a new configuration is put in force.
pub fn doors(config: &Config) -> Result<Arc<[Door]>, tls::Error> {
    let auth = config.forward_auth.iter().map(Door::asked);
    let doors = config.entry_points.iter().map(Door::open);
    doors.chain(auth).collect()
}

impl Site {
    /// Puts a configuration together. `doors` and `routing` were built from the same one, and
    /// `engine` has its jails in force.
    pub fn build(
        config: &Config,
        doors: Arc<[Door]>,
        engine: Arc<Engine>,
        metrics: Arc<Metrics>,
        routing: Arc<Routing>,
    ) -> Self {
        let wardens = wardens(config, &engine, &metrics);
        let named = |names: &[Arc<str>]| -> Arc<[Warden]> {
            names
                .iter()
                .filter_map(|name| wardens.get(name).cloned())
                .collect()
        };
        let stray = named(&["default".into()]);
        let routes = config
            .routes
            .iter()
            .map(|route| named(&route.jails))
            .collect();
        Self {
            engine,
            metrics,
            routing,
            doors,
            suspicion: Arc::default(),
            access_log: AccessLog::open(&config.log),
            routes,
            stray,
            wardens: Arc::new(wardens),
        }
    }

    /// The same for sockets that are open already: their doors, in their order. One that the new
    /// configuration does not have any more stays as it was until a restart.
    pub fn behind(mut self, open: &[Door]) -> Self {
        let door = |old: &Door| {
            self.doors
                .iter()
                .find(|new| new.name == old.name)
                .unwrap_or(old)
                .clone()
        };
        self.doors = open.iter().map(door).collect();
        self
    }

    /// The jails of a route, or of no route.
    pub fn wardens(&self, route: Option<usize>) -> &[Warden] {
        match route {
            Some(route) => &self.routes[route],
            None => &self.stray,
        }
    }

    /// The jail forwardAuth asks about; without a name, `default`.
    pub fn asked(&self, jail: Option<&str>) -> Option<&Warden> {
        self.wardens.get(jail.unwrap_or("default"))
    }
}

fn wardens(config: &Config, engine: &Engine, metrics: &Metrics) -> Wardens {
    let warden = |jail: &config::Jail| {
        let name = jail.spec.name.clone();
        let warden = Warden {
            id: engine.jail(&name)?,
            name: name.clone(),
            source: Arc::new(jail.source.clone()),
            response: Arc::new(jail.response.clone()),
            to_nginx: Arc::new(DenyResponse {
                status: StatusCode::FORBIDDEN,
                page: None,
                ..jail.response.clone()
            }),
            block_log: jail.block_logs.then(Arc::default),
            metrics: metrics.jail(&name),
            statuses: jail.spec.statuses.as_slice().into(),
        };
        Some((name, warden))
    };
    config.jails.iter().filter_map(warden).collect()
}

impl Warden {
    /// Whether it may count an answer with this status.
    pub fn counts(&self, status: StatusCode) -> bool {
        jail::counts(&self.statuses, status.as_u16())
    }
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door")
            .field("name", &self.name)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

impl Door {
    fn open(entry: &config::EntryPoint) -> Result<Self, tls::Error> {
        Ok(Self {
            name: entry.name.clone(),
            trusted: entry.forwarded_trusted.clone(),
            proxy_trusted: entry.proxy_trusted.clone(),
            limits: entry.limits.clone(),
            timeouts: entry.timeouts.clone(),
            tls: entry
                .tls
                .as_ref()
                .map(|tls: &Tls| tls::acceptor(tls))
                .transpose()?,
            canonical_path: entry.canonical_path,
        })
    }

    fn asked(auth: &config::ForwardAuth) -> Result<Self, tls::Error> {
        Ok(Self {
            name: FORWARD_AUTH.into(),
            trusted: auth.trusted.clone(),
            proxy_trusted: Arc::default(),
            limits: ClientLimits::default(),
            timeouts: config::ClientTimeouts::default(),
            tls: auth.tls.as_ref().map(tls::acceptor).transpose()?,
            canonical_path: false,
        })
    }

    /// Whether forwarding headers of this peer are believed. Who holds the unix socket is.
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        peer.is_none_or(|peer| self.trusted.contains(peer))
    }
}
