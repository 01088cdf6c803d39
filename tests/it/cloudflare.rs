//! The Cloudflare list as `run` keeps it, against the simulator.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{ACCOUNT, Cloudflare, Jailgate, KEY, LIST, Lapi, Origin, TOKEN, get};

/// Within which a ban has to be in the list.
const SOON: Duration = Duration::from_secs(5);

/// One jail that bans at the second 404; `bantime`, and the rest of the `cloudflare` block.
fn config(origin: &Origin, sim: &Cloudflare, bantime: &str, more: &str) -> String {
    format!(
        "entryPoints:\n  web:\n    address: \"127.0.0.1:0\"\n    \
         forwardedHeaders: {{ trustedIPs: [\"127.0.0.1/32\"] }}\n\
         routes:\n  - {{ service: app, jails: [web] }}\n\
         services:\n  app: {{ servers: [{{ url: \"http://{}\" }}] }}\n\
         jails:\n  web:\n    sourceCriterion: {{ ipStrategy: {{ ipv6Subnet: 128 }} }}\n    \
         rules: {{ maxretry: 2, findtime: 10m, bantime: {bantime}, statuscode: \"404\" }}\n\
         cloudflare:\n  accountId: {ACCOUNT}\n  listId: {LIST}\n  apiToken: {TOKEN}\n  \
         baseUrl: \"{}\"\n  {more}\n",
        origin.address,
        sim.url()
    )
}

fn start(sim: &Cloudflare, bantime: &str, more: &str) -> (Origin, Jailgate) {
    let origin = Origin::start();
    let gate = Jailgate::run(&config(&origin, sim, bantime, more));
    (origin, gate)
}

#[track_caller]
fn ban(gate: &Jailgate, client: &str) {
    let from = format!("X-Forwarded-For: {client}\r\n");
    for expected in [404, 403] {
        let answer = get(gate.address("web"), "/status/404", &from);
        assert_eq!(answer.status, expected, "{client}");
    }
}

fn metric(gate: &Jailgate, name: &str) -> Option<f64> {
    let text = get(gate.address("admin"), "/metrics", "").text();
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Waits at most `wait` for a metric to be so.
#[track_caller]
fn measures(gate: &Jailgate, wait: Duration, name: &str, expected: f64) {
    let began = Instant::now();
    while metric(gate, name) != Some(expected) {
        assert!(
            began.elapsed() < wait,
            "{name} is {:?}\n{}",
            metric(gate, name),
            gate.text()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_ban_is_listed_within_five_seconds_and_leaves_when_it_ends() {
    let sim = Cloudflare::start(&["operation_seconds=1"]);
    let (_origin, gate) = start(&sim, "6s", "interval: 1h");
    gate.wait_for("ready");
    ban(&gate, "203.0.113.7");
    ban(&gate, "203.0.113.8");
    let took = sim.until(SOON, &["203.0.113.7", "203.0.113.8"]);
    assert!(took < SOON, "{took:?}");
    assert_eq!(sim.items()[0].1, "jailgate");
    measures(&gate, SOON, "jailgate_cloudflare_list_items", 2.0);
    sim.until(Duration::from_secs(12), &[]);
    measures(&gate, SOON, "jailgate_cloudflare_lag_seconds", 0.0);
    let full = "GET /lists/LIST/items?per_page=500 ";
    assert_eq!(sim.count(full), 1, "changes are deltas: {:#?}", sim.asked());
    let operations = "jailgate_cloudflare_operations_total{kind=\"add\",outcome=\"completed\"}";
    assert!(metric(&gate, operations) >= Some(1.0));
    assert_eq!(metric(&gate, "jailgate_cloudflare_errors_total"), Some(0.0));
}

#[test]
fn an_ipv6_prefix_stays_until_the_last_ban_inside_it_ends() {
    let sim = Cloudflare::start(&[]);
    let (_origin, gate) = start(&sim, "6s", "interval: 1s");
    ban(&gate, "2001:db8::1");
    sim.until(SOON, &["2001:db8::/64"]);
    std::thread::sleep(Duration::from_secs(2));
    ban(&gate, "2001:db8::2");
    gate.wait_for("ban ends");
    // The first is over; a reconcile passes each second.
    std::thread::sleep(Duration::from_millis(2200));
    assert_eq!(sim.listed(), ["2001:db8::/64"]);
    sim.until(Duration::from_secs(12), &[]);
}

#[test]
fn items_of_others_stay_and_those_of_an_earlier_life_go() {
    let sim = Cloudflare::start(&["slash32=true", "page_max=2"]);
    let others = [
        ("9.9.9.9", "by hand"),
        ("8.8.8.8", ""),
        ("7.7.7.7", "jailgate2"),
    ];
    sim.fill(
        &[
            &others[..],
            &[("6.6.6.6", "jailgate"), ("2001:db8::/64", "jailgate")],
        ]
        .concat(),
    );
    let (_origin, gate) = start(&sim, "1h", "interval: 1s");
    ban(&gate, "203.0.113.7");
    ban(&gate, "9.9.9.9");
    let expected = ["203.0.113.7/32", "7.7.7.7/32", "8.8.8.8/32", "9.9.9.9/32"];
    sim.until(SOON, &expected);
    std::thread::sleep(Duration::from_secs(2));
    let items = sim.items();
    assert_eq!(items[3], ("9.9.9.9/32".to_owned(), "by hand".to_owned()));
    sim.until(SOON, &expected);
}

#[test]
fn the_whole_list_is_adopted_and_tagged() {
    let sim = Cloudflare::start(&[]);
    sim.fill(&[("9.9.9.9", "by hand"), ("203.0.113.7", "from the cron job")]);
    sim.fault(json!({ "method": "GET", "path": "/items$", "status": 503 }));
    let (_origin, gate) = start(&sim, "1h", "ownership: wholeList");
    ban(&gate, "203.0.113.7");
    sim.until(Duration::from_secs(10), &["203.0.113.7"]);
    assert_eq!(sim.items()[0].1, "jailgate");
}

#[test]
fn two_instances_share_a_list_without_taking_from_each_other() {
    let sim = Cloudflare::start(&[]);
    let (_one, one) = start(&sim, "1h", "interval: 1s\n  tag: one");
    let (_two, two) = start(&sim, "1h", "interval: 1s\n  tag: two");
    ban(&one, "203.0.113.1");
    ban(&two, "203.0.113.2");
    ban(&one, "203.0.113.3");
    sim.until(
        Duration::from_secs(30),
        &["203.0.113.1", "203.0.113.2", "203.0.113.3"],
    );
    let before = sim.count("POST") + sim.count("DELETE");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(
        sim.count("POST") + sim.count("DELETE"),
        before,
        "nothing flaps"
    );
}

#[test]
fn what_has_no_room_stays_out_and_is_counted() {
    let sim = Cloudflare::start(&[]);
    sim.fill(&[("9.9.9.9", "by hand")]);
    let (_origin, gate) = start(&sim, "1h", "capacity: 3");
    for client in 1..=4 {
        ban(&gate, &format!("203.0.113.{client}"));
    }
    measures(
        &gate,
        SOON,
        "jailgate_cloudflare_left_out{reason=\"capacity\"}",
        2.0,
    );
    assert_eq!(sim.listed().len(), 3);
    gate.wait_for("the Cloudflare list is full");
}

#[test]
fn a_quota_below_the_capacity_is_found_and_used() {
    let sim = Cloudflare::start(&["quota=3", "operation_seconds=0.05"]);
    let (_origin, gate) = start(&sim, "1h", "interval: 1h");
    for client in 1..=8 {
        ban(&gate, &format!("203.0.113.{client}"));
    }
    measures(
        &gate,
        Duration::from_secs(20),
        "jailgate_cloudflare_list_items",
        3.0,
    );
    gate.wait_for("This list is at the maximum number of items");
    measures(
        &gate,
        SOON,
        "jailgate_cloudflare_left_out{reason=\"capacity\"}",
        5.0,
    );
}

#[test]
fn allowlisted_addresses_are_never_sent() {
    let sim = Cloudflare::start(&[]);
    let origin = Origin::start();
    let config = config(&origin, &sim, "1h", "interval: 1h").replace(
        "    sourceCriterion",
        "    allowlist: { ip: [\"2001:db8::9\"] }\n    sourceCriterion",
    );
    let gate = Jailgate::run(&config);
    // It shares its /64 with an address that must pass.
    ban(&gate, "2001:db8::5");
    ban(&gate, "203.0.113.7");
    sim.until(SOON, &["203.0.113.7"]);
    measures(
        &gate,
        SOON,
        "jailgate_cloudflare_left_out{reason=\"spared\"}",
        1.0,
    );
}

#[test]
fn a_failed_operation_is_planned_again() {
    let sim = Cloudflare::start(&[]);
    let (_origin, gate) = start(&sim, "1h", "interval: 1h");
    sim.fault(json!({ "operation": { "fail": "internal error of the simulator" } }));
    ban(&gate, "203.0.113.7");
    gate.wait_for("internal error of the simulator");
    sim.until(Duration::from_secs(12), &["203.0.113.7"]);
    assert_eq!(metric(&gate, "jailgate_cloudflare_errors_total"), Some(1.0));
}

#[test]
fn nothing_is_changed_while_an_operation_hangs() {
    let sim = Cloudflare::start(&[]);
    let (_origin, gate) = start(&sim, "1h", "interval: 1s");
    sim.fault(json!({ "operation": { "hang": true } }));
    ban(&gate, "203.0.113.7");
    std::thread::sleep(Duration::from_secs(3));
    ban(&gate, "203.0.113.8");
    let line = gate.wait_for_within("is still pending", Duration::from_secs(40));
    assert!(line.contains("bulk operation"), "{line}");
    assert_eq!(sim.count("POST"), 1, "{:#?}", sim.asked());
    assert!(metric(&gate, "jailgate_cloudflare_lag_seconds") > Some(20.0));
    sim.release();
    sim.until(Duration::from_secs(20), &["203.0.113.7", "203.0.113.8"]);
}

#[test]
fn retry_after_is_obeyed() {
    let sim = Cloudflare::start(&[]);
    let (_origin, gate) = start(&sim, "1h", "interval: 1h");
    let limited = json!({ "method": "POST", "status": 429, "code": 971, "retry_after": 3 });
    sim.fault(limited);
    ban(&gate, "203.0.113.7");
    gate.wait_for("again_in=3");
    let asked = sim.asked().len();
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(
        sim.asked().len(),
        asked,
        "it keeps away: {:#?}",
        sim.asked()
    );
    sim.until(SOON, &["203.0.113.7"]);
}

#[test]
fn somebody_elses_operation_is_waited_for() {
    let sim = Cloudflare::start(&["operation_seconds=3"]);
    let (_origin, gate) = start(&sim, "1h", "interval: 1h");
    measures(&gate, SOON, "jailgate_cloudflare_list_items", 0.0);
    let items = json!([{ "ip": "9.9.9.9", "comment": "by hand" }]);
    let begun = sim.api("POST", &format!("/lists/{LIST}/items"), Some(&items));
    assert_eq!(begun.status, 200, "{}", begun.text());
    ban(&gate, "203.0.113.7");
    gate.wait_for("429");
    sim.until(Duration::from_secs(15), &["203.0.113.7", "9.9.9.9"]);
    assert_eq!(
        sim.count("POST /lists/LIST/items 429"),
        1,
        "{:#?}",
        sim.asked()
    );
}

#[test]
fn an_answer_lost_after_the_write_does_no_harm() {
    let sim = Cloudflare::start(&[]);
    let (_origin, gate) = start(&sim, "6s", "interval: 1h");
    sim.fault(json!({ "method": "POST", "drop": "after" }));
    ban(&gate, "203.0.113.7");
    sim.until(SOON, &["203.0.113.7"]);
    gate.wait_for("could not be brought in line");
    sim.fault(json!({ "method": "DELETE", "drop": "after" }));
    sim.until(Duration::from_secs(30), &[]);
    measures(
        &gate,
        Duration::from_secs(20),
        "jailgate_cloudflare_list_items",
        0.0,
    );
}

#[test]
fn a_refused_token_is_said_loudly_and_never_shown() {
    let sim = Cloudflare::start(&[]);
    let origin = Origin::start();
    let wrong = config(&origin, &sim, "1h", "interval: 1s").replace(TOKEN, "a-wrong-token");
    let gate = Jailgate::run(&wrong);
    let line = gate.wait_for("refuses the token");
    assert!(line.contains("ERROR") && line.contains("10000"), "{line}");
    ban(&gate, "203.0.113.7");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(sim.asked().len(), 1, "{:#?}", sim.asked());
    assert!(!gate.text().contains("a-wrong-token"));
    // A mended token is taken with the configuration.
    gate.rewrite(&config(
        &origin,
        &sim,
        "1h",
        "interval: 1s\nadmin: { address: \"127.0.0.1:0\" }\nstate: { path: \"\" }",
    ));
    sim.until(Duration::from_secs(10), &["203.0.113.7"]);
}

/// The same as [`config`] with LAPI's decisions.
fn subscribed(origin: &Origin, sim: &Cloudflare, lapi: &Lapi, bantime: &str, more: &str) -> String {
    let crowdsec = format!(
        "crowdsec:\n  url: \"{}\"\n  subscribe: {{ apiKey: {KEY}, interval: 1s }}\n",
        lapi.url()
    );
    config(origin, sim, bantime, more) + &crowdsec
}

#[test]
fn decisions_of_lapi_are_frozen_while_it_is_out_of_reach() {
    let (origin, sim, mut lapi) = (Origin::start(), Cloudflare::start(&[]), Lapi::start());
    let decide = |ip: &str, time: &str, kind: &str| {
        lapi.cscli(&[
            "decisions",
            "add",
            "--ip",
            ip,
            "--duration",
            time,
            "--type",
            kind,
        ]);
    };
    decide("198.18.0.1", "1h", "ban");
    decide("198.18.0.2", "12s", "captcha");
    decide("2001:db8::1", "1h", "ban");
    lapi.cscli(&[
        "decisions",
        "add",
        "--range",
        "198.51.100.0/24",
        "--duration",
        "1h",
    ]);
    let unreachable = subscribed(&origin, &sim, &lapi, "8s", "interval: 1s")
        .replace("interval: 1s }\n", "interval: 1s }\n  unreachable: open\n");
    let gate = Jailgate::run(&unreachable);
    let theirs = [
        "198.18.0.1",
        "198.18.0.2",
        "198.51.100.0/24",
        "2001:db8::/64",
    ];
    sim.until(Duration::from_secs(8), &theirs);
    ban(&gate, "203.0.113.7");
    lapi.stop();
    gate.wait_for("its part of the Cloudflare list stays as it is");
    ban(&gate, "203.0.113.8");
    let mut all = theirs.to_vec();
    all.extend(["203.0.113.7", "203.0.113.8"]);
    sim.until(SOON, &all);
    // Our own end, one of LAPI's ends too and then all are let go: the list keeps LAPI's.
    sim.until(Duration::from_secs(20), &theirs);
    gate.wait_for("its decisions are not enforced until it is back");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(sim.listed(), theirs);
    lapi.begin();
    sim.until(
        Duration::from_secs(20),
        &["198.18.0.1", "198.51.100.0/24", "2001:db8::/64"],
    );
    lapi.cscli(&["decisions", "delete", "--ip", "198.18.0.1"]);
    sim.until(SOON, &["198.51.100.0/24", "2001:db8::/64"]);
}

#[test]
fn nothing_is_touched_before_lapi_has_answered_once() {
    let (origin, sim, mut lapi) = (Origin::start(), Cloudflare::start(&[]), Lapi::start());
    lapi.cscli(&["decisions", "add", "--ip", "198.18.0.1", "--duration", "1h"]);
    lapi.stop();
    sim.fill(&[("198.18.0.1", "jailgate"), ("198.18.0.2", "jailgate")]);
    let gate = Jailgate::run(&subscribed(&origin, &sim, &lapi, "1h", "interval: 1s"));
    ban(&gate, "203.0.113.7");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(sim.asked(), [""; 0]);
    lapi.begin();
    sim.until(Duration::from_secs(20), &["198.18.0.1", "203.0.113.7"]);
}

#[test]
fn thousands_of_decisions_go_in_batches() {
    let (origin, sim, lapi) = (Origin::start(), Cloudflare::start(&[]), Lapi::start());
    let rows: String = (0..2500)
        .map(|n| format!("10.9.{}.{},ip,ban,1h\n", n / 250, n % 250))
        .collect();
    let file = lapi.path().join("decisions.csv");
    std::fs::write(&file, format!("value,scope,type,duration\n{rows}")).unwrap();
    lapi.cscli(&["decisions", "import", "-i", file.to_str().unwrap()]);
    let gate = Jailgate::run(&subscribed(&origin, &sim, &lapi, "1h", "source: lapi"));
    ban(&gate, "203.0.113.7");
    measures(
        &gate,
        Duration::from_secs(30),
        "jailgate_cloudflare_list_items",
        2500.0,
    );
    let listed = sim.listed();
    assert_eq!(listed.len(), 2500);
    assert!(
        !listed.contains(&"203.0.113.7".to_owned()),
        "only LAPI's are asked for"
    );
    assert_eq!(sim.count("POST"), 3, "{:#?}", sim.asked());
}

#[test]
fn a_restart_adopts_what_is_listed_and_removes_what_ended_meanwhile() {
    let (origin, sim) = (Origin::start(), Cloudflare::start(&[]));
    let kept = |bantime: &str| {
        let state = "state: { path: \"jailgate.db\" }\n";
        config(&origin, &sim, bantime, "interval: 1h") + state
    };
    let gate = Jailgate::run(&kept("6s"));
    ban(&gate, "203.0.113.6");
    sim.until(SOON, &["203.0.113.6"]);
    let (dir, _) = gate.stop("TERM");
    let gate = Jailgate::run_in(dir, &kept("1h"));
    ban(&gate, "203.0.113.7");
    sim.until(SOON, &["203.0.113.6", "203.0.113.7"]);
    let (dir, _) = gate.stop("KILL");
    std::thread::sleep(Duration::from_secs(5));
    let changes = || sim.count("POST") + sim.count("PUT");
    let before = changes();
    let gate = Jailgate::run_in(dir, &kept("1h"));
    sim.until(SOON, &["203.0.113.7"]);
    measures(&gate, SOON, "jailgate_cloudflare_list_items", 1.0);
    assert_eq!(
        changes(),
        before,
        "nothing is written again: {:#?}",
        sim.asked()
    );
}

#[test]
fn the_gauges_of_the_cron_job_are_pushed() {
    let sim = Cloudflare::start(&[]);
    let (origin, gateway) = (Origin::start(), Origin::start());
    let push = format!("pushgateway: {{ url: \"http://{}\" }}\n", gateway.address);
    let gate = Jailgate::run(&(config(&origin, &sim, "1h", "interval: 1s") + &push));
    ban(&gate, "203.0.113.7");
    sim.until(SOON, &["203.0.113.7"]);
    let pushed = |words: &str| {
        let began = Instant::now();
        while !gateway.seen().iter().any(|seen| {
            seen.line == "PUT /metrics/job/crowdsec-cf-list-sync HTTP/1.1"
                && String::from_utf8_lossy(&seen.body).contains(words)
        }) {
            assert!(
                began.elapsed() < SOON,
                "no {words} among {:?}",
                gateway.seen()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    pushed("crowdsec_cf_list_ban_count 1\n");
    pushed("crowdsec_cf_list_sync_success 1\n");
    sim.fault(json!({ "method": "GET", "status": 500 }));
    pushed("crowdsec_cf_list_sync_success 0\n");
}
