//! What a configuration will run, for people: the text of `jailgate check`.

use std::fmt::{self, Display, Write};

use super::{
    AccessLogTarget, Config, Jail, LogLineFormat, Scheme, Server, Service, Tls, duration::show,
};
use crate::engine::jail::WindowKind;

impl Config {
    /// What will run, for `check`.
    pub fn summary(&self) -> String {
        let mut out = String::new();
        let file = self.file.as_ref().map(|file| file.display().to_string());
        let _ = writeln!(out, "{}: fine", file.as_deref().unwrap_or("configuration"));
        self.listeners(&mut out);
        self.paths(&mut out);
        self.inputs(&mut out);
        section(&mut out, "jails", self.jails.iter().map(jail));
        self.rest(&mut out);
        out
    }

    fn listeners(&self, out: &mut String) {
        let entries = self.entry_points.iter().map(|entry| {
            let tls = protocol(entry.tls.as_ref());
            let trusts = count(entry.forwarded_trusted.len(), "trusted network");
            format!("{}  {} ({tls}, {trusts})", entry.name, entry.address)
        });
        section(out, "entry points", entries);
        let auth = self.forward_auth.iter().map(|auth| {
            let tls = protocol(auth.tls.as_ref());
            format!(
                "{} ({tls}, {} may ask)",
                auth.address,
                count(auth.trusted.len(), "network")
            )
        });
        section(out, "forwardAuth", auth);
        let token = if self.admin.token.is_some() {
            "token"
        } else {
            "no token"
        };
        section(out, "admin", [format!("{} ({token})", self.admin.address)]);
    }

    fn paths(&self, out: &mut String) {
        let routes = self.routes.iter().map(|route| {
            let host = route.host.as_deref().unwrap_or("*");
            let jails = names(&route.jails, "no jail");
            format!(
                "{host}{}  → {}  [{jails}]",
                route.path_prefix, route.service
            )
        });
        section(out, "routes", routes);
        section(out, "services", self.services.iter().map(service));
    }

    fn inputs(&self, out: &mut String) {
        let logs = self.access_logs.iter().map(|log| {
            let format = format_name(&log.format);
            format!(
                "{} ({format})  [{}]",
                log.path.display(),
                names(&log.jails, "no jail")
            )
        });
        section(out, "access logs", logs);
        let otlp = self.otlp.iter();
        section(
            out,
            "otlp",
            otlp.map(|o| format!("{}  [{}]", o.address, names(&o.jails, ""))),
        );
        let crowdsec = self.crowdsec.iter().map(|crowdsec| {
            let publish = crowdsec.publish.as_ref().map(|_| "publish");
            let subscribe = crowdsec.subscribe.as_ref().map(|_| "subscribe");
            let does: Vec<_> = publish.into_iter().chain(subscribe).collect();
            format!("{} ({})", crowdsec.url, does.join(", "))
        });
        section(out, "crowdsec", crowdsec);
        let cloudflare = self.cloudflare.iter().map(|cloudflare| {
            let owns = if cloudflare.whole_list {
                "whole list"
            } else {
                "own items only"
            };
            format!(
                "list {} of account {} ({owns})",
                cloudflare.list_id, cloudflare.account_id
            )
        });
        section(out, "cloudflare", cloudflare);
        let told = self.notify.iter().map(|target| {
            let on: Vec<_> = target.on.iter().map(|on| on.as_str()).collect();
            let every = show(target.interval);
            format!("{} ({}; at most every {every})", target.name, on.join(", "))
        });
        section(out, "notify", told);
        section(out, "pushgateway", &self.pushgateway);
    }

    fn rest(&self, out: &mut String) {
        let state = match &self.state {
            Some(state) => {
                let keep = show(state.keep);
                format!("{}, ended bans for {keep}", state.path.display())
            }
            None => "memory only".to_owned(),
        };
        section(out, "state", [state]);
        let (clients, bans) = (self.limits.tracked_clients, self.limits.bans);
        section(
            out,
            "limits",
            [format!("{clients} tracked clients, {bans} bans")],
        );
        let access = match &self.log.access {
            AccessLogTarget::Off => "no access log".to_owned(),
            AccessLogTarget::Stdout => "access log on standard output".to_owned(),
            AccessLogTarget::File(path) => format!("access log {}", path.display()),
        };
        let format = if self.log.json { "json" } else { "text" };
        section(
            out,
            "log",
            [format!("{}, {format}, {access}", self.log.level)],
        );
        if !self.warnings.is_empty() {
            let _ = writeln!(out, "{}", count(self.warnings.len(), "warning"));
        }
    }
}

/// `web  4 of 400,401,403-499 in 10m → banned for 3h; …`
fn jail(jail: &Jail) -> String {
    let spec = &jail.spec;
    let mut line = format!("{}  ", spec.name);
    if !spec.enabled {
        return line + "off";
    }
    if spec.simulate {
        line += "(simulated) ";
    }
    let statuses: Vec<_> = spec
        .statuses
        .iter()
        .map(|range| Status(range).to_string())
        .collect();
    let what = match statuses.is_empty() {
        true => "requests".to_owned(),
        false => format!("times {}", statuses.join(",")),
    };
    let window = match spec.window {
        WindowKind::Fixed => "",
        WindowKind::Sliding => " (sliding)",
    };
    let (find, ban) = (show(spec.findtime), show(spec.bantime));
    let _ = write!(
        line,
        "{} {what} in {find}{window} → banned for {ban}",
        spec.maxretry.max(1)
    );
    if let Some(increment) = &spec.increment {
        let _ = write!(line, ", doubling up to {}", show(increment.maxtime));
    }
    let _ = write!(line, ", answer {}", jail.response.status.as_u16());
    for (list, set) in [("allowed", &spec.allowlist), ("denied", &spec.denylist)] {
        if !set.is_empty() {
            let _ = write!(line, ", {} {list}", count(set.len(), "network"));
        }
    }
    if !spec.match_methods.is_empty() || spec.match_path.is_some() {
        line += ", only some requests";
    }
    line
}

struct Status<'a>(&'a std::ops::RangeInclusive<u16>);

impl Display for Status<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.start(), self.0.end()) {
            (low, high) if low == high => low.fmt(f),
            (low, high) => write!(f, "{low}-{high}"),
        }
    }
}

fn service(service: &Service) -> String {
    let servers: Vec<_> = service.servers.iter().map(server).collect();
    format!("{}  {}", service.name, servers.join(", "))
}

fn server(server: &Server) -> String {
    let scheme = match server.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
        Scheme::H2c => "h2c",
        Scheme::Unix => return format!("unix:{}", server.host),
    };
    let host = match server.host.contains(':') {
        true => format!("[{}]", server.host),
        false => server.host.to_string(),
    };
    format!("{scheme}://{host}:{}{}", server.port, server.base_path)
}

fn format_name(format: &LogLineFormat) -> &'static str {
    match format {
        LogLineFormat::TraefikJson => "traefik-json",
        LogLineFormat::Clf => "clf",
        LogLineFormat::Combined => "combined",
        LogLineFormat::CaddyJson => "caddy-json",
        LogLineFormat::NginxJson => "nginx-json",
        LogLineFormat::Regex(_) => "regex",
    }
}

fn protocol(tls: Option<&Tls>) -> &'static str {
    match tls {
        None => "plain",
        Some(Tls::Files { .. }) => "TLS",
        Some(Tls::SelfSigned) => "TLS, self-signed",
    }
}

fn names(names: &[std::sync::Arc<str>], none: &str) -> String {
    match names.is_empty() {
        true => none.to_owned(),
        false => names.join(", "),
    }
}

fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

fn section<T: Display>(out: &mut String, title: &str, lines: impl IntoIterator<Item = T>) {
    for (i, line) in lines.into_iter().enumerate() {
        let title = if i == 0 { title } else { "" };
        let _ = writeln!(out, "  {title:<13} {line}");
    }
}
