//! Active health checks, as Traefik's `healthCheck`: any 2xx or 3xx within the timeout is
//! healthy. Passing over after failed connects is `upstream`'s and needs no task.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http::{Method, Request, Uri, Version};
use tokio::time::{sleep, timeout};

use super::{
    Errand, Forwarded, Proxy, Reply, Routing, body::RequestBody, h1::Sends, upstream::Server,
};
use crate::{
    config::HealthCheck,
    tasks::Tasks,
    time::{Clock, Millis},
};

/// How often it is looked which checks are due.
const TICK: Duration = Duration::from_millis(250);

/// Runs the active health checks of whatever routing `current` answers with, until `tasks` stop.
/// One task for the whole process; a reload needs nothing.
pub async fn watch_health<F>(current: F, clock: Clock, tasks: Tasks)
where
    F: Fn() -> Arc<Routing> + Send + 'static,
{
    let proxy = Proxy::new(clock, tasks.clone());
    let stopping = tasks.stopping();
    let mut due: HashMap<u64, Millis> = HashMap::new();
    let mut running = FuturesUnordered::new();
    loop {
        let now = clock.now();
        let mut known = HashMap::new();
        for (server, check) in checked(&current()) {
            let mut at = due.get(&server.id).copied().unwrap_or(now);
            if at <= now {
                // No second check while the first may still run.
                at = now + check.interval.max(check.timeout).as_millis() as Millis;
                running.push(verdict(&proxy, server.clone(), check));
            }
            known.insert(server.id, at);
        }
        due = known;
        tokio::select! {
            () = sleep(TICK) => {}
            Some(()) = running.next() => {}
            () = stopping.cancelled() => return,
        }
    }
}

fn checked(routing: &Routing) -> impl Iterator<Item = (Arc<Server>, HealthCheck)> {
    routing.services().iter().flat_map(|upstream| {
        let check = upstream.health_check.iter();
        check.flat_map(|check| {
            let servers = upstream.servers.iter();
            servers.map(|server| (server.clone(), check.clone()))
        })
    })
}

async fn verdict(proxy: &Proxy, server: Arc<Server>, check: HealthCheck) {
    let healthy = match timeout(check.timeout, ask(proxy, &server, &check.path)).await {
        Ok(Ok(status)) => (200..400).contains(&status),
        Ok(Err(())) | Err(_) => false,
    };
    if server.health.checked(healthy) {
        match healthy {
            true => tracing::info!(server = %server.label, "healthy again"),
            false => tracing::warn!(server = %server.label, "failed its health check"),
        }
    }
}

/// A GET of `path` below the server's base path, on a connection of its own.
async fn ask(proxy: &Proxy, server: &Arc<Server>, path: &str) -> Result<u16, ()> {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = Method::GET;
    parts.version = Version::HTTP_11;
    parts.uri = path.parse::<Uri>().map_err(drop)?;
    let errand = Errand {
        parts: &parts,
        forwarded: &Forwarded::new(None, true, false),
        informational: None,
        pass_host_header: false,
        upgrade: false,
        expect: false,
        sends: Sends::Nothing,
    };
    match proxy
        .ask_anew(server, &errand, RequestBody::default())
        .await
    {
        Ok(Reply::H1(answer)) => Ok(answer.status().as_u16()),
        Ok(Reply::H2(response)) => Ok(response.status().as_u16()),
        Err(_) => Err(()),
    }
}
