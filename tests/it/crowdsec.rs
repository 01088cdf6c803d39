//! CrowdSec: what is published, withdrawn and taken from a real LAPI 1.4.6.

use std::time::{Duration, Instant};

use crate::support::{Jailgate, KEY, Lapi, MACHINE, Origin, PASSWORD, get};

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

#[test]
fn bans_are_published_with_what_led_to_them() {
    let (lapi, origin) = (Lapi::start(), Origin::start());
    let jailgate = Jailgate::run(&config(&origin, &block(&lapi.url())));
    fail(&jailgate, "203.0.113.7");
    fail(&jailgate, "2001:db8:1:2:3:4:5:6");
    let held = lapi.until(SOON, |held| held.len() == 2);
    for (decision, place) in held
        .iter()
        .zip([("Ip", "203.0.113.7"), ("Range", "2001:db8:1:2::/64")])
    {
        assert_eq!((&*decision.scope, &*decision.value), place);
        let named = (&*decision.origin, &*decision.scenario, &*decision.kind);
        assert_eq!(named, ("jailgate", "jailgate/web", "ban"));
        assert!((3590..=3600).contains(&decision.left), "{}", decision.left);
    }
    let told = lapi.cscli(&["alerts", "inspect", "1", "--details"]);
    for word in [
        "probe/1",
        "/status/404",
        "/status/401",
        "GET",
        "203.0.113.7",
    ] {
        assert!(told.contains(word), "no {word} in\n{told}");
    }
    // what we sent comes back in the stream and is not taken for somebody else's
    std::thread::sleep(Duration::from_secs(2));
    let metrics = get(jailgate.address("admin"), "/metrics", "").text();
    assert!(!metrics.contains("crowdsec/jailgate"), "{metrics}");
    assert!(!jailgate.text().contains(PASSWORD) && !jailgate.text().contains(KEY));
}

#[test]
fn decisions_are_enforced_until_they_are_lifted() {
    let (lapi, origin) = (Lapi::start(), Origin::start());
    let add = |arguments: &[&str]| {
        lapi.cscli(&[&["decisions", "add", "--duration", "1h"], arguments].concat());
    };
    add(&["--ip", "203.0.113.1"]);
    add(&["--range", "198.51.100.0/24", "--type", "captcha"]);
    add(&["--range", "2001:db8:7::/48"]);
    let jailgate = Jailgate::run(&config(&origin, &block(&lapi.url())));
    soon("the first pull", || refused(&jailgate, "203.0.113.1"));
    assert!(refused(&jailgate, "198.51.100.77"));
    assert!(refused(&jailgate, "2001:db8:7:1::5"));
    assert!(!refused(&jailgate, "203.0.113.2"));
    add(&["--ip", "203.0.113.2"]);
    soon("a change", || refused(&jailgate, "203.0.113.2"));
    lapi.cscli(&["decisions", "delete", "--ip", "203.0.113.1"]);
    soon("a lift", || !refused(&jailgate, "203.0.113.1"));
    assert!(refused(&jailgate, "203.0.113.2"));
    // nothing that came from LAPI is sent there
    assert_eq!(lapi.decisions().len(), 3);
}
