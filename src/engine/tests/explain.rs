//! What `explain` says is what `check` does, and saying it changes nothing.

use super::{
    super::{Denial, Finding, Reason, allow::Allowed, ban::FOREVER},
    *,
};

fn findings(world: &World, client: &str, target: &str) -> Vec<Finding> {
    let request = request(client, "GET", target);
    world
        .engine
        .explain(world.jail, &request, world.now)
        .findings
}

fn full() -> JailSpec {
    JailSpec {
        allowlist: Arc::new(nets(&["198.51.100.0/24"])),
        denylist: Arc::new(nets(&["203.0.113.0/24"])),
        urls: rules(&[("^/no", Mode::Block), ("^/yes$", Mode::Allow)]),
        ..jail("web")
    }
}

fn rounded(verdict: Verdict) -> Verdict {
    let round = |denial: Denial| match denial.reason {
        Reason::Rule => Denial {
            until: denial.until.map(|until| (until + 500) / 1000),
            ..denial
        },
        _ => denial,
    };
    match verdict {
        Verdict::Deny(denial) => Verdict::Deny(round(denial)),
        Verdict::Simulated(denial) => Verdict::Simulated(round(denial)),
        other => other,
    }
}

#[test]
fn it_says_what_check_does_in_every_state() {
    for statuses in [vec![400..=499], vec![]] {
        for (simulate, enabled) in [(false, true), (true, true), (false, false)] {
            let jail = JailSpec {
                statuses: statuses.clone(),
                simulate,
                enabled,
                ..full()
            };
            let mut world = World::new(jail);
            world.play("404@192.0.2.2 404@192.0.2.3 404@192.0.2.3 404@192.0.2.3 404@192.0.2.3");
            world
                .engine
                .ban(ban("192.0.2.4", Origin::Manual, START + 5000), START);
            world.engine.apply(
                &capi(),
                super::super::Delta {
                    add: vec![ban("2001:db8::/48", capi(), FOREVER)],
                    ..Default::default()
                },
                START,
            );
            for wait in ["+1ms", "+6s", "+200s", "+200s"] {
                world.wait(wait);
                for client in [
                    "192.0.2.1",
                    "192.0.2.2",
                    "192.0.2.3",
                    "192.0.2.4",
                    "127.0.0.1",
                    "198.51.100.9",
                    "203.0.113.9",
                    "2001:db8::1",
                ] {
                    for target in ["/", "/no", "/yes"] {
                        let request = request(client, "GET", target);
                        let before = world.engine.counters().len();
                        let told = world
                            .engine
                            .explain(world.jail, &request, world.now)
                            .verdict;
                        assert_eq!(world.engine.counters().len(), before, "nothing is counted");
                        let done = world.engine.check(world.jail, &request, world.now);
                        // A rule's hits extend its ban in steps of a second.
                        let (told, done) = (rounded(told), rounded(done));
                        assert_eq!(told, done, "{client} {target} {wait} {statuses:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_last_finding_is_the_one_that_decides() {
    let mut world = World::new(full());
    world.play("404 +10s 401");
    let passes = findings(&world, CLIENT, "/");
    let Some(Finding::Count(count)) = passes.last() else {
        panic!("{passes:?}");
    };
    assert_eq!((count.counted, count.maxretry, count.each), (2, 4, false));
    assert_eq!(count.window_ends, Some(START + 120_000));
    assert_eq!(passes.len(), 9);
    let rule = findings(&world, CLIENT, "/no/where");
    assert_eq!(
        rule.last(),
        Some(&Finding::Rules(Some((Mode::Block, "^/no".into()))))
    );
    let listed = findings(&world, "203.0.113.7", "/");
    assert_eq!(
        listed.last(),
        Some(&Finding::Denylist(Some(net("203.0.113.0/24"))))
    );
    assert_eq!(
        findings(&world, "127.0.0.1", "/").last(),
        Some(&Finding::Itself(Some(net("127.0.0.1"))))
    );
    world.play("404 404");
    let denial = Denial {
        reason: Reason::Banned,
        jail: world.jail,
        until: Some(START + 310_063),
    };
    let Some(Finding::Bans(Some(found))) = findings(&world, CLIENT, "/").pop() else {
        panic!("not the ban");
    };
    assert_eq!((found.reason, found.jail), (denial.reason, denial.jail));
    world.engine.allow(Allowed {
        subject: "me.example.org".into(),
        nets: vec![net(CLIENT)],
        note: "".into(),
        since: START,
        until: FOREVER,
    });
    let by_hand = findings(&world, CLIENT, "/");
    assert_eq!(
        by_hand.last(),
        Some(&Finding::Allowed(vec!["me.example.org".into()]))
    );
}
