//! Which active ban ends first: a heap of slots, each of which knows its place in it. That is 8
//! bytes a ban, where an ordered tree of ends takes more than 30; nobody asks for the whole order.

use super::Slots;
use crate::time::Millis;

impl Slots {
    /// The active ban that ends first.
    pub(in crate::engine) fn first_to_end(&self) -> Option<(Millis, u32)> {
        let id = *self.ends.first()?;
        Some((self.slot(id).until(), id))
    }

    /// Orders this slot by its end, which does not change until it [leaves](Self::leave).
    pub(super) fn enter(&mut self, id: u32) {
        self.ends.push(id);
        self.rise(self.ends.len() - 1, id);
    }

    pub(super) fn leave(&mut self, id: u32) {
        let gap = self.slot(id).rank as usize;
        let last = self.ends.pop();
        if let Some(last) = last.filter(|last| *last != id) {
            let at = self.rise(gap, last);
            self.sink(at, last);
        }
    }

    fn ends_before(&self, one: u32, other: u32) -> bool {
        (self.slot(one).until(), one) < (self.slot(other).until(), other)
    }

    fn set(&mut self, at: usize, id: u32) {
        self.ends[at] = id;
        self.slots[id as usize].rank = at as u32;
    }

    fn rise(&mut self, mut at: usize, id: u32) -> usize {
        while at > 0 {
            let parent = self.ends[(at - 1) / 2];
            if !self.ends_before(id, parent) {
                break;
            }
            self.set(at, parent);
            at = (at - 1) / 2;
        }
        self.set(at, id);
        at
    }

    fn sink(&mut self, mut at: usize, id: u32) {
        loop {
            let children = (2 * at + 1)..self.ends.len().min(2 * at + 3);
            let sooner = |a: &usize, b: &usize| match self.ends_before(self.ends[*a], self.ends[*b])
            {
                true => std::cmp::Ordering::Less,
                false => std::cmp::Ordering::Greater,
            };
            let Some(child) = children.min_by(sooner) else {
                break;
            };
            if self.ends_before(id, self.ends[child]) {
                break;
            }
            self.set(at, self.ends[child]);
            at = child;
        }
        self.set(at, id);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::engine::{
        ban::{Cause, Origin},
        ledger::Lift,
        slots::{Detail, Place, Slot, Slots, Terms},
        table::Keyed,
    };

    #[test]
    fn bans_end_in_order_however_they_come_and_change() {
        let (mut slots, mut ends) = (Slots::new(Keyed(7)), BTreeSet::new());
        let mut seed = 7_u64;
        for round in 0..5000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (host, until) = ((seed >> 33) as u8, 1000 + (seed >> 45) % 50);
            let place = Place {
                client: std::net::IpAddr::from([192, 0, 2, host]).into(),
                jail: None,
                origin: Origin::Manual,
                silent: false,
            };
            ends.retain(|(_, held)| *held != host);
            if round % 3 == 0 {
                if let Some(id) = slots.find(&place) {
                    slots.lift(id, Lift::Unbanned);
                }
            } else {
                let terms = Terms {
                    cause: Cause::Failures,
                    detail: Detail::default(),
                    since: 0,
                    until,
                };
                slots.put(place, terms);
                ends.insert((until, host));
            }
            let first = slots.first_to_end().map(|(until, _)| until);
            assert_eq!(first, ends.first().map(|(until, _)| *until));
        }
        slots.check_invariants();
        for (until, _) in ends {
            let (first, id) = slots.first_to_end().unwrap();
            assert_eq!(first, until);
            slots.lift(id, Lift::Expired);
        }
        assert_eq!(slots.first_to_end(), None);
    }

    #[test]
    fn a_slot_is_as_long_as_was_counted_on() {
        assert_eq!(size_of::<Slot>(), 56);
    }
}
