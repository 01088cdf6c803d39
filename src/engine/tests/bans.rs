//! Bans by hand, outside decisions, several origins, ranges, simulate and reload.

use super::{
    super::{Delta, Denial, Exempt, Lift, Reason, Selector, Verdict},
    *,
};

const HOUR: Millis = 3_600_000;

fn add(bans: Vec<Ban>) -> Delta {
    Delta {
        add: bans,
        ..Delta::default()
    }
}

fn verdict(world: &World, client: &str) -> Verdict {
    world
        .engine
        .check(world.jail, &request(client, "GET", "/"), world.now)
}

#[track_caller]
fn denied(world: &World, client: &str, reason: Reason) {
    let verdict = verdict(world, client);
    let Verdict::Deny(denial) = &verdict else {
        panic!("{client} should be denied, not {verdict:?}");
    };
    assert_eq!(denial.reason, reason, "{client}");
}

#[track_caller]
fn passes(world: &World, client: &str) {
    assert_eq!(verdict(world, client), Verdict::Pass, "{client}");
}

fn lifts(world: &World) -> Vec<(IpNet, Option<Lift>)> {
    let changes = world.changes(0);
    changes
        .iter()
        .map(|change| (change.ban.client, change.lift))
        .collect()
}

#[test]
fn outside_decisions_hold_in_every_jail_until_they_end() {
    let world = World::with(vec![jail("web"), jail("api")], limits());
    let bans = [
        "198.51.100.7",
        "203.0.113.0/24",
        "2001:db8:1::5",
        "2001:db8:2::/48",
    ];
    let bans = bans.map(|client| ban(client, capi(), START + HOUR));
    world.engine.apply(&capi(), add(bans.to_vec()), START);
    let mut world = world;
    for name in ["web", "api"] {
        world.jail = world.engine.jail(name).unwrap();
        for client in [
            "198.51.100.7",
            "::ffff:198.51.100.7",
            "203.0.113.200",
            "2001:db8:1::5",
        ] {
            denied(&world, client, Reason::Decision);
        }
        denied(&world, "2001:db8:2:ffff::1", Reason::Decision);
        for client in [
            "198.51.100.8",
            "203.0.114.1",
            "2001:db8:1::6",
            "2001:db8:3::1",
        ] {
            passes(&world, client);
        }
    }
    world.now = START + HOUR - 1;
    denied(&world, "203.0.113.200", Reason::Decision);
    world.now += 1;
    passes(&world, "203.0.113.200");
    world.engine.sweep(world.now);
    assert!(
        lifts(&world)
            .iter()
            .all(|(_, lift)| *lift == Some(Lift::Expired))
    );
    assert_eq!(world.engine.stats().bans, 0);
    world.engine.check_invariants(world.now);
}

#[test]
fn an_allowlist_outranks_outside_decisions() {
    let world = World::new(JailSpec {
        allowlist: Arc::new(nets(&["198.51.100.0/24"])),
        ..jail("web")
    });
    world.engine.apply(
        &capi(),
        add(vec![ban("198.51.100.7", capi(), START + HOUR)]),
        START,
    );
    assert_eq!(
        verdict(&world, "198.51.100.7"),
        Verdict::Exempt(Exempt::Allowlist)
    );
}

#[test]
fn one_origin_lifting_leaves_the_other_enforced() {
    let world = World::new(jail("web"));
    let crowd = ban(CLIENT, capi(), START + HOUR);
    let hand = ban(CLIENT, Origin::Manual, START + 2 * HOUR);
    world.engine.apply(&capi(), add(vec![crowd]), START);
    world.engine.ban(hand, START);
    denied(&world, CLIENT, Reason::Banned);
    let back = Delta {
        remove: vec![(net(CLIENT), None)],
        ..Delta::default()
    };
    world.engine.apply(&Origin::Manual, back.clone(), START);
    denied(&world, CLIENT, Reason::Decision);
    world.engine.apply(&capi(), back, START);
    passes(&world, CLIENT);
    world.engine.check_invariants(START);
}

#[test]
fn a_full_pull_replaces_what_its_origin_said_and_tells_only_differences() {
    let world = World::new(jail("web"));
    let first = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|c| ban(c, capi(), START + HOUR));
    world.engine.apply(&capi(), add(first.to_vec()), START);
    world
        .engine
        .ban(ban("192.0.2.9", Origin::Manual, START + HOUR), START);
    let before = *world.engine.ledger().watch().borrow();
    let second = Delta {
        replace: true,
        // the same end, told a little later as a remaining time
        add: vec![
            ban("192.0.2.1", capi(), START + HOUR + 400),
            ban("192.0.2.2", capi(), START + 2 * HOUR),
            ban("192.0.2.4", capi(), START + HOUR),
        ],
        remove: Vec::new(),
    };
    world.engine.apply(&capi(), second, START + 400);
    let changes = world.changes(before);
    let told: Vec<_> = changes
        .iter()
        .map(|c| (c.ban.client.to_string(), c.lift, c.updated))
        .collect();
    assert_eq!(
        told,
        [
            ("192.0.2.3/32".to_string(), Some(Lift::Withdrawn), false),
            ("192.0.2.2/32".to_string(), None, true),
            ("192.0.2.4/32".to_string(), None, false),
        ]
    );
    denied(&world, "192.0.2.9", Reason::Banned);
}

#[test]
fn unban_frees_at_once_and_starts_the_count_anew() {
    let mut world = World::new(jail("web"));
    world.play("404 404 404 404 404@2001:db8::1 404@2001:db8::1 404@2001:db8::1 404@2001:db8::1");
    world.play("404@192.0.2.2 404@192.0.2.2 404@192.0.2.2");
    for client in [CLIENT, "2001:db8::7", "192.0.2.2"] {
        let which = Selector::Client(net(client), None);
        let lifted = world.engine.unban(&which, world.now);
        assert_eq!(lifted.len(), usize::from(client != "192.0.2.2"), "{client}");
        passes(&world, client);
    }
    assert_eq!(
        world.play("404@192.0.2.2"),
        "404",
        "what was counted is forgotten"
    );
    assert!(
        lifts(&world)
            .iter()
            .all(|(_, lift)| *lift == Some(Lift::Unbanned))
    );
}

#[test]
fn unban_all_leaves_outside_decisions() {
    let mut world = World::new(jail("web"));
    world.play("404 404 404 404");
    world
        .engine
        .ban(ban("192.0.2.9", Origin::Manual, START + HOUR), START);
    world.engine.apply(
        &capi(),
        add(vec![ban("192.0.2.8", capi(), START + HOUR)]),
        START,
    );
    assert_eq!(world.engine.unban(&Selector::All, world.now).len(), 2);
    passes(&world, CLIENT);
    passes(&world, "192.0.2.9");
    denied(&world, "192.0.2.8", Reason::Decision);
}

#[test]
fn a_ban_in_one_jail_does_not_hold_in_another() {
    let mut world = World::with(vec![jail("web"), jail("api")], limits());
    world.play("404 404 404 404");
    denied(&world, CLIENT, Reason::Banned);
    world.jail = world.engine.jail("api").unwrap();
    passes(&world, CLIENT);
    let here = ["web", "api"].map(|name| {
        world
            .engine
            .ban_of(world.engine.jail(name), addr(CLIENT), world.now)
            .len()
    });
    assert_eq!(here, [1, 0]);
    assert_eq!(world.engine.ban_of(None, addr(CLIENT), world.now).len(), 1);
}

#[test]
fn simulate_decides_and_counts_but_neither_denies_nor_tells() {
    let spec = JailSpec {
        simulate: true,
        ..jail("web")
    };
    let mut world = World::new(spec.clone());
    assert_eq!(world.play("404 404 404 404 404"), "404 404 404 404 404");
    let expected = Denial {
        reason: Reason::Banned,
        jail: world.jail,
        until: Some(START + 300_000),
    };
    let Verdict::Simulated(denial) = verdict(&world, CLIENT) else {
        panic!("a simulated ban stands");
    };
    assert_eq!(
        (denial.reason, denial.jail),
        (expected.reason, expected.jail)
    );
    let late = world
        .engine
        .observe(world.jail, &request(CLIENT, "GET", "/"), 404, world.now);
    assert!(matches!(late, Outcome::Simulated { begun: false, .. }));
    assert_eq!(world.changes(0).len(), 0, "followers never hear of it");
    assert_eq!(world.engine.stats().bans, 0);
    // taken seriously, the jail starts with nobody banned
    let serious = JailSpec {
        simulate: false,
        ..spec
    };
    world
        .engine
        .configure(vec![serious], NetSet::default(), world.now);
    passes(&world, CLIENT);
    assert_eq!(world.play("404 404 404 404 404"), "404 404 404 deny deny");
}

#[test]
fn itself_is_spared_unless_the_jail_says_otherwise() {
    let world = World::new(jail("web"));
    assert_eq!(
        verdict(&world, "127.0.0.1"),
        Verdict::Exempt(Exempt::Itself)
    );
    let mut world = World::new(JailSpec {
        ignore_self: false,
        ..jail("web")
    });
    let script = "404@127.0.0.1 404@127.0.0.1 404@127.0.0.1 404@127.0.0.1";
    assert_eq!(world.play(script), "404 404 404 deny");
}

#[test]
fn reload_keeps_ids_bans_and_counters() {
    let mut world = World::with(vec![jail("web"), jail("api")], limits());
    world.play("404 404 404 404 404@192.0.2.2 404@192.0.2.2 404@192.0.2.2");
    let web = world.jail;
    world
        .engine
        .configure(vec![jail("api")], NetSet::default(), world.now);
    assert_eq!(world.engine.jail("web"), None);
    assert_eq!(verdict(&world, CLIENT), Verdict::Exempt(Exempt::Disabled));
    assert_eq!(world.engine.stats().bans, 1, "dormant");
    world.engine.configure(
        vec![jail("mail"), jail("web")],
        NetSet::default(),
        world.now,
    );
    assert_eq!(world.engine.jail("web"), Some(web));
    denied(&world, CLIENT, Reason::Banned);
    assert_eq!(world.play("404@192.0.2.2"), "deny", "the fourth");
}

#[test]
fn a_changed_prefix_keeps_what_was_banned() {
    let mut world = World::new(jail("web"));
    world.play("404@2001:db8::1 404@2001:db8::1 404@2001:db8::1 404@2001:db8::1");
    let wider = JailSpec {
        ipv6_prefix: 56,
        ..jail("web")
    };
    world
        .engine
        .configure(vec![wider], NetSet::default(), world.now);
    denied(&world, "2001:db8::2", Reason::Banned);
    passes(&world, "2001:db8:0:1::2");
    world.engine.check_invariants(world.now);
}

#[test]
fn a_denial_never_ends_later_than_its_ban() {
    let mut world = World::new(jail("web"));
    world.play("404 404 404 404");
    let until = world.engine.ledger().bans()[0].until;
    for passed in [0, 1, 150_000, 299_800, 299_999] {
        world.now = START + passed;
        let Verdict::Deny(denial) = verdict(&world, CLIENT) else {
            panic!("banned for {passed} ms");
        };
        let told = denial.until.unwrap();
        assert!(told <= until && until - told < 100, "{told} {until}");
        assert!(told > world.now, "a ban that stands has not ended");
    }
}

#[test]
fn bans_for_ever_and_for_a_century_hold() {
    let mut world = World::new(jail("web"));
    let century = START + 100 * 365 * 24 * HOUR;
    world.engine.ban(
        ban("192.0.2.8", Origin::Manual, super::super::ban::FOREVER),
        START,
    );
    world
        .engine
        .ban(ban("192.0.2.0/29", Origin::Manual, century), START);
    world.now = century - 1;
    denied(&world, "192.0.2.8", Reason::Banned);
    denied(&world, "192.0.2.1", Reason::Banned);
    world.now = century;
    denied(&world, "192.0.2.8", Reason::Banned);
    passes(&world, "192.0.2.1");
}
