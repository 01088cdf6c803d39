//! What people are shown of counted requests, and that it can be erased.

use super::*;

fn seen(world: &World, client: &str) -> Vec<(String, u16)> {
    let evidence = world.engine.evidence(net(client));
    let seen = evidence.iter();
    seen.map(|one| (one.path.to_string(), one.status)).collect()
}

#[test]
fn what_counted_is_kept_and_nothing_else() {
    let mut world = World::new(jail("web"));
    world.play(
        "404:/a?q=1 +5s 200:/fine 401:/b 500:/down 404:/c@198.51.100.9 404:/d 404:/e 404:/denied",
    );
    let expected = [("/a", 404), ("/b", 401), ("/d", 404), ("/e", 404)];
    assert_eq!(
        seen(&world, CLIENT),
        expected.map(|(p, s)| (p.to_owned(), s))
    );
    let first = &world.engine.evidence(net(CLIENT))[0];
    assert_eq!(
        (first.at, &*first.jail, &*first.method),
        (START, "web", "GET")
    );
    assert_eq!(
        (&*first.host, first.client),
        ("app.example.com", net(CLIENT))
    );
    assert_eq!(seen(&world, "0.0.0.0/0").len(), 5);
}

#[test]
fn a_rule_hit_and_a_counted_request_are_evidence_too() {
    let block = JailSpec {
        urls: rules(&[("^/no", Mode::Block)]),
        statuses: Vec::new(),
        ..jail("web")
    };
    let mut world = World::new(block);
    world.play("200:/yes 200:/no/one 200:/no/one 200:/no/one");
    let expected = [("/yes", 0), ("/no/one", 0)];
    assert_eq!(
        seen(&world, CLIENT),
        expected.map(|(p, s)| (p.to_owned(), s))
    );
}

#[test]
fn an_erased_client_leaves_nothing_behind() {
    let mut world = World::new(jail("web"));
    world.play("404@2001:db8::1 404@2001:db8::2 404@2001:db8:0:1::1 404@192.0.2.7");
    world.engine.erase(net("2001:db8::1"));
    assert_eq!(seen(&world, "2001:db8::/64"), []);
    assert_eq!(world.engine.tracked(world.jail, addr("2001:db8::2")), None);
    assert_eq!(seen(&world, "2001:db8:0:1::/64").len(), 1);
    assert_eq!(world.engine.counters().len(), 2);
    world.engine.erase(net("192.0.2.0/24"));
    assert_eq!(world.engine.counters().len(), 1);
    world.engine.check_invariants(world.now);
}
