//! One worker's idle connections, newest first, and its HTTP/2 sessions. Nothing is shared
//! between workers; the locks are never contended.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::{
    h1::Connection,
    h2::{Session, Sessions},
    upstream::Server,
};
use crate::time::Millis;

#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "moved between pool and exchange by pointer")]
pub(super) struct Pool {
    idle: Mutex<HashMap<u64, Vec<Box<Connection>>, RandomState>>,
    sessions: Mutex<HashMap<u64, (Arc<Server>, Sessions), RandomState>>,
}

impl Pool {
    /// The connection used last that is still good; worse ones on the way are closed.
    pub(super) fn take(&self, server: &Server, now: Millis) -> Option<Box<Connection>> {
        let mut idle = self.idle.lock();
        let stack = idle.get_mut(&server.id)?;
        while let Some(mut connection) = stack.pop() {
            if expired(&connection, now) {
                // The ones below are older still.
                stack.clear();
                return None;
            }
            if !connection.is_stale() {
                return Some(connection);
            }
        }
        None
    }

    pub(super) fn put(&self, mut connection: Box<Connection>, now: Millis) {
        connection.idle_since = now;
        let mut idle = self.idle.lock();
        let stack = idle.entry(connection.server.id).or_default();
        if stack.len() < connection.server.transport.max_idle {
            stack.push(connection);
        }
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

    /// Closes what was idle for too long, or was closed by its server.
    pub(super) fn sweep(&self, now: Millis) {
        self.idle.lock().retain(|_, stack| {
            stack.retain_mut(|connection| !expired(connection, now) && !connection.is_stale());
            !stack.is_empty()
        });
        self.sessions
            .lock()
            .retain(|_, (server, sessions)| sessions.sweep(now, server.transport.idle_timeout));
    }

    /// Lets go of everything; exchanges under way end by themselves.
    pub(super) fn clear(&self) {
        self.idle.lock().clear();
        self.sessions.lock().clear();
    }
}

fn expired(connection: &Connection, now: Millis) -> bool {
    let limit = connection.server.transport.idle_timeout.as_millis() as Millis;
    limit > 0 && now.saturating_sub(connection.idle_since) >= limit
}
