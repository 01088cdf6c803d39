//! The decisions LAPI told of, by their ids, in 20 bytes each and 6 to find it by: several may stand
//! for one address, and the longest holds. The engine holds what follows from them. Pure.

use std::{collections::HashMap, hash::BuildHasher, sync::Arc};

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use ipnet::IpNet;

use crate::{
    engine::{Ban, Cause, Delta, Origin},
    time::Millis,
};

/// Engine origins of decisions begin so; what follows is LAPI's origin.
pub(super) const PREFIX: &str = "crowdsec/";
/// Different texts kept as one; more are kept as the last.
const NAMES: usize = u16::MAX as usize;
/// More rows than this, and there is room for `ROOM` at once. Room that is not used costs nothing;
/// tables that grew and were left are kept by the allocator, and by every larger one it is given
/// back it learns to keep more.
const FEW: usize = 8192;
const ROOM: usize = 114_688;

/// What a decision bans.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'a> {
    pub(super) id: u64,
    pub(super) net: IpNet,
    pub(super) origin: &'a str,
    pub(super) scenario: &'a str,
    pub(super) until: Millis,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    /// Hash of network and origin, in halves: for eight bytes at once every row would be four
    /// longer. Two of a million sharing one by chance is a chance of 1e-7.
    hash: [u32; 2],
    /// The lower half: it tells apart the few decisions of one network.
    id: u32,
    /// Seconds, rounded up.
    until: u32,
    scenario: u16,
    origin: u8,
    /// Of the full pull that told of it last, and in its highest bit: IPv6.
    pull: u8,
}

/// Decisions by id, and what to tell the engine of them.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// In no order.
    rows: Vec<Row>,
    /// Where in `rows` a key is.
    index: HashTable<u32>,
    hash: RandomState,
    pull: u8,
    origins: Names,
    scenarios: Names,
    changes: HashMap<u8, Delta>,
    pending: usize,
}

#[derive(Debug, Default)]
struct Names {
    list: Vec<Arc<str>>,
    index: HashMap<Arc<str>, u16>,
}

impl Names {
    fn id(&mut self, name: &str, most: usize) -> u16 {
        if let Some(known) = self.index.get(name) {
            return *known;
        }
        if self.list.len() >= most {
            return (most - 1) as u16;
        }
        let name: Arc<str> = name.into();
        self.list.push(name.clone());
        let id = (self.list.len() - 1) as u16;
        self.index.insert(name, id);
        id
    }
}

const V6: u8 = 0x80;

impl Row {
    fn key(&self) -> u64 {
        u64::from(self.hash[0]) << 32 | u64::from(self.hash[1])
    }
}

impl Book {
    /// A full pull begins: what it does not tell of goes at its end.
    pub(super) fn begin(&mut self) {
        self.pull = (self.pull + 1) & !V6;
    }

    /// The full pull is over; afterwards [`holds`](Self::holds) answers by it alone.
    pub(super) fn finish(&mut self) {
        let pull = self.pull;
        self.forget(|row| row.pull & !V6 != pull);
        let few = self.rows.len() <= FEW;
        let room = if few { 0 } else { ROOM };
        self.rows.shrink_to(room);
        self.index.shrink_to(room, key_in(&self.rows));
    }

    /// Enters a decision. One that is known by its id changes nothing: what was lifted by hand
    /// stays lifted.
    pub(super) fn enter(&mut self, told: Told<'_>, now: Millis) {
        let key = self.key(told.net, told.origin);
        let until = seconds(told.until);
        let mut longest = 0;
        for at in self.index.iter_hash(key) {
            let row = &mut self.rows[*at as usize];
            if row.key() != key {
                continue;
            }
            if row.id == told.id as u32 {
                row.pull = self.pull | (row.pull & V6);
                return;
            }
            longest = longest.max(row.until);
        }
        let v6 = if told.net.addr().is_ipv6() { V6 } else { 0 };
        let row = Row {
            hash: [(key >> 32) as u32, key as u32],
            id: told.id as u32,
            until,
            scenario: self.scenarios.id(told.scenario, NAMES),
            origin: self.origins.id(told.origin, usize::from(u8::MAX)) as u8,
            pull: self.pull | v6,
        };
        self.insert(row);
        if until > longest {
            self.impose(&row, told.net, told.until, now);
        }
    }

    /// Strikes a decision; the next longest for its address holds, if there is one.
    pub(super) fn strike(&mut self, told: Told<'_>, now: Millis) {
        let key = self.key(told.net, told.origin);
        let same = |at: &u32| {
            let row = &self.rows[*at as usize];
            row.key() == key && row.id == told.id as u32
        };
        let Some(at) = self.index.find(key, same).copied() else {
            return;
        };
        let gone = self.remove(at as usize);
        let next = self.of(key).max_by_key(|row| row.until).copied();
        match next {
            Some(next) if next.until >= gone.until => {}
            Some(next) if Millis::from(next.until) * 1000 > now => {
                self.impose(&next, told.net, Millis::from(next.until) * 1000, now);
            }
            _ => {
                let delta = self.changes.entry(gone.origin).or_default();
                // the engine removes before it adds
                delta.add.retain(|ban| ban.client != told.net);
                delta.remove.push((told.net, None));
                self.pending += 1;
            }
        }
    }

    /// Forgets what is over by itself; the engine does so on its own.
    pub(super) fn prune(&mut self, now: Millis) {
        let now = (now / 1000) as u32;
        self.forget(|row| row.until < now);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether a decision of this origin for this network is in the book.
    pub(super) fn holds(&self, origin: &str, net: IpNet) -> bool {
        self.of(self.key(net, origin)).next().is_some()
    }

    /// Changes not taken yet.
    pub(super) fn pending(&self) -> usize {
        self.pending
    }

    /// What the engine is to be told, by origin.
    pub(super) fn take(&mut self) -> Vec<(Origin, Delta)> {
        self.pending = 0;
        let changes = std::mem::take(&mut self.changes);
        let named = |(origin, delta): (u8, Delta)| {
            let name = &self.origins.list[usize::from(origin)];
            (Origin::Outside(format!("{PREFIX}{name}").into()), delta)
        };
        changes.into_iter().map(named).collect()
    }

    /// Decisions held.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Decisions held by origin, for IPv4 and IPv6.
    pub(super) fn counts(&self) -> Vec<(Arc<str>, [u64; 2])> {
        let mut counts = vec![[0; 2]; self.origins.list.len()];
        for row in &self.rows {
            counts[usize::from(row.origin)][usize::from(row.pull >= V6)] += 1;
        }
        self.origins.list.iter().cloned().zip(counts).collect()
    }

    fn key(&self, net: IpNet, origin: &str) -> u64 {
        self.hash.hash_one((net, origin))
    }

    /// Every decision of a network and origin.
    fn of(&self, key: u64) -> impl Iterator<Item = &Row> {
        let held = self.index.iter_hash(key);
        held.map(|at| &self.rows[*at as usize])
            .filter(move |row| row.key() == key)
    }

    fn insert(&mut self, row: Row) {
        if self.rows.len() == FEW {
            self.rows.reserve_exact(ROOM - FEW);
            self.index.reserve(ROOM - FEW, key_in(&self.rows));
        }
        let at = self.rows.len() as u32;
        self.rows.push(row);
        self.index.insert_unique(row.key(), at, key_in(&self.rows));
    }

    /// The last row takes the place of the one removed.
    fn remove(&mut self, at: usize) -> Row {
        let key = self.rows[at].key();
        if let Ok(entry) = self.index.find_entry(key, |held| *held == at as u32) {
            entry.remove();
        }
        let gone = self.rows.swap_remove(at);
        let last = self.rows.len() as u32;
        if let Some(moved) = self.rows.get(at)
            && let Some(held) = self.index.find_mut(moved.key(), |held| *held == last)
        {
            *held = at as u32;
        }
        gone
    }

    fn forget(&mut self, gone: impl Fn(&Row) -> bool) {
        let mut at = 0;
        while let Some(row) = self.rows.get(at) {
            match gone(row) {
                true => _ = self.remove(at),
                false => at += 1,
            }
        }
    }

    fn impose(&mut self, row: &Row, client: IpNet, until: Millis, now: Millis) {
        let scenario = self.scenarios.list[usize::from(row.scenario)].clone();
        let delta = self.changes.entry(row.origin).or_default();
        delta.add.push(Ban {
            client,
            jail: None,
            origin: Origin::Manual,
            cause: Cause::Decision(scenario),
            count: 0,
            first_status: 0,
            last_status: 0,
            path: Box::default(),
            since: now,
            until,
        });
        self.pending += 1;
    }
}

fn key_in(rows: &[Row]) -> impl Fn(&u32) -> u64 {
    |at| rows[*at as usize].key()
}

fn seconds(until: Millis) -> u32 {
    u32::try_from(until.div_ceil(1000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = 1_700_000_000_000;

    fn told<'a>(id: u64, net: &str, origin: &'a str, left: Millis) -> Told<'a> {
        Told {
            id,
            net: net.parse().unwrap(),
            origin,
            scenario: "scan",
            until: NOW + left,
        }
    }

    /// `+net until` and `-net`, what the engine is told.
    fn news(book: &mut Book) -> String {
        let mut news = Vec::new();
        for (origin, delta) in book.take() {
            let origin = origin.label();
            let gone = delta
                .remove
                .iter()
                .map(|(net, _)| format!("-{net} {origin}"));
            news.extend(gone);
            let added = delta.add.iter();
            news.extend(added.map(|ban| format!("+{} {origin} {}", ban.client, ban.until - NOW)));
        }
        news.sort();
        news.join(", ")
    }

    #[test]
    fn the_longest_decision_for_an_address_holds() {
        let mut book = Book::default();
        book.enter(told(1, "192.0.2.1/32", "CAPI", 1000), NOW);
        assert_eq!(news(&mut book), "+192.0.2.1/32 crowdsec/CAPI 1000");
        book.enter(told(2, "192.0.2.1/32", "CAPI", 9000), NOW);
        assert_eq!(news(&mut book), "+192.0.2.1/32 crowdsec/CAPI 9000");
        book.enter(told(3, "192.0.2.1/32", "CAPI", 5000), NOW);
        assert_eq!(news(&mut book), "", "shorter");
        book.enter(told(2, "192.0.2.1/32", "CAPI", 9000), NOW);
        assert_eq!(news(&mut book), "", "known");
        book.strike(told(1, "192.0.2.1/32", "CAPI", 0), NOW);
        assert_eq!(news(&mut book), "", "others hold longer");
        book.strike(told(2, "192.0.2.1/32", "CAPI", 0), NOW);
        assert_eq!(news(&mut book), "+192.0.2.1/32 crowdsec/CAPI 5000");
        book.strike(told(2, "192.0.2.1/32", "CAPI", 0), NOW);
        assert_eq!(news(&mut book), "", "LAPI repeats itself");
        book.strike(told(3, "192.0.2.1/32", "CAPI", 0), NOW);
        assert_eq!(news(&mut book), "-192.0.2.1/32 crowdsec/CAPI");
        assert_eq!(book.len(), 0);
    }

    #[test]
    fn origins_hold_each_for_itself() {
        let mut book = Book::default();
        book.enter(told(1, "192.0.2.1/32", "CAPI", 1000), NOW);
        book.enter(told(2, "192.0.2.1/32", "cscli", 500), NOW);
        book.enter(told(3, "2001:db8::/64", "cscli", 500), NOW);
        let all = "+192.0.2.1/32 crowdsec/CAPI 1000, +192.0.2.1/32 crowdsec/cscli 500, \
                   +2001:db8::/64 crowdsec/cscli 500";
        assert_eq!(news(&mut book), all);
        let counts = book.counts();
        assert_eq!(counts, [("CAPI".into(), [1, 0]), ("cscli".into(), [1, 1])]);
        book.strike(told(2, "192.0.2.1/32", "cscli", 0), NOW);
        assert_eq!(news(&mut book), "-192.0.2.1/32 crowdsec/cscli");
        assert!(book.holds("CAPI", "192.0.2.1/32".parse().unwrap()));
    }

    #[test]
    fn an_addition_that_is_struck_at_once_leaves_nothing() {
        let mut book = Book::default();
        book.enter(told(1, "192.0.2.1/32", "CAPI", 1000), NOW);
        book.strike(told(1, "192.0.2.1/32", "CAPI", 0), NOW);
        assert_eq!(news(&mut book), "-192.0.2.1/32 crowdsec/CAPI");
        book.enter(told(2, "192.0.2.1/32", "CAPI", 1000), NOW);
        assert_eq!(news(&mut book), "+192.0.2.1/32 crowdsec/CAPI 1000");
    }

    #[test]
    fn of_many_some_are_struck_and_some_are_over() {
        let mut book = Book::default();
        let net = |id: u32| std::net::Ipv4Addr::from(0x0b00_0000 + id).to_string() + "/32";
        let ids = 0..3 * FEW as u32;
        for id in ids.clone() {
            let left = if id % 5 == 0 { 1000 } else { 60_000 };
            book.enter(told(id.into(), &net(id), "CAPI", left), NOW);
            book.take();
        }
        for id in ids.clone().filter(|id| id % 3 == 0) {
            book.strike(told(id.into(), &net(id), "CAPI", 0), NOW);
        }
        book.prune(NOW + 10_000);
        let left: Vec<u32> = ids
            .clone()
            .filter(|id| id % 3 != 0 && id % 5 != 0)
            .collect();
        let held = |id: &u32| book.holds("CAPI", net(*id).parse().unwrap());
        assert_eq!(ids.filter(held).collect::<Vec<_>>(), left);
        assert_eq!((book.len(), book.index.len()), (left.len(), left.len()));
        book.begin();
        book.finish();
        let room = (book.len(), book.rows.capacity(), book.index.capacity());
        assert_eq!(room, (0, 0, 0), "memory is given back");
    }

    #[test]
    fn a_full_pull_forgets_what_it_does_not_tell() {
        let mut book = Book::default();
        for id in 1..=3 {
            book.enter(told(id, &format!("192.0.2.{id}/32"), "CAPI", 60_000), NOW);
        }
        book.take();
        book.begin();
        book.enter(told(2, "192.0.2.2/32", "CAPI", 60_000), NOW);
        book.enter(told(4, "192.0.2.4/32", "CAPI", 60_000), NOW);
        book.finish();
        assert_eq!(news(&mut book), "+192.0.2.4/32 crowdsec/CAPI 60000");
        let held = |net: &str| book.holds("CAPI", net.parse().unwrap());
        assert!(held("192.0.2.2/32") && held("192.0.2.4/32"));
        assert!(!held("192.0.2.1/32") && !held("192.0.2.3/32"));
        book.prune(NOW + 61_000);
        assert_eq!(book.len(), 0, "over by itself");
        assert_eq!(size_of::<Row>(), 20);
    }
}
