//! What `contrib/` offers, against the tools that will read it: alert rules through promtool, and
//! every metric and label of rules and dashboard found in what a busy jailgate answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use regex::Regex;
use serde_json::Value;

use crate::support::{ACCOUNT, Cloudflare, Jailgate, LIST, Origin, TOKEN, free_port, get};

/// Labels that Prometheus adds when it scrapes, and the bounds of a histogram's buckets.
const ADDED: [&str; 3] = ["instance", "job", "le"];

fn contrib(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("contrib")
        .join(path)
}

#[track_caller]
fn promtool(arguments: &[&str], file: &str) {
    let output = Command::new("promtool")
        .args(arguments)
        .arg(contrib(file))
        .output()
        .expect("promtool is installed (tests/tools.sh)");
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}

#[test]
fn promtool_accepts_the_rules_and_they_fire_when_they_should() {
    promtool(&["check", "rules"], "prometheus/jailgate.rules.yml");
    promtool(&["test", "rules"], "prometheus/jailgate.test.yml");
}

/// Every metric by the names of its samples, each with its labels.
type Scrape = BTreeMap<String, BTreeSet<String>>;

fn scrape(program: &Jailgate) -> Scrape {
    let text = get(program.address("admin"), "/metrics", "").text();
    let label = Regex::new(r#"(\w+)=""#).unwrap();
    let mut found = Scrape::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let labels = label.captures_iter(line).map(|found| found[1].to_owned());
        found.entry(name.to_owned()).or_default().extend(labels);
    }
    found
}

/// A jailgate in which everything happened once: bans, denials, a log that is no log, a Cloudflare
/// list with too little room, a notification that failed.
fn busy() -> (Jailgate, Cloudflare, Origin) {
    let (origin, sim) = (Origin::start(), Cloudflare::start(&[]));
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("access.log"), "no log at all\n").unwrap();
    let config = format!(
        "entryPoints:\n  web:\n    address: \"127.0.0.1:0\"\n    \
         forwardedHeaders: {{ trustedIPs: [\"127.0.0.1/32\"] }}\n\
         routes:\n  - {{ service: app, jails: [web] }}\n\
         services:\n  app: {{ servers: [{{ url: \"http://{}\" }}] }}\n\
         accessLogs:\n  - {{ path: access.log, jails: [web] }}\n\
         jails:\n  web: {{ rules: {{ maxretry: 1, statuscode: \"404\" }} }}\n\
         notify:\n  - slack: {{ url: \"http://127.0.0.1:{}/\" }}\n\
         cloudflare: {{ accountId: {ACCOUNT}, listId: {LIST}, apiToken: {TOKEN}, capacity: 1, \
         baseUrl: \"{}\" }}\nstate: {{ path: jailgate.db }}\n",
        origin.address,
        free_port(),
        sim.url()
    );
    let program = Jailgate::run_in(dir, &config);
    for last in [1, 2] {
        for path in ["/status/200", "/status/404", "/"] {
            let from = format!("X-Forwarded-For: 203.0.113.{last}\r\n");
            get(program.address("web"), path, &from);
        }
    }
    (program, sim, origin)
}

/// Each query of the dashboard and the rules, with what its legend names.
fn queries() -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    let text = fs::read_to_string(contrib("grafana/jailgate.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let named = Regex::new(r"\{\{ *(?:\$labels\.)?(\w+) *\}\}").unwrap();
    let names = |text: &str| {
        let all = named.captures_iter(text).map(|found| found[1].to_owned());
        all.collect::<Vec<_>>()
    };
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let legend = names(target["legendFormat"].as_str().unwrap());
            found.push((target["expr"].as_str().unwrap().to_owned(), legend));
        }
    }
    let text = fs::read_to_string(contrib("prometheus/jailgate.rules.yml")).unwrap();
    for rule in text.split("- alert:").skip(1) {
        let expression = rule.split("expr:").nth(1).unwrap();
        let (expression, rest) = expression.split_once("\n        for:").unwrap();
        found.push((
            expression.trim_start_matches([' ', '|', '\n']).to_owned(),
            names(rest),
        ));
    }
    found
}

/// What in these queries the scrape does not have.
fn missing(scrape: &Scrape) -> Vec<String> {
    let metric = Regex::new(r"\b(?:jailgate|process)_\w+").unwrap();
    let quoted = Regex::new(r#""[^"]*""#).unwrap();
    let label = Regex::new(r"[{,]\s*(\w+)\s*(?:=|!)|\bby \(([^)]*)\)").unwrap();
    let mut broken = Vec::new();
    for (expression, legend) in queries() {
        let bare = quoted.replace_all(&expression, "\"\"");
        let mut known: BTreeSet<&str> = ADDED.into();
        for found in metric.find_iter(&bare) {
            match scrape.get(found.as_str()) {
                Some(labels) => known.extend(labels.iter().map(String::as_str)),
                None => broken.push(format!("{} of {expression}", found.as_str())),
            }
        }
        let mut labels = legend;
        for found in label.captures_iter(&bare) {
            let list = found.get(1).or_else(|| found.get(2)).unwrap().as_str();
            labels.extend(list.split(',').map(|name| name.trim().to_owned()));
        }
        for label in labels
            .iter()
            .filter(|label| !known.contains(label.as_str()))
        {
            broken.push(format!("label {label} of {expression}"));
        }
    }
    broken
}

#[test]
fn dashboard_and_rules_name_what_a_busy_jailgate_measures() {
    assert!(queries().len() > 50, "only {} queries", queries().len());
    let (program, _sim, _origin) = busy();
    // The list and the notification take a moment.
    let deadline = Instant::now() + Duration::from_secs(20);
    while !missing(&scrape(&program)).is_empty() {
        let broken = missing(&scrape(&program));
        assert!(Instant::now() < deadline, "{}", broken.join("\n"));
        std::thread::sleep(Duration::from_millis(200));
    }
}
