//! May this request pass? The order of a decision is laid down here and nowhere else. What counts
//! and how bans begin is left to `count`.

use std::{net::IpAddr, sync::Arc};

use super::{
    Denial, Engine, Exempt, Outcome, Reason, Request, Verdict, client,
    jail::JailId,
    policy::{Jail, Policy},
    table::Standing,
    urls::Mode,
};
use crate::time::Millis;

/// What lists and URL rules say, before any ban is looked at.
#[derive(Debug)]
pub(super) enum Ruling {
    Exempt(Exempt),
    Denylist,
    Block(Arc<str>),
    Open,
}

impl Engine {
    /// May this request pass `jail`? Counts it when the jail counts requests: the N-th is the one
    /// denied. A jail that is not configured exempts. Takes no exclusive lock unless it counts or
    /// bans.
    pub fn check(&self, jail: JailId, request: &Request<'_>, now: Millis) -> Verdict {
        let policy = self.policy.load();
        let Some(jail) = policy.live(jail).filter(|jail| jail.spec.enabled) else {
            return Verdict::Exempt(Exempt::Disabled);
        };
        let addr = client::canonical(request.client);
        match self.ruling(&policy, jail, addr, request.target) {
            Ruling::Exempt(why) => Verdict::Exempt(why),
            Ruling::Denylist => jail.refuse(denylisted(jail)),
            Ruling::Block(pattern) => {
                jail.refuse(self.ban_by_rule(jail, addr, request, pattern, 0, now).0)
            }
            Ruling::Open => match self.standing(jail, addr, now) {
                Some(denial) => jail.refuse(denial),
                None if jail.counts_requests() && jail.matches(request) => {
                    let event = jail.event(now, 0, self.swept());
                    match self.count(jail, addr, request, event) {
                        Outcome::Ignored | Outcome::Counted(_) => Verdict::Pass,
                        Outcome::Banned { denial, .. } | Outcome::Simulated { denial, .. } => {
                            jail.refuse(denial)
                        }
                    }
                }
                None => Verdict::Pass,
            },
        }
    }

    /// Lists and URL rules, in the order of a decision.
    #[inline]
    pub(super) fn ruling(
        &self,
        policy: &Policy,
        jail: &Jail,
        addr: IpAddr,
        target: &[u8],
    ) -> Ruling {
        if jail.spec.ignore_self && policy.itself.contains(addr) {
            return Ruling::Exempt(Exempt::Itself);
        }
        if jail.spec.denylist.contains(addr) {
            return Ruling::Denylist;
        }
        if jail.spec.allowlist.contains(addr) {
            return Ruling::Exempt(Exempt::Allowlist);
        }
        match jail.spec.urls.judge(target) {
            Some(hit) if hit.mode == Mode::Block => {
                Ruling::Block(jail.spec.urls.pattern(hit.index))
            }
            Some(_) => Ruling::Exempt(Exempt::AllowRule),
            None => Ruling::Open,
        }
    }

    /// The ban or decision that refuses this client now: the jail's own first, then those that
    /// hold everywhere.
    #[inline]
    pub(super) fn standing(&self, jail: &Jail, addr: IpAddr, now: Millis) -> Option<Denial> {
        let ticks = *self.ticks.get()?;
        for (scope, id) in [(&*jail.scope, Some(jail.id)), (&self.everywhere, None)] {
            let (until, outside) = match scope.standing(addr, ticks, now) {
                Standing::Free => continue,
                Standing::Banned { until, outside } => (until, outside),
                Standing::Unsure => match self.settle(addr, id, now) {
                    Some(exact) => exact,
                    None => continue,
                },
            };
            let reason = if outside {
                Reason::Decision
            } else {
                Reason::Banned
            };
            return Some(Denial {
                reason,
                jail: jail.id,
                until: Some(until),
            });
        }
        None
    }

    /// The end of the longest ban covering `addr`, from the ledger.
    #[cold]
    fn settle(&self, addr: IpAddr, jail: Option<JailId>, now: Millis) -> Option<(Millis, bool)> {
        let slots = self.ledger.lock();
        let covering = slots.covering(addr.into(), jail).map(|id| slots.slot(id));
        let active = covering.filter(|slot| slot.until() > now);
        active
            .map(|slot| (slot.until(), slots.is_outside(slot)))
            .max()
    }
}

impl Jail {
    fn refuse(&self, denial: Denial) -> Verdict {
        if self.spec.simulate {
            Verdict::Simulated(denial)
        } else {
            Verdict::Deny(denial)
        }
    }
}

pub(super) fn denylisted(jail: &Jail) -> Denial {
    Denial {
        reason: Reason::Denylist,
        jail: jail.id,
        until: None,
    }
}
