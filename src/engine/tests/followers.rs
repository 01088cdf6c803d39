//! What followers read from the ledger, and what persistence takes out and puts back.

use super::{
    super::{Delta, Exempt, Lift, Selector, jail::Increment},
    *,
};

const HOUR: Millis = 3_600_000;

fn hand(world: &World, client: &str, until: Millis) {
    world
        .engine
        .ban(ban(client, Origin::Manual, until), world.now);
}

/// `+client`, `*client` (changed) or `-client`, by last octet.
fn story(changes: &[Change]) -> String {
    let each = |change: &Change| {
        let mark = match (change.lift, change.updated) {
            (Some(_), _) => '-',
            (None, true) => '*',
            (None, false) => '+',
        };
        let client = change.ban.client.addr().to_string();
        format!("{mark}{}", client.rsplit('.').next().unwrap())
    };
    changes.iter().map(each).collect::<Vec<_>>().join(" ")
}

#[test]
fn changes_come_in_order_from_any_cursor_and_each_ban_once_at_its_latest() {
    let world = World::new(jail("web"));
    hand(&world, "192.0.2.1", START + HOUR);
    hand(&world, "192.0.2.2", START + HOUR);
    hand(&world, "192.0.2.1", START + 2 * HOUR);
    world
        .engine
        .unban(&Selector::Client(net("192.0.2.2"), None), START);
    hand(&world, "192.0.2.3", START + HOUR);
    assert_eq!(story(&world.changes(0)), "*1 -2 +3");
    assert_eq!(story(&world.changes(3)), "-2 +3");
    assert_eq!(story(&world.changes(5)), "");
    let seqs: Vec<_> = world.changes(0).iter().map(|change| change.seq).collect();
    assert_eq!(seqs, [3, 4, 5]);
    // in portions, the cursor never skips a change
    let (mut cursor, mut seen) = (0, Vec::new());
    while let Since::Changes { changes, next } = world.engine.ledger().since(cursor, 1)
        && next > cursor
    {
        seen.extend(changes);
        cursor = next;
    }
    assert_eq!(story(&seen), "*1 -2 +3");
}

#[test]
fn a_follower_is_woken_by_every_change_and_by_nothing_else() {
    let mut world = World::new(jail("web"));
    let mut watch = world.engine.ledger().watch();
    world.play("404 404 404");
    world.wait("1s");
    assert!(!watch.has_changed().unwrap());
    world.play("404");
    assert!(watch.has_changed().unwrap());
    assert_eq!(*watch.borrow_and_update(), 1);
    world.wait("300s");
    assert!(watch.has_changed().unwrap(), "the end too");
    let lift = world.changes(1)[0].lift;
    assert_eq!(lift, Some(Lift::Expired));
    world.wait("1s");
    assert_eq!(world.changes(2).len(), 0, "told once");
}

#[tokio::test(start_paused = true)]
async fn a_follower_hears_of_a_change_once_it_is_settled() {
    use crate::engine::Follower;
    use std::time::Duration;

    async fn heard(follower: &mut Follower) -> String {
        let next = tokio::time::timeout(Duration::from_secs(60), follower.next(10)).await;
        match next {
            Ok(Since::Changes { changes, next }) => {
                follower.acknowledge(next);
                story(&changes)
            }
            Ok(Since::Snapshot { bans, .. }) => format!("all {}", bans.len()),
            Err(_) => "nothing".to_owned(),
        }
    }

    let world = World::new(jail("web"));
    world.engine.ledger().hold(true);
    hand(&world, "192.0.2.1", START + HOUR);
    hand(&world, "192.0.2.2", START + HOUR);
    let engine = Arc::new(world.engine);
    let mut follower = Follower::new(engine.clone(), "crowdsec");
    assert_eq!(heard(&mut follower).await, "nothing");
    engine.ledger().settle(1);
    assert_eq!(heard(&mut follower).await, "+1");
    assert_eq!(heard(&mut follower).await, "nothing");
    let mut again = Follower::new(engine.clone(), "crowdsec");
    engine.ledger().hold(false);
    assert_eq!(
        heard(&mut follower).await,
        "+2",
        "a failing disk holds nobody up"
    );
    assert_eq!(
        heard(&mut again).await,
        "+2",
        "from the cursor that was acknowledged"
    );
    follower.at(7);
    assert_eq!(
        heard(&mut follower).await,
        "all 2",
        "a cursor from another life"
    );
    assert_eq!(engine.cursors().all(), [("crowdsec".into(), 2)]);
}

#[test]
fn what_must_not_be_locked_out_is_known_by_network() {
    let spec = JailSpec {
        allowlist: Arc::new(nets(&["198.51.100.0/24"])),
        ..jail("web")
    };
    let world = World::new(spec);
    let spares = |text| world.engine.spares(&net(text));
    assert_eq!(spares("127.0.0.0/8"), Some(Exempt::Itself));
    assert_eq!(spares("198.51.100.7"), Some(Exempt::Allowlist));
    assert_eq!(spares("198.51.0.0/16"), Some(Exempt::Allowlist));
    assert_eq!(spares("192.0.2.1"), None);
}

#[test]
fn a_cursor_too_old_or_from_another_life_gets_a_snapshot() {
    let limits = Limits {
        bans: 100_000,
        ..limits()
    };
    let world = World::with(vec![jail("web")], limits);
    hand(&world, "192.0.2.1", START + HOUR);
    let Since::Snapshot { bans, next } = world.engine.ledger().since(99, 10) else {
        panic!("nobody was ever told number 99");
    };
    assert_eq!((bans.len(), next), (1, 1));
    // lifts are not kept for ever: begin and end more than are remembered
    for round in 0..3u32 {
        let each = |n: u32| {
            ban(
                &std::net::Ipv4Addr::from(n).to_string(),
                capi(),
                START + HOUR,
            )
        };
        let add = (0..50_000).map(|n| each(round * 100_000 + n)).collect();
        let delta = |add| Delta {
            replace: true,
            add,
            remove: Vec::new(),
        };
        world.engine.apply(&capi(), delta(add), START);
        world.engine.apply(&capi(), delta(Vec::new()), START);
    }
    let Since::Snapshot { bans, next } = world.engine.ledger().since(1, 10) else {
        panic!("the changes after 1 are long gone");
    };
    assert_eq!((bans.len(), next), (1, 300_001));
    assert_eq!(story(&world.changes(next)), "");
    world.engine.check_invariants(START);
}

#[test]
fn a_restart_keeps_numbers_bans_and_what_followers_have_not_read() {
    let mut old = World::new(jail("web"));
    hand(&old, "192.0.2.1", START + HOUR);
    hand(&old, "192.0.2.2", START + HOUR);
    old.play("404@192.0.2.3 404@192.0.2.3 404@192.0.2.3 404@192.0.2.3");
    old.engine
        .unban(&Selector::Client(net("192.0.2.2"), None), old.now);
    let changes = old.changes(0);
    let mut new = World::new(jail("web"));
    new.engine.restore(changes, 0, 4, START + 1000);
    new.engine.check_invariants(START);
    assert_eq!(story(&new.changes(0)), "+1 +3 -2");
    assert_eq!(
        story(&new.changes(3)),
        "-2",
        "what was not acknowledged yet"
    );
    assert_eq!(
        new.engine.ledger().bans()[1],
        old.engine.ledger().bans()[1],
        "since and until too"
    );
    hand(&new, "192.0.2.4", START + HOUR);
    assert_eq!(new.changes(4)[0].seq, 5, "numbers go on");
    assert_eq!(new.play("200@192.0.2.3 200@192.0.2.2"), "deny 200");
    // a follower behind what was kept gets everything
    let late = World::new(jail("web"));
    late.engine.restore(old.changes(0), 3, 4, START);
    assert!(matches!(
        late.engine.ledger().since(2, 10),
        Since::Snapshot { .. }
    ));
    assert_eq!(story(&late.changes(3)), "-2");
    late.engine.check_invariants(START);
}

#[test]
fn bans_restored_before_their_jail_is_configured_hold_once_it_is() {
    let mut old = World::new(jail("web"));
    old.play("404 404 404 404");
    let engine = Engine::new(limits(), 7);
    engine.restore(old.changes(0), 0, 1, old.now);
    engine.configure(vec![jail("api"), jail("web")], NetSet::default(), old.now);
    let jail = engine.jail("web").unwrap();
    let new = World {
        engine,
        jail,
        now: old.now,
    };
    assert_eq!(new.send(CLIENT, "GET", "/", 200), "deny");
}

#[test]
fn what_ended_while_nothing_ran_is_told_once_after_the_restart() {
    let mut old = World::new(jail("web"));
    old.play("404 404 404 404");
    let mut new = World::new(jail("web"));
    new.engine.restore(old.changes(0), 0, 1, START + HOUR);
    new.wait("3600s");
    let changes = new.changes(1);
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].lift, Some(Lift::Expired));
}

#[test]
fn counters_and_history_survive_a_restart() {
    for window in [WindowKind::Fixed, WindowKind::Sliding] {
        let spec = JailSpec {
            window,
            increment: Some(Increment {
                factor: 1.0,
                maxtime: std::time::Duration::from_secs(10_000),
                rndtime: std::time::Duration::ZERO,
                remember: std::time::Duration::from_secs(10_000),
            }),
            ..jail("web")
        };
        let mut old = World::new(spec.clone());
        old.play("404 404 404 404 +300s 401 +10s 404 +10s 404@2001:db8::1");
        let mut new = World::new(spec);
        new.now = old.now;
        new.engine.restore_counters(old.engine.counters());
        new.engine.restore_history(old.engine.history());
        assert_eq!(new.play("404"), "404", "the third");
        assert_eq!(new.play("404"), "deny", "the fourth {window:?}");
        let ban = &new.engine.ledger().bans()[0];
        assert_eq!((ban.first_status, ban.count), (401, 4));
        assert_eq!(ban.until - ban.since, 600_000, "the second ban");
        assert_eq!(new.engine.stats().tracked_clients, 1);
    }
}

#[test]
fn what_persistence_reads_while_others_write_is_complete() {
    let world = World::with(
        vec![jail("web")],
        Limits {
            bans: 100_000,
            ..limits()
        },
    );
    for n in 0..5000u32 {
        hand(
            &world,
            &std::net::Ipv4Addr::from(n).to_string(),
            START + HOUR,
        );
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 5000..6000u32 {
                hand(
                    &world,
                    &std::net::Ipv4Addr::from(n).to_string(),
                    START + HOUR,
                );
            }
        });
        for _ in 0..5 {
            let Since::Snapshot { bans, next } = world.engine.ledger().since(u64::MAX, 1) else {
                panic!("a snapshot was asked for");
            };
            let held: std::collections::HashSet<_> = bans.iter().map(|ban| ban.client).collect();
            let expected = (0..next as u32).map(|n| net(&std::net::Ipv4Addr::from(n).to_string()));
            assert!(expected.into_iter().all(|client| held.contains(&client)));
        }
    });
}

#[test]
fn pages_list_every_ban_once_latest_first_also_those_older_than_the_log() {
    let world = World::new(jail("web"));
    let bans = |from: u8, until: u8| {
        (from..until).map(|n| ban(&format!("198.51.100.{n}"), capi(), START + 9000))
    };
    let changes = bans(0, 60).zip(1..).map(|(ban, seq)| Change {
        seq,
        ban: Arc::new(ban),
        lift: None,
        updated: false,
    });
    world.engine.restore(changes, 50, 60, START);
    for ban in bans(60, 70) {
        world.engine.ban(ban, START);
    }
    world.engine.ban(bans(3, 4).next().unwrap(), START + 1);
    let ledger = world.engine.ledger();
    let (mut seen, mut before) = (Vec::new(), u64::MAX);
    loop {
        let page = ledger.page(before, 7, |_| true);
        let Some((last, _)) = page.last() else { break };
        before = *last;
        seen.extend(page.iter().map(|(_, ban)| ban.client.to_string()));
    }
    assert_eq!((seen.len(), seen[0].as_str()), (70, "198.51.100.3/32"));
    assert_eq!(
        (seen[1].as_str(), seen[69].as_str()),
        ("198.51.100.69/32", "198.51.100.0/32")
    );
    let mut each = seen.clone();
    each.sort();
    each.dedup();
    assert_eq!(each.len(), 70);
    let odd = ledger.page(u64::MAX, 3, |ban| ban.client.to_string().ends_with("9/32"));
    assert_eq!(odd.len(), 3);
}
