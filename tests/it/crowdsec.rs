//! CrowdSec: what is published, withdrawn and taken from a real LAPI 1.4.6.

use std::time::Duration;

use crate::support::{Jailgate, KEY, Lapi, MACHINE, PASSWORD, get};

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
