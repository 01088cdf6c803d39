//! Why a request would pass or be denied, question by question, without counting or banning
//! anything. The order is `decide`'s own: this only listens and looks up details.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{
    Denial, Engine, JailId, Reason, Request, Tracked, Verdict, client,
    decide::{Course, Question},
    jail::WindowKind,
    policy::{Jail, Policy},
    urls::Mode,
    window::millis,
};
use crate::time::Millis;

/// One question of a decision with its answer, in the order they are asked. The last one decides.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// Whether the jail is configured and enabled.
    Enabled(bool),
    /// What `ignoreself` spares.
    Itself(Option<IpNet>),
    /// The entry of the jail's denylist.
    Denylist(Option<IpNet>),
    /// The entry of the jail's allowlist.
    Allowlist(Option<IpNet>),
    /// The entries of the runtime allow list.
    Allowed(Vec<Arc<str>>),
    /// The URL rule that matched.
    Rules(Option<(Mode, Arc<str>)>),
    /// The ban of this jail.
    Bans(Option<Denial>),
    /// The ban or decision that holds in every jail.
    Everywhere(Option<Denial>),
    /// What counting comes to: asked when nothing before decided.
    Count(Count),
}

/// What is counted of a client, and what one more counted event would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Counted events in the window now.
    pub counted: u32,
    /// The N-th bans.
    pub maxretry: u32,
    /// When the window is over, Unix milliseconds; `None` when nothing is counted.
    pub window_ends: Option<Millis>,
    /// Every request counts, not only failures.
    pub each: bool,
    /// The request asked about is of those that count (`match`).
    pub matches: bool,
}

/// A decision taken apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// What the client is counted and banned as.
    pub counted_as: IpNet,
    /// What the next such request would get.
    pub verdict: Verdict,
    /// How that comes about.
    pub findings: Vec<Finding>,
}

impl Engine {
    /// What [`Engine::check`] would answer, and why. Changes nothing.
    pub fn explain(&self, jail: JailId, request: &Request<'_>, now: Millis) -> Explanation {
        let policy = self.policy.load();
        let addr = client::canonical(request.client);
        let mut asked = Vec::new();
        let course = self.course(&policy, jail, addr, request, now, &mut |question, hit| {
            asked.push((question, hit));
        });
        let prefix = policy.any(jail).map_or(64, |jail| jail.spec.ipv6_prefix);
        let counted_as = client::fold(addr, prefix);
        let mut findings: Vec<_> = asked
            .into_iter()
            .map(|(question, hit)| {
                self.find(question, hit, &policy, policy.any(jail), addr, &course)
            })
            .collect();
        let verdict = match course {
            Course::Exempt(why) => Verdict::Exempt(why),
            Course::Deny(jail, denial) => jail.refuse(denial),
            Course::Block(jail, _) => {
                let until = self.until(jail, counted_as, now, 0).0;
                jail.refuse(jail.denial(Reason::Rule, until))
            }
            Course::Pass(jail) | Course::Count(jail) => {
                let count = self.counted(jail, addr, request, now);
                findings.push(Finding::Count(count));
                if count.each && count.matches && count.counted + 1 >= count.maxretry {
                    let until = self.until(jail, counted_as, now, 0).0;
                    jail.refuse(jail.denial(Reason::Banned, until))
                } else {
                    Verdict::Pass
                }
            }
        };
        Explanation {
            counted_as,
            verdict,
            findings,
        }
    }

    fn find(
        &self,
        question: Question,
        hit: bool,
        policy: &Policy,
        jail: Option<&Jail>,
        addr: IpAddr,
        course: &Course<'_>,
    ) -> Finding {
        let denial = || match course {
            Course::Deny(_, denial) if hit => Some(denial.clone()),
            _ => None,
        };
        let spec = jail.map(|jail| &jail.spec);
        match question {
            Question::Enabled => Finding::Enabled(hit),
            Question::Itself => Finding::Itself(policy.itself.covering(addr).filter(|_| hit)),
            Question::Denylist => {
                Finding::Denylist(spec.and_then(|spec| spec.denylist.covering(addr)))
            }
            Question::Allowlist => {
                Finding::Allowlist(spec.and_then(|spec| spec.allowlist.covering(addr)))
            }
            Question::Allowed => {
                let entries = self.allowed_by(addr).into_iter();
                Finding::Allowed(entries.map(|entry| entry.subject).collect())
            }
            Question::Rules(rule) => Finding::Rules(
                rule.zip(spec)
                    .map(|((mode, index), spec)| (mode, spec.urls.pattern(index))),
            ),
            Question::Bans => Finding::Bans(denial()),
            Question::Everywhere => Finding::Everywhere(denial()),
        }
    }

    fn counted(&self, jail: &Jail, addr: IpAddr, request: &Request<'_>, now: Millis) -> Count {
        let findtime = millis(jail.spec.findtime);
        let (counted, window_ends) = match self.tracked(jail.id, addr) {
            Some(tracked) => tracked.within(jail.spec.window, findtime, now),
            None => (0, None),
        };
        Count {
            counted,
            maxretry: jail.spec.maxretry,
            window_ends,
            each: jail.counts_requests(),
            matches: jail.matches(request),
        }
    }
}

impl Tracked {
    /// How many events the window holds at `now`, and when the last of them leaves it.
    fn within(&self, kind: WindowKind, findtime: Millis, now: Millis) -> (u32, Option<Millis>) {
        let (held, ends) = match kind {
            WindowKind::Fixed => (self.count, self.start.saturating_add(findtime)),
            WindowKind::Sliding => {
                let held = self
                    .events
                    .iter()
                    .filter(|(at, _)| at.saturating_add(findtime) > now);
                (held.count() as u32, self.last.saturating_add(findtime))
            }
        };
        if ends > now {
            (held, Some(ends))
        } else {
            (0, None)
        }
    }
}
