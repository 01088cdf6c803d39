//! The ledger mirrored into the tables that the hot path asks, under its lock: what changed, and
//! another policy where a table needs another size. It decides nothing.

use std::sync::Arc;

use ipnet::IpNet;

use super::{
    Ban, Engine,
    jail::JailId,
    policy::Policy,
    slots::{Client, Slots},
    table::{End, Scope, Ticks},
};

impl Engine {
    /// Brings the tables in line with the ledger for these clients.
    pub(super) fn mirror(&self, slots: &Slots, changed: &[Client], ticks: Ticks) {
        let mut policy = self.policy.load_full();
        for (net, jail) in changed {
            let end = longest(slots, *net, *jail, ticks);
            let Some(scope) = policy.scope(*jail) else {
                continue;
            };
            if scope.set(*net, end).is_err() {
                let roomier = scope.roomier_by(*net);
                let room = roomier.set(*net, end);
                debug_assert!(room.is_ok(), "room for {net} was made");
                policy = self.resize([(*jail, roomier)]);
            }
        }
    }

    /// Makes room for as many at once.
    pub(super) fn reserve(&self, bans: &[Ban]) {
        let mut slots = self.ledger.lock();
        slots.reserve(bans.len().min(self.bans_cap()));
        let everywhere = bans.iter().filter(|ban| ban.jail.is_none());
        let clients = everywhere.map(|ban| &ban.client);
        let roomier = self.policy.load().everywhere.roomier(clients);
        self.resize(roomier.map(|roomier| (None, roomier)));
    }

    /// Gives memory back.
    pub(super) fn shrink(&self) {
        let mut slots = self.ledger.lock();
        slots.shrink();
        let policy = self.policy.load();
        let jails = policy.jails.iter().flatten().map(|jail| Some(jail.id));
        let smaller = |jail| Some((jail, policy.scope(jail)?.smaller()?));
        let smaller: Vec<_> = jails.chain([None]).filter_map(smaller).collect();
        self.resize(smaller);
    }

    /// Swaps in a policy with these tables. The caller holds the ledger.
    fn resize(&self, scopes: impl IntoIterator<Item = (Option<JailId>, Scope)>) -> Arc<Policy> {
        let mut scopes = scopes.into_iter().peekable();
        let old = self.policy.load_full();
        if scopes.peek().is_none() {
            return old;
        }
        let mut policy = Policy::clone(&old);
        for (jail, scope) in scopes {
            policy.replace(jail, scope);
        }
        let policy = Arc::new(policy);
        self.policy.store(policy.clone());
        policy
    }
}

/// The end furthest away among all origins.
pub(super) fn longest(
    slots: &Slots,
    net: IpNet,
    jail: Option<JailId>,
    ticks: Ticks,
) -> Option<End> {
    let held = slots.of(net, jail).map(|id| slots.slot(id));
    held.map(|slot| ticks.end(slot.until(), slots.is_outside(slot)))
        .max()
}
