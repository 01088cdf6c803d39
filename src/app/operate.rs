//! What operators need of a running program, put together for the admin listener: reloads by
//! command, the configuration in force, and who a request would be from. Nothing is decided here.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};

use super::{App, Error};
use crate::{
    admin::{self, Approach, Arrived, Reloaded},
    config::Config,
    engine::{
        nets::NetSet,
        urls::{canonical, split},
    },
    gate::{self, client_ip},
    time::Millis,
};

/// Reloads asked for and not begun.
const ASKED: usize = 4;

/// What the admin listener reads of the program, and asks of it.
#[derive(Debug)]
pub struct Desk {
    /// In force.
    config: Arc<ArcSwap<Config>>,
    site: Arc<ArcSwap<gate::Site>>,
    reloads: watch::Sender<Reloaded>,
    reload: mpsc::Sender<Answer>,
    asked: mpsc::Receiver<Answer>,
}

/// Where the outcome of a reload goes.
pub type Answer = oneshot::Sender<Reloaded>;

impl Desk {
    /// For what is in force at the start.
    pub fn new(config: &Config, site: &gate::Site, now: Millis) -> Self {
        let (reload, asked) = mpsc::channel(ASKED);
        let loaded = Reloaded {
            at: now,
            problems: Vec::new(),
        };
        Self {
            config: Arc::new(ArcSwap::from_pointee(config.clone())),
            site: Arc::new(ArcSwap::from_pointee(site.clone())),
            reloads: watch::Sender::new(loaded),
            reload,
            asked,
        }
    }

    /// The next reload that somebody asks for.
    pub async fn asked(&mut self) -> Answer {
        match self.asked.recv().await {
            Some(answer) => answer,
            // This desk holds a sender itself.
            None => std::future::pending().await,
        }
    }

    /// Something else is in force.
    pub fn adopt(&self, config: &Config, site: &gate::Site) {
        self.config.store(Arc::new(config.clone()));
        self.site.store(Arc::new(site.clone()));
    }

    /// Tells everybody what came of a reload.
    pub fn reloaded(&self, outcome: &Result<(), Error>, at: Millis) -> Reloaded {
        let problems = match outcome {
            Ok(()) => Vec::new(),
            Err(Error::Config(problems)) => problems.iter().map(ToString::to_string).collect(),
            Err(error) => vec![error.to_string()],
        };
        let reloaded = Reloaded { at, problems };
        self.reloads.send_replace(reloaded.clone());
        reloaded
    }
}

impl App {
    /// Starts the admin listener.
    pub(super) fn start_admin(&mut self, archive: Option<admin::Archive>) {
        let Some(bound) = self.admin.take() else {
            return;
        };
        let (site, config) = (self.desk.site.clone(), self.desk.config.clone());
        let shared = admin::Shared {
            engine: self.engine.clone(),
            metrics: self.metrics.clone(),
            clock: self.clock,
            ready: self.ready.clone(),
            config: config.clone(),
            statuses: self.statuses.clone(),
            tasks: self.tasks.clone(),
            reload: self.desk.reload.clone(),
            reloads: self.desk.reloads.subscribe(),
            arrive: Arc::new(move |approach| arrive(&site.load(), &config.load(), approach)),
            archive,
            keys: Arc::new(admin::Keys::new(bound.address())),
            timeline: Arc::default(),
            listeners: admin::places(),
            stop: self.tasks.stopping(),
        };
        shared.follow();
        self.tasks.spawn(bound.serve(shared));
    }
}

/// Which jails would judge a request, and who each takes it to be from.
fn arrive(site: &gate::Site, config: &Config, approach: &Approach) -> Vec<Arrived> {
    let believing = config.entry_points.iter().map(|entry| {
        let name = format!("entryPoints.{}.forwardedHeaders", entry.name);
        (name, &*entry.forwarded_trusted)
    });
    let asking = config.forward_auth.iter();
    let asking = asking.map(|auth| ("forwardAuth".to_owned(), &*auth.trusted));
    let mut doors = believing.chain(asking);
    let door = doors.find(|(_, trusted)| trusted.contains(approach.peer));
    let nobody = NetSet::default();
    let asked = client_ip::Asked {
        peer: Some(approach.peer),
        believed: door.is_some(),
        headers: &approach.headers,
        trusted: door.as_ref().map_or(&nobody, |(_, trusted)| *trusted),
        appended: false,
    };
    let arrived = jails(site, config, approach)
        .into_iter()
        .filter_map(|jail| {
            let warden = site.asked(Some(&jail))?;
            let client = client_ip::establish(&asked, &warden.source).ok()?;
            let from = match &door {
                _ if approach.headers.is_empty() => "what was asked".to_owned(),
                Some((name, _)) => format!("{} ({name} trusts {})", client.rule, approach.peer),
                None => format!("{}, which no trustedIPs lists", client.rule),
            };
            Some(Arrived {
                jail,
                client: client.addr,
                from,
            })
        });
    arrived.collect()
}

/// The jails of the route, else `default`, else (nothing is routed here, or no request is meant)
/// every jail there is.
fn jails(site: &gate::Site, config: &Config, approach: &Approach) -> Vec<Arc<str>> {
    if let Some(jail) = &approach.jail {
        return vec![jail.clone()];
    }
    let every = || {
        config
            .jails
            .iter()
            .map(|jail| jail.spec.name.clone())
            .collect()
    };
    if (approach.target.is_none() && approach.host.is_empty()) || config.routes.is_empty() {
        return every();
    }
    // By the spelling that finds the route of a request.
    let target = canonical(approach.target.as_deref().unwrap_or("/").as_bytes());
    let (path, _) = split(&target);
    match (site.routing).find(|| approach.host.as_bytes(), path) {
        Some((route, _)) => config.routes[route].jails.clone(),
        None => config
            .jails
            .iter()
            .map(|jail| jail.spec.name.clone())
            .filter(|name| &**name == "default")
            .collect(),
    }
}
