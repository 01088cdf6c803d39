//! How the ledger holds its bans: compact slots in a slab, found by client, by end and by number.
//! At a million outside decisions a ban costs about 72 bytes here, where a `Ban` behind an `Arc`
//! would cost 170 and its indexes as much again.

mod ends;
mod slot;
mod u48;
mod upkeep;

use std::{
    collections::{HashMap, VecDeque},
    hash::BuildHasher,
};

use hashbrown::HashTable;
use ipnet::IpNet;

pub(super) use self::slot::Slot;
use self::{
    slot::{Own, State},
    u48::U48,
};
use super::{
    ban::{Cause, Origin},
    jail::JailId,
    ledger::Lift,
    table::Keyed,
};
use crate::time::Millis;

/// Lifted bans that followers can still read of.
const MAX_LIFTED: usize = 131_072;
/// Log entries kept beyond twice the number of active bans.
const LOG_SLACK: usize = 262_144;
/// Causes that bans without detail share; more than these are held one by one.
const MAX_SHARED: usize = 4096;
/// More bans than this, and there is room for `ROOM` at once. Pages that nothing is written to cost
/// nothing; what growing by doubles leaves behind in the heap is a fifth more, and stays.
const FEW: usize = 1024;
const ROOM: usize = 114_688;
/// In place of a shared cause.
const OWN: u16 = u16::MAX;
const GAP: u32 = u32::MAX;
const EVERYWHERE: u16 = u16::MAX;

/// Who is banned where; several origins may ban the same.
pub(super) type Client = (IpNet, Option<JailId>);

/// Client, jail and origin: at most one active ban each. Silent ones are those of a jail that
/// only simulates; they are enforced by nobody and listed nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) client: IpNet,
    pub(super) jail: Option<JailId>,
    pub(super) origin: Origin,
    pub(super) silent: bool,
}

/// What a ban says beyond its place.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) cause: Cause,
    pub(super) detail: Detail,
    pub(super) since: Millis,
    pub(super) until: Millis,
}

/// What only bans of our own have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Detail {
    pub(super) count: u32,
    pub(super) first_status: u16,
    pub(super) last_status: u16,
    pub(super) path: Box<str>,
}

#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    index: HashTable<u32>,
    /// Active ones, a heap by end.
    ends: Vec<u32>,
    /// Slot of each number from `floor + 1` on; stale where the slot has moved on.
    log: VecDeque<u32>,
    floor: u64,
    lifted: usize,
    silent: usize,
    /// Active bans by prefix length, v4 then v6, so that covering ones are found by few probes.
    v4_lengths: [u32; 33],
    v6_lengths: [u32; 129],
    origins: Vec<Origin>,
    causes: Vec<Cause>,
    shared: HashMap<Cause, u16>,
    hash: Keyed,
}

impl Slots {
    pub(super) fn new(hash: Keyed) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            ends: Vec::new(),
            log: VecDeque::new(),
            floor: 0,
            lifted: 0,
            silent: 0,
            v4_lengths: [0; 33],
            v6_lengths: [0; 129],
            origins: vec![Origin::Jail, Origin::Manual],
            causes: Vec::new(),
            shared: HashMap::new(),
            hash,
        }
    }

    pub(super) fn newest(&self) -> u64 {
        self.floor + self.log.len() as u64
    }

    /// The oldest cursor that can be answered with changes.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// Active bans, silent ones included.
    pub(super) fn held(&self) -> usize {
        self.index.len()
    }

    pub(super) fn listed(&self) -> usize {
        self.index.len() - self.silent
    }

    pub(super) fn slot(&self, id: u32) -> &Slot {
        &self.slots[id as usize]
    }

    /// A slot by an id that may be of before memory was given back.
    pub(super) fn get(&self, id: u32) -> Option<&Slot> {
        self.slots.get(id as usize)
    }

    pub(super) fn origin(&self, slot: &Slot) -> &Origin {
        &self.origins[usize::from(slot.origin)]
    }

    pub(super) fn cause<'a>(&'a self, slot: &'a Slot) -> &'a Cause {
        match &slot.own {
            Some(own) => &own.cause,
            // a free slot, which nobody reads, may name none
            None => self
                .causes
                .get(usize::from(slot.cause))
                .unwrap_or(&Cause::Failures),
        }
    }

    pub(super) fn is_outside(&self, slot: &Slot) -> bool {
        matches!(self.origin(slot), Origin::Outside(_))
    }

    /// Slots by position, for reading everything with the lock released in between.
    pub(super) fn chunk(&self, from: usize, len: usize) -> Option<&[Slot]> {
        let end = self.slots.len().min(from + len);
        (from < end).then(|| &self.slots[from..end])
    }

    pub(super) fn logged(&self, seq: u64) -> Option<&Slot> {
        let at = usize::try_from(seq.checked_sub(self.floor + 1)?).ok()?;
        let slot = self.slots.get(*self.log.get(at)? as usize)?;
        (slot.seq() == seq).then_some(slot)
    }

    /// The active ban at a place.
    pub(super) fn find(&self, place: &Place) -> Option<u32> {
        let origin = self
            .origins
            .iter()
            .position(|origin| *origin == place.origin)? as u16;
        self.of(place.client, place.jail).find(|id| {
            let slot = self.slot(*id);
            slot.origin == origin && slot.silent == place.silent
        })
    }

    /// Active bans of exactly this client in exactly this jail, every origin.
    pub(super) fn of(&self, client: IpNet, jail: Option<JailId>) -> impl Iterator<Item = u32> + '_ {
        let jail = jail.map_or(EVERYWHERE, |jail| jail.0);
        let hash = self.hash.hash_one((client, jail));
        let same = move |id: &u32| {
            let slot = self.slot(*id);
            slot.client == client && slot.jail == jail
        };
        self.index.iter_hash(hash).copied().filter(same)
    }

    /// Active bans that cover this network, in exactly this jail.
    pub(super) fn covering(
        &self,
        client: IpNet,
        jail: Option<JailId>,
    ) -> impl Iterator<Item = u32> + '_ {
        let lengths = match client {
            IpNet::V4(_) => self.v4_lengths.as_slice(),
            IpNet::V6(_) => self.v6_lengths.as_slice(),
        };
        let lengths = &lengths[..=usize::from(client.prefix_len())];
        let used = lengths.iter().enumerate().filter(|(_, bans)| **bans > 0);
        let nets = used.filter_map(move |(len, _)| IpNet::new(client.addr(), len as u8).ok());
        nets.flat_map(move |net| self.of(net.trunc(), jail))
    }

    /// Begins a ban, or changes the one at its place. Answers whether one stood.
    pub(super) fn put(&mut self, place: Place, terms: Terms) -> bool {
        let held = self.find(&place);
        let (cause, own) = self.keep(terms.cause, terms.detail);
        let id = match held {
            Some(id) => {
                self.leave(id);
                let slot = &mut self.slots[id as usize];
                (slot.since, slot.until) = (U48::new(terms.since), U48::new(terms.until));
                (slot.cause, slot.own, slot.state) = (cause, own, State::Updated);
                id
            }
            None => {
                let slot = Slot {
                    client: place.client,
                    jail: place.jail.map_or(EVERYWHERE, |jail| jail.0),
                    origin: self.intern(place.origin),
                    rank: 0,
                    silent: place.silent,
                    state: State::Begun,
                    seq: U48::MAX,
                    since: U48::new(terms.since),
                    until: U48::new(terms.until),
                    cause,
                    own,
                };
                self.insert(slot)
            }
        };
        self.enter(id);
        self.record(id);
        held.is_some()
    }

    /// Ends an active ban.
    pub(super) fn lift(&mut self, id: u32, how: Lift) {
        let slot = &mut self.slots[id as usize];
        slot.state = State::Lifted(how);
        let (client, jail, silent) = (slot.client, slot.jail, slot.silent);
        let hash = self.hash.hash_one((client, jail));
        if let Ok(entry) = self.index.find_entry(hash, |held| *held == id) {
            entry.remove();
        }
        self.leave(id);
        *self.length(client) -= 1;
        if silent {
            self.silent -= 1;
            self.release(id);
        } else {
            self.lifted += 1;
            self.record(id);
        }
    }

    fn insert(&mut self, slot: Slot) -> u32 {
        *self.length(slot.client) += 1;
        self.silent += usize::from(slot.silent);
        let id = self.place(slot);
        let (slots, hash) = (&self.slots, self.hash);
        let key = hash_of(hash, slots, id);
        self.index
            .insert_unique(key, id, |id| hash_of(hash, slots, *id));
        id
    }

    fn place(&mut self, slot: Slot) -> u32 {
        if let Some(id) = self.free.pop() {
            self.slots[id as usize] = slot;
            return id;
        }
        self.slots.push(slot);
        (self.slots.len() - 1) as u32
    }

    fn release(&mut self, id: u32) {
        let slot = &mut self.slots[id as usize];
        slot.seq = U48::ZERO;
        slot.own = None;
        self.free.push(id);
    }

    fn record(&mut self, id: u32) {
        if self.slots[id as usize].silent {
            return;
        }
        self.log.push_back(id);
        self.slots[id as usize].seq = U48::new(self.newest());
        while self.lifted > MAX_LIFTED || self.log.len() > 2 * self.index.len() + LOG_SLACK {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let oldest = self.floor + 1;
        let lifted = self
            .logged(oldest)
            .is_some_and(|slot| slot.lift().is_some());
        let id = self.log.pop_front();
        self.floor = oldest;
        if let Some(id) = id
            && lifted
        {
            self.lifted -= 1;
            self.release(id);
        }
    }

    fn length(&mut self, client: IpNet) -> &mut u32 {
        match client {
            IpNet::V4(net) => &mut self.v4_lengths[usize::from(net.prefix_len())],
            IpNet::V6(net) => &mut self.v6_lengths[usize::from(net.prefix_len())],
        }
    }

    fn intern(&mut self, origin: Origin) -> u16 {
        let known = self.origins.iter().position(|known| *known == origin);
        known.unwrap_or_else(|| {
            self.origins.push(origin);
            self.origins.len() - 1
        }) as u16
    }

    /// A hundred thousand decisions name a handful of scenarios.
    fn keep(&mut self, cause: Cause, detail: Detail) -> (u16, Option<Box<Own>>) {
        if detail == Detail::default() {
            if let Some(shared) = self.shared.get(&cause) {
                return (*shared, None);
            }
            if self.causes.len() < MAX_SHARED {
                let shared = self.causes.len() as u16;
                self.causes.push(cause.clone());
                self.shared.insert(cause, shared);
                return (shared, None);
            }
        }
        (OWN, Some(Box::new(Own { cause, detail })))
    }
}

fn hash_of(hash: Keyed, slots: &[Slot], id: u32) -> u64 {
    let slot = &slots[id as usize];
    hash.hash_one((slot.client, slot.jail))
}
