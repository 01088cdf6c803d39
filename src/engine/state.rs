//! What persistence takes out and puts back, and the check that everything agrees.

use std::{collections::HashSet, sync::Arc};

use super::{
    Ban, Engine,
    bans::terms_of,
    client::canonical_net,
    counters::Tracked,
    history::Earlier,
    jail::JailId,
    ledger::Change,
    mirror::longest,
    slots::{Client, Place},
};
use crate::time::Millis;

impl Engine {
    /// The id of a jail by name, also of one that is not configured (yet): state of it can be
    /// restored and lies dormant.
    pub fn intern_jail(&self, name: &Arc<str>) -> JailId {
        self.names.id(name)
    }

    /// Everything counted now.
    pub fn counters(&self) -> Vec<Tracked> {
        self.counters.export()
    }

    /// Puts counters back, as far as there is room. Windows over by now go with the next sweep.
    pub fn restore_counters(&self, counters: impl IntoIterator<Item = Tracked>) {
        for tracked in counters {
            self.counters.import(tracked);
        }
    }

    /// Bans so far of clients in jails where bans grow.
    pub fn history(&self) -> Vec<Earlier> {
        self.history.export()
    }

    /// How often the client of this ban was banned so far, when its jail remembers that.
    pub fn earlier(&self, ban: &Ban) -> Option<Earlier> {
        let jail = self.names.find(ban.jail.as_deref()?)?;
        self.history.get(ban.client, jail)
    }

    /// Puts back what [`Engine::history`] gave.
    pub fn restore_history(&self, earlier: impl IntoIterator<Item = Earlier>) {
        for earlier in earlier {
            self.history.note(earlier, self.bans_cap());
        }
    }

    /// Puts the ledger of an earlier life back, before anything else is banned: each active ban
    /// as its latest change, in order of number, and as many lifts as are known. Nothing is told
    /// to followers as having begun. Numbers go on after `newest`; cursors from `floor` on are
    /// answered with changes (every lift after `floor` must then be among them), older ones with a
    /// snapshot. What ended meanwhile is lifted by the next sweep.
    pub fn restore(
        &self,
        changes: impl IntoIterator<Item = Change>,
        floor: u64,
        newest: u64,
        now: Millis,
    ) {
        let ticks = self.ticks(now);
        let mut slots = self.ledger.lock();
        slots.resume(floor, newest);
        let mut restored = Vec::new();
        for Change { seq, ban, lift, .. } in changes {
            let ban = Arc::unwrap_or_clone(ban);
            let place = Place {
                client: canonical_net(ban.client),
                jail: ban.jail.as_ref().map(|jail| self.names.id(jail)),
                origin: ban.origin.clone(),
                silent: false,
            };
            if lift.is_none() {
                restored.push((place.client, place.jail));
            }
            slots.restore(seq, place, terms_of(ban), lift);
        }
        self.mirror(&slots, &restored, ticks);
        drop(slots);
        self.ledger.announce();
    }

    /// Forgets what was counted of a client or range, its earlier bans and its evidence, in every
    /// jail; a single IPv6 address also as the prefix it is counted by. Bans that stand stay:
    /// lift them first.
    pub fn erase(&self, client: ipnet::IpNet) {
        let mut nets: Vec<_> = self.places(canonical_net(client), None);
        nets.dedup_by_key(|(net, _)| *net);
        for (net, _) in nets {
            for tracked in self.counters.export() {
                if net.contains(&tracked.client) {
                    self.counters.forget(tracked.client, tracked.jail);
                }
            }
            self.history.forget(&net);
            self.evidence.forget(net);
        }
    }

    /// What is counted of one client in one jail.
    pub fn tracked(&self, jail: JailId, client: std::net::IpAddr) -> Option<Tracked> {
        let policy = self.policy.load();
        let prefix = policy.any(jail)?.spec.ipv6_prefix;
        self.counters.get(super::client::fold(client, prefix), jail)
    }

    /// Heap bytes of counters and of the tables the hot path asks, and of the ledger.
    pub fn bytes(&self) -> (usize, usize, usize) {
        let policy = self.policy.load();
        let jails = policy.jails.iter().flatten().map(|jail| jail.scope.bytes());
        let tables = policy.everywhere.bytes() + jails.sum::<usize>();
        (self.counters.bytes(), tables, self.ledger.bytes())
    }

    /// Panics when counters, ledger and tables disagree.
    #[doc(hidden)]
    pub fn check_invariants(&self, now: Millis) {
        self.counters.check_invariants();
        let slots = self.ledger.lock();
        let policy = self.policy.load();
        slots.check_invariants();
        let ticks = self.ticks(now);
        let clients: HashSet<Client> = slots.active().map(|(_, slot)| slot.key()).collect();
        let everywhere = clients.iter().filter(|(_, jail)| jail.is_none()).count();
        assert_eq!(
            policy.everywhere.len(),
            everywhere,
            "bans everywhere are mirrored"
        );
        for jail in policy.jails.iter().flatten() {
            let ours = clients.iter().filter(|(_, id)| *id == Some(jail.id));
            assert_eq!(
                jail.scope.len(),
                ours.count(),
                "bans of a jail are mirrored"
            );
        }
        for (net, id) in &clients {
            let Some(scope) = policy.scope(*id) else {
                continue;
            };
            let end = longest(&slots, *net, *id, ticks);
            assert_eq!(scope.get(*net), end, "the table knows when {net} is free");
        }
        assert!(slots.held() <= self.bans_cap(), "bans within their cap");
    }
}
