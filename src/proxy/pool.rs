//! One worker's idle connections, newest first, who waits for one, and its HTTP/2 sessions.
//! Nothing is shared between workers; the locks are never contended.

use std::{collections::VecDeque, fmt, sync::Arc};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    h1::Connection,
    h2::{Session, Sessions},
    reach::Dial,
    upstream::Server,
};
use crate::time::Millis;

/// How long a dial that nobody waits for is kept for the next who needs it.
const LEFT_FOR: Millis = 5_000;
/// A connection that was used so lately is none too many: under load those that are idle at one
/// moment are needed in the next.
const LATELY: Millis = 5_000;

#[derive(Debug, Default)]
pub(super) struct Pool {
    servers: Mutex<HashMap<u64, PerServer, RandomState>>,
    sessions: Mutex<HashMap<u64, (Arc<Server>, Sessions), RandomState>>,
}

/// What there is of one server's HTTP/1.1 connections. Where somebody waits nothing is idle.
#[derive(Default)]
#[expect(clippy::vec_box, reason = "moved between pool and exchange by pointer")]
struct PerServer {
    idle: Vec<Box<Connection>>,
    /// Longest first; some may have gone.
    waiting: VecDeque<oneshot::Sender<Box<Connection>>>,
    /// Begun by requests that were given a connection before, and since when they are left.
    dials: Vec<(Millis, Dial)>,
}

impl Pool {
    /// The connection used last that is still good; worse ones on the way are closed.
    pub(super) fn take(&self, server: &Server, now: Millis) -> Option<Box<Connection>> {
        let mut servers = self.servers.lock();
        let idle = &mut servers.get_mut(&server.id)?.idle;
        while let Some(mut connection) = idle.pop() {
            if expired(&connection, now) {
                // The ones below are older still.
                idle.clear();
                return None;
            }
            if !connection.is_stale() {
                return Some(connection);
            }
        }
        None
    }

    /// Hands the connection to who has waited longest, or keeps it.
    pub(super) fn put(&self, mut connection: Box<Connection>, now: Millis) {
        if connection.server.transport.max_idle == 0 {
            return;
        }
        connection.idle_since = now;
        let mut servers = self.servers.lock();
        let of = servers.entry(connection.server.id).or_default();
        while let Some(waiting) = of.waiting.pop_front() {
            match waiting.send(connection) {
                Ok(()) => return,
                Err(refused) => connection = refused,
            }
        }
        of.idle.push(connection);
    }

    /// Takes the last place among those who wait for a connection to be given back.
    pub(super) fn wait(&self, server: &Server) -> oneshot::Receiver<Box<Connection>> {
        let (give, given) = oneshot::channel();
        let mut servers = self.servers.lock();
        let waiting = &mut servers.entry(server.id).or_default().waiting;
        while waiting.front().is_some_and(oneshot::Sender::is_closed) {
            waiting.pop_front();
        }
        waiting.push_back(give);
        given
    }

    /// Leaves a dial that is no longer needed to the next who does.
    pub(super) fn leave(&self, server: &Server, dial: Dial, now: Millis) {
        let mut servers = self.servers.lock();
        let of = servers.entry(server.id).or_default();
        of.dials.push((now, dial));
    }

    /// A dial that was left.
    pub(super) fn left(&self, server: &Server) -> Option<Dial> {
        let mut servers = self.servers.lock();
        let (_, dial) = servers.get_mut(&server.id)?.dials.pop()?;
        Some(dial)
    }

    pub(super) fn session(&self, server: &Server) -> Option<Session> {
        self.sessions.lock().get_mut(&server.id)?.1.find()
    }

    pub(super) fn add_session(&self, server: &Arc<Server>, session: Session) {
        self.with_sessions(server, |sessions| sessions.add(session));
    }

    /// What is held while a session to `server` is opened.
    pub(super) fn dialling(&self, server: &Arc<Server>) -> Arc<tokio::sync::Mutex<()>> {
        self.with_sessions(server, |sessions| sessions.dialling.clone())
    }

    fn with_sessions<R>(&self, server: &Arc<Server>, then: impl FnOnce(&mut Sessions) -> R) -> R {
        let mut sessions = self.sessions.lock();
        let entry = sessions.entry(server.id);
        then(
            &mut entry
                .or_insert_with(|| (server.clone(), Sessions::default()))
                .1,
        )
    }

    /// Closes what was idle or left for too long, or was closed by its server.
    pub(super) fn sweep(&self, now: Millis) {
        self.servers.lock().retain(|_, of| {
            let good = |it: &mut Box<Connection>| !expired(it, now) && !it.is_stale();
            of.idle.retain_mut(good);
            of.idle.drain(..of.surplus(now));
            of.waiting.retain(|waiting| !waiting.is_closed());
            of.dials
                .retain(|(since, _)| now.saturating_sub(*since) < LEFT_FOR);
            !(of.idle.is_empty() && of.waiting.is_empty() && of.dials.is_empty())
        });
        self.sessions
            .lock()
            .retain(|_, (server, sessions)| sessions.sweep(now, server.transport.idle_timeout));
    }

    /// Lets go of everything; exchanges under way end by themselves.
    pub(super) fn clear(&self) {
        self.servers.lock().clear();
        self.sessions.lock().clear();
    }
}

fn expired(connection: &Connection, now: Millis) -> bool {
    let limit = connection.server.transport.idle_timeout.as_millis() as Millis;
    limit > 0 && now.saturating_sub(connection.idle_since) >= limit
}

impl PerServer {
    /// How many of the oldest are more than `max_idle`, which is of those not used lately.
    fn surplus(&self, now: Millis) -> usize {
        let Some(newest) = self.idle.last() else {
            return 0;
        };
        let limit = newest.server.transport.max_idle;
        let over = self.idle.len().saturating_sub(limit);
        let unused = self.idle[..over]
            .iter()
            .take_while(|it| now.saturating_sub(it.idle_since) >= LATELY);
        unused.count()
    }
}

impl fmt::Debug for PerServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerServer")
            .field("idle", &self.idle)
            .field("waiting", &self.waiting.len())
            .field("dials", &self.dials.len())
            .finish()
    }
}
