//! Many threads at once: exactly one event begins a ban.

use std::sync::Barrier;

use super::*;

/// `(counted, banned, begun)` over `threads` failures of one client at once.
fn fail_at_once(world: &World, threads: usize) -> (usize, usize, usize) {
    let barrier = Barrier::new(threads);
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let fail = |nth: usize| {
            let (barrier, world) = (&barrier, &world);
            move || {
                barrier.wait();
                let now = world.now + nth as Millis % 3;
                world
                    .engine
                    .observe(world.jail, &request(CLIENT, "GET", "/"), 404, now)
            }
        };
        let threads: Vec<_> = (0..threads).map(|nth| scope.spawn(fail(nth))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let of = |wanted: fn(&Outcome) -> bool| outcomes.iter().filter(|o| wanted(o)).count();
    (
        of(|outcome| matches!(outcome, Outcome::Counted(_))),
        of(|outcome| matches!(outcome, Outcome::Banned { .. })),
        of(|outcome| matches!(outcome, Outcome::Banned { begun: true, .. })),
    )
}

#[test]
fn v13_fifty_failures_in_flight() {
    for window in [WindowKind::Fixed, WindowKind::Sliding] {
        for _ in 0..20 {
            let world = World::new(JailSpec {
                window,
                ..jail("web")
            });
            assert_eq!(fail_at_once(&world, 50), (3, 47, 1), "V13 {window:?}");
            assert_eq!(world.changes(0).len(), 1);
            world.engine.check_invariants(world.now);
        }
    }
}

#[test]
fn everything_at_once_leaves_everything_agreeing() {
    let limits = Limits {
        tracked_clients: 50,
        bans: 40,
        aggregate_ipv6: true,
    };
    let world = World::with(vec![jail("web"), jail("api")], limits);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let world = &world;
            scope.spawn(move || {
                for step in 0..3000u64 {
                    let seed = step.wrapping_mul(2_654_435_761).wrapping_add(thread * 97);
                    let client = match seed % 3 {
                        0 => format!("2001:db8:0:{:x}::1", seed % 211),
                        _ => format!("192.0.2.{}", seed % 199),
                    };
                    let now = world.now + step * 50;
                    match seed % 41 {
                        0 => world.engine.sweep(now),
                        1 => world
                            .engine
                            .ban(ban(&client, Origin::Manual, now + 9000), now),
                        2 => {
                            let which = super::super::Selector::Client(net(&client), None);
                            world.engine.unban(&which, now);
                        }
                        3 => {
                            let jails = vec![jail("web"), jail("api")];
                            world.engine.configure(jails, NetSet::default(), now);
                        }
                        _ => {
                            let request = request(&client, "GET", "/");
                            world.engine.check(world.jail, &request, now);
                            world.engine.observe(world.jail, &request, 404, now);
                        }
                    }
                    assert!(world.engine.stats().tracked_clients <= 50);
                }
            });
        }
    });
    world.engine.check_invariants(world.now);
}
