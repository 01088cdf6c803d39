//! LAPI's decisions here: which are enforced, until when, and which never are.

use std::time::{Duration, Instant};

use rusqlite::OpenFlags;

use super::{SOON, admin, block, config, fail, kept, refused, soon};
use crate::support::{Jailgate, KEY, Lapi, Origin, get};

/// Bytes of memory that 100,000 decisions may take. A debug build is slower, so that more waits at
/// once: it took 14.8 million beside compilers.
const MOST: u64 = match cfg!(debug_assertions) {
    true => 17_000_000,
    false => 15_000_000,
};

/// An alert with these decisions, each `scope value origin`.
pub(super) fn alert<'a>(decisions: impl IntoIterator<Item = (&'a str, String, &'a str)>) -> String {
    let decisions = decisions.into_iter().map(|(scope, value, origin)| {
        format!(
            "{{\"origin\":\"{origin}\",\"type\":\"ban\",\"scope\":\"{scope}\",\"value\":\"{value}\",\
             \"duration\":\"4h\",\"scenario\":\"jailgate/web\"}}"
        )
    });
    let decisions: Vec<_> = decisions.collect();
    format!(
        "[{{\"scenario\":\"test/list\",\"scenario_hash\":\"\",\"scenario_version\":\"\",\"message\":\"\",\
         \"events_count\":0,\"start_at\":\"\",\"stop_at\":\"\",\"capacity\":0,\"leakspeed\":\"0\",\
         \"simulated\":false,\"events\":[],\"source\":{{\"scope\":\"\",\"value\":\"\"}},\
         \"decisions\":[{}]}}]",
        decisions.join(",")
    )
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

#[test]
fn the_longest_of_several_decisions_holds() {
    let (lapi, origin) = (Lapi::start(), Origin::start());
    let add = |duration: &str| {
        lapi.cscli(&[
            "decisions",
            "add",
            "--ip",
            "203.0.113.1",
            "--duration",
            duration,
        ]);
    };
    add("1h");
    add("2h");
    let jailgate = Jailgate::run(&config(&origin, &block(&lapi.url())));
    soon("the first pull", || refused(&jailgate, "203.0.113.1"));
    lapi.cscli(&["decisions", "delete", "--id", "2"]);
    std::thread::sleep(Duration::from_secs(3));
    assert!(
        refused(&jailgate, "203.0.113.1"),
        "the other one still holds"
    );
    lapi.cscli(&["decisions", "delete", "--id", "1"]);
    soon("both are gone", || !refused(&jailgate, "203.0.113.1"));
}

#[test]
fn nobody_is_locked_out_by_a_decision() {
    let (lapi, origin) = (Lapi::start(), Origin::start());
    let wide =
        ["127.0.0.0/8", "0.0.0.0/1", "2000::/3"].map(|value| ("Range", value.to_owned(), "CAPI"));
    lapi.post_alerts(&alert(wide));
    lapi.cscli(&["decisions", "add", "--ip", "203.0.113.1"]);
    lapi.cscli(&["decisions", "add", "--scope", "Country", "--value", "FR"]);
    let block = block(&lapi.url()).replace(
        "interval: 1s }",
        "interval: 1s, scopes: [ip, range, country] }",
    );
    let jailgate = Jailgate::run(&config(&origin, &block));
    soon("the first pull", || refused(&jailgate, "203.0.113.1"));
    for net in ["127.0.0.0/8", "0.0.0.0/1", "2000::/3"] {
        jailgate.wait_for(&format!("net={net}"));
    }
    jailgate.wait_for("no lookup of countries");
    assert_eq!(
        get(jailgate.address("web"), "/", "").status,
        200,
        "loopback itself"
    );
    assert!(!refused(&jailgate, "10.9.8.7") && !refused(&jailgate, "2001:db8::1"));
}

#[test]
fn filters_and_fallback_choose() {
    let (lapi, origin) = (Lapi::start(), Origin::start());
    let add = |ip: &str, kind: &str, reason: &str| {
        let what = ["--ip", ip, "--type", kind, "--reason", reason];
        lapi.cscli(&[&["decisions", "add", "--duration", "1h"], &what[..]].concat());
    };
    add("203.0.113.1", "ban", "ssh-bf");
    add("203.0.113.2", "ban", "http-probing");
    add("203.0.113.3", "captcha", "http-probing");
    add("203.0.113.4", "throttle", "http-probing");
    let other = ("Ip", "203.0.113.5".to_owned(), "elsewhere");
    lapi.post_alerts(&alert([other]));
    let keys = "origins: [cscli], scenariosNotContaining: [SSH], fallback: captcha";
    let block = block(&lapi.url()).replace("interval: 1s }", &format!("interval: 1s, {keys} }}"));
    let jailgate = Jailgate::run(&config(&origin, &block));
    soon("the first pull", || refused(&jailgate, "203.0.113.2"));
    let all = [1, 2, 3, 4, 5].map(|last| refused(&jailgate, &format!("203.0.113.{last}")));
    assert_eq!(all, [false, true, true, false, false]);
}

#[test]
fn a_decision_with_our_origin_that_is_not_ours_is_enforced() {
    let (lapi, origin) = (Lapi::start(), Origin::start());
    lapi.post_alerts(&alert([("Ip", "203.0.113.9".to_owned(), "jailgate")]));
    let jailgate = Jailgate::run(&config(&origin, &block(&lapi.url())));
    soon("the first pull", || refused(&jailgate, "203.0.113.9"));
}

#[test]
fn a_wrong_key_is_said_and_never_shown() {
    let (lapi, origin) = (Lapi::start(), Origin::start());
    let wrong = block(&lapi.url()).replace(KEY, "not-the-key");
    let jailgate = Jailgate::run(&config(&origin, &wrong));
    jailgate.wait_for("LAPI refuses the bouncer's key");
    fail(&jailgate, "203.0.113.1");
    assert!(refused(&jailgate, "203.0.113.1"));
    assert!(!jailgate.text().contains("not-the-key"));
}

#[test]
fn out_of_reach_what_is_known_holds_or_is_let_go_as_configured() {
    let (mut lapi, origin) = (Lapi::start(), Origin::start());
    lapi.cscli(&["decisions", "add", "--ip", "203.0.113.1"]);
    let block = block(&lapi.url()).replace("  publish", "  #publish");
    let holds = Jailgate::run(&config(&origin, &block));
    // two readers of one key take each other's changes, not each other's full pulls
    let opens = Jailgate::run(&config(&origin, &format!("{block}  unreachable: open\n")));
    for jailgate in [&holds, &opens] {
        soon("the first pull", || refused(jailgate, "203.0.113.1"));
    }
    lapi.stop();
    soon("it opens", || !refused(&opens, "203.0.113.1"));
    assert!(refused(&holds, "203.0.113.1"));
    lapi.begin();
    soon("it holds again", || refused(&opens, "203.0.113.1"));
}

#[test]
fn a_hundred_thousand_decisions_are_taken_in_without_much_memory() {
    take_in(str::to_owned, |_| true);
}

#[test]
fn kept_on_disk_a_hundred_thousand_decisions_take_no_more_memory() {
    take_in(kept, |jailgate| {
        let file = jailgate.path().join("state.db");
        let db = rusqlite::Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY);
        let rows = db.and_then(|db| {
            db.query_row("SELECT count(*) FROM bans", [], |row| row.get::<_, u32>(0))
        });
        rows.expect("the state") == 100_000
    });
}

/// 100,000 decisions in one answer, with this configuration, until all are in force and `kept`.
#[track_caller]
fn take_in(with: impl Fn(&str) -> String, kept: impl Fn(&Jailgate) -> bool) {
    let (mut lapi, origin) = (Lapi::start(), Origin::start());
    for part in 0..4_u32 {
        let from = 0x0b00_0000 + part * 25_000;
        let addresses = (from..from + 25_000).map(std::net::Ipv4Addr::from);
        lapi.post_alerts(&alert(addresses.map(|ip| ("Ip", ip.to_string(), "lists"))));
    }
    lapi.stop();
    let block = block(&lapi.url()).replace("  publish", "  #publish");
    let jailgate = Jailgate::run(&with(&config(&origin, &block)));
    jailgate.wait_for("decisions are not taken");
    let before = jailgate.anon_kib();
    lapi.begin();
    let began = Instant::now();
    let last = std::net::Ipv4Addr::from(0x0b00_0000 + 99_999).to_string();
    while !refused(&jailgate, &last) {
        assert!(began.elapsed() < Duration::from_secs(60), "not taken in");
        std::thread::sleep(SOON / 50);
    }
    let active = "jailgate_bans_active{jail=\"*\",origin=\"crowdsec/lists\"} 100000";
    while !admin(&jailgate, "GET", "/metrics").contains(active) || !kept(&jailgate) {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "not each of them"
        );
        std::thread::sleep(SOON / 50);
    }
    let took = began.elapsed();
    let grown = jailgate.anon_kib().saturating_sub(before) * 1024;
    let line = jailgate.wait_for("LAPI's decisions are in force");
    let (_, millis) = line.split_once("millis=").expect("it says how long");
    let millis: u64 = millis.trim().parse().expect("a number");
    eprintln!("{took:.1?}, of it {millis} ms from LAPI's answer on; {grown} bytes");
    // a debug build is ten times slower; what a busy machine takes is nobody's fault
    let slow = if cfg!(debug_assertions) {
        60_000
    } else {
        2_000
    };
    assert!(millis < slow && grown < MOST, "{grown} bytes, {line}");
}
