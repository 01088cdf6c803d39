//! `config.example.yaml`: it runs as it is, its commented keys load, what it shows as a default is
//! the default, and no key is missing.

use std::collections::BTreeSet;

use super::*;
use crate::config::{
    raw::{Entry, Value, parse},
    shape::ALL,
};

const EXAMPLE: &str = include_str!("../../../../config.example.yaml");

/// Values that the example chooses; every other one is the default and must equal it.
const CHOSEN: &[&str] = &[
    "entryPoints.web.address",
    "entryPoints.web.forwardedHeaders.trustedIPs",
    "entryPoints.web.tls.certFile",
    "entryPoints.web.tls.keyFile",
    "routes.0.service",
    "routes.0.jails",
    "services.app.healthCheck",
    "services.app.serversTransport.rootCAs",
    "forwardAuth.trustedIPs",
    "forwardAuth.tls.certFile",
    "forwardAuth.tls.keyFile",
    "accessLogs.0.jails",
    "accessLogs.1.format",
    "accessLogs.1.jails",
    "otlp.tokenFile",
    "otlp.jails",
    "jails.web.rules.findtime",
    "jails.web.rules.bantime",
    "jails.web.rules.maxretry",
    "jails.web.rules.statuscode",
    "jails.web.rules.urlregexps",
    "jails.web.bantimeIncrement",
    "jails.default.rules.statuscode",
    "crowdsec.publish.machineId",
    "crowdsec.publish.passwordFile",
    "crowdsec.publish.registrationTokenFile",
    "crowdsec.subscribe.apiKeyFile",
    "crowdsec.tls.certFile",
    "crowdsec.tls.keyFile",
    "crowdsec.tls.caFile",
    "cloudflare.apiTokenFile",
    "notify.0.webhook.urlFile",
    "notify.0.webhook.headers",
    "notify.0.webhook.template",
    "notify.1.ntfy.topic",
    "notify.1.ntfy.tokenFile",
    "notify.2.slack.urlFile",
    "notify.2.on",
    "notify.3.email.smtp",
    "notify.3.email.from",
    "notify.3.email.to",
    "notify.3.email.username",
    "notify.3.email.passwordFile",
    "notify.3.on",
];

/// With every commented key taken in: `#` before a key or two spaces goes, `# words` stay.
fn uncommented() -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with("  ") || rest.starts_with(|c: char| c.is_alphabetic()) => {
            format!("{rest}\n")
        }
        _ => format!("{line}\n"),
    };
    EXAMPLE.lines().map(line).collect()
}

/// A directory with the files the example names.
fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "tls/cert.pem",
        "tls/key.pem",
        "tls/ca.pem",
        "tls/client.pem",
        "tls/client-key.pem",
        "secrets/otlp-token",
        "secrets/crowdsec-password",
        "secrets/crowdsec-registration",
        "secrets/crowdsec-key",
        "secrets/cloudflare-token",
        "secrets/ntfy-token",
        "secrets/mail-password",
    ] {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x\n").unwrap();
    }
    for name in ["secrets/webhook-url", "secrets/slack-url"] {
        std::fs::write(dir.path().join(name), "https://example.com/x\n").unwrap();
    }
    dir
}

fn tree(text: &str) -> Node {
    let tree = parse(text, &mut |at, message| panic!("{at:?}: {message}"));
    Node::clone(&tree.unwrap())
}

/// What compiling a tree gives, as text; `None` when it does not compile.
fn compiled(base: &Path, tree: &Node) -> Option<String> {
    let cx = Cx::new("t".into(), base.to_owned(), "", &|_| None);
    let config = document(&cx, tree)?;
    let problems = cx.problems.take();
    // Hash seeds differ from set to set and mean nothing.
    let seeds = regex::Regex::new(r"per_hasher_seed: \d+").unwrap();
    let shown = || seeds.replace_all(&format!("{config:?}"), "").into_owned();
    problems.is_empty().then(shown)
}

/// Every path to a key, `a.b.0.c`.
fn paths(node: &Node, prefix: &str, found: &mut Vec<String>) {
    let dot = if prefix.is_empty() { "" } else { "." };
    match &node.value {
        Value::Map(entries) => {
            for Entry { key, value, .. } in entries {
                let path = format!("{prefix}{dot}{key}");
                found.push(path.clone());
                paths(value, &path, found);
            }
        }
        Value::List(items) => {
            for (i, item) in items.iter().enumerate() {
                paths(item, &format!("{prefix}{dot}{i}"), found);
            }
        }
        Value::Scalar { .. } | Value::Null => {}
    }
}

/// The tree without one key.
fn without(node: &Node, path: &str) -> Node {
    let mut node = node.clone();
    let (step, rest) = path
        .split_once('.')
        .map_or((path, None), |(a, b)| (a, Some(b)));
    match (&mut node.value, rest) {
        (Value::Map(entries), None) => entries.retain(|entry| entry.key != step),
        (Value::Map(entries), Some(rest)) => {
            let entry = entries.iter_mut().find(|entry| entry.key == step).unwrap();
            entry.value = without(&entry.value, rest).into();
        }
        (Value::List(items), Some(rest)) => {
            let i: usize = step.parse().unwrap();
            items[i] = without(&items[i], rest).into();
        }
        _ => panic!("{path}"),
    }
    node
}

#[test]
fn it_runs_as_it_is() {
    let config = fine(EXAMPLE);
    assert_eq!(&*config.routes[0].service, "whoami@internal");
    assert_eq!(&*config.routes[0].jails, ["web".into()]);
    assert!(
        config.entry_points[0]
            .forwarded_trusted
            .contains([127, 0, 0, 1].into())
    );
}

#[test]
fn its_optional_keys_load() {
    let dir = directory();
    let config =
        load_in(dir.path(), &uncommented()).unwrap_or_else(|problems| panic!("{problems}"));
    let warnings = told(config.warnings.iter());
    assert!(warnings.is_empty(), "{warnings:?}");
    assert!(config.crowdsec.is_some() && config.cloudflare.is_some() && config.otlp.is_some());
    assert_eq!(config.access_logs.len(), 2);
}

#[test]
fn what_it_shows_as_default_is_the_default() {
    let dir = directory();
    let whole = tree(&uncommented());
    let expected = compiled(dir.path(), &whole).unwrap();
    let mut all = Vec::new();
    paths(&whole, "", &mut all);
    let chosen = |path: &str| {
        CHOSEN.iter().any(|c| {
            path == *c || path.starts_with(&format!("{c}.")) || c.starts_with(&format!("{path}."))
        })
    };
    for path in all.iter().filter(|path| !chosen(path)) {
        // A key that cannot be left out has no default to be equal to.
        if let Some(found) = compiled(dir.path(), &without(&whole, path)) {
            assert!(
                found == expected,
                "the default of `{path}` is not what the example shows"
            );
        }
    }
    for path in CHOSEN {
        assert!(
            all.iter().any(|known| known == path),
            "{path} is not in the example"
        );
    }
}

#[test]
fn no_key_is_missing() {
    let mut all = Vec::new();
    paths(&tree(&uncommented()), "", &mut all);
    let named = ["entryPoints", "services", "jails"];
    let generic = |path: &String| {
        let mut parts: Vec<&str> = path.split('.').collect();
        for part in &mut parts {
            if part.parse::<usize>().is_ok() {
                *part = "*";
            }
        }
        if parts.len() > 1 && named.contains(&parts[0]) {
            parts[1] = "*";
        }
        parts.join(".")
    };
    let present: BTreeSet<String> = all.iter().map(generic).collect();
    for shape in ALL {
        for key in shape.keys {
            let path = if shape.path.is_empty() {
                (*key).to_owned()
            } else {
                format!("{}.{key}", shape.path)
            };
            assert!(
                present.contains(&path),
                "`{path}` is not in config.example.yaml"
            );
        }
    }
}
