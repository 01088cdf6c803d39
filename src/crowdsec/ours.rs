//! Which decisions of LAPI are our own bans coming back. Shared by publisher and subscriber; it
//! talks to nobody.

use std::{collections::HashMap, collections::HashSet, sync::Arc};

use ipnet::IpNet;
use parking_lot::Mutex;

use super::plan::{Key, key};
use crate::{
    engine::{Engine, Origin, Since},
    time::Millis,
};

/// The publisher's name in the ledger.
pub(super) const FOLLOWER: &str = "crowdsec";
/// How long LAPI's streams may still tell of what we took back.
const ECHO: Millis = 10 * 60 * 1000;
/// Changes looked through at a time.
const BATCH: usize = 1024;

/// What we hold and what we took back.
#[derive(Debug)]
pub(super) struct Ours {
    engine: Arc<Engine>,
    origin: Arc<str>,
    withdrawn: Mutex<HashMap<Key, Millis>>,
}

impl Ours {
    /// `origin` is the one our decisions carry.
    pub(super) fn new(engine: Arc<Engine>, origin: Arc<str>) -> Self {
        Self {
            engine,
            origin,
            withdrawn: Mutex::default(),
        }
    }

    /// The origin that our decisions carry.
    pub(super) fn origin(&self) -> &Arc<str> {
        &self.origin
    }

    /// LAPI is being told that these ended.
    pub(super) fn took_back(&self, keys: impl IntoIterator<Item = Key>, now: Millis) {
        let mut withdrawn = self.withdrawn.lock();
        withdrawn.retain(|_, until| *until > now);
        withdrawn.extend(keys.into_iter().map(|key| (key, now + ECHO)));
    }

    /// Of these decisions with our origin, those that are ours: we hold them, or took them back
    /// and LAPI may not know it yet. Others carry our name but are nobody's here: they are new.
    pub(super) fn claim(&self, asked: &HashSet<Key>, now: Millis) -> HashSet<Key> {
        if asked.is_empty() {
            return HashSet::new();
        }
        let mut ours = self.lifted_lately(asked);
        let withdrawn = self.withdrawn.lock();
        let back = asked.iter().filter(|key| withdrawn.contains_key(key));
        ours.extend(back.cloned());
        drop(withdrawn);
        let held = asked.iter().filter(|key| self.holds(key, now));
        ours.extend(held.cloned().collect::<Vec<_>>());
        ours
    }

    fn holds(&self, asked: &Key, now: Millis) -> bool {
        let bans = self.engine.ban_of(None, asked.net.addr(), now);
        let same = |net: IpNet| net == asked.net;
        bans.iter().any(|ban| {
            let ours = !matches!(ban.origin, Origin::Outside(_));
            ours && same(ban.client) && key(ban).as_ref() == Some(asked)
        })
    }

    /// Ends that the publisher has not come to yet: also those of before a restart.
    fn lifted_lately(&self, asked: &HashSet<Key>) -> HashSet<Key> {
        let mut cursor = self.engine.cursors().get(FOLLOWER);
        let mut found = HashSet::new();
        while let Since::Changes { changes, next } = self.engine.ledger().since(cursor, BATCH) {
            if next == cursor {
                break;
            }
            cursor = next;
            let lifted = changes.iter().filter(|change| change.lift.is_some());
            let keys = lifted.filter_map(|change| key(&change.ban));
            found.extend(keys.filter(|key| asked.contains(key)));
        }
        found
    }
}
