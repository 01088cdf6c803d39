//! The bans in force as the ledger tells them, kept by the follower so that what is wanted can be
//! computed anew at any time. It knows whose a ban is, and nothing of the list.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use ipnet::IpNet;

use super::plan::{Wanted, Weight, edge};
use crate::{
    config::CloudflareSource,
    engine::{Ban, Origin, Since},
    time::Millis,
};

/// Origins of decisions that came from LAPI begin with this.
const LAPI: &str = "crowdsec/";

type Key = (IpNet, Option<Arc<str>>, Origin);

/// Every ban that the list is about, and when it ends.
#[derive(Debug)]
pub struct Held {
    source: CloudflareSource,
    bans: HashMap<Key, Millis>,
}

impl Held {
    /// Nothing yet. `source` says whose bans count.
    pub fn new(source: CloudflareSource) -> Self {
        Self {
            source,
            bans: HashMap::new(),
        }
    }

    /// Takes in what the ledger tells; answers whether that changed anything.
    pub fn take(&mut self, since: Since) -> bool {
        match since {
            Since::Changes { changes, .. } => {
                let mut news = false;
                for change in changes {
                    if !self.counts(&change.ban) {
                        continue;
                    }
                    let key = key(&change.ban);
                    news |= match change.lift {
                        None => self.bans.insert(key, change.ban.until) != Some(change.ban.until),
                        Some(_) => self.bans.remove(&key).is_some(),
                    };
                }
                news
            }
            Since::Snapshot { bans, .. } => {
                let counted = bans.iter().filter(|ban| self.counts(ban));
                let now: HashMap<Key, Millis> = counted.map(|ban| (key(ban), ban.until)).collect();
                let news = now != self.bans;
                self.bans = now;
                news
            }
        }
    }

    /// All of them, folded.
    pub fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::default();
        for ((client, _, origin), until) in &self.bans {
            let ours = !is_lapi(origin);
            wanted.want(
                *client,
                Weight {
                    ours,
                    until: *until,
                },
            );
        }
        wanted
    }

    /// What LAPI alone or together with us wants, folded.
    pub fn of_lapi(&self) -> BTreeSet<IpNet> {
        let theirs = self.bans.keys().filter(|(_, _, origin)| is_lapi(origin));
        theirs.filter_map(|(client, ..)| edge(*client)).collect()
    }

    fn counts(&self, ban: &Ban) -> bool {
        match (&ban.origin, self.source) {
            (Origin::Jail | Origin::Manual, source) => source != CloudflareSource::Lapi,
            (origin, source) => is_lapi(origin) && source != CloudflareSource::Local,
        }
    }
}

fn key(ban: &Ban) -> Key {
    (ban.client, ban.jail.clone(), ban.origin.clone())
}

fn is_lapi(origin: &Origin) -> bool {
    matches!(origin, Origin::Outside(name) if name.starts_with(LAPI))
}
