//! May this request pass? The order of a decision is laid down here and nowhere else. What counts
//! and how bans begin is left to `count`.

use std::{net::IpAddr, sync::Arc};

use super::{
    Denial, Engine, Exempt, Outcome, Reason, Request, Verdict, client,
    jail::JailId,
    policy::{Jail, Policy},
    table::{Fetch, Standing},
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

/// Where a request is bound, before anything is counted or banned for it.
#[derive(Debug)]
pub(super) enum Course<'p> {
    Exempt(Exempt),
    Deny(&'p Jail, Denial),
    Block(&'p Jail, Arc<str>),
    Count(&'p Jail),
    Pass(&'p Jail),
}

/// What is asked on the way there, for whoever explains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Enabled,
    Itself,
    Denylist,
    Allowlist,
    Allowed,
    Rules(Option<(Mode, usize)>),
    Bans,
    Everywhere,
}

impl Engine {
    /// May this request pass `jail`? Counts it when the jail counts requests: the N-th is the one
    /// denied. A jail that is not configured exempts. Takes no exclusive lock unless it counts or
    /// bans.
    pub fn check(&self, jail: JailId, request: &Request<'_>, now: Millis) -> Verdict {
        let policy = self.policy.load();
        let addr = client::canonical(request.client);
        match self.course(&policy, jail, addr, request, now, &mut |_, _| {}) {
            Course::Exempt(why) => Verdict::Exempt(why),
            Course::Deny(jail, denial) => jail.refuse(denial),
            Course::Block(jail, pattern) => {
                jail.refuse(self.ban_by_rule(jail, addr, request, pattern, 0, now).0)
            }
            Course::Pass(_) => Verdict::Pass,
            Course::Count(jail) => {
                let event = jail.event(now, 0, self.swept());
                match self.count(jail, addr, request, event) {
                    Outcome::Ignored | Outcome::Counted(_) => Verdict::Pass,
                    Outcome::Banned { denial, .. } | Outcome::Simulated { denial, .. } => {
                        jail.refuse(denial)
                    }
                }
            }
        }
    }

    /// The order of a decision. `say` hears every question and whether it decided.
    #[inline(always)]
    pub(super) fn course<'p>(
        &self,
        policy: &'p Policy,
        jail: JailId,
        addr: IpAddr,
        request: &Request<'_>,
        now: Millis,
        say: &mut impl FnMut(Question, bool),
    ) -> Course<'p> {
        let jail = policy.live(jail).filter(|jail| jail.spec.enabled);
        say(Question::Enabled, jail.is_some());
        let Some(jail) = jail else {
            return Course::Exempt(Exempt::Disabled);
        };
        // Lists and rules take as long as memory does.
        jail.scope.prefetch(addr);
        policy.everywhere.prefetch(addr);
        match self.ruling(policy, jail, addr, request, say) {
            Ruling::Exempt(why) => Course::Exempt(why),
            Ruling::Denylist => Course::Deny(jail, denylisted(jail)),
            Ruling::Block(pattern) => Course::Block(jail, pattern),
            Ruling::Open => match self.standing(policy, jail, addr, Fetch::Later, now, say) {
                Some(denial) => Course::Deny(jail, denial),
                None if jail.counts_requests() && jail.matches(request) => Course::Count(jail),
                None => Course::Pass(jail),
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
        request: &Request<'_>,
        say: &mut impl FnMut(Question, bool),
    ) -> Ruling {
        let mut ask = |question, hit| {
            say(question, hit);
            hit
        };
        if jail.spec.ignore_self && ask(Question::Itself, policy.itself.contains(addr)) {
            return Ruling::Exempt(Exempt::Itself);
        }
        if ask(Question::Denylist, jail.spec.denylist.contains(addr)) {
            return Ruling::Denylist;
        }
        if ask(Question::Allowlist, jail.spec.allowlist.contains(addr))
            || ask(Question::Allowed, policy.allowed.contains(addr))
        {
            return Ruling::Exempt(Exempt::Allowlist);
        }
        let hit = (jail.spec.urls).judge_seen(request.target, request.plain);
        let rule = hit.as_ref().map(|hit| (hit.mode, hit.index));
        say(Question::Rules(rule), rule.is_some());
        match hit {
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
    pub(super) fn standing(
        &self,
        policy: &Policy,
        jail: &Jail,
        addr: IpAddr,
        fetch: Fetch,
        now: Millis,
        say: &mut impl FnMut(Question, bool),
    ) -> Option<Denial> {
        let ticks = *self.ticks.get()?;
        let scopes = [
            (&jail.scope, Some(jail.id), Question::Bans),
            (&policy.everywhere, None, Question::Everywhere),
        ];
        for (scope, id, question) in scopes {
            let standing = match scope.standing(addr, fetch, ticks, now) {
                Standing::Free => None,
                Standing::Banned { until, outside } => Some((until, outside)),
                Standing::Unsure => self.settle(addr, id, now),
            };
            say(question, standing.is_some());
            let Some((until, outside)) = standing else {
                continue;
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
    pub(super) fn refuse(&self, denial: Denial) -> Verdict {
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
