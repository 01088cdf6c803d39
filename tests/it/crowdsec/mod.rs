//! CrowdSec: what is published, withdrawn and taken from a real LAPI 1.4.6.

mod publish;
mod subscribe;
mod tls;

use std::time::{Duration, Instant};

use crate::support::{Jailgate, KEY, Lapi, MACHINE, Origin, PASSWORD, Raw, get};

/// The `crowdsec` block for a LAPI at `url`.
fn block(url: &str) -> String {
    format!(
        "crowdsec:\n  url: \"{url}\"\n  publish: {{ machineId: {MACHINE}, password: {PASSWORD} }}\n  \
         subscribe: {{ apiKey: {KEY}, interval: 1s }}\n"
    )
}

#[test]
fn the_lapi_of_the_tests_keeps_its_decisions_over_a_restart() {
    let mut lapi = Lapi::start();
    let range = ["--range", "198.51.100.0/24", "--duration", "1h"];
    lapi.cscli(&[&["decisions", "add"], &range[..]].concat());
    lapi.stop();
    lapi.begin();
    let held = lapi.until(Duration::from_secs(5), |held| held.len() == 1);
    let decision = (&*held[0].value, &*held[0].origin);
    assert_eq!(decision, ("198.51.100.0/24", "cscli"));
    let stream = "/v1/decisions/stream?startup=true";
    let answer = get(lapi.address, stream, &format!("X-Api-Key: {KEY}\r\n"));
    assert!(answer.text().contains("198.51.100.0/24"));
    let file = lapi.path().join("jailgate.yaml");
    std::fs::write(&file, block(&lapi.url())).unwrap();
    let checked = Jailgate::command().args(["check", "-c"]).arg(file).output();
    assert!(checked.unwrap().status.success());
}

const SOON: Duration = Duration::from_secs(10);

/// A gate in front of `origin` whose clients come by X-Forwarded-For, and this LAPI.
fn config(origin: &Origin, crowdsec: &str) -> String {
    format!(
        "entryPoints:\n  web:\n    address: \"127.0.0.1:0\"\n    \
         forwardedHeaders: {{ trustedIPs: [\"127.0.0.1/32\"] }}\n\
         routes:\n  - {{ service: app, jails: [web] }}\n\
         services:\n  app: {{ servers: [{{ url: \"http://{}\" }}] }}\n\
         jails:\n  web: {{ rules: {{ maxretry: 2, findtime: 10m, bantime: 1h, \
         statuscode: \"400-499\" }} }}\n{crowdsec}",
        origin.address
    )
}

/// Fails twice, and so is banned.
#[track_caller]
fn fail(jailgate: &Jailgate, client: &str) {
    let header = format!("X-Forwarded-For: {client}\r\nUser-Agent: probe/1\r\n");
    let web = jailgate.address("web");
    assert_eq!(get(web, "/status/404?x=1", &header).status, 404);
    assert_eq!(get(web, "/status/401", &header).status, 403);
}

/// A directory whose jailgate keeps its state.
fn kept(config: &str) -> String {
    format!("{config}state: {{ path: state.db }}\n")
}

/// Asks the admin listener, which knows itself as localhost only.
#[track_caller]
fn admin(jailgate: &Jailgate, method: &str, target: &str) -> String {
    let mut raw = Raw::connect(jailgate.address("admin"));
    raw.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    ));
    let answer = raw.answer();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

/// Lifts every ban of a client.
#[track_caller]
fn unban(jailgate: &Jailgate, client: &str) {
    admin(jailgate, "DELETE", &format!("/api/v1/bans?client={client}"));
}

/// Whether a client is refused now.
fn refused(jailgate: &Jailgate, client: &str) -> bool {
    let header = format!("X-Forwarded-For: {client}\r\n");
    get(jailgate.address("web"), "/", &header).status == 403
}

#[track_caller]
fn soon(what: &str, so: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !so() {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
