//! Our bans at LAPI: each once, whatever happens between, and exactly withdrawn.

use std::{
    sync::{Arc, atomic::AtomicU32},
    time::{Duration, Instant},
};

use super::{SOON, admin, block, config, fail, kept, refused, soon, unban};
use crate::support::{
    Decision, Flood, Jailgate, KEY, Lapi, Link, MACHINE, Origin, PASSWORD, Peer, Way,
};

/// A gate that looks after what LAPI holds every two seconds.
fn watchful(origin: &Origin, url: &str) -> String {
    config(
        origin,
        &block(url).replace("publish: {", "publish: { checkInterval: 2s,"),
    )
}

fn ours(held: &[Decision]) -> Vec<&str> {
    let ours = held.iter().filter(|decision| decision.origin == "jailgate");
    ours.map(|decision| &*decision.value).collect()
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
    let metrics = admin(&jailgate, "GET", "/metrics");
    assert!(!metrics.contains("crowdsec/jailgate"), "{metrics}");
    assert!(!jailgate.text().contains(PASSWORD) && !jailgate.text().contains(KEY));
}

#[test]
fn a_lifted_ban_is_withdrawn_and_nothing_else() {
    let (lapi, origin) = (Lapi::start(), Origin::start());
    let add = |what: &str, value: &str| {
        lapi.cscli(&["decisions", "add", what, value, "--duration", "1h"]);
    };
    add("--ip", "203.0.113.7");
    add("--range", "203.0.113.0/24");
    let jailgate = Jailgate::run(&config(
        &origin,
        &block(&lapi.url()).replace("subscribe", "#"),
    ));
    fail(&jailgate, "203.0.113.7");
    fail(&jailgate, "203.0.113.8");
    lapi.until(SOON, |held| held.len() == 4);
    unban(&jailgate, "203.0.113.7");
    let held = lapi.until(SOON, |held| held.len() == 3);
    assert_eq!(ours(&held), ["203.0.113.8"]);
    let ban = "{\"clients\":[\"198.51.100.0/24\"],\"for\":\"2h\"}";
    let mut raw = crate::support::Raw::connect(jailgate.address("admin"));
    raw.send(format!(
        "POST /api/v1/bans HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{ban}",
        ban.len()
    ));
    let answer = raw.answer();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let held = lapi.until(SOON, |held| held.len() == 4);
    let by_hand = held
        .iter()
        .find(|held| held.value == "198.51.100.0/24")
        .unwrap();
    assert_eq!(
        (&*by_hand.scope, &*by_hand.scenario),
        ("Range", "jailgate/manual")
    );
}

#[test]
fn a_lapi_that_restarts_gets_what_it_missed() {
    let (mut lapi, origin) = (Lapi::start(), Origin::start());
    let jailgate = Jailgate::run(&config(&origin, &block(&lapi.url())));
    fail(&jailgate, "203.0.113.1");
    lapi.until(SOON, |held| held.len() == 1);
    // every token dies with it
    lapi.stop();
    lapi.begin();
    fail(&jailgate, "203.0.113.2");
    lapi.until(SOON, |held| held.len() == 2);
    lapi.stop();
    fail(&jailgate, "203.0.113.3");
    unban(&jailgate, "203.0.113.1");
    jailgate.wait_for("bans are not published");
    lapi.begin();
    let held = lapi.until(SOON * 2, |held| {
        ours(held) == ["203.0.113.2", "203.0.113.3"]
    });
    assert_eq!(held.len(), 2);
    assert!(!refused(&jailgate, "203.0.113.1"));
}

#[test]
fn whatever_lapi_answers_nothing_is_lost_or_doubled() {
    let (lapi, origin) = (Lapi::start(), Origin::start());
    let link = Link::to(lapi.address);
    let jailgate = Jailgate::run(&watchful(&origin, &link.url()));
    let mut failures = 0;
    let ways = [Way::Lose, Way::Unavailable, Way::Nonsense, Way::Cut];
    for (way, last) in ways.into_iter().zip(1..) {
        link.set(way);
        fail(&jailgate, &format!("203.0.113.{last}"));
        // the next failure of this round, not one before it
        soon("a failure", || errors(&jailgate) > failures);
        link.set(Way::Open);
        let held = lapi.until(SOON * 3, |held| held.len() >= last);
        assert_eq!(held.len(), last, "{way:?}");
        failures = errors(&jailgate);
    }
    // what was under way twice is gone after a look
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(lapi.decisions().len(), ways.len());
}

/// Asked for all of these at once, LAPI 1.4.6 answers after a minute and more.
#[test]
fn a_doubt_is_resolved_however_much_lapi_holds() {
    let (mut lapi, origin) = (Lapi::start(), Origin::start());
    lapi.fill(60_000);
    let link = Link::to(lapi.address);
    let block = block(&link.url()).replace("subscribe", "#");
    let jailgate = Jailgate::run(&config(&origin, &block));
    link.set(Way::Lose);
    fail(&jailgate, "203.0.113.1");
    soon("a failure", || errors(&jailgate) > 0);
    link.set(Way::Open);
    fail(&jailgate, "203.0.113.2");
    let began = Instant::now();
    while lapi.made_for("203.0.113.2") == 0 {
        assert!(began.elapsed() < SOON * 3, "{}", jailgate.text());
        std::thread::sleep(SOON / 50);
    }
    let made = ["203.0.113.1", "203.0.113.2"].map(|client| lapi.made_for(client));
    assert_eq!(made, [1, 1]);
}

#[test]
fn what_is_missing_or_doubled_among_many_is_found() {
    let (lapi, origin) = (Lapi::start(), Origin::start());
    let jailgate = Jailgate::run(&watchful(&origin, &lapi.url()));
    let clients = Arc::new(AtomicU32::new(0));
    let flood = Flood::start(jailgate.address("web"), "/status/404", 2, 5000, &clients);
    let began = Instant::now();
    while jailgate.count("ban begins") < 700 {
        assert!(began.elapsed() < Duration::from_secs(60), "too slow to ban");
        std::thread::sleep(Duration::from_millis(5));
    }
    flood.end();
    let held = lapi.until(SOON * 2, |held| {
        held.len() >= 700 && held.len() == jailgate.count("ban begins")
    });
    let of = |client: &str| {
        let all = lapi.decisions();
        all.iter().filter(|held| held.value == client).count()
    };
    let (missing, twice) = (&*held[40].value, &*held[600].value);
    lapi.cscli(&["alerts", "delete", "--ip", missing]);
    lapi.post_alerts(&super::subscribe::alert([(
        "Ip",
        twice.to_owned(),
        "jailgate",
    )]));
    assert_eq!((of(missing), of(twice)), (0, 2));
    lapi.until(SOON * 3, |now| {
        now.len() == held.len() && of(missing) == 1 && of(twice) == 1
    });
}

fn errors(jailgate: &Jailgate) -> u64 {
    let metrics = admin(jailgate, "GET", "/metrics");
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("jailgate_crowdsec_publish_errors_total "));
    line.expect("the metric is there")
        .parse()
        .expect("a number")
}

#[test]
fn a_thousand_bans_at_once_are_there_within_ten_seconds_each_once() {
    let (lapi, origin) = (Lapi::start(), Origin::start());
    let jailgate = Jailgate::run(&config(&origin, &block(&lapi.url())));
    let clients = Arc::new(AtomicU32::new(0));
    let began = Instant::now();
    let flood = Flood::start(jailgate.address("web"), "/status/404", 2, 5000, &clients);
    while jailgate.count("ban begins") < 1000 {
        assert!(began.elapsed() < Duration::from_secs(60), "too slow to ban");
        std::thread::sleep(Duration::from_millis(5));
    }
    flood.end();
    let held = lapi.until(Duration::from_secs(10), |held| {
        held.len() >= 1000 && held.len() == jailgate.count("ban begins")
    });
    let mut values: Vec<_> = held.iter().map(|held| &*held.value).collect();
    values.dedup();
    assert_eq!(values.len(), held.len());
}

#[test]
fn what_lapi_lets_go_of_by_itself_is_published_again() {
    let (lapi, origin) = (Lapi::start(), Origin::start());
    let jailgate = Jailgate::run(&watchful(&origin, &lapi.url()));
    for last in 1..=3 {
        fail(&jailgate, &format!("203.0.113.{last}"));
    }
    lapi.until(SOON, |held| held.len() == 3);
    lapi.cscli(&["alerts", "delete", "--all"]);
    assert_eq!(lapi.decisions().len(), 0);
    let held = lapi.until(SOON * 2, |held| held.len() == 3);
    assert!(held.iter().all(|held| (3500..=3600).contains(&held.left)));
    // one alert for all of them, and each can be withdrawn by itself
    assert_eq!(
        lapi.cscli(&["alerts", "list", "-a", "-o", "raw"])
            .lines()
            .count(),
        2
    );
    unban(&jailgate, "203.0.113.2");
    let held = lapi.until(SOON, |held| held.len() == 2);
    assert_eq!(ours(&held), ["203.0.113.1", "203.0.113.3"]);
}

#[test]
fn a_kill_loses_nothing_doubles_nothing_and_revives_nothing() {
    let (mut lapi, origin) = (Lapi::start(), Origin::start());
    let config = kept(&config(&origin, &block(&lapi.url())));
    let jailgate = Jailgate::run(&config);
    fail(&jailgate, "203.0.113.1");
    lapi.until(SOON, |held| held.len() == 1);
    lapi.stop();
    fail(&jailgate, "203.0.113.2");
    unban(&jailgate, "203.0.113.1");
    jailgate.wait_for("client=203.0.113.2");
    let (dir, _) = jailgate.stop("KILL");
    lapi.begin();
    let jailgate = Jailgate::run_in(dir, &config);
    let held = lapi.until(SOON, |held| ours(held) == ["203.0.113.2"]);
    assert_eq!(held.len(), 1);
    // nor is it taken back from LAPI, which still said so at the first pull
    std::thread::sleep(Duration::from_secs(2));
    assert!(!refused(&jailgate, "203.0.113.1"));
    assert!(refused(&jailgate, "203.0.113.2"));
}

#[test]
fn a_wrong_password_is_said_and_never_shown() {
    let (lapi, origin) = (Lapi::start(), Origin::start());
    let wrong = block(&lapi.url()).replace(PASSWORD, "not-the-password");
    let jailgate = Jailgate::run(&config(&origin, &wrong));
    fail(&jailgate, "203.0.113.1");
    jailgate.wait_for("LAPI refuses the machine");
    assert!(refused(&jailgate, "203.0.113.1"));
    assert!(!jailgate.text().contains("not-the-password"));
}

#[test]
fn clocks_a_minute_apart_make_no_difference() {
    for off in ["-60s", "+60s"] {
        let (lapi, origin) = (Lapi::start(), Origin::start());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("jailgate.yaml");
        let text = kept(&config(&origin, &block(&lapi.url())));
        std::fs::write(
            &file,
            format!("{text}admin: {{ address: \"127.0.0.1:0\" }}\n"),
        )
        .unwrap();
        // `faketime` itself would stay between us and the program, and a kill would end it alone.
        let arch = std::env::consts::ARCH;
        let library = format!("/usr/lib/{arch}-linux-gnu/faketime/libfaketime.so.1");
        let mut command = Jailgate::command();
        command.env("LD_PRELOAD", library).env("FAKETIME", off);
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.args(["run", "-c"]).arg(file);
        let jailgate = Jailgate::start(command, dir);
        jailgate.wait_for("ready");
        jailgate.wait_for("ahead of ours");
        fail(&jailgate, "203.0.113.1");
        let held = lapi.until(SOON, |held| held.len() == 1);
        assert!(
            (3590..=3603).contains(&held[0].left),
            "{off}: {}",
            held[0].left
        );
    }
}

#[test]
fn a_lapi_that_hangs_is_noticed_by_nobody_who_asks() {
    let (lapi, origin) = (Lapi::start(), Origin::start());
    let link = Link::to(lapi.address);
    link.set(Way::Hang);
    let jailgate = Jailgate::run(&config(&origin, &block(&link.url())));
    let mut slowest = Duration::ZERO;
    for last in 0..100 {
        let asked = Instant::now();
        fail(&jailgate, &format!("203.0.113.{last}"));
        slowest = slowest.max(asked.elapsed());
    }
    assert!(
        slowest < Duration::from_secs(1),
        "two requests took {slowest:?}"
    );
    assert_eq!(lapi.decisions().len(), 0);
}

/// In front of LAPI 1.4.6, what newer ones answer about allowlists.
fn newer(lapi: &Lapi, allowlists: &str) -> Peer {
    Peer::nginx(&format!(
        "server {{ listen 127.0.0.1:PORT; default_type application/json;\n{allowlists}\n\
         location / {{ proxy_pass http://{}; }} }}",
        lapi.address
    ))
}

#[test]
fn what_lapi_never_bans_is_not_published() {
    let listed = "{\"results\":[{\"target\":\"203.0.113.1\",\"allowlists\":[\"office\"]}]}";
    let many = format!("location = /v1/allowlists/check {{ return 200 '{listed}'; }}");
    // as from 1.6.6 to 1.6.8
    let each = "location = /v1/allowlists/check { return 404; }\n\
                location = /v1/allowlists/check/203.0.113.1 { return 200; }\n\
                location /v1/allowlists/check/ { return 204; }";
    for allowlists in [&*many, each] {
        let (lapi, origin) = (Lapi::start(), Origin::start());
        let front = newer(&lapi, allowlists);
        let url = format!("http://{}", front.address);
        let jailgate = Jailgate::run(&config(&origin, &block(&url)));
        fail(&jailgate, "203.0.113.1");
        jailgate.wait_for("on LAPI's allowlist");
        fail(&jailgate, "203.0.113.2");
        let held = lapi.until(SOON, |held| !held.is_empty());
        assert_eq!(ours(&held), ["203.0.113.2"]);
        assert!(refused(&jailgate, "203.0.113.1"), "here it is banned");
    }
}

#[test]
fn a_machine_enters_itself_where_lapi_lets_it() {
    let (lapi, origin) = (Lapi::start(), Origin::start());
    let token = "a-registration-token-of-the-tests-1234";
    let name = format!("machineId: newcomer, registrationToken: {token}");
    let block = block(&lapi.url()).replace(&format!("machineId: {MACHINE}"), &name);
    let jailgate = Jailgate::run(&config(&origin, &block));
    fail(&jailgate, "203.0.113.1");
    jailgate.wait_for("cscli machines validate");
    lapi.cscli(&["machines", "validate", "newcomer"]);
    let held = lapi.until(SOON * 2, |held| !held.is_empty());
    assert_eq!(ours(&held), ["203.0.113.1"]);
    assert!(!jailgate.text().contains(token));
}
