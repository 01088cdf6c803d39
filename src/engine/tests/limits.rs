//! Caps on counters and bans, who goes when they are full, and memory that comes back.

use super::{
    super::{Delta, Lift},
    *,
};

fn capped(tracked_clients: usize, bans: usize) -> World {
    let limits = Limits {
        tracked_clients,
        bans,
        aggregate_ipv6: false,
    };
    World::with(vec![jail("web")], limits)
}

fn v4(n: u32) -> String {
    std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).to_string()
}

#[test]
fn the_counter_idle_longest_makes_room() {
    let mut world = capped(3, 10);
    world.play("404@192.0.2.1 +1s 404@192.0.2.2 +1s 404@2001:db8::1 +1s 404@192.0.2.1 +1s");
    world.play("404@192.0.2.4");
    let held: Vec<_> = world
        .engine
        .counters()
        .iter()
        .map(|t| t.client.to_string())
        .collect();
    assert!(
        !held.contains(&"192.0.2.2/32".into()),
        "idle for longest: {held:?}"
    );
    let stats = world.engine.stats();
    assert_eq!((stats.tracked_clients, stats.evicted_clients), (3, 1));
    let count = world
        .engine
        .tracked(world.jail, addr(CLIENT))
        .unwrap()
        .count;
    assert_eq!(count, 2, "the others keep their counts");
}

#[test]
fn a_flood_of_new_clients_pushes_out_no_ban_and_spares_the_recent() {
    let mut world = capped(500, 10);
    world.play("404 404 404 404");
    for n in 0..20_000 {
        world.now += 1;
        if n % 1000 == 0 {
            // an attacker that keeps failing is not flushed away by the others
            world.send("192.0.2.77", "GET", "/", 404);
        }
        world.send(&v4(n), "GET", "/", 404);
        assert!(world.engine.stats().tracked_clients <= 500);
    }
    world.engine.check_invariants(world.now);
    assert_eq!(world.play("200"), "deny");
    let recent =
        (19_900..20_000).filter(|n| world.engine.tracked(world.jail, addr(&v4(*n))).is_some());
    assert!(recent.count() > 90, "the newest stay");
}

#[test]
fn clients_that_never_fail_leave_nothing() {
    let world = capped(10, 10);
    for n in 0..1000 {
        world.send(&v4(n), "GET", "/", 200);
    }
    assert_eq!(world.engine.stats(), super::super::Stats::default());
    assert_eq!(world.engine.bytes().0, 0);
}

#[test]
fn under_flood_ipv6_is_counted_by_48() {
    let limits = Limits {
        tracked_clients: 8,
        bans: 10,
        aggregate_ipv6: true,
    };
    let mut world = World::with(vec![jail("web")], limits);
    let rotate = |world: &World, from: u32, to: u32| {
        let sent = (from..to).map(|n| world.send(&format!("2001:db8:7:{n:x}::1"), "GET", "/", 404));
        sent.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        rotate(&world, 0, 8),
        ["404"; 8].join(" "),
        "one counter each while there is room"
    );
    assert_eq!(
        rotate(&world, 8, 13),
        "404 404 404 deny deny",
        "then one for the /48"
    );
    assert_eq!(
        world.engine.ledger().bans()[0].client,
        net("2001:db8:7::/48")
    );
    assert_eq!(
        world.play("200@2001:db8:8::1"),
        "200",
        "the neighbour is free"
    );
    assert_eq!(world.play("404@2001:db8:7:1::1"), "deny");
}

#[test]
fn a_full_table_of_bans_drops_the_one_ending_soonest() {
    let world = capped(10, 3);
    for (client, seconds) in [
        ("192.0.2.1", 500),
        ("192.0.2.0/24", 100),
        ("2001:db8::1", 900),
    ] {
        world
            .engine
            .ban(ban(client, Origin::Manual, START + seconds * 1000), START);
    }
    world
        .engine
        .ban(ban("192.0.2.9", Origin::Manual, START + 50_000), START);
    let gone: Vec<_> = world
        .changes(0)
        .into_iter()
        .filter(|c| c.lift.is_some())
        .collect();
    assert_eq!(gone.len(), 1);
    assert_eq!(
        (gone[0].ban.client, gone[0].lift),
        (net("192.0.2.0/24"), Some(Lift::Evicted))
    );
    let stats = world.engine.stats();
    assert_eq!((stats.bans, stats.evicted_bans), (3, 1));
    world.engine.check_invariants(START);
}

#[test]
fn lowered_caps_hold_after_the_next_sweep() {
    let mut world = capped(1000, 1000);
    for n in 0..300 {
        world.send(&v4(n), "GET", "/", 404);
        world.engine.ban(
            ban(&v4(n), Origin::Manual, START + 1_000_000 + u64::from(n)),
            START,
        );
    }
    let limits = Limits {
        tracked_clients: 20,
        bans: 10,
        aggregate_ipv6: false,
    };
    world.engine.set_limits(limits);
    world.wait("1s");
    world.engine.check_invariants(world.now);
    let stats = world.engine.stats();
    assert_eq!(
        (stats.tracked_clients, stats.bans),
        (0, 10),
        "bans by hand reset the count"
    );
    let left: Vec<_> = world
        .engine
        .ledger()
        .bans()
        .iter()
        .map(|b| b.until - START)
        .collect();
    assert!(
        left.iter().all(|until| *until >= 1_000_290),
        "those ending last stay: {left:?}"
    );
}

#[test]
fn memory_comes_back_after_findtime_and_bantime() {
    const MANY: u32 = 30_000;
    let limits = Limits {
        tracked_clients: 1_000_000,
        bans: 1_000_000,
        aggregate_ipv6: false,
    };
    let mut world = World::with(vec![jail("web")], limits);
    for n in 0..MANY {
        world.send(&v4(n), "GET", "/", 404);
        world.send(
            &format!("2001:db8:{:x}:{:x}::1", n >> 8, n & 255),
            "GET",
            "/",
            404,
        );
    }
    let bans = (0..MANY)
        .map(|n| ban(&v4(n + (1 << 20)), capi(), START + 300_000))
        .collect();
    let delta = Delta {
        add: bans,
        ..Delta::default()
    };
    world.engine.apply(&capi(), delta, START);
    let (counters, tables, ledger) = world.engine.bytes();
    let each = counters / (2 * MANY as usize);
    assert!(each <= 100, "{each} bytes per tracked client");
    let each = (tables + ledger) / MANY as usize;
    assert!(each <= 180, "{each} bytes per decision");
    world.wait("120s");
    assert_eq!(world.engine.stats().tracked_clients, 0, "findtime is over");
    assert!(
        world.engine.bytes().0 * 20 < counters,
        "{:?} of {counters}",
        world.engine.bytes()
    );
    world.wait("180s");
    assert_eq!(world.engine.stats().bans, 0, "the decisions are over");
    assert!(
        world.engine.bytes().1 * 20 < tables,
        "{:?} of {tables}",
        world.engine.bytes()
    );
}
