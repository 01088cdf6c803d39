//! What the engine should do, written as plainly as possible: lists, linear searches, no sharing,
//! no ticks. Caps are not modelled.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use jailgate::{
    engine::{
        Ban, Cause, Delta, JailSpec, Origin, Reason, Selector, client::fold, jail::WindowKind,
    },
    time::Millis,
};

#[derive(Debug, PartialEq, Eq)]
pub enum Expected {
    Passed,
    Denied,
    Ignored,
    Counted(u32),
    Banned { begun: bool },
}

#[derive(Default)]
pub struct Model {
    /// Every jail that ever was; the flag says whether it is configured now.
    jails: Vec<(JailSpec, bool)>,
    windows: BTreeMap<(Arc<str>, IpNet), Window>,
    /// The flag marks the bans of a jail that only simulates.
    bans: Vec<(Ban, bool)>,
    earlier: BTreeMap<(Arc<str>, IpNet), (u32, Millis)>,
    swept: Millis,
}

struct Window {
    events: Vec<Millis>,
    /// Was over already when last counted: survives one sweep.
    late: bool,
}

impl Model {
    pub fn configure(&mut self, jails: Vec<JailSpec>) {
        self.jails.iter_mut().for_each(|(_, live)| *live = false);
        for spec in jails {
            if !spec.simulate {
                self.bans
                    .retain(|(ban, silent)| !(*silent && ban.jail == Some(spec.name.clone())));
            }
            self.jails.retain(|(known, _)| known.name != spec.name);
            self.jails.push((spec, true));
        }
    }

    pub fn live(&self) -> Vec<JailSpec> {
        self.jails
            .iter()
            .filter(|(_, live)| *live)
            .map(|(spec, _)| spec.clone())
            .collect()
    }

    fn jail(&self, name: &str) -> JailSpec {
        let known = self.jails.iter().find(|(spec, _)| *spec.name == *name);
        known.expect("a jail that was configured").0.clone()
    }

    pub fn simulates(&self, name: &str) -> bool {
        self.jail(name).simulate
    }

    pub fn check(&mut self, name: &str, client: IpAddr, target: &str, now: Millis) -> Expected {
        let jail = self.jail(name);
        match target {
            "/yes" => return Expected::Passed,
            "/no" => {
                self.ban_by_rule(&jail, client, now);
                return Expected::Denied;
            }
            _ => {}
        }
        if !self.covering(name, client, now).0.is_empty() {
            return Expected::Denied;
        }
        if !jail.statuses.is_empty() {
            return Expected::Passed;
        }
        match self.count(&jail, client, now) {
            Expected::Banned { .. } => Expected::Denied,
            _ => Expected::Passed,
        }
    }

    pub fn observe(
        &mut self,
        name: &str,
        client: IpAddr,
        target: &str,
        status: u16,
        at: Millis,
    ) -> Expected {
        let jail = self.jail(name);
        if target == "/yes" || !jail.statuses.iter().any(|range| range.contains(&status)) {
            return Expected::Ignored;
        }
        if target == "/no" {
            let begun = self.ban_by_rule(&jail, client, at);
            return Expected::Banned { begun };
        }
        self.count(&jail, client, at)
    }

    fn count(&mut self, jail: &JailSpec, client: IpAddr, at: Millis) -> Expected {
        if !self.covering(&jail.name, client, at).0.is_empty() {
            return Expected::Banned { begun: false };
        }
        let findtime = jail.findtime.as_millis() as Millis;
        let net = fold(client, jail.ipv6_prefix);
        let key = (jail.name.clone(), net);
        let window = self.windows.entry(key.clone()).or_insert(Window {
            events: Vec::new(),
            late: false,
        });
        window.late = at + findtime <= self.swept;
        if !window.add(at, findtime, jail.window) {
            return Expected::Ignored;
        }
        let count = window.events.len() as u32;
        if count < jail.maxretry {
            return Expected::Counted(count);
        }
        let since = *window.events.iter().max().expect("it was just counted");
        self.windows.remove(&key);
        let (until, earlier) = self.until(jail, net, since, 0);
        if until == since {
            return Expected::Banned { begun: true };
        }
        // A line read again led to a ban before, one that stood at that very time.
        let known = self.earlier.get(&key);
        let again = until <= self.swept && known.is_some_and(|(_, until)| *until > since);
        if jail.increment.is_some() && !again {
            self.earlier.insert(key, (earlier + 1, until));
        }
        if until <= self.swept {
            return Expected::Counted(count);
        }
        let begun = self.impose(own(jail, net, since, until), jail.simulate, since);
        Expected::Banned { begun }
    }

    /// Answers whether the ban began now.
    fn ban_by_rule(&mut self, jail: &JailSpec, client: IpAddr, now: Millis) -> bool {
        let net = fold(client, jail.ipv6_prefix);
        let wanted = own(jail, net, now, 0);
        let held = self
            .at(&wanted, jail.simulate)
            .filter(|ban| ban.until > now)
            .cloned();
        let (until, earlier) = self.until(jail, net, now, u32::from(held.is_some()));
        if let Some(held) = &held {
            let step = (jail.bantime.as_millis() as Millis / 10).min(1000);
            if until < held.until + step {
                return false;
            }
        }
        if until <= now.max(self.swept) {
            return until == now;
        }
        if jail.increment.is_some() {
            self.earlier
                .insert((jail.name.clone(), net), (earlier + 1, until));
        }
        let since = held.as_ref().map_or(now, |held| held.since);
        self.impose(own(jail, net, since, until), jail.simulate, now);
        self.windows.remove(&(jail.name.clone(), net));
        held.is_none()
    }

    fn until(&self, jail: &JailSpec, net: IpNet, at: Millis, running: u32) -> (Millis, u32) {
        let bantime = jail.bantime.as_millis() as Millis;
        let Some(increment) = jail.increment else {
            return (at + bantime, 0);
        };
        let remember = increment.remember.as_millis() as Millis;
        let earlier = match self.earlier.get(&(jail.name.clone(), net)) {
            Some((bans, until)) if at < until + remember => bans.saturating_sub(running),
            _ => 0,
        };
        if earlier == 0 {
            return (at + bantime, 0);
        }
        let grown = bantime as f64 * increment.factor * 2f64.powi(earlier.min(20) as i32);
        (
            at + (grown as Millis).min(increment.maxtime.as_millis() as Millis),
            earlier,
        )
    }

    /// Reasons of the bans that refuse a client (of the jail, else of everywhere), and the latest
    /// end among them.
    pub fn covering(&self, name: &str, client: IpAddr, now: Millis) -> (Vec<Reason>, Millis) {
        for scope in [Some(name), None] {
            let covering = self.bans.iter().map(|(ban, _)| ban).filter(|ban| {
                ban.jail.as_deref() == scope && ban.client.contains(&client) && ban.until > now
            });
            let reason = |ban: &Ban| match ban.origin {
                Origin::Outside(_) => Reason::Decision,
                _ => Reason::Banned,
            };
            let longest = covering.clone().map(|ban| ban.until).max();
            if let Some(longest) = longest {
                return (covering.map(reason).collect(), longest);
            }
        }
        (Vec::new(), 0)
    }

    fn at(&self, wanted: &Ban, silent: bool) -> Option<&Ban> {
        let held = self
            .bans
            .iter()
            .find(|(ban, held)| *held == silent && same(ban, wanted));
        held.map(|(ban, _)| ban)
    }

    fn impose(&mut self, ban: Ban, silent: bool, now: Millis) -> bool {
        let stood = self.at(&ban, silent).is_some_and(|held| held.until > now);
        self.bans
            .retain(|(held, quiet)| *quiet != silent || !same(held, &ban));
        self.bans.push((ban, silent));
        !stood
    }

    pub fn ban(&mut self, ban: Ban, now: Millis) {
        if ban.until <= now {
            return;
        }
        let (client, jail) = (ban.client, ban.jail.clone());
        self.impose(ban, false, now);
        self.forget(client, jail.as_ref());
    }

    fn forget(&mut self, client: IpNet, jail: Option<&Arc<str>>) {
        self.windows
            .retain(|(name, net), _| *net != client || jail.is_some_and(|j| j != name));
    }

    pub fn unban(&mut self, which: &Selector) -> usize {
        let folded = |jail: &Arc<str>, net: IpNet| {
            let known = self.jails.iter().find(|(spec, _)| spec.name == *jail);
            let single = matches!(net, IpNet::V6(v6) if v6.prefix_len() == 128);
            known
                .filter(|_| single)
                .map_or(net, |(spec, _)| fold(net.addr(), spec.ipv6_prefix))
        };
        let meant = |client: IpNet, jail: Option<&Arc<str>>| match which {
            Selector::All => false,
            Selector::Client(net, None) => {
                client == *net || jail.is_some_and(|jail| client == folded(jail, *net))
            }
            Selector::Client(net, Some(only)) => {
                jail == Some(only) && (client == *net || client == folded(only, *net))
            }
        };
        let ours =
            |ban: &Ban| matches!(which, Selector::All) && !matches!(ban.origin, Origin::Outside(_));
        let lifted = |ban: &Ban| ours(ban) || meant(ban.client, ban.jail.as_ref());
        let gone: Vec<_> = self
            .bans
            .iter()
            .filter(|(ban, _)| lifted(ban))
            .cloned()
            .collect();
        let forgotten: Vec<_> = self
            .windows
            .keys()
            .filter(|(j, net)| meant(*net, Some(j)))
            .cloned()
            .collect();
        self.bans.retain(|held| !gone.contains(held));
        self.windows.retain(|key, _| !forgotten.contains(key));
        let told: Vec<_> = gone.into_iter().filter(|(_, silent)| !silent).collect();
        if matches!(which, Selector::All) {
            for (ban, _) in &told {
                self.forget(ban.client, ban.jail.as_ref());
            }
        }
        told.len()
    }

    pub fn apply(&mut self, origin: &Origin, delta: Delta, now: Millis) {
        if delta.replace {
            self.bans.retain(|(held, _)| {
                held.origin != *origin || delta.add.iter().any(|ban| same(held, ban))
            });
        }
        for (client, jail) in delta.remove {
            self.bans.retain(|(held, _)| {
                held.origin != *origin || held.client != client || held.jail != jail
            });
        }
        for ban in delta.add.into_iter().filter(|ban| ban.until > now) {
            let held = self.at(&ban, false).filter(|held| held.until > now);
            if held.is_none_or(|held| held.until.abs_diff(ban.until) > 1000) {
                self.impose(ban, false, now);
            }
        }
    }

    pub fn sweep(&mut self, now: Millis) {
        let minutes = (self.swept / 60_000, now / 60_000);
        self.swept = self.swept.max(now);
        let jails: Vec<JailSpec> = self.jails.iter().map(|(spec, _)| spec.clone()).collect();
        self.windows.retain(|(name, _), window| {
            let jail = jails
                .iter()
                .find(|jail| jail.name == *name)
                .expect("counted in a jail");
            let from = match jail.window {
                WindowKind::Fixed => window.events.iter().min(),
                WindowKind::Sliding => window.events.iter().max(),
            };
            let over = now >= from.expect("never empty") + jail.findtime.as_millis() as Millis;
            !over || std::mem::take(&mut window.late)
        });
        self.bans.retain(|(ban, _)| ban.until > now);
        if minutes.0 != minutes.1 {
            self.earlier.retain(|(name, _), (_, until)| {
                let jail = jails.iter().find(|jail| jail.name == *name);
                let increment = jail.and_then(|jail| jail.increment);
                let remember = increment.map_or(0, |i| i.remember.as_millis() as Millis);
                now < *until + remember
            });
        }
    }

    /// What is not kept on disk.
    pub fn restart(&mut self) {
        self.swept = 0;
        self.bans.retain(|(_, silent)| !silent);
        self.windows
            .values_mut()
            .for_each(|window| window.late = false);
        let gone: Vec<_> = self
            .jails
            .iter()
            .filter(|(_, live)| !live)
            .cloned()
            .collect();
        self.jails.retain(|(_, live)| *live);
        // what jails that are gone were configured with is gone with them
        for (mut spec, live) in gone {
            spec.findtime = std::time::Duration::ZERO;
            spec.increment = None;
            spec.ipv6_prefix = 128;
            self.jails.push((spec, live));
        }
    }

    pub fn tracked(&self) -> usize {
        self.windows.len()
    }

    pub fn listed(&self, place: impl Fn(&Ban) -> String) -> Vec<(String, Millis, Millis)> {
        let told = self.bans.iter().filter(|(_, silent)| !silent);
        let mut listed: Vec<_> = told.map(|(b, _)| (place(b), b.since, b.until)).collect();
        listed.sort();
        listed
    }
}

impl Window {
    /// False when the event is too old to belong.
    fn add(&mut self, at: Millis, findtime: Millis, kind: WindowKind) -> bool {
        let (start, last) = match (self.events.iter().min(), self.events.iter().max()) {
            (Some(start), Some(last)) => (*start, *last),
            _ => {
                self.events.push(at);
                return true;
            }
        };
        match kind {
            WindowKind::Fixed if at >= start + findtime => self.events = vec![at],
            WindowKind::Fixed if at < start && last >= at + findtime => return false,
            WindowKind::Fixed => self.events.push(at),
            WindowKind::Sliding if at < last && at + findtime <= last => return false,
            WindowKind::Sliding => {
                let newest = last.max(at);
                self.events.retain(|event| event + findtime > newest);
                self.events.push(at);
            }
        }
        true
    }
}

fn own(jail: &JailSpec, client: IpNet, since: Millis, until: Millis) -> Ban {
    Ban {
        client,
        jail: Some(jail.name.clone()),
        origin: Origin::Jail,
        cause: Cause::Failures,
        count: 0,
        first_status: 0,
        last_status: 0,
        path: "".into(),
        since,
        until,
    }
}

fn same(a: &Ban, b: &Ban) -> bool {
    a.client == b.client && a.jail == b.jail && a.origin == b.origin
}
