//! Whom operators allow at runtime: every jail, every ban, until it ends.

use super::{
    super::{Allowed, Exempt, ban::FOREVER},
    *,
};

fn entry(subject: &str, until: Millis) -> Allowed {
    Allowed {
        subject: subject.into(),
        nets: vec![net(subject)],
        note: "".into(),
        since: START,
        until,
    }
}

#[test]
fn the_allowed_pass_every_jail_and_are_not_counted_until_it_ends() {
    let mut world = World::with(vec![jail("web"), jail("api")], limits());
    assert_eq!(world.play("404 404 404 404 404"), "404 404 404 deny deny");
    world
        .engine
        .ban(ban("192.0.2.0/24", Origin::Manual, START + 900_000), START);
    world.engine.allow(entry("192.0.2.1", START + 60_000));
    for name in ["api", "web"] {
        world.jail = world.engine.jail(name).unwrap();
        assert_eq!(
            world.play("404 404 404 404 404"),
            "404 404 404 404 404",
            "{name}"
        );
    }
    assert_eq!(
        world.engine.spares(&net("192.0.2.0/28")),
        Some(Exempt::Allowlist)
    );
    assert_eq!(world.play("+59s 404 +1s 404"), "404 deny");
    assert_eq!(world.engine.allowed(), []);
    assert_eq!(world.engine.spares(&net("192.0.2.0/28")), None);
}

#[test]
fn a_denylist_outranks_it_and_a_reload_keeps_it() {
    let listed = JailSpec {
        denylist: Arc::new(nets(&["192.0.2.1"])),
        ..jail("web")
    };
    let mut world = World::new(listed);
    world.engine.allow(entry("192.0.2.0/24", FOREVER));
    assert_eq!(world.play("200 200@192.0.2.2"), "deny 200");
    world
        .engine
        .configure(vec![jail("web")], NetSet::default(), START);
    assert_eq!(
        world.play("404@192.0.2.2 404@192.0.2.2 404@192.0.2.2 404@192.0.2.2 404@192.0.2.2"),
        "404 404 404 404 404"
    );
    assert_eq!(world.engine.allowed_by(addr("::ffff:192.0.2.9")).len(), 1);
    assert!(world.engine.disallow("192.0.2.0/24").is_some());
    assert!(world.engine.disallow("192.0.2.0/24").is_none());
    assert_eq!(world.play("404 404 404 404"), "404 404 404 deny");
}

#[test]
fn a_change_is_told_only_once_it_is_kept() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let engine = World::new(jail("web")).engine;
    let list = engine.allow_list().kept();
    list.hold(true);
    let mut changes = list.watch();
    engine.allow(entry("192.0.2.1", FOREVER));
    assert!(changes.has_changed().unwrap());
    let waiting = futures_util::FutureExt::now_or_never(list.wait_kept());
    assert_eq!(waiting, None);
    list.keep(*changes.borrow_and_update());
    runtime.block_on(list.wait_kept());
    engine.allow(entry("192.0.2.1", FOREVER));
    assert!(
        !changes.has_changed().unwrap(),
        "the same again is no change"
    );
}
