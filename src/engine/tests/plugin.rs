//! Every row of the Traefik plugin's tests and conformance vectors (v0.9.0) that concerns deciding
//! and counting, named after the row. Where jailgate differs, the row says so; README lists why.

use std::time::Duration;

use super::{
    super::{
        Denial, Exempt, Outcome, Reason, Verdict,
        urls::Mode::{Allow, Block},
    },
    *,
};

fn maxretry(maxretry: u32) -> JailSpec {
    JailSpec {
        maxretry,
        statuses: vec![404..=404],
        ..jail("web")
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn many(token: &str, times: usize) -> String {
    vec![token; times].join(" ")
}

#[test]
fn upstream_end_to_end() {
    let counting = |maxretry| JailSpec {
        maxretry,
        statuses: Vec::new(),
        ..jail("web")
    };
    check(
        "rule enabled",
        counting(20),
        &many("200", 10),
        &many("200", 10),
    );
    let disabled = JailSpec {
        enabled: false,
        denylist: Arc::new(nets(&[CLIENT])),
        ..counting(1)
    };
    check(
        "rule disabled, client in denylist",
        disabled,
        &many("200", 10),
        &many("200", 10),
    );
    let allowed = JailSpec {
        urls: rules(&[("/test", Allow)]),
        ..counting(4)
    };
    check(
        "url allowlisted",
        allowed,
        &many("200:/test", 10),
        &many("200", 10),
    );
    let blocked = JailSpec {
        urls: rules(&[("/test", Block)]),
        ..counting(20)
    };
    check(
        "url denylisted",
        blocked,
        &many("200:/test", 10),
        &many("deny", 10),
    );
    let allowlist = JailSpec {
        allowlist: Arc::new(nets(&[CLIENT])),
        ..counting(1)
    };
    check("allowlist", allowlist, &many("200", 10), &many("200", 10));
    let denylist = JailSpec {
        denylist: Arc::new(nets(&[CLIENT])),
        ..counting(20)
    };
    check("denylist", denylist, &many("200", 10), &many("deny", 10));
    let cidr = JailSpec {
        allowlist: Arc::new(nets(&["192.168.0.0/16"])),
        ..jail("web")
    };
    let script = many("400@192.168.10.50", 4);
    check(
        "allowlist CIDR does not ban",
        cidr,
        &script,
        &many("400", 4),
    );
    check(
        "200 does not count",
        maxretry(3),
        &many("200", 6),
        &many("200", 6),
    );
    let script = "404 200 200 200 200 200 200";
    check("single 404", maxretry(3), script, script);
    let script = "404 200 404 404 200 200 200 200";
    let expected = "404 200 404 deny deny deny deny deny";
    check("multiple 404", maxretry(3), script, expected);
}

#[test]
fn upstream_counter() {
    let engine = |spec: JailSpec| World::new(spec);
    let pass = |world: &World| {
        world
            .engine
            .check(world.jail, &request(CLIENT, "GET", "/"), world.now)
            == Verdict::Pass
    };
    let mut world = engine(maxretry(1));
    assert!(pass(&world), "first request");
    assert!(pass(&world), "second request");
    world.play("404");
    assert!(!pass(&world), "denylisted: {{now, 1, denied}}");
    world.now += 600_000;
    assert!(pass(&world), "should unblock");
    // the plugin's states lie in the future here: a late event meets a newer window
    for (row, maxretry, expected) in [("should block", 1, "deny"), ("should check", 3, "404")] {
        let mut world = engine(self::maxretry(maxretry));
        if maxretry > 1 {
            world.now += 600_000;
            world.play("404");
            world.now -= 600_000;
        }
        assert_eq!(world.play("404"), expected, "{row}");
    }
}

#[test]
fn upstream_status_handler() {
    for (statuses, status, counts) in [
        (vec![], 200, false),
        (vec![200..=200], 200, true),
        (vec![200..=200], 201, false),
        (vec![200..=200], 199, false),
    ] {
        let world = World::new(JailSpec {
            statuses: statuses.clone(),
            ..jail("web")
        });
        let outcome =
            world
                .engine
                .observe(world.jail, &request(CLIENT, "GET", "/"), status, world.now);
        let expected = if counts {
            Outcome::Counted(1)
        } else {
            Outcome::Ignored
        };
        assert_eq!(outcome, expected, "status contains: {statuses:?} {status}");
    }
    // a response in flight when the ban began is replaced, whatever the count
    let mut world = World::new(maxretry(1));
    world.play("404");
    let late = request(CLIENT, "GET", "/");
    let outcome = world.engine.observe(world.jail, &late, 404, world.now);
    assert!(
        matches!(outcome, Outcome::Banned { begun: false, .. }),
        "already denied: {outcome:?}"
    );
    let outcome = world.engine.observe(world.jail, &late, 200, world.now);
    assert_eq!(outcome, Outcome::Ignored, "out of range status");
    let world = World::new(maxretry(42));
    let outcome = world.engine.observe(world.jail, &late, 404, world.now);
    assert_eq!(outcome, Outcome::Counted(1), "in limits");
    world.engine.observe(world.jail, &late, 200, world.now);
    assert_eq!(
        world.engine.stats().tracked_clients,
        1,
        "out of range status leaves no entry"
    );
}

#[test]
fn upstream_lists_and_urls() {
    let verdict = |spec: JailSpec, target: &str| {
        let world = World::new(spec);
        let verdict = world
            .engine
            .check(world.jail, &request(CLIENT, "GET", target), world.now);
        (verdict, world.engine.stats())
    };
    let deny = |reason, until| {
        let jail = JailId(0);
        Verdict::Deny(Denial {
            reason,
            jail,
            until,
        })
    };
    let list = |nets: &[&str]| Arc::new(super::nets(nets));
    let spec = JailSpec {
        allowlist: list(&[CLIENT]),
        ..jail("web")
    };
    assert_eq!(
        verdict(spec, "/").0,
        Verdict::Exempt(Exempt::Allowlist),
        "list step allow"
    );
    let spec = JailSpec {
        denylist: list(&[CLIENT]),
        ..jail("web")
    };
    assert_eq!(
        verdict(spec, "/").0,
        deny(Reason::Denylist, None),
        "list step deny"
    );
    assert_eq!(verdict(jail("web"), "/").0, Verdict::Pass, "empty list");
    let spec = JailSpec {
        urls: rules(&[("^/foo$", Allow)]),
        ..jail("web")
    };
    assert_eq!(
        verdict(spec.clone(), "/foo").0,
        Verdict::Exempt(Exempt::AllowRule),
        "url allow"
    );
    assert_eq!(verdict(spec, "/bar").0, Verdict::Pass, "url allow, none");
    let spec = JailSpec {
        urls: rules(&[("^/foo$", Block)]),
        ..jail("web")
    };
    let (answer, stats) = verdict(spec.clone(), "/foo");
    assert_eq!(
        answer,
        deny(Reason::Rule, Some(START + 300_000)),
        "url deny"
    );
    assert_eq!(stats.bans, 1, "url deny bans");
    let (answer, stats) = verdict(spec, "/bar");
    assert_eq!((answer, stats.bans), (Verdict::Pass, 0), "url deny, none");
}

#[test]
fn v1_to_v3_counting() {
    // V1 differs: without statuscode every request counts, as the plugin's page says (v0.8.3)
    let every = JailSpec {
        statuses: Vec::new(),
        ..jail("web")
    };
    check("V1", every, "404 404 404 404 404", "404 404 404 deny deny");
    check("V2 maxretry 0", maxretry(0), "404 404", "deny deny");
    check("V2 maxretry 1", maxretry(1), "404 404", "deny deny");
    for n in 2..6 {
        let expected = format!("{} deny", many("404", n - 1));
        check("V3", maxretry(n as u32), &many("404", n), &expected);
    }
}

#[test]
fn v4_to_v7_windows_and_bans() {
    let script = "200 404 404 404 +121s 404 404 404 404";
    check(
        "V4",
        maxretry(4),
        script,
        "200 404 404 404 404 404 404 deny",
    );
    // V5, V6 differ: after a ban a fresh window starts with the next counted event, so maxretry
    // means the same number of failures every time; the plugin counts the first request as one
    let script = "404 404 404 404 200 +300s 404 404 404 404";
    check(
        "V5",
        maxretry(4),
        script,
        "404 404 404 deny deny 404 404 404 deny",
    );
    check(
        "V6",
        maxretry(2),
        "404 404 +300s 404 404",
        "404 deny 404 deny",
    );
    let script = "404 404 +60s 404 +60s 404 +60s 404 +60s 404 +60s 404";
    check(
        "V7",
        maxretry(2),
        script,
        "404 deny deny deny deny deny 404",
    );
}

#[test]
fn v8_to_v12_rules() {
    let spec = |urls: &[(&str, super::super::urls::Mode)], maxretry| JailSpec {
        urls: rules(urls),
        ..self::maxretry(maxretry)
    };
    let both = [("^/no", Block), ("^/yes", Allow)];
    // V8 differs in one place: a listed status on an allow URL is not counted and not replaced
    check(
        "V8",
        spec(&both, 4),
        "200:/no 200 200:/yes 404:/yes",
        "deny deny 200 404",
    );
    let script = "200:/no +200s 200:/no +200s 200 +100s 200";
    check("V8 extends", spec(&both, 4), script, "deny deny deny 200");
    check(
        "V9",
        spec(&[("^/a", Block), ("^/a", Allow)], 4),
        "200:/a",
        "deny",
    );
    let lists = JailSpec {
        allowlist: Arc::new(nets(&[CLIENT])),
        denylist: Arc::new(nets(&[CLIENT])),
        ..jail("web")
    };
    check("V10", lists, "200", "deny");
    let allowlisted = JailSpec {
        allowlist: Arc::new(nets(&[CLIENT])),
        ..spec(&[("^/no", Block)], 4)
    };
    check("V11", allowlisted, "200:/no 200", "200 200");
    // V12 differs: an allow URL is never counted
    check(
        "V12",
        spec(&[("^/", Allow)], 1),
        "404 404 404",
        "404 404 404",
    );
}

#[test]
fn v18_v19_zero_durations() {
    let no_bantime = JailSpec {
        bantime: secs(0),
        ..maxretry(3)
    };
    // V18 differs as V5 does: three failures again, not two
    let script = "404 404 404 404 404 404";
    check(
        "V18",
        no_bantime.clone(),
        script,
        "404 404 deny 404 404 deny",
    );
    let mut world = World::new(no_bantime);
    world.play(script);
    assert_eq!(
        world.changes(0).len(),
        0,
        "V18: a ban that never holds is told to nobody"
    );
    for window in [WindowKind::Fixed, WindowKind::Sliding] {
        let no_findtime = JailSpec {
            findtime: secs(0),
            window,
            ..maxretry(3)
        };
        check("V19", no_findtime, &many("404", 9), &many("404", 9));
    }
}

#[test]
fn v20_spellings_are_one_client() {
    // V20 differs: one identity, however it is spelled, and one per /64
    let script = "404@2001:db8::9 404@2001:DB8:0::9 404@2001:db8:0:0:1::1";
    check("V20", maxretry(3), script, "404 404 deny");
    check(
        "V20 mapped",
        maxretry(2),
        "404@8.8.8.8 404@::ffff:8.8.8.8",
        "404 deny",
    );
}

#[test]
fn card_stuffing() {
    // one address, all answers 200, one URL by POST: only `match` and no statuscode catch it
    let world = World::new(JailSpec {
        statuses: Vec::new(),
        match_methods: vec![http::Method::POST],
        match_path: Some(regex::bytes::Regex::new("^/pay/confirm$").unwrap()),
        maxretry: 5,
        ..jail("shop")
    });
    let honest = ["GET /pay/confirm", "POST /cart", "GET /"];
    for honest in honest.iter().cycle().take(30) {
        let (method, target) = honest.split_once(' ').unwrap();
        assert_eq!(
            world.send(CLIENT, method, target, 200),
            "200",
            "{honest} is not counted"
        );
    }
    let cards: Vec<String> = (0..6)
        .map(|card| world.send(CLIENT, "POST", &format!("/pay/%63onfirm?card={card}"), 200))
        .collect();
    assert_eq!(cards, ["200", "200", "200", "200", "deny", "deny"]);
    assert_eq!(
        world.send(CLIENT, "GET", "/", 200),
        "deny",
        "the ban holds for every URL"
    );
}
