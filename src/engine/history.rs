//! How often a client was banned before, so that bans can grow. Remembered only for jails with
//! `bantimeIncrement`, and no longer than `remember` after a ban's end.

use hashbrown::HashMap;
use ipnet::IpNet;
use parking_lot::Mutex;

use super::{jail::JailId, table::Keyed};
use crate::time::Millis;

/// Bans of one client in one jail so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Earlier {
    /// The client.
    pub client: IpNet,
    /// Where it was banned.
    pub jail: JailId,
    /// How often.
    pub bans: u32,
    /// End of the latest ban.
    pub until: Millis,
}

#[derive(Debug)]
pub(super) struct History {
    past: Mutex<Past>,
}

type Past = HashMap<(IpNet, JailId), (u32, Millis), Keyed>;

impl History {
    pub(super) fn new(hash: Keyed) -> Self {
        Self {
            past: Mutex::new(HashMap::with_hasher(hash)),
        }
    }

    /// How many bans before `at` are still remembered.
    pub(super) fn bans(&self, client: IpNet, jail: JailId, at: Millis, remember: Millis) -> u32 {
        let past = self.past.lock();
        let held = past.get(&(client, jail));
        held.filter(|(_, until)| at < until.saturating_add(remember))
            .map_or(0, |(bans, _)| *bans)
    }

    /// What is remembered of one client in one jail.
    pub(super) fn get(&self, client: IpNet, jail: JailId) -> Option<Earlier> {
        let past = self.past.lock();
        past.get(&(client, jail)).map(|(bans, until)| Earlier {
            client,
            jail,
            bans: *bans,
            until: *until,
        })
    }

    /// Notes a ban, the `bans`-th, or its new end. A full history forgets an arbitrary client
    /// rather than this one.
    pub(super) fn note(&self, earlier: Earlier, cap: usize) {
        let mut past = self.past.lock();
        let key = (earlier.client, earlier.jail);
        if past.len() >= cap
            && !past.contains_key(&key)
            && let Some(other) = past.keys().next().copied()
        {
            past.remove(&other);
        }
        past.insert(key, (earlier.bans, earlier.until));
    }

    /// Forgets every ban of clients within `client`.
    pub(super) fn forget(&self, client: &IpNet) {
        self.past.lock().retain(|(net, _), _| !client.contains(net));
    }

    /// Forgets what is no longer remembered; `remember` answers per jail.
    pub(super) fn sweep(&self, now: Millis, remember: impl Fn(JailId) -> Millis) {
        let mut past = self.past.lock();
        past.retain(|(_, jail), (_, until)| now < until.saturating_add(remember(*jail)));
        if past.capacity() > 64 && past.len() < past.capacity() / 4 {
            past.shrink_to_fit();
        }
    }

    pub(super) fn export(&self) -> Vec<Earlier> {
        let past = self.past.lock();
        let each = past.iter().map(|((client, jail), (bans, until))| Earlier {
            client: *client,
            jail: *jail,
            bans: *bans,
            until: *until,
        });
        each.collect()
    }
}
