//! What the list should hold against what it holds: pure, the same answer for the same input.
//!
//! Forms of addresses follow Cloudflare's documents: IPv4 alone or /8../32, IPv6 as networks of
//! /12../64 only, so that a longer one is widened to its /64.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::wire::Item;
use crate::time::Millis;

/// Items one request may carry; the cron job that this replaces used as many.
pub const BATCH: usize = 1000;

/// Why something is wanted, for the choice of who stays out: greater stays in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight {
    /// Our own ban or one by hand; else somebody's decision.
    pub ours: bool,
    /// The latest end among the bans behind it.
    pub until: Millis,
}

/// What the list should hold, each network once: it stays until the last ban in it has ended.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    nets: BTreeMap<IpNet, Weight>,
    /// Bans that the list cannot express.
    pub unfit: usize,
}

/// One item of the list as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Needed to remove it; not told for what was just added.
    pub id: Option<String>,
    /// It carries our tag.
    pub ours: bool,
}

/// The list as of the last full reading and what was done since.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    items: BTreeMap<IpNet, Known>,
    /// Items whose address we cannot read: never touched, but they take room.
    pub odd: usize,
}

/// What may be touched, and how much room there is.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Every item is ours to remove.
    pub whole_list: bool,
    /// Items of others that are wanted get our tag.
    pub retag: bool,
    /// Items at most, those of others included.
    pub capacity: usize,
    /// While LAPI is out of reach: what it wanted last. None of it is added or removed, and of
    /// items without our tag nothing is removed.
    pub frozen: Option<&'a BTreeSet<IpNet>>,
}

/// What to change. Adding comes first as far as there is room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Not listed yet, in the order of addresses.
    pub add: Vec<IpNet>,
    /// Listed without our tag and to be ours.
    pub retag: Vec<IpNet>,
    /// In the order of addresses, with their ids.
    pub remove: Vec<(IpNet, String)>,
    /// To be removed as well, once their ids are known.
    pub find: Vec<IpNet>,
    /// Wanted and without room, what is worth most first.
    pub left_out: Vec<IpNet>,
    /// Wanted and with room, whoever put it there.
    pub chosen: usize,
    /// Items that may be added before any is removed.
    pub free: usize,
}

/// The form in which a ban goes to the list; `None` when it has none (a range wider than /8, or
/// /12 for IPv6).
pub fn edge(net: IpNet) -> Option<IpNet> {
    match unmapped(net.trunc()) {
        IpNet::V4(v4) => (v4.prefix_len() >= 8).then_some(v4.into()),
        IpNet::V6(v6) if v6.prefix_len() < 12 => None,
        IpNet::V6(v6) => Ipv6Net::new(v6.addr(), v6.prefix_len().min(64))
            .ok()
            .map(|net| net.trunc().into()),
    }
}

/// How the list spells a network: a single IPv4 address stands alone.
pub fn spell(net: IpNet) -> String {
    match net {
        IpNet::V4(v4) if v4.prefix_len() == 32 => v4.addr().to_string(),
        other => other.to_string(),
    }
}

/// Reads an item's address in any spelling the list gives back.
pub fn read(text: &str) -> Option<IpNet> {
    let text = text.trim();
    let alone = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse::<IpNet>()
        .ok()
        .or_else(alone)
        .map(|net| unmapped(net.trunc()))
}

fn unmapped(net: IpNet) -> IpNet {
    match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(v4) => Ipv4Net::new(v4, v6.prefix_len() - 96).map_or(net, IpNet::V4),
            None => net,
        },
        other => other,
    }
}

/// One request's worth of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Put these in; what is there already gets our tag.
    Put(Vec<IpNet>),
    /// Take these out.
    Remove(Vec<(IpNet, String)>),
    /// Learn the id of this one, to take it out.
    Find(IpNet),
}

impl Plan {
    /// What to do first: put in while there is room, then take out, at most [`BATCH`] items.
    pub fn first(&self) -> Option<Step> {
        let room = self.free.min(BATCH).min(self.add.len());
        if room > 0 {
            return Some(Step::Put(self.add[..room].to_vec()));
        }
        if !self.retag.is_empty() {
            let batch = self.retag.len().min(BATCH);
            return Some(Step::Put(self.retag[..batch].to_vec()));
        }
        let batch = self.remove.len().min(BATCH);
        if batch > 0 {
            return Some(Step::Remove(self.remove[..batch].to_vec()));
        }
        self.find.first().copied().map(Step::Find)
    }
}

impl Wanted {
    /// Adds one ban.
    pub fn want(&mut self, client: IpNet, weight: Weight) {
        let Some(net) = edge(client) else {
            self.unfit += 1;
            return;
        };
        let known = self.nets.entry(net).or_insert(weight);
        known.ours |= weight.ours;
        known.until = known.until.max(weight.until);
    }

    /// Drops what `spared` says must not be listed, and answers how many that were. The folded
    /// network is asked, since that is what would be blocked.
    pub fn spare(&mut self, mut spared: impl FnMut(&IpNet) -> bool) -> usize {
        let before = self.nets.len();
        self.nets.retain(|net, _| !spared(net));
        before - self.nets.len()
    }

    /// Whether a ban of our own or by hand is behind this network.
    pub fn is_ours(&self, net: &IpNet) -> bool {
        self.nets.get(net).is_some_and(|weight| weight.ours)
    }

    /// Every network, folded.
    pub fn nets(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.nets.keys().copied()
    }

    /// Networks wanted.
    pub fn len(&self) -> usize {
        self.nets.len()
    }

    /// Nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.nets.is_empty()
    }
}

impl Listed {
    /// From a full reading; `tag` begins the comment of what is ours.
    pub fn read(items: impl IntoIterator<Item = Item>, tag: &str) -> Self {
        let mut listed = Self::default();
        for item in items {
            let ours = tagged(item.comment.as_deref().unwrap_or_default(), tag);
            match read(&item.ip) {
                Some(net) => {
                    let id = Some(item.id);
                    listed.items.insert(net, Known { id, ours });
                }
                None => listed.odd += 1,
            }
        }
        listed
    }

    /// Notes that these were added; their ids are not known yet.
    pub fn added(&mut self, nets: &[IpNet]) {
        let ours = Known {
            id: None,
            ours: true,
        };
        self.items
            .extend(nets.iter().map(|net| (*net, ours.clone())));
    }

    /// Notes that this is gone.
    pub fn removed(&mut self, net: &IpNet) {
        self.items.remove(net);
    }

    /// What carries our tag.
    pub fn ours(&self) -> impl Iterator<Item = IpNet> + '_ {
        let ours = self.items.iter().filter(|(_, known)| known.ours);
        ours.map(|(net, _)| *net)
    }

    /// Notes what a search for one network found.
    pub fn found(&mut self, net: IpNet, item: Option<Item>) {
        match (item, self.items.get_mut(&net)) {
            (Some(item), Some(known)) => known.id = Some(item.id),
            (None, _) => self.removed(&net),
            (Some(_), None) => {}
        }
    }

    /// Items in the list.
    pub fn len(&self) -> usize {
        self.items.len() + self.odd
    }
}

/// Whether a comment is ours: the tag alone, or the tag and more words.
pub fn tagged(comment: &str, tag: &str) -> bool {
    let rest = comment.strip_prefix(tag);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// Compares. Who stays out when there is no room for all: decisions before bans of our own and by
/// hand, and among equals those that end soonest (then those with the greater address).
pub fn plan(wanted: &Wanted, listed: &Listed, rules: Rules<'_>) -> Plan {
    let removable = |net: &IpNet, known: &Known| match rules.frozen {
        Some(frozen) => known.ours && !frozen.contains(net),
        None => known.ours || rules.whole_list,
    };
    let (mut fixed, mut fixed_wanted) = (listed.odd, 0);
    for (net, known) in &listed.items {
        if !removable(net, known) {
            fixed += 1;
            fixed_wanted += usize::from(wanted.nets.contains_key(net));
        }
    }
    let stays = |net: &IpNet| {
        listed
            .items
            .get(net)
            .is_some_and(|known| !removable(net, known))
    };
    let mut movable: Vec<(&IpNet, &Weight)> = wanted.nets.iter().collect();
    movable.retain(|(net, weight)| !stays(net) && (weight.ours || rules.frozen.is_none()));
    let room = rules.capacity.saturating_sub(fixed);
    let mut left_out = Vec::new();
    if movable.len() > room {
        movable.sort_unstable_by_key(|(net, weight)| (Reverse(**weight), **net));
        left_out = movable.drain(room..).map(|(net, _)| *net).collect();
    }
    let chosen: BTreeSet<IpNet> = movable.into_iter().map(|(net, _)| *net).collect();
    let mut plan = Plan {
        chosen: chosen.len() + fixed_wanted,
        free: rules.capacity.saturating_sub(listed.len()),
        left_out,
        ..Plan::default()
    };
    for (net, known) in &listed.items {
        match &known.id {
            _ if !removable(net, known) || chosen.contains(net) => {}
            Some(id) => plan.remove.push((*net, id.clone())),
            None => plan.find.push(*net),
        }
    }
    for net in chosen {
        match listed.items.get(&net) {
            None => plan.add.push(net),
            Some(known) if rules.retag && !known.ours => plan.retag.push(net),
            Some(_) => {}
        }
    }
    plan
}

#[cfg(test)]
mod tests;
