//! Boundary times, late lines, sliding windows and growing bans.

use std::time::Duration;

use super::{super::jail::Increment, *};

fn sliding(maxretry: u32) -> JailSpec {
    JailSpec {
        window: WindowKind::Sliding,
        maxretry,
        ..jail("web")
    }
}

fn fixed(maxretry: u32) -> JailSpec {
    JailSpec {
        maxretry,
        ..jail("web")
    }
}

#[test]
fn boundaries_are_strict_to_the_millisecond() {
    check(
        "a millisecond before findtime",
        fixed(2),
        "404 +119s +999ms 404",
        "404 deny",
    );
    check("at findtime", fixed(2), "404 +120s 404", "404 404");
    check(
        "a millisecond before the end",
        fixed(1),
        "404 +299s +999ms 200",
        "deny deny",
    );
    check("at the end", fixed(1), "404 +300s 200", "deny 200");
    check(
        "sliding, before findtime",
        sliding(2),
        "404 +119s +999ms 404",
        "404 deny",
    );
    check(
        "sliding, at findtime",
        sliding(2),
        "404 +120s 404",
        "404 404",
    );
}

#[test]
fn a_ban_ends_on_time_without_any_sweep() {
    let mut world = World::new(fixed(1));
    world.play("404");
    for (wait, expected) in [(299_999, "deny"), (300_000, "200"), (300_001, "200")] {
        world.now = START + wait;
        assert_eq!(world.play("200"), expected, "after {wait} ms");
    }
    // one that is over but not swept yet does not count as standing when the next begins
    world.play("404");
    let changes = world.changes(0);
    let story: Vec<_> = changes
        .iter()
        .map(|change| (change.lift, change.updated))
        .collect();
    assert_eq!(
        story,
        [(Some(super::super::Lift::Expired), false), (None, false)]
    );
}

#[test]
fn a_success_does_not_start_the_window() {
    check(
        "first counted event",
        fixed(2),
        "200 +100s 404 +100s 404",
        "200 404 deny",
    );
}

#[test]
fn failures_across_the_end_of_a_fixed_window_are_split_and_a_sliding_one_sees_them() {
    let script = "404 +118s 404 404 +3s 404 404";
    check("fixed", fixed(4), script, "404 404 404 404 404");
    check("sliding", sliding(4), script, "404 404 404 404 deny");
}

#[test]
fn sliding_counts_exactly_the_last_findtime() {
    check(
        "spread out",
        sliding(3),
        "404 +60s 404 +60s 404 +60s 404 +59s 404",
        "404 404 404 404 deny",
    );
}

/// Plays log lines `(seconds after START, status)` in this order; answers how each ended: the
/// count, `ban`, `banned` or `-`.
#[track_caller]
fn lines(jail: JailSpec, lines: &[i64]) -> Vec<String> {
    let world = World::new(jail);
    let line = |at: &i64| {
        let at = START.saturating_add_signed(at * 1000);
        match world
            .engine
            .observe(world.jail, &request(CLIENT, "GET", "/"), 404, at)
        {
            Outcome::Ignored => "-".into(),
            Outcome::Counted(count) => count.to_string(),
            Outcome::Banned { begun: true, .. } => "ban".into(),
            Outcome::Banned { begun: false, .. } => "banned".into(),
            Outcome::Simulated { .. } => unreachable!(),
        }
    };
    let seen = lines.iter().map(line).collect();
    world.engine.check_invariants(world.now);
    seen
}

#[test]
fn late_lines_neither_restart_a_window_nor_ban_for_what_does_not_belong_together() {
    for jail in [fixed(3), sliding(3)] {
        assert_eq!(
            lines(jail.clone(), &[0, -10, -5]),
            ["1", "2", "ban"],
            "out of order, near"
        );
        assert_eq!(
            lines(jail.clone(), &[0, -500, 10]),
            ["1", "-", "2"],
            "a stray old line"
        );
        assert_eq!(
            lines(jail.clone(), &[0, 100, -30, -40]),
            ["1", "2", "-", "-"],
            "would not fit"
        );
        assert_eq!(
            lines(jail, &[0, 1, 2, 3, -50]),
            ["1", "2", "ban", "banned", "banned"]
        );
    }
}

#[test]
fn a_ban_begins_with_the_newest_event_of_its_window() {
    let world = World::new(fixed(2));
    for at in [START, START - 5000] {
        world
            .engine
            .observe(world.jail, &request(CLIENT, "GET", "/"), 404, at);
    }
    let ban = &world.engine.ledger().bans()[0];
    assert_eq!((ban.since, ban.until), (START, START + 300_000));
}

#[test]
fn a_backlog_ages() {
    let mut world = World::new(fixed(2));
    world.now += 3_600_000;
    world.engine.sweep(world.now);
    let request = request(CLIENT, "GET", "/");
    let at = |seconds: Millis| START + seconds * 1000;
    let seen = [0, 1].map(|second| world.engine.observe(world.jail, &request, 404, at(second)));
    assert_eq!(
        seen,
        [Outcome::Counted(1), Outcome::Counted(2)],
        "that ban would be over by now"
    );
    assert_eq!(world.engine.stats().bans, 0);
    // a ban that still runs is begun, even if a sweep came between its lines
    let outcome = world.engine.observe(world.jail, &request, 404, at(3400));
    assert_eq!(outcome, Outcome::Counted(1));
    world.engine.sweep(world.now);
    let outcome = world.engine.observe(world.jail, &request, 404, at(3401));
    assert!(
        matches!(outcome, Outcome::Banned { begun: true, .. }),
        "{outcome:?}"
    );
    let ban = &world.engine.ledger().bans()[0];
    assert_eq!((ban.since, ban.until), (at(3401), at(3701)));
}

#[test]
fn a_ban_tells_what_led_to_it() {
    let mut world = World::new(fixed(3));
    world.play("401:/a?secret +1s 200 403:/b 404:/c%20d?token=1");
    let ban = Ban::clone(&world.engine.ledger().bans()[0]);
    let expected = Ban {
        client: net(CLIENT),
        jail: Some("web".into()),
        origin: Origin::Jail,
        cause: Cause::Failures,
        count: 3,
        first_status: 401,
        last_status: 404,
        path: "/c%20d".into(),
        since: START + 1000,
        until: START + 301_000,
    };
    assert_eq!(ban, expected);
}

#[test]
fn a_sliding_window_names_the_status_it_begins_with() {
    let mut world = World::new(sliding(3));
    world.play("401 +100s 403 +100s 404 +1s 405");
    assert_eq!(world.engine.ledger().bans()[0].first_status, 403);
}

#[test]
fn a_path_is_cut_at_256_bytes_and_a_character() {
    let mut world = World::new(fixed(1));
    let long = format!("404:/{}", "ä".repeat(300));
    world.play(&long);
    let path = &world.engine.ledger().bans()[0].path;
    assert!(path.len() <= 256 && path.starts_with("/ä"), "{path}");
}

#[test]
fn bans_grow_and_are_forgotten() {
    let spec = JailSpec {
        maxretry: 1,
        bantime: Duration::from_secs(100),
        increment: Some(Increment {
            factor: 1.0,
            maxtime: Duration::from_secs(500),
            rndtime: Duration::ZERO,
            remember: Duration::from_secs(1000),
        }),
        ..jail("web")
    };
    let mut world = World::new(spec);
    let mut length = |wait: Millis| {
        world.now += wait;
        world.engine.sweep(world.now);
        assert_eq!(world.play("404"), "deny");
        let ban = &world.engine.ledger().bans()[0];
        (ban.until - ban.since) / 1000
    };
    assert_eq!(length(0), 100, "the first lasts bantime");
    assert_eq!(length(100_000), 200, "doubled");
    assert_eq!(length(200_000), 400, "doubled again");
    assert_eq!(length(400_000), 500, "at most maxtime");
    assert_eq!(
        length(500_000 + 999_999),
        500,
        "remembered for 1000 s after its end"
    );
    assert_eq!(length(500_000 + 1_000_000), 100, "and no longer");
}

#[test]
fn the_random_part_is_below_rndtime_and_repeats_with_the_seed() {
    let spec = JailSpec {
        maxretry: 1,
        bantime: Duration::from_secs(100),
        increment: Some(Increment {
            factor: 2.0,
            maxtime: Duration::from_secs(1000),
            rndtime: Duration::from_secs(60),
            remember: Duration::from_secs(1000),
        }),
        ..jail("web")
    };
    let second_bans = || {
        let mut world = World::new(spec.clone());
        let attack: Vec<_> = (1..50).map(|last| format!("404@192.0.2.{last}")).collect();
        world.play(&format!("{0} +100s {0}", attack.join(" ")));
        let bans = world.engine.ledger().bans();
        bans.iter()
            .map(|ban| ban.until - ban.since)
            .collect::<Vec<_>>()
    };
    let lengths = second_bans();
    assert!(
        lengths
            .iter()
            .all(|length| (400_000..460_000).contains(length)),
        "{lengths:?}"
    );
    let distinct: std::collections::HashSet<_> = lengths.iter().collect();
    assert!(distinct.len() > 40, "clients differ: {lengths:?}");
    assert_eq!(lengths, second_bans());
}
