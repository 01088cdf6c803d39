//! Bans from elsewhere than counting: by hand, by others, restored; and how all of them end. Every
//! change goes through the ledger first and is mirrored into the tables under its lock.

use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
};

use ipnet::IpNet;
use parking_lot::MutexGuard;

use super::{
    Delta, Engine, Selector,
    ban::{Ban, Origin},
    client::{self, canonical_net},
    jail::JailId,
    ledger::Lift,
    slots::{Client, Detail, Place, Slots, Terms},
    table::Ticks,
    window::millis,
};
use crate::time::Millis;

/// Changes made under one hold of the ledger's lock: a request that begins a ban waits for one
/// such hold, well under a millisecond.
const CHUNK: usize = 256;
/// Slots looked through under one hold where most stay as they are.
const SCAN: usize = 4096;
/// Ends of outside decisions are told as a remaining time: repeated pulls differ by less.
const SAME_END: Millis = 1000;

impl Engine {
    /// Takes in decisions made elsewhere. What stands unchanged is not a change; removals come
    /// first. The lock is let go every few hundred decisions, to whoever waits.
    pub fn apply(&self, origin: &Origin, delta: Delta, now: Millis) {
        let ticks = self.ticks(now);
        let place = |ban: &Ban| Place {
            client: canonical_net(ban.client),
            jail: ban.jail.as_ref().map(|jail| self.names.id(jail)),
            origin: origin.clone(),
            silent: false,
        };
        if delta.replace {
            let kept = delta
                .add
                .iter()
                .map(&place)
                .map(|place| (place.client, place.jail));
            self.withdraw_all_but(origin, &kept.collect(), ticks);
        }
        for chunk in delta.remove.chunks(CHUNK) {
            let mut slots = self.ledger.lock();
            let mut changed = Vec::new();
            for (net, jail) in chunk {
                let client = canonical_net(*net);
                let Some(jail) = self.known(jail.as_deref()) else {
                    continue;
                };
                let held = slots.find(&Place {
                    client,
                    jail,
                    origin: origin.clone(),
                    silent: false,
                });
                if let Some(id) = held {
                    slots.lift(id, Lift::Withdrawn);
                    changed.push((client, jail));
                }
            }
            self.mirror(&slots, &changed, ticks);
            MutexGuard::unlock_fair(slots);
        }
        self.reserve(&delta.add);
        let mut add = delta
            .add
            .into_iter()
            .filter(|ban| ban.until > now)
            .peekable();
        while add.peek().is_some() {
            let mut slots = self.ledger.lock();
            let mut changed = Vec::new();
            for ban in add.by_ref().take(CHUNK) {
                let place = place(&ban);
                if !stands(&slots, &place, &ban, now) {
                    self.impose(&mut slots, place, terms_of(ban), now, &mut changed);
                }
            }
            self.mirror(&slots, &changed, ticks);
            MutexGuard::unlock_fair(slots);
        }
        self.ledger.announce();
    }

    /// Takes back the outside decisions that `gone` picks by origin and client: what a full pull no
    /// longer tells, without holding it all at once.
    pub fn withdraw(&self, gone: impl Fn(&Origin, IpNet) -> bool, now: Millis) {
        let ticks = self.ticks(now);
        self.lift_where(
            |slots, id| {
                let slot = slots.slot(id);
                slots.is_outside(slot) && gone(slots.origin(slot), slot.key().0)
            },
            Lift::Withdrawn,
            ticks,
            &mut Vec::new(),
        );
        self.ledger.announce();
    }

    /// Imposes one ban by hand (or restores one). It replaces the one that stands at the same
    /// client, jail and origin.
    pub fn ban(&self, ban: Ban, now: Millis) {
        if ban.until <= now {
            return;
        }
        self.ticks(now);
        let place = Place {
            client: canonical_net(ban.client),
            jail: ban.jail.as_ref().map(|jail| self.names.id(jail)),
            origin: ban.origin.clone(),
            silent: false,
        };
        let (client, jail) = (place.client, place.jail);
        self.impose_one(place, terms_of(ban), now);
        self.forget(client, jail);
    }

    /// Lifts bans by hand and answers those lifted. What was counted of the clients is forgotten,
    /// so that they start anew.
    pub fn unban(&self, which: &Selector, now: Millis) -> Vec<Arc<Ban>> {
        let ticks = self.ticks(now);
        let mut lifted = Vec::new();
        match which {
            Selector::Client(net, jail) => {
                let mut slots = self.ledger.lock();
                let places = self.places(canonical_net(*net), jail.as_deref());
                let ids = places.iter().flat_map(|(net, jail)| slots.of(*net, *jail));
                let ids: Vec<u32> = ids.collect();
                self.lift(&mut slots, &ids, Lift::Unbanned, ticks, &mut lifted);
                drop(slots);
                for (client, jail) in places {
                    self.forget(client, jail);
                }
            }
            Selector::All => {
                self.lift_where(
                    |slots, id| !slots.is_outside(slots.slot(id)),
                    Lift::Unbanned,
                    ticks,
                    &mut lifted,
                );
                for ban in &lifted {
                    self.forget(
                        ban.client,
                        ban.jail.as_ref().map(|jail| self.names.id(jail)),
                    );
                }
            }
        }
        self.ledger.announce();
        lifted
    }

    /// Lets go of what expired; call it about every second. Each lock is held shortly.
    pub fn sweep(&self, now: Millis) {
        let ticks = self.ticks(now);
        let before = self.swept.fetch_max(now, Ordering::Relaxed);
        let policy = self.policy.load();
        self.counters.sweep(now, |jail| {
            policy
                .any(jail)
                .map_or(0, |jail| millis(jail.spec.findtime))
        });
        while self.expire(now, ticks) {}
        self.end_allowed(now);
        if now / 60_000 != before / 60_000 {
            self.history.sweep(now, |jail| {
                let increment = policy.any(jail).and_then(|jail| jail.spec.increment);
                increment.map_or(0, |increment| millis(increment.remember))
            });
        }
        self.shrink();
        self.ledger.announce();
    }

    /// The bans that cover `addr` now: in one jail and those that hold everywhere, or (`None`) in
    /// any jail.
    pub fn ban_of(&self, jail: Option<JailId>, addr: IpAddr, now: Millis) -> Vec<Arc<Ban>> {
        let net = IpNet::from(client::canonical(addr));
        let jails: Vec<_> = jail.map_or_else(|| self.names.all().collect(), |jail| vec![jail]);
        let slots = self.ledger.lock();
        let scopes = jails.into_iter().map(Some).chain([None]);
        let ids = scopes.flat_map(|scope| slots.covering(net, scope));
        let active = ids
            .map(|id| slots.slot(id))
            .filter(|slot| slot.until() > now && !slot.silent);
        active.map(|slot| self.ledger.read(&slots, slot)).collect()
    }

    /// Imposes one ban; answers whether it began now.
    pub(super) fn impose_one(&self, place: Place, terms: Terms, now: Millis) -> bool {
        let mut slots = self.ledger.lock();
        let mut changed = Vec::new();
        let begun = self.impose(&mut slots, place, terms, now, &mut changed);
        self.mirror(&slots, &changed, self.ticks(now));
        drop(slots);
        self.ledger.announce();
        begun
    }

    /// Writes one ban into the ledger and makes room for it. The caller mirrors what `changed`.
    pub(super) fn impose(
        &self,
        slots: &mut Slots,
        place: Place,
        terms: Terms,
        now: Millis,
        changed: &mut Vec<Client>,
    ) -> bool {
        changed.push((place.client, place.jail));
        let mut held = slots.find(&place);
        if let Some(id) = held
            && slots.slot(id).until() <= now
        {
            // over, and no sweep has come by since
            slots.lift(id, Lift::Expired);
            held = None;
        }
        if held.is_none() {
            self.make_room(slots, now, changed);
        }
        let stood = slots.put(place, terms);
        !stood
    }

    /// Lifts the bans that end soonest until one more fits; after a cap was lowered, a few at a
    /// time.
    fn make_room(&self, slots: &mut Slots, now: Millis, changed: &mut Vec<Client>) {
        for _ in 0..16 {
            if slots.held() < self.bans_cap() {
                break;
            }
            let Some((until, id)) = slots.first_to_end() else {
                break;
            };
            changed.push(slots.slot(id).key());
            if until <= now {
                slots.lift(id, Lift::Expired);
            } else {
                slots.lift(id, Lift::Evicted);
                self.evicted_bans.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Ends up to a chunk of expired bans; false when there were no more.
    fn expire(&self, now: Millis, ticks: Ticks) -> bool {
        let mut slots = self.ledger.lock();
        let mut changed = Vec::new();
        while let Some((until, id)) = slots.first_to_end()
            && changed.len() < CHUNK
        {
            if until > now && slots.held() <= self.bans_cap() {
                break;
            }
            changed.push(slots.slot(id).key());
            if until > now {
                slots.lift(id, Lift::Evicted);
                self.evicted_bans.fetch_add(1, Ordering::Relaxed);
            } else {
                slots.lift(id, Lift::Expired);
            }
        }
        self.mirror(&slots, &changed, ticks);
        MutexGuard::unlock_fair(slots);
        changed.len() == CHUNK
    }

    fn withdraw_all_but(&self, origin: &Origin, kept: &HashSet<Client>, ticks: Ticks) {
        self.lift_where(
            |slots, id| {
                let slot = slots.slot(id);
                slots.origin(slot) == origin && !kept.contains(&slot.key())
            },
            Lift::Withdrawn,
            ticks,
            &mut Vec::new(),
        );
    }

    /// Lifts what a full pass over the ledger finds, chunk by chunk.
    fn lift_where(
        &self,
        gone: impl Fn(&Slots, u32) -> bool,
        how: Lift,
        ticks: Ticks,
        lifted: &mut Vec<Arc<Ban>>,
    ) {
        let mut from = 0;
        loop {
            let mut slots = self.ledger.lock();
            let Some(chunk) = slots.chunk(from, SCAN) else {
                break;
            };
            let ids = (from as u32..)
                .zip(chunk)
                .filter(|(_, slot)| slot.is_active());
            let ids = ids.map(|(id, _)| id).filter(|id| gone(&slots, *id));
            let ids: Vec<u32> = ids.collect();
            for ids in ids.chunks(CHUNK) {
                // in the pause before, others may have lifted some
                let still = |id: &u32| slots.slot(*id).is_active() && gone(&slots, *id);
                let ids: Vec<u32> = ids.iter().copied().filter(still).collect();
                self.lift(&mut slots, &ids, how, ticks, lifted);
                MutexGuard::bump(&mut slots);
            }
            from += SCAN;
        }
    }

    fn lift(
        &self,
        slots: &mut Slots,
        ids: &[u32],
        how: Lift,
        ticks: Ticks,
        lifted: &mut Vec<Arc<Ban>>,
    ) {
        let mut changed = Vec::with_capacity(ids.len());
        for id in ids {
            changed.push(slots.slot(*id).key());
            let slot = slots.slot(*id);
            lifted.extend((!slot.silent).then(|| self.ledger.read(slots, slot)));
            slots.lift(*id, how);
        }
        self.mirror(slots, &changed, ticks);
    }

    /// Everywhere a client may be banned as; a single v6 address also as the prefix it is folded
    /// to.
    pub(super) fn places(&self, net: IpNet, jail: Option<&str>) -> Vec<Client> {
        let policy = self.policy.load();
        let jails: Vec<JailId> = match jail {
            Some(name) => self.names.find(name).into_iter().collect(),
            None => self.names.all().collect(),
        };
        let mut places: Vec<Client> = jails.iter().map(|id| (net, Some(*id))).collect();
        if jail.is_none() {
            places.push((net, None));
        }
        if matches!(net, IpNet::V6(single) if single.prefix_len() == 128) {
            let folded = |id: &JailId| {
                let prefix = policy.any(*id)?.spec.ipv6_prefix;
                (prefix < 128).then(|| (client::fold(net.addr(), prefix), Some(*id)))
            };
            places.extend(jails.iter().filter_map(folded));
        }
        places
    }

    fn forget(&self, client: IpNet, jail: Option<JailId>) {
        match jail {
            Some(jail) => self.counters.forget(client, jail),
            None => self
                .names
                .all()
                .for_each(|jail| self.counters.forget(client, jail)),
        }
    }

    /// The scope a name means; `None` for a jail nobody ever heard of.
    fn known(&self, jail: Option<&str>) -> Option<Option<JailId>> {
        jail.map_or(Some(None), |name| self.names.find(name).map(Some))
    }

    pub(super) fn bans_cap(&self) -> usize {
        self.bans_cap.load(Ordering::Relaxed)
    }
}

/// Whether this very decision is enforced already.
fn stands(slots: &Slots, place: &Place, ban: &Ban, now: Millis) -> bool {
    slots
        .find(place)
        .map(|id| slots.slot(id))
        .is_some_and(|slot| {
            let same =
                slot.until().abs_diff(ban.until) <= SAME_END && *slots.cause(slot) == ban.cause;
            same && slot.until() > now
        })
}

pub(super) fn terms_of(ban: Ban) -> Terms {
    Terms {
        cause: ban.cause,
        detail: Detail {
            count: ban.count,
            first_status: ban.first_status,
            last_status: ban.last_status,
            path: ban.path,
        },
        since: ban.since,
        until: ban.until,
    }
}
