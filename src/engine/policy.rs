//! The jails in force, swapped whole on reload and whenever a table of bans needs another size, and
//! the names behind their ids. One guard of it is all that a decision needs. It decides nothing.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;

use super::{
    Request,
    counters::{Event, Rule},
    jail::{self, JailId, JailSpec},
    nets::NetSet,
    table::Scope,
    window::millis,
};
use crate::time::Millis;

/// Names of jails, ever growing: an id means the same name for the life of the process.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    names: Vec<Arc<str>>,
    ids: HashMap<Arc<str>, JailId>,
}

/// One jail with its state.
#[derive(Clone, Debug)]
pub(super) struct Jail {
    pub(super) id: JailId,
    pub(super) spec: Arc<JailSpec>,
    /// False once it is no longer configured: its counters and bans lie dormant until they end.
    pub(super) live: bool,
    pub(super) scope: Scope,
}

/// Every jail by id. Swapped under the ledger's lock only, so that no change is lost.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) jails: Vec<Option<Jail>>,
    /// Bans that hold in every jail.
    pub(super) everywhere: Scope,
    pub(super) itself: NetSet,
    /// Who operators allow at runtime, in every jail.
    pub(super) allowed: NetSet,
}

impl Names {
    /// The id of a name, a new one when it was never seen.
    pub(super) fn id(&self, name: &Arc<str>) -> JailId {
        if let Some(id) = self.find(name) {
            return id;
        }
        let Known { names, ids } = &mut *self.known.write();
        *ids.entry(name.clone()).or_insert_with(|| {
            names.push(name.clone());
            JailId((names.len() - 1) as u16)
        })
    }

    pub(super) fn find(&self, name: &str) -> Option<JailId> {
        self.known.read().ids.get(name).copied()
    }

    /// The name of an id that [`Names::id`] gave.
    pub(super) fn get(&self, id: JailId) -> Arc<str> {
        self.known.read().names[usize::from(id.0)].clone()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = JailId> + use<> {
        (0..self.known.read().names.len() as u16).map(JailId)
    }
}

impl Policy {
    pub(super) fn new(everywhere: Scope) -> Self {
        Self {
            jails: Vec::new(),
            everywhere,
            itself: NetSet::default(),
            allowed: NetSet::default(),
        }
    }

    /// The bans of one jail, or (`None`) those that hold everywhere.
    pub(super) fn scope(&self, jail: Option<JailId>) -> Option<&Scope> {
        match jail {
            Some(id) => self.any(id).map(|jail| &jail.scope),
            None => Some(&self.everywhere),
        }
    }

    /// Puts another in its place.
    pub(super) fn replace(&mut self, jail: Option<JailId>, scope: Scope) {
        match jail.map(|id| self.jails.get_mut(usize::from(id.0))) {
            Some(Some(Some(jail))) => jail.scope = scope,
            Some(_) => {}
            None => self.everywhere = scope,
        }
    }

    /// A jail that is configured now.
    #[inline]
    pub(super) fn live(&self, id: JailId) -> Option<&Jail> {
        self.any(id).filter(|jail| jail.live)
    }

    /// A jail that is or was configured.
    #[inline]
    pub(super) fn any(&self, id: JailId) -> Option<&Jail> {
        self.jails.get(usize::from(id.0))?.as_ref()
    }
}

impl Jail {
    /// Whether a request is of those that `match` counts.
    pub(super) fn matches(&self, request: &Request<'_>) -> bool {
        let methods = &self.spec.match_methods;
        let method = methods.is_empty()
            || methods
                .iter()
                .any(|method| method.as_str().as_bytes() == request.method);
        method
            && self.spec.match_path.as_ref().is_none_or(|pattern| {
                let canonical = super::urls::canonical(request.target);
                pattern.is_match(super::urls::split(&canonical).0)
            })
    }

    /// Whether a status counts here.
    pub(super) fn counts(&self, status: u16) -> bool {
        jail::counts(&self.spec.statuses, status)
    }

    /// Every request counts, whatever comes back.
    pub(super) fn counts_requests(&self) -> bool {
        self.spec.statuses.is_empty()
    }

    /// What happened at a time, to be counted by this jail's rule.
    pub(super) fn event(&self, at: Millis, status: u16, swept: Millis) -> Event {
        let rule = Rule {
            kind: self.spec.window,
            findtime: millis(self.spec.findtime),
            maxretry: self.spec.maxretry,
            swept,
        };
        Event { at, status, rule }
    }
}
