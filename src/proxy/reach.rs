//! How a request comes to a way to a server when its worker has no idle connection: a new one, or
//! the first that another request gives back meanwhile. Without that, where a server is slow to
//! accept or its queue is full, requests that dial would wait for seconds while later ones go round
//! on the connections there are. Go's `http.Transport` and hyper-util's pool do the same.

use std::{future::Future, pin::Pin, sync::Arc};

use super::{
    Error, Proxy,
    dial::{Dialled, dial},
    h1::Connection,
    h2::Session,
    upstream::Server,
};

/// A way to a server.
pub(super) enum Reached {
    H1(Box<Connection>),
    H2(Session),
}

/// A connection being opened, to whoever needs one.
pub(super) type Dial = Pin<Box<dyn Future<Output = Result<Dialled, Error>> + Send>>;

impl Proxy {
    /// A session with room, or a connection of one's own.
    pub(super) async fn reach(
        &self,
        server: &Arc<Server>,
        h1_only: bool,
    ) -> Result<Reached, Error> {
        if h1_only {
            return self.greet(server, dial(server, true).await?).await;
        }
        if !server.speaks_h2() {
            return self.wait_or_dial(server).await;
        }
        let pool = &self.0.pool;
        if let Some(session) = pool.session(server) {
            return Ok(Reached::H2(session));
        }
        let dialling = pool.dialling(server);
        let _turn = dialling.lock().await;
        match pool.session(server) {
            Some(session) => Ok(Reached::H2(session)),
            None => self.greet(server, dial(server, false).await?).await,
        }
    }

    /// A dial that another request has left is gone on with. Should that one fail it is not this
    /// request's failure: it may have been begun while the server was away.
    async fn wait_or_dial(&self, server: &Arc<Server>) -> Result<Reached, Error> {
        let pool = &self.0.pool;
        let left = pool.left(server);
        let mut own = left.is_none();
        let mut dialling = left.unwrap_or_else(|| begin(server));
        loop {
            let mut given = pool.wait(server);
            tokio::select! {
                biased;
                Ok(mut connection) = &mut given => if !connection.is_stale() {
                    pool.leave(server, dialling, self.0.clock.now());
                    return Ok(Reached::H1(connection));
                },
                dialled = &mut dialling => match dialled {
                    Err(_) if !own => (own, dialling) = (true, begin(server)),
                    dialled => return self.greet(server, dialled?).await,
                },
            }
        }
    }

    async fn greet(&self, server: &Arc<Server>, dialled: Dialled) -> Result<Reached, Error> {
        Ok(match dialled {
            Dialled::H1(stream) => Reached::H1(Connection::new(server.clone(), stream)),
            Dialled::H2(stream) => {
                let session = Session::open(stream, server, &self.0.tasks).await?;
                self.0.pool.add_session(server, session.clone());
                Reached::H2(session)
            }
        })
    }
}

fn begin(server: &Arc<Server>) -> Dial {
    let server = server.clone();
    Box::pin(async move { dial(&server, false).await })
}
