//! What no part of the document can know alone: names that others chose, addresses taken twice,
//! jails that cannot take logs, a configuration that does nothing.

use std::{net::IpAddr, sync::Arc};

use super::super::{
    Address, CloudflareSource, Config, Jail, Pos,
    read::{Block, Cx, Field},
    shape::nearest,
};

/// The service that is always there.
const WHOAMI: &str = "whoami@internal";

/// The jail of routes and logs that name none.
const DEFAULT: &str = "default";

/// Names in the document, also of entries that did not compile, so that one mistake is one problem.
pub(super) struct Names {
    jails: Vec<String>,
    services: Vec<String>,
}

/// What a list of names may name.
pub(super) struct Listed<'a> {
    pub(super) jails: &'a [Jail],
    pub(super) names: &'a Names,
}

impl Names {
    pub(super) fn of(root: &Block<'_>) -> Self {
        let keys = |key| root.get(key).map(|field| field.keys()).unwrap_or_default();
        Self {
            jails: keys("jails"),
            services: keys("services"),
        }
    }
}

impl Listed<'_> {
    /// A service that exists.
    pub(super) fn service(&self, field: &Field<'_>) -> Option<Arc<str>> {
        let name = field.word()?;
        if name == WHOAMI || self.names.services.contains(&name) {
            return Some(name.into());
        }
        let known: Vec<&str> = self
            .names
            .services
            .iter()
            .map(String::as_str)
            .chain([WHOAMI])
            .collect();
        field.error(format!(
            "no service `{}`{}",
            field.shown(),
            meant(&name, &known)
        ));
        None
    }

    /// The jails a block names, or `default` when it names none and that jail exists.
    pub(super) fn jails_or_default(&self, block: &Block<'_>) -> Vec<Arc<str>> {
        let Some(field) = block.get("jails") else {
            let exists = self.names.jails.iter().any(|name| name == DEFAULT);
            if !exists && block.path().starts_with("routes.") {
                block.warn("no jail judges this route: name `jails`, or define the jail `default`");
            }
            return exists.then(|| DEFAULT.into()).into_iter().collect();
        };
        let mut found: Vec<Arc<str>> = Vec::new();
        for item in field.items() {
            let Some(name) = item.word() else { continue };
            if !self.names.jails.contains(&name) {
                let known: Vec<&str> = self.names.jails.iter().map(String::as_str).collect();
                item.error(format!(
                    "no jail `{}`{}",
                    item.shown(),
                    meant(&name, &known)
                ));
            } else if found.iter().any(|known| **known == *name) {
                item.warn(format!("the jail `{name}` is named twice"));
            } else {
                found.push(name.into());
            }
        }
        found
    }

    /// The same for logs: at least one, and each must say which statuses count.
    pub(super) fn counting_jails(&self, block: &Block<'_>) -> Vec<Arc<str>> {
        let jails = self.jails_or_default(block);
        if jails.is_empty()
            && block
                .get("jails")
                .is_none_or(|field| field.items().is_empty())
        {
            block.error(format!(
                "`{}` needs `jails`: the jails that count its lines",
                block.path()
            ));
        }
        let place = block.get("jails");
        for name in &jails {
            let jail = self.jails.iter().find(|jail| jail.spec.name == *name);
            if jail.is_some_and(|jail| jail.spec.statuses.is_empty()) {
                let message = format!(
                    "the jail `{name}` has no `statuscode`, so every line of a log would count; \
                     set one, such as `statuscode: \"401,403\"`"
                );
                match &place {
                    Some(field) => field.error(message),
                    None => block.error(message),
                }
            }
        }
        jails
    }
}

/// Checks over the whole of what was compiled.
pub(super) fn whole(cx: &Cx<'_>, root: &Block<'_>, config: &Config) {
    let works = [
        "entryPoints",
        "forwardAuth",
        "accessLogs",
        "otlp",
        "crowdsec",
        "cloudflare",
    ];
    if works.iter().all(|key| root.get(key).is_none()) {
        let start = Pos {
            line: 1,
            col: 1,
            width: 1,
        };
        cx.error(
            start,
            "nothing to do: it has neither `entryPoints` nor `forwardAuth` nor `accessLogs`",
        );
    }
    addresses(cx, root, config);
    if let Some(field) = root
        .get("entryPoints")
        .filter(|_| root.get("routes").is_none())
    {
        cx.warn(field.at, "there are no `routes`: every request gets 404");
    }
    if let Some(field) = root
        .get("routes")
        .filter(|_| root.get("entryPoints").is_none())
    {
        cx.warn(
            field.at,
            "there are no `entryPoints`: these routes are not reachable",
        );
    }
    jails(cx, root, config);
    let lapi = config
        .cloudflare
        .as_ref()
        .is_some_and(|c| c.source == CloudflareSource::Lapi);
    if lapi
        && config
            .crowdsec
            .as_ref()
            .is_none_or(|crowdsec| crowdsec.subscribe.is_none())
    {
        let at = root.get("cloudflare").map_or(root.at, |field| field.at);
        cx.error(at, "`cloudflare.source: lapi` needs `crowdsec.subscribe`");
    }
}

/// Jails that nothing uses, and jails that wait for statuses nobody reports.
fn jails(cx: &Cx<'_>, root: &Block<'_>, config: &Config) {
    let Some(field) = root.get("jails") else {
        return;
    };
    let routes = config.routes.iter().flat_map(|route| &route.jails);
    let logs = config.access_logs.iter().flat_map(|log| &log.jails);
    let otlp = config.otlp.iter().flat_map(|otlp| &otlp.jails);
    let used: Vec<&Arc<str>> = routes.chain(logs).chain(otlp).collect();
    for jail in field.named() {
        let known = jail.name == DEFAULT || used.iter().any(|name| ***name == *jail.name);
        if config.forward_auth.is_none() && !known {
            cx.warn(jail.at, format!("nothing names the jail `{}`", jail.name));
        }
    }
    let deaf = config.access_logs.is_empty() && config.otlp.is_none();
    let by_status = config
        .jails
        .iter()
        .any(|jail| !jail.spec.statuses.is_empty());
    if let Some(auth) = root.get("forwardAuth").filter(|_| deaf && by_status) {
        cx.warn(
            auth.at,
            "forwardAuth asks before the service answers: without `accessLogs` or `otlp` \
             jailgate hears no status and a jail with `statuscode` counts nothing there",
        );
    }
}

/// Two listeners on one address.
fn addresses(cx: &Cx<'_>, root: &Block<'_>, config: &Config) {
    let place = |key: &'static str| root.get(key).map_or(root.at, |field| field.at);
    let entries = root
        .get("entryPoints")
        .map(|field| field.named())
        .unwrap_or_default();
    let mut taken: Vec<(String, &Address, Pos)> = Vec::new();
    for entry in &config.entry_points {
        let field = entries.iter().find(|field| *field.name == *entry.name);
        let at = field.map_or(root.at, |field| field.at);
        taken.push((format!("entryPoints.{}", entry.name), &entry.address, at));
    }
    if let Some(auth) = &config.forward_auth {
        taken.push(("forwardAuth".into(), &auth.address, place("forwardAuth")));
    }
    if let Some(otlp) = &config.otlp {
        taken.push(("otlp".into(), &otlp.address, place("otlp")));
    }
    taken.push(("admin".into(), &config.admin.address, place("admin")));
    for (i, (name, address, at)) in taken.iter().enumerate() {
        if let Some((other, ..)) = taken[..i]
            .iter()
            .find(|(_, other, _)| overlap(address, other))
        {
            cx.error(
                *at,
                format!("`{name}` and `{other}` both listen on {address}"),
            );
        }
    }
}

fn overlap(a: &Address, b: &Address) -> bool {
    match (a, b) {
        (Address::Unix(a), Address::Unix(b)) => a == b,
        (Address::Tcp(a), Address::Tcp(b)) if a.port() == b.port() && a.port() != 0 => {
            let (a, b) = (a.ip(), b.ip());
            let wide = |ip: IpAddr, other: IpAddr| {
                ip.is_unspecified() && (ip.is_ipv6() || other.is_ipv4())
            };
            a == b || wide(a, b) || wide(b, a)
        }
        _ => false,
    }
}

fn meant(name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(near) => format!(", did you mean `{near}`?"),
        None if known.is_empty() => "; there are none".to_owned(),
        None => format!("; there are: {}", known.join(", ")),
    }
}
