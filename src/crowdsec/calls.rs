//! The calls a publisher makes: alerts, lifts, what LAPI holds, allowlists. When to make which is
//! `publish`'s business.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::{Method, StatusCode};
use reqwest::Response;

use super::{
    client::{Error, LONG, Machine, SHORT, answer, refusal},
    listing::Page,
    plan::{Held, Key},
    walk::PAGE,
    wire::{self, Alert, place},
};
use crate::{
    engine::Ban,
    time::{Clock, Millis},
};

/// Which question about allowlists LAPI understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allowlists {
    /// Many at a time, since 1.6.9.
    Many,
    /// One at a time, since 1.6.6.
    Each,
    /// None.
    Absent,
}

/// A machine and the origin it publishes under.
#[derive(Debug)]
pub(super) struct Calls {
    machine: Arc<Machine>,
    origin: Arc<str>,
    clock: Clock,
    allowlists: Allowlists,
}

impl Calls {
    pub(super) fn new(machine: Arc<Machine>, origin: Arc<str>, clock: Clock) -> Self {
        Self {
            machine,
            origin,
            clock,
            allowlists: Allowlists::Many,
        }
    }

    /// LAPI may be another one by now.
    pub(super) fn forget_version(&mut self) {
        self.allowlists = Allowlists::Many;
    }

    /// The origin of our decisions.
    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    /// LAPI's time at our time `at`.
    pub(super) fn their_time(&self, at: Millis) -> Millis {
        self.machine.their_time(at)
    }

    /// Our time at LAPI's time `at`.
    pub(super) fn our_time(&self, at: Millis) -> Millis {
        self.machine.our_time(at)
    }

    /// Sends alerts and answers their ids.
    pub(super) async fn post(&self, alerts: &[Alert]) -> Result<Vec<u64>, Error> {
        let response = self
            .call(Method::POST, "/v1/alerts", &[], Some(alerts))
            .await?;
        let ids: Vec<String> = answer(expect(response).await?).await?;
        let ids = ids.iter().map(|id| id.parse());
        ids.collect::<Result<_, _>>()
            .map_err(|_| Error::Garbage("an alert's id is no number".into()))
    }

    /// Takes one version of a decision back.
    pub(super) async fn remove(&self, key: &Key, held: Held) -> Result<(), Error> {
        let id = match held.decision {
            None => self.decision_of(key, held.alert).await?,
            known => known,
        };
        let Some(id) = id else {
            return Ok(());
        };
        let path = format!("/v1/decisions/{id}");
        match expect(self.bare(Method::DELETE, &path, &[], SHORT).await?).await {
            // gone already; a doubled one is found at the next look
            Err(Error::Refused { .. }) => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    async fn decision_of(&self, key: &Key, alert: u64) -> Result<Option<u64>, Error> {
        let path = format!("/v1/alerts/{alert}");
        let response = self.bare(Method::GET, &path, &[], SHORT).await?;
        if !response.status().is_success() {
            return Ok(None);
        }
        Page::decision(response, key, &self.origin, self.clock).await
    }

    /// Takes exactly our decision back: by value alone, LAPI would also lift others' and ranges.
    pub(super) async fn lift(&self, key: &Key) -> Result<(), Error> {
        let (scope, value) = place(&key.net);
        let query = [
            ("scopes", scope),
            ("value", &*value),
            ("origin", &*self.origin),
            ("scenario", &*key.scenario),
        ];
        let path = "/v1/decisions";
        let response = self.bare(Method::DELETE, path, &query, SHORT).await?;
        expect(response).await.map(drop)
    }

    /// The newest alerts of ours, whatever became of their decisions.
    pub(super) async fn newest(&self) -> Result<Page, Error> {
        self.page(&[]).await
    }

    /// Those of our alerts with a decision in force that came no later than `until`.
    pub(super) async fn before(&self, until: Millis) -> Result<Page, Error> {
        let age = self.clock.now().saturating_sub(until);
        let age = format!("{}.{:03}s", age / 1000, age % 1000);
        self.page(&[("has_active_decision", "true"), ("created_before", &age)])
            .await
    }

    async fn page(&self, which: &[(&str, &str)]) -> Result<Page, Error> {
        let limit = PAGE.to_string();
        let query = [&[("origin", &*self.origin), ("limit", &limit)], which].concat();
        let response = self.bare(Method::GET, "/v1/alerts", &query, LONG).await?;
        Page::read(expect(response).await?, &self.origin, self.clock).await
    }

    /// Tells LAPI that this machine lives: cosmetic there.
    pub(super) async fn heartbeat(&self) -> Result<(), Error> {
        let response = self.bare(Method::GET, "/v1/heartbeat", &[], SHORT).await?;
        expect(response).await.map(drop)
    }

    /// Which of these are on an allowlist of LAPI's: it does not look itself when a decision comes
    /// with its alert.
    pub(super) async fn allowlisted(
        &mut self,
        bans: &[(Key, Arc<Ban>)],
    ) -> Result<HashMap<Key, String>, Error> {
        let mut listed = HashMap::new();
        let values: HashMap<String, &Key> = bans
            .iter()
            .map(|(key, _)| (place(&key.net).1, key))
            .collect();
        if self.allowlists == Allowlists::Many {
            let body = HashMap::from([("targets", values.keys().collect::<Vec<_>>())]);
            let path = "/v1/allowlists/check";
            let response = self.call(Method::POST, path, &[], Some(&body)).await?;
            if !matches!(response.status().as_u16(), 404 | 405) {
                let found: wire::Allowlisted = answer(expect(response).await?).await?;
                for target in found.results.unwrap_or_default() {
                    if let Some(key) = values.get(&target.target) {
                        listed.insert((*key).clone(), target.allowlists.join(", "));
                    }
                }
                return Ok(self.same_network(bans, listed));
            }
            self.allowlists = Allowlists::Each;
        }
        for (value, key) in &values {
            if self.allowlists == Allowlists::Absent {
                break;
            }
            let path = format!("/v1/allowlists/check/{}", value.replace('/', "%2F"));
            match self.bare(Method::HEAD, &path, &[], SHORT).await?.status() {
                StatusCode::OK => drop(listed.insert((*key).clone(), String::new())),
                StatusCode::NOT_FOUND => self.allowlists = Allowlists::Absent,
                _ => {}
            }
        }
        Ok(self.same_network(bans, listed))
    }

    /// One address may be banned in several jails.
    fn same_network(
        &self,
        bans: &[(Key, Arc<Ban>)],
        listed: HashMap<Key, String>,
    ) -> HashMap<Key, String> {
        let nets: HashMap<_, _> = listed.iter().map(|(key, list)| (key.net, list)).collect();
        let named = |(key, _): &(Key, _)| Some((key.clone(), (*nets.get(&key.net)?).clone()));
        bans.iter().filter_map(named).collect()
    }

    async fn bare(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<Response, Error> {
        self.machine
            .call(method, path, query, None::<&()>, timeout)
            .await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&(impl serde::Serialize + ?Sized)>,
    ) -> Result<Response, Error> {
        self.machine
            .call(method, path, query, body.as_ref(), LONG)
            .await
    }
}

/// A success, or what was said instead.
async fn expect(response: Response) -> Result<Response, Error> {
    match response.status().is_success() {
        true => Ok(response),
        false => Err(refusal(response).await),
    }
}
