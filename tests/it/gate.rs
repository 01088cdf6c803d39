//! What clients and services see of the gate.

use std::{collections::HashMap, thread};

use crate::support::{Jailgate, Origin, Raw, get, request};

fn config(origin: &Origin, jail: &str) -> String {
    format!(
        "entryPoints:\n  web:\n    address: \"127.0.0.1:0\"\n    \
         forwardedHeaders: {{ trustedIPs: [\"127.0.0.1/32\"] }}\n\
         routes:\n  - {{ service: app, jails: [web] }}\n\
         services:\n  app: {{ servers: [{{ url: \"http://{}\" }}] }}\n\
         jails:\n  web:\n{jail}\n",
        origin.address
    )
}

const FAILURES: &str =
    "    rules: { maxretry: 4, findtime: 10m, bantime: 1h, statuscode: \"400-499\" }";
const FROM: &str = "X-Forwarded-For: 198.51.100.9\r\n";

#[test]
fn the_fourth_failure_is_the_denial_and_then_the_service_sees_nothing() {
    let origin = Origin::start();
    let gate = Jailgate::run(&config(&origin, FAILURES));
    let web = gate.address("web");
    let statuses: Vec<u16> = (0..6)
        .map(|_| get(web, "/status/404", FROM).status)
        .collect();
    assert_eq!(statuses, [404, 404, 404, 403, 403, 403]);
    assert_eq!(origin.seen().len(), 4, "the denied requests reached it");

    let denied = get(web, "/", FROM);
    assert_eq!(denied.header("cache-control"), Some("no-store"));
    assert_eq!(denied.header("x-jailgate-reason"), Some("banned"));
    let retry: u64 = denied.header("retry-after").unwrap().parse().unwrap();
    assert!((3590..=3600).contains(&retry), "{retry}");
    assert_eq!(
        get(web, "/", "X-Forwarded-For: 198.51.100.10\r\n").status,
        200
    );
}

#[test]
fn fifty_parallel_failures_show_exactly_three() {
    let origin = Origin::start();
    let gate = Jailgate::run(&config(&origin, FAILURES));
    let web = gate.address("web");
    let clients: Vec<_> = (0..50)
        .map(|_| thread::spawn(move || get(web, "/status/404", FROM).status))
        .collect();
    let mut seen = HashMap::new();
    for client in clients {
        *seen.entry(client.join().unwrap()).or_insert(0) += 1;
    }
    assert_eq!(seen, HashMap::from([(404, 3), (403, 47)]));
}

#[test]
fn card_stuffing_is_banned_although_every_answer_is_200() {
    let origin = Origin::start();
    let jail = "    match: { methods: [POST], pathRegexp: \"^/pay$\" }\n    \
                rules: { maxretry: 3, findtime: 10m, bantime: 1h }";
    let gate = Jailgate::run(&config(&origin, jail));
    let web = gate.address("web");
    for _ in 0..5 {
        assert_eq!(get(web, "/pay", FROM).status, 200);
        assert_eq!(request(web, "POST", "/cart", FROM).status, 200);
    }
    let paid: Vec<u16> = (0..4)
        .map(|_| request(web, "POST", "/pay?card=1", FROM).status)
        .collect();
    assert_eq!(paid, [200, 200, 403, 403]);
}

#[test]
fn a_plain_client_of_the_same_machine_is_never_banned() {
    let origin = Origin::start();
    let gate = Jailgate::run(&config(&origin, FAILURES));
    for _ in 0..10 {
        assert_eq!(get(gate.address("web"), "/status/404", "").status, 404);
    }
}

#[test]
fn an_outage_bans_nobody() {
    let origin = Origin::start();
    let jail = FAILURES.replace("400-499", "400-599");
    let gone = config(&origin, &jail).replace(
        &origin.address.to_string(),
        &format!("127.0.0.1:{}", crate::support::free_port()),
    );
    let gate = Jailgate::run(&gone);
    for _ in 0..10 {
        assert_eq!(get(gate.address("web"), "/", FROM).status, 502);
    }
    let gate = Jailgate::run(&config(&origin, &jail));
    for status in [502, 503, 504, 499] {
        for _ in 0..5 {
            let path = format!("/status/{status}");
            assert_eq!(get(gate.address("web"), &path, FROM).status, status);
        }
    }
    assert_eq!(get(gate.address("web"), "/status/500", FROM).status, 500);
}

#[test]
fn keep_alive_serves_one_request_after_another_and_in_a_pipeline() {
    let origin = Origin::start();
    let gate = Jailgate::run(&config(&origin, FAILURES));
    let mut raw = Raw::connect(gate.address("web"));
    for _ in 0..3 {
        raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(raw.answer().status, 200);
    }
    raw.send(
        "GET /status/404 HTTP/1.1\r\nHost: a\r\n\r\nGET /status/401 HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!(raw.answer().status, 404);
    assert_eq!(raw.answer().status, 401);
}

#[test]
fn the_service_learns_who_asks_and_hop_by_hop_headers_stay_behind() {
    let origin = Origin::start();
    let gate = Jailgate::run(&config(&origin, FAILURES));
    let sent = "X-Forwarded-For: 192.0.2.1, 198.51.100.9\r\nX_Forwarded_For: 1.1.1.1\r\n\
                Keep-Alive: 5\r\nTE: gzip\r\n";
    assert_eq!(get(gate.address("web"), "/", sent).status, 200);
    let seen = origin.seen().pop().unwrap();
    assert_eq!(
        seen.all("x-forwarded-for"),
        ["192.0.2.1, 198.51.100.9, 127.0.0.1"]
    );
    assert_eq!(seen.all("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.all("x-forwarded-host"), ["localhost"]);
    assert_eq!(seen.all("host"), ["localhost"]);
    for gone in ["x_forwarded_for", "keep-alive", "te", "connection", "via"] {
        assert_eq!(seen.all(gone), Vec::<&str>::new(), "{gone}");
    }
}
