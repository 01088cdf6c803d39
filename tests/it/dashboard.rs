//! The dashboard in a real Chromium: `tests/browser/dashboard.mjs` looks and clicks, this starts
//! jailgate for it. A scenario is a test; what the script prints is shown when it fails.

use std::{
    env, fs,
    process::{Command, Stdio},
};

use crate::support::{Jailgate, Origin, tools};

const TOKEN: &str = "a token for the tests, 32 bytes or more";
const READ_TOKEN: &str = "a token that may only read, 32 bytes";

/// Runs one scenario against a jailgate with one jail, a followed log and this `admin` block.
#[track_caller]
fn play(scenario: &str, admin: &str) {
    let origin = Origin::start();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    fs::write(&log, "").unwrap();
    let config = format!(
        "entryPoints:\n  web:\n    address: \"127.0.0.1:0\"\n    \
         forwardedHeaders: {{ trustedIPs: [\"127.0.0.1/32\"] }}\n\
         routes:\n  - {{ service: app, jails: [web] }}\n\
         services:\n  app: {{ servers: [{{ url: \"http://{}\" }}] }}\n\
         accessLogs:\n  - {{ path: access.log, format: traefik-json, jails: [web] }}\n\
         jails:\n  web: {{ rules: {{ maxretry: 4, findtime: 10m, bantime: 3h, \
         statuscode: \"400-499\" }} }}\n\
         admin: {{ address: \"127.0.0.1:0\"{admin} }}\nstate: {{ path: jailgate.db }}\n",
        origin.address
    );
    let jailgate = Jailgate::run_in(dir, &config);
    let pictures = env::var_os("JAILGATE_SCREENSHOTS").is_some();
    let most = if pictures { "3600" } else { "90" };
    let mut script = Command::new("timeout");
    script
        .args([most, "node", "tests/browser/dashboard.mjs", scenario])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("BROWSER_TOOLS", tools().join("browser"))
        .env("ADMIN", format!("http://{}", jailgate.address("admin")))
        .env("GATE", format!("http://{}", jailgate.address("web")))
        .env("LOG", &log)
        .stdin(Stdio::null());
    if !admin.is_empty() {
        script.env("TOKEN", TOKEN).env("READ_TOKEN", READ_TOKEN);
    }
    let output = script.output().expect("node runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{scenario}:\n{said}\n{failed}");
    eprintln!("{said}");
}

#[test]
fn the_dashboard_shows_a_ban_and_acts_on_it() {
    play("acts", "");
}

#[test]
fn the_dashboard_is_usable_by_keyboard() {
    play("keyboard", "");
}

#[test]
fn the_dashboard_finds_back_after_an_outage() {
    play("reconnects", "");
}

#[test]
fn the_dashboard_runs_nothing_that_attackers_wrote() {
    play("inert", "");
}

#[test]
fn the_dashboard_has_no_grave_accessibility_faults() {
    play("accessible", &format!(", token: \"{TOKEN}\""));
}

#[test]
fn the_dashboard_offers_a_reader_nothing_to_change() {
    let tokens = format!(", token: \"{TOKEN}\", readToken: \"{READ_TOKEN}\"");
    play("looks", &tokens);
}

#[test]
fn the_dashboard_is_read_without_javascript() {
    play("reads", "");
}

#[test]
fn the_dashboard_bears_a_hundred_thousand_bans() {
    play("many", "");
}

/// `JAILGATE_SCREENSHOTS=docs/screenshots cargo test dashboard_pictures` makes them anew.
#[test]
fn the_dashboard_pictures_of_the_documents() {
    if env::var_os("JAILGATE_SCREENSHOTS").is_some() {
        play("pictures", "");
    }
}
