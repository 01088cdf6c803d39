//! From an event to the engine: whose it is, whether it may count, and at what time.
//!
//! Shared by the follower and the OTLP receiver. Refuses what jailgate said itself, what has no
//! meaning as a failure, and what lies in the future or too far back to matter.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use tracing::warn;

use super::format::{Client, Event, Mark, Unparsed};
use crate::{
    config::Jail,
    engine::{Engine, JailId, REFUSED, Reason, Request, Told, nets::NetSet},
    telemetry::{Metrics, metrics::JailMetrics, privacy::logged},
    time::Millis,
};

/// Where the events of one source go. Cheap to share; made anew when the configuration changes.
#[derive(Debug)]
pub struct Intake {
    engine: Arc<Engine>,
    metrics: Arc<Metrics>,
    jails: Vec<Target>,
    /// Older than this an event can neither fill a window nor leave a ban that still holds.
    horizon: Millis,
    /// Statuses our own denials have.
    denials: Vec<u16>,
    trusted: Arc<NetSet>,
    own: OwnAddresses,
    /// What warnings call the source: a path, or `otlp`.
    name: Arc<str>,
    once: Once,
    samples: Samples,
}

/// The sockets on which jailgate itself proxies: what a log says to have been served there was
/// decided and counted inline.
#[derive(Clone, Debug, Default)]
pub struct OwnAddresses {
    /// Ports of the entry points.
    pub ports: Vec<u16>,
    /// The machine's own addresses.
    pub itself: Arc<NetSet>,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The jails have judged it.
    Judged,
    /// jailgate's own denial, or a request it proxied itself.
    Own,
    /// 0, 499, 502, 503, 504: nobody's failure.
    Meaningless,
    /// More than a minute ahead of the clock.
    Future,
    /// Before anything that could still matter.
    Stale,
    /// No address in the chain.
    Nobody,
}

#[derive(Debug)]
struct Target {
    id: JailId,
    metrics: Arc<JailMetrics>,
}

/// Warnings that are worth one line, not one per event.
#[derive(Debug, Default)]
struct Once {
    peer: AtomicBool,
    future: AtomicBool,
    stale: AtomicBool,
}

/// Lets one unparsable line in ten seconds through to the log.
#[derive(Debug, Default)]
struct Samples {
    next: AtomicU64,
    held_back: AtomicU64,
}

/// How far ahead of us the clock of a log's writer may run.
const AHEAD: Millis = 60_000;
/// Between two samples of unparsable lines.
const SAMPLE_EVERY: Millis = 10_000;
/// Bytes of an unparsable line that are shown.
const SAMPLE_BYTES: usize = 256;

impl Intake {
    /// Events of `name` for the jails so named; names the engine does not know are passed over
    /// (the configuration was checked before).
    pub fn new(
        name: impl Into<Arc<str>>,
        engine: Arc<Engine>,
        metrics: Arc<Metrics>,
        jails: &[&Jail],
        trusted: Arc<NetSet>,
        own: OwnAddresses,
    ) -> Self {
        let horizon = |jail: &&Jail| {
            let longest = jail
                .spec
                .increment
                .map_or(jail.spec.bantime, |grown| grown.maxtime);
            (jail.spec.findtime + longest.max(jail.spec.bantime)).as_millis() as Millis
        };
        let target = |jail: &&Jail| {
            let metrics = metrics.jail(&jail.spec.name);
            engine
                .jail(&jail.spec.name)
                .map(|id| Target { id, metrics })
        };
        Self {
            horizon: jails.iter().map(horizon).max().unwrap_or(0),
            denials: jails
                .iter()
                .map(|jail| jail.response.status.as_u16())
                .collect(),
            jails: jails.iter().filter_map(target).collect(),
            engine,
            metrics,
            trusted,
            own,
            name: name.into(),
            once: Once::default(),
            samples: Samples::default(),
        }
    }

    /// Counts what one event says, at the event's own time.
    pub fn take(&self, event: &Event<'_>, now: Millis) -> Taken {
        self.metrics.log_lines.inc();
        if matches!(event.status, 0 | 499 | 502 | 503 | 504) {
            return Taken::Meaningless;
        }
        if is_own(event, &self.denials) || self.own.served(&event.server) {
            return Taken::Own;
        }
        let Some(client) = event.chain.client(&self.trusted) else {
            return Taken::Nobody;
        };
        let at = match self.time_of(event, now) {
            Ok(at) => at,
            Err(taken) => return taken,
        };
        self.warn_of_peer(client);
        let request = Request {
            client: client.addr,
            method: &event.method,
            target: &event.target,
            told: Told::These {
                host: &event.host,
                agent: &event.agent,
            },
            plain: false,
        };
        self.judge(&request, event.status, at);
        Taken::Judged
    }

    /// Counts a line that could not be read and shows one now and then, escaped and cut short.
    pub fn unparsed(&self, line: &[u8], why: Unparsed, now: Millis) {
        self.metrics.log_lines.inc();
        self.metrics.log_unparsed.inc();
        if let Some(more) = self.samples.allow(now) {
            let line = line[..line.len().min(SAMPLE_BYTES)].escape_ascii();
            warn!(source = %self.name, %why, %line, more, "access-log line not understood");
        }
    }

    /// The name of the source.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The metrics of the process, for the follower's lag.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// A denial by list, ban or rule was jailgate's own answer if the gate was asked, and no
    /// failure of the client either way: only what passes is observed.
    fn judge(&self, request: &Request<'_>, status: u16, at: Millis) {
        for jail in &self.jails {
            if self.engine.hear(jail.id, request, status, at) {
                jail.metrics.failures.inc();
            }
        }
    }

    fn time_of(&self, event: &Event<'_>, now: Millis) -> Result<Millis, Taken> {
        let at = event.time.unwrap_or(now);
        if at > now + AHEAD {
            if !self.once.future.swap(true, Relaxed) {
                warn!(source = %self.name, at, now, "access log ahead of the clock, such lines do not count");
            }
            return Err(Taken::Future);
        }
        if at + self.horizon < now {
            if !self.once.stale.swap(true, Relaxed) {
                warn!(source = %self.name, at, now, "access log older than findtime and bantime, such lines do not count");
            }
            return Err(Taken::Stale);
        }
        Ok(at.min(now))
    }

    fn warn_of_peer(&self, client: Client) {
        if client.unlisted_peer && !self.once.peer.swap(true, Relaxed) {
            warn!(
                source = %self.name, peer = logged(client.addr),
                "the log's server believes this peer's X-Forwarded-For, its trustedIPs here does \
                 not list it: everyone behind it counts as one client"
            );
        }
    }
}

impl OwnAddresses {
    fn served(&self, server: &[u8]) -> bool {
        if server.is_empty() || self.ports.is_empty() {
            return false;
        }
        let socket = std::str::from_utf8(server)
            .ok()
            .and_then(|s| s.parse::<SocketAddr>().ok());
        socket.is_some_and(|socket| {
            let ip: IpAddr = socket.ip().to_canonical();
            self.ports.contains(&socket.port()) && (ip.is_loopback() || self.itself.contains(ip))
        })
    }
}

impl Samples {
    /// `Some(held back since the last)` when a sample may be shown.
    fn allow(&self, now: Millis) -> Option<u64> {
        let next = self.next.load(Relaxed);
        let mine = now >= next
            && self
                .next
                .compare_exchange(next, now + SAMPLE_EVERY, Relaxed, Relaxed)
                .is_ok();
        if !mine {
            self.held_back.fetch_add(1, Relaxed);
            return None;
        }
        Some(self.held_back.swap(0, Relaxed))
    }
}

/// Whether the answer was jailgate's own denial. A stamp counts only together with a status that
/// our denials have: a client that names itself `banned` must not hide its 401s and 404s.
pub fn is_own(event: &Event<'_>, denials: &[u16]) -> bool {
    match &event.mark {
        Mark::None => false,
        Mark::Header => true,
        Mark::Stamp(word) => {
            let reasons = [
                Reason::Banned,
                Reason::Denylist,
                Reason::Rule,
                Reason::Decision,
            ];
            let refused = event.status == 400 && &**word == REFUSED.as_bytes();
            refused
                || event.status != 401
                    && denials.contains(&event.status)
                    && reasons
                        .iter()
                        .any(|reason| reason.as_str().as_bytes() == &**word)
        }
    }
}
