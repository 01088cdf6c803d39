//! What the ledger's slots need beyond a ban's begin and end: full passes, restarts, memory, and
//! the check that the indexes agree.

use super::{
    Client, EVERYWHERE, FEW, GAP, LOG_SLACK, MAX_LIFTED, Place, ROOM, Slot, Slots, State, Terms,
    U48, hash_of,
};
use crate::engine::{jail::JailId, ledger::Lift};

impl Slots {
    /// Drops the silent bans of jails that `enforced` says no longer only simulate.
    pub(in crate::engine) fn drop_silent(
        &mut self,
        enforced: impl Fn(JailId) -> bool,
    ) -> Vec<Client> {
        if self.silent == 0 {
            return Vec::new();
        }
        let gone = |slot: &Slot| slot.silent && slot.jail().is_some_and(&enforced);
        let ids = self
            .active()
            .filter(|(_, slot)| gone(slot))
            .map(|(id, _)| id);
        let ids: Vec<u32> = ids.collect();
        let clients = ids.iter().map(|id| self.slot(*id).key()).collect();
        for id in ids {
            self.lift(id, Lift::Withdrawn);
        }
        clients
    }

    /// Who is banned in these jails.
    pub(in crate::engine) fn clients_in(&self, jails: &[JailId]) -> Vec<Client> {
        if jails.is_empty() {
            return Vec::new();
        }
        let of_these = |slot: &Slot| slot.jail().is_some_and(|jail| jails.contains(&jail));
        self.active()
            .filter(|(_, slot)| of_these(slot))
            .map(|(_, slot)| slot.key())
            .collect()
    }

    pub(in crate::engine) fn active(&self) -> impl Iterator<Item = (u32, &Slot)> {
        let numbered = self.slots.iter().enumerate();
        numbered
            .filter(|(_, slot)| slot.is_active())
            .map(|(id, slot)| (id as u32, slot))
    }

    /// Puts back one change of an earlier life, in order of number.
    pub(in crate::engine) fn restore(
        &mut self,
        seq: u64,
        place: Place,
        terms: Terms,
        lift: Option<Lift>,
    ) {
        if lift.is_some() && seq <= self.floor {
            return;
        }
        let (cause, own) = self.keep(terms.cause, terms.detail);
        let slot = Slot {
            client: place.client,
            jail: place.jail.map_or(EVERYWHERE, |jail| jail.0),
            origin: self.intern(place.origin),
            rank: 0,
            silent: false,
            state: lift.map_or(State::Begun, State::Lifted),
            seq: U48::new(seq),
            since: U48::new(terms.since),
            until: U48::new(terms.until),
            cause,
            own,
        };
        let id = match lift {
            None => {
                let id = self.insert(slot);
                self.enter(id);
                id
            }
            Some(_) => {
                self.lifted += 1;
                self.place(slot)
            }
        };
        if let Some(at) = seq.checked_sub(self.floor + 1)
            && let Some(entry) = self.log.get_mut(at as usize)
        {
            *entry = id;
        }
    }

    /// Numbers go on after `newest`; cursors from `floor` on can be answered with changes.
    pub(in crate::engine) fn resume(&mut self, floor: u64, newest: u64) {
        let room = (MAX_LIFTED + LOG_SLACK) as u64;
        self.floor = floor.max(newest.saturating_sub(room)).min(newest);
        self.log = std::iter::repeat_n(GAP, (newest - self.floor) as usize).collect();
    }

    /// Makes room for `bans` in all at once: growing a million by halves would hold the lock long.
    pub(in crate::engine) fn reserve(&mut self, bans: usize) {
        let more = room(bans.max(self.index.len())) - self.index.len();
        let (slots, hash) = (&self.slots, self.hash);
        self.index.reserve(more, |id| hash_of(hash, slots, *id));
        self.slots.reserve(more.saturating_sub(self.free.len()));
        self.log.reserve(more);
        self.ends.reserve(more);
    }

    /// Gives memory back where most of it stands empty.
    pub(in crate::engine) fn shrink(&mut self) {
        let bans = self.index.len();
        let sparse = |used: usize, capacity: usize| used < capacity / 4 && room(used) < capacity;
        if super::super::table::sparse(&self.index) && room(bans) < self.index.capacity() {
            let (slots, hash) = (&self.slots, self.hash);
            self.index
                .shrink_to(room(bans * 2), |id| hash_of(hash, slots, *id));
        }
        let used = self
            .slots
            .iter()
            .rposition(|slot| slot.seq() != 0)
            .map_or(0, |last| last + 1);
        if sparse(used, self.slots.capacity()) {
            self.slots.truncate(used);
            self.slots.shrink_to(room(used * 2));
            self.free.retain(|id| (*id as usize) < used);
            self.free.shrink_to_fit();
        }
        if sparse(bans, self.ends.capacity()) {
            self.ends.shrink_to(room(bans * 2));
        }
        if sparse(self.log.len(), self.log.capacity()) {
            self.log.shrink_to(room(self.log.len() * 2));
        }
    }

    pub(in crate::engine) fn bytes(&self) -> usize {
        self.slots.len() * size_of::<Slot>()
            + self.free.capacity() * 4
            + self.index.allocation_size()
            + self.log.capacity() * 4
            + self.ends.capacity() * 4
    }

    /// Panics when the indexes disagree.
    pub(in crate::engine) fn check_invariants(&self) {
        let active: Vec<&Slot> = self.slots.iter().filter(|slot| slot.is_active()).collect();
        assert_eq!(
            active.len(),
            self.index.len(),
            "every active ban is indexed"
        );
        assert_eq!(active.len(), self.ends.len(), "every active ban has an end");
        let silent = active.iter().filter(|slot| slot.silent).count();
        assert_eq!(silent, self.silent, "silent bans");
        let lifted = self
            .slots
            .iter()
            .filter(|slot| slot.seq() != 0 && slot.lift().is_some());
        assert_eq!(lifted.count(), self.lifted, "lifted bans");
        for (at, id) in self.ends.iter().enumerate() {
            let (slot, parent) = (self.slot(*id), self.ends[at.saturating_sub(1) / 2]);
            assert_eq!(slot.rank as usize, at, "every end knows its place");
            let until = self.slot(parent).until();
            assert!(until <= slot.until(), "no ban ends before its parent");
        }
        let first = active.iter().map(|slot| slot.until()).min();
        assert_eq!(self.first_to_end().map(|(until, _)| until), first);
        let lengths = self.v4_lengths.iter().chain(&self.v6_lengths);
        assert_eq!(
            lengths.sum::<u32>() as usize,
            active.len(),
            "prefix lengths"
        );
        for slot in self
            .slots
            .iter()
            .filter(|slot| slot.seq() > self.floor && !slot.silent)
        {
            let logged = self.logged(slot.seq()).map(|logged| logged.client);
            assert_eq!(logged, Some(slot.client), "number {} is logged", slot.seq());
        }
    }
}

/// How many to make room for when there are to be so many.
fn room(bans: usize) -> usize {
    match bans {
        0..=FEW => bans.max(16),
        _ => bans.max(ROOM),
    }
}
