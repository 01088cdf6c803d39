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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Cause, Change, Lift};

    fn ban(client: &str, origin: &Origin, until: Millis) -> Arc<Ban> {
        Arc::new(Ban {
            client: client.parse().unwrap(),
            jail: None,
            origin: origin.clone(),
            cause: Cause::Failures,
            count: 0,
            first_status: 0,
            last_status: 0,
            path: "".into(),
            since: 0,
            until,
        })
    }

    fn change(ban: Arc<Ban>, lift: Option<Lift>) -> Since {
        let changes = vec![Change {
            seq: 1,
            ban,
            lift,
            updated: false,
        }];
        Since::Changes { changes, next: 1 }
    }

    fn nets(held: &Held) -> Vec<String> {
        held.wanted().nets().map(|net| net.to_string()).collect()
    }

    #[test]
    fn the_source_says_whose_bans_count() {
        #[track_caller]
        fn check(source: CloudflareSource, expected: &[&str]) {
            let mut held = Held::new(source);
            for (client, origin) in [
                ("10.0.0.1/32", Origin::Jail),
                ("10.0.0.2/32", Origin::Manual),
                ("10.0.0.3/32", Origin::Outside("crowdsec/CAPI".into())),
                ("10.0.0.4/32", Origin::Outside("a peer".into())),
            ] {
                held.take(change(ban(client, &origin, 9), None));
            }
            assert_eq!(nets(&held), expected, "{source:?}");
        }
        let (ours, lapi) = (["10.0.0.1/32", "10.0.0.2/32"], ["10.0.0.3/32"]);
        check(CloudflareSource::Local, &ours);
        check(CloudflareSource::Lapi, &lapi);
        check(CloudflareSource::Auto, &[&ours[..], &lapi].concat());
    }

    #[test]
    fn a_network_is_wanted_until_its_last_ban_is_lifted() {
        let mut held = Held::new(CloudflareSource::Auto);
        let lapi = Origin::Outside("crowdsec/cscli".into());
        let (ours, theirs) = (
            ban("10.0.0.1/32", &Origin::Jail, 5),
            ban("10.0.0.1/32", &lapi, 9),
        );
        assert!(held.take(change(ours.clone(), None)));
        assert!(!held.take(change(ours.clone(), None)), "no news");
        assert!(held.take(change(theirs.clone(), None)));
        assert_eq!(held.of_lapi().len(), 1);
        assert!(held.take(change(ours, Some(Lift::Expired))));
        assert_eq!(nets(&held), ["10.0.0.1/32"]);
        assert!(held.take(change(theirs, Some(Lift::Withdrawn))));
        assert_eq!(nets(&held), [""; 0]);
    }

    #[test]
    fn a_snapshot_replaces_everything() {
        let mut held = Held::new(CloudflareSource::Auto);
        held.take(change(ban("10.0.0.1/32", &Origin::Jail, 5), None));
        let bans = vec![ban("10.0.0.2/32", &Origin::Jail, 5)];
        let snapshot = Since::Snapshot { bans, next: 7 };
        assert!(held.take(snapshot.clone()));
        assert_eq!(nets(&held), ["10.0.0.2/32"]);
        assert!(!held.take(snapshot));
    }
}
