//! One ban as the ledger holds it: what it says, and by which number, end and place it is found.

use ipnet::IpNet;

use super::{Client, Detail, EVERYWHERE, Slots, u48::U48};
use crate::{
    engine::{
        ban::{Ban, Cause},
        jail::JailId,
        ledger::Lift,
        policy::Names,
    },
    time::Millis,
};

/// What a ban has that shares no cause with others.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) cause: Cause,
    pub(super) detail: Detail,
}

/// What became of a ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Begun,
    Updated,
    Lifted(Lift),
}

/// One ban, 56 bytes.
#[derive(Debug)]
pub(in crate::engine) struct Slot {
    pub(super) client: IpNet,
    pub(super) jail: u16,
    pub(super) origin: u16,
    /// Where it stands among those that will end.
    pub(super) rank: u32,
    pub(in crate::engine) silent: bool,
    pub(super) state: State,
    /// 0: this slot is free.
    pub(super) seq: U48,
    pub(super) since: U48,
    pub(super) until: U48,
    /// Which of the shared ones, or `OWN`.
    pub(super) cause: u16,
    pub(super) own: Option<Box<Own>>,
}

impl Slot {
    pub(in crate::engine) fn is_active(&self) -> bool {
        self.seq != U48::ZERO && self.lift().is_none()
    }

    /// The number of its latest change.
    pub(in crate::engine) fn seq(&self) -> u64 {
        self.seq.get()
    }

    /// How it ended.
    pub(in crate::engine) fn lift(&self) -> Option<Lift> {
        match self.state {
            State::Lifted(lift) => Some(lift),
            State::Begun | State::Updated => None,
        }
    }

    /// It stands and did before.
    pub(in crate::engine) fn updated(&self) -> bool {
        self.state == State::Updated
    }

    pub(in crate::engine) fn jail(&self) -> Option<JailId> {
        (self.jail != EVERYWHERE).then_some(JailId(self.jail))
    }

    pub(in crate::engine) fn key(&self) -> Client {
        (self.client, self.jail())
    }

    pub(in crate::engine) fn until(&self) -> Millis {
        self.until.get()
    }

    pub(in crate::engine) fn since(&self) -> Millis {
        self.since.get()
    }

    pub(in crate::engine) fn count(&self) -> u32 {
        self.own.as_ref().map_or(0, |own| own.detail.count)
    }

    pub(in crate::engine) fn ban(&self, slots: &Slots, names: &Names) -> Ban {
        let own = self.own.as_deref().cloned();
        let detail = own.map(|own| own.detail).unwrap_or_default();
        Ban {
            client: self.client,
            jail: self.jail().map(|jail| names.get(jail)),
            origin: slots.origin(self).clone(),
            cause: slots.cause(self).clone(),
            count: detail.count,
            first_status: detail.first_status,
            last_status: detail.last_status,
            path: detail.path,
            since: self.since(),
            until: self.until(),
        }
    }
}
