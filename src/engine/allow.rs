//! Who operators allow at runtime: passes every jail, as if on its allowlist, until its time is
//! over. Names are resolved and entries are kept on disk by others; this holds them.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use parking_lot::Mutex;

use super::{Engine, client::canonical_net, kept::Kept, nets::NetSet, policy::Policy};
use crate::time::Millis;

/// One entry of the runtime allow list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// What was allowed, the key of the entry: an address, a network, or a DNS name.
    pub subject: Arc<str>,
    /// What passes now: the subject itself, or what the name resolves to.
    pub nets: Vec<IpNet>,
    /// The operator's words.
    pub note: Box<str>,
    /// When it was entered, Unix milliseconds.
    pub since: Millis,
    /// When it ends, Unix milliseconds; `FOREVER` never.
    pub until: Millis,
}

/// The list, and how far it is on disk.
#[derive(Debug, Default)]
pub struct AllowList {
    entries: Mutex<BTreeMap<Arc<str>, Allowed>>,
    kept: Kept,
}

impl AllowList {
    /// How far the list is on disk.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    fn nets(&self) -> NetSet {
        let entries = self.entries.lock();
        let nets = entries.values().flat_map(|entry| &entry.nets);
        nets.copied().map(canonical_net).collect()
    }
}

impl Engine {
    /// The runtime allow list, for keeping it.
    pub fn allow_list(&self) -> &AllowList {
        &self.allow
    }

    /// Enters something, or changes the entry of the same subject.
    pub fn allow(&self, entry: Allowed) {
        let mut entries = self.allow.entries.lock();
        if entries.get(&entry.subject) == Some(&entry) {
            return;
        }
        entries.insert(entry.subject.clone(), entry);
        drop(entries);
        self.allow_anew();
    }

    /// Takes an entry out and answers it.
    pub fn disallow(&self, subject: &str) -> Option<Allowed> {
        let gone = self.allow.entries.lock().remove(subject)?;
        self.allow_anew();
        Some(gone)
    }

    /// Every entry, by subject.
    pub fn allowed(&self) -> Vec<Allowed> {
        self.allow.entries.lock().values().cloned().collect()
    }

    /// The entries that let this address pass.
    pub fn allowed_by(&self, addr: IpAddr) -> Vec<Allowed> {
        let addr = addr.to_canonical();
        let covers = |entry: &Allowed| entry.nets.iter().any(|net| net.contains(&addr));
        let mut all = self.allowed();
        all.retain(covers);
        all
    }

    /// Puts back what [`Engine::allowed`] gave.
    pub fn restore_allowed(&self, entries: impl IntoIterator<Item = Allowed>) {
        let keyed = entries
            .into_iter()
            .map(|entry| (entry.subject.clone(), entry));
        self.allow.entries.lock().extend(keyed);
        self.allow_anew();
    }

    /// Lets go of entries whose time is over.
    pub(super) fn end_allowed(&self, now: Millis) {
        let mut entries = self.allow.entries.lock();
        let before = entries.len();
        entries.retain(|_, entry| entry.until > now);
        let ended = entries.len() < before;
        drop(entries);
        if ended {
            self.allow_anew();
        }
    }

    fn allow_anew(&self) {
        // Policies are swapped under the ledger's lock, so that none is lost.
        let held = self.ledger.lock();
        let old = self.policy.load_full();
        self.policy.store(Arc::new(Policy {
            allowed: self.allow.nets(),
            ..Policy::clone(&old)
        }));
        drop(held);
        self.allow.kept.announce();
    }
}
