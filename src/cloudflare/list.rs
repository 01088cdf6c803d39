//! One list brought in line, step by step: reads it, plans, sends one request's worth, remembers
//! what became of it. What is wanted comes from outside; so does the pace.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{
    client::Client,
    error::Error,
    plan::{Listed, Plan, Rules, Step, Wanted, plan},
};
use crate::{
    telemetry::cloudflare::{CloudflareMetrics, Kind, Outcome},
    time::Millis,
};

/// Ids looked for one by one in a run; further ones wait for the next full reading.
const SEARCHES: u32 = 8;
/// How long the list is taken to be as small as a failed operation said.
const SMALL_FOR: Millis = 3_600_000;

/// How a list is to be treated.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Begins the comment of what is ours.
    pub tag: String,
    /// Every item is ours.
    pub whole_list: bool,
    /// Items of others that are wanted get the tag.
    pub retag: bool,
    /// Items at most.
    pub capacity: usize,
}

/// The list and what is known of it.
#[derive(Debug)]
pub struct List {
    client: Client,
    policy: Policy,
    metrics: CloudflareMetrics,
    listed: Option<Listed>,
    ceiling: Option<Ceiling>,
    searches: u32,
}

/// The quota of items spans all lists of the account and cannot be asked: it is felt for between
/// what fitted and what did not.
#[derive(Clone, Copy, Debug)]
struct Ceiling {
    fitted: usize,
    too_many: usize,
    /// Until when that is believed.
    until: Millis,
}

impl Ceiling {
    fn items(self) -> usize {
        self.fitted.midpoint(self.too_many)
    }
}

/// What one step did.
#[derive(Debug)]
pub enum Done {
    /// So many items were put in.
    Put(usize),
    /// So many were taken out.
    Removed(usize),
    /// An id was looked for.
    Looked,
    /// There was nothing (more) to do.
    Nothing(Plan),
}

impl List {
    /// Nothing is read yet.
    pub fn new(client: Client, policy: Policy, metrics: CloudflareMetrics) -> Self {
        Self {
            client,
            policy,
            metrics,
            listed: None,
            ceiling: None,
            searches: 0,
        }
    }

    /// For deadlines and for asking what the list is.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Items in it, when it was read.
    pub fn items(&self) -> Option<usize> {
        self.listed.as_ref().map(Listed::len)
    }

    /// Networks that carry our tag and that no ban of ours in `wanted` is behind.
    pub fn ours_beyond(&self, wanted: &Wanted) -> BTreeSet<IpNet> {
        let listed = self.listed.iter().flat_map(Listed::ours);
        listed.filter(|net| !wanted.is_ours(net)).collect()
    }

    /// Reads every item, if that was not done or if `again`. A run begins here.
    pub async fn read(&mut self, again: bool) -> Result<(), Error> {
        self.searches = SEARCHES;
        if again || self.listed.is_none() {
            self.listed = None;
            self.client.quiet().await?;
            let items = self.client.items().await?;
            if items.iter().any(|item| item.ip.is_empty()) {
                return Err(Error::Kind(self.client.list_id().to_owned()));
            }
            let listed = Listed::read(items, &self.policy.tag);
            self.metrics.list_items.set(listed.len() as i64);
            self.listed = Some(listed);
        }
        Ok(())
    }

    /// One request's worth of changes. After an error the list must be read again.
    pub async fn step(
        &mut self,
        wanted: &Wanted,
        frozen: Option<&BTreeSet<IpNet>>,
        now: Millis,
    ) -> Result<Done, Error> {
        self.ceiling = self.ceiling.filter(|ceiling| now < ceiling.until);
        let ceiling = self.ceiling.map_or(usize::MAX, Ceiling::items);
        let rules = Rules {
            whole_list: self.policy.whole_list,
            retag: self.policy.retag,
            capacity: self.policy.capacity.min(ceiling),
            frozen,
        };
        // An error takes the reading with it: what came of the request is not known.
        let mut listed = self.listed.take().unwrap_or_default();
        let plan = plan(wanted, &listed, rules);
        let done = match plan.first() {
            Some(Step::Put(nets)) => {
                self.put(&nets, listed.len(), now).await?;
                listed.added(&nets);
                Done::Put(nets.len())
            }
            Some(Step::Remove(items)) => {
                let ids: Vec<&str> = items.iter().map(|(_, id)| id.as_str()).collect();
                let outcome = self.client.remove(&ids).await;
                self.metrics.operation(Kind::Remove, outcome_of(&outcome));
                outcome?;
                items.iter().for_each(|(net, _)| listed.removed(net));
                Done::Removed(items.len())
            }
            Some(Step::Find(net)) if self.searches > 0 => {
                self.searches -= 1;
                let item = self.client.find(net).await?;
                listed.found(net, item);
                Done::Looked
            }
            Some(Step::Find(_)) | None => Done::Nothing(plan),
        };
        self.metrics.list_items.set(listed.len() as i64);
        self.listed = Some(listed);
        Ok(done)
    }

    async fn put(&mut self, nets: &[IpNet], held: usize, now: Millis) -> Result<(), Error> {
        let outcome = self.client.put(nets, &self.policy.tag).await;
        self.metrics.operation(Kind::Add, outcome_of(&outcome));
        let after = held + nets.len();
        if outcome.as_ref().is_err_and(Error::is_full) {
            self.ceiling = Some(Ceiling {
                fitted: held,
                too_many: after,
                until: now + SMALL_FOR,
            });
        } else if let (Ok(()), Some(ceiling)) = (&outcome, &mut self.ceiling) {
            ceiling.fitted = ceiling.fitted.max(after).min(ceiling.too_many - 1);
        }
        outcome
    }
}

fn outcome_of(result: &Result<(), Error>) -> Outcome {
    match result {
        Ok(()) => Outcome::Completed,
        Err(Error::Failed { .. }) => Outcome::Failed,
        Err(Error::Pending { .. }) => Outcome::Pending,
        Err(_) => Outcome::Refused,
    }
}
