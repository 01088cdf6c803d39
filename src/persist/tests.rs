//! Lives of one program over one file: what the next one finds, and what becomes of a file that is
//! damaged, newer, taken, gone, or out of reach.

use std::{
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStringExt, fs::PermissionsExt},
};

use parking_lot::Mutex;
use tempfile::TempDir;

use super::*;
use crate::{
    engine::{
        Allowed, Ban, Cause, Delta, JailSpec, Lift, Limits, Origin, Request, Selector, Since, Told,
        Tracked,
        ban::FOREVER,
        client::spelled,
        jail::{Increment, WindowKind},
        nets::NetSet,
    },
    telemetry::{Statuses, status},
    time::Millis,
};

const HOUR: Millis = 3_600_000;

/// One run of the program, its writer driven by hand.
struct Life {
    engine: Arc<Engine>,
    writer: Writer,
    /// Where logs were left.
    found: Vec<Place>,
    places: Arc<Mutex<Vec<Place>>>,
    clock: Clock,
    metrics: Arc<Metrics>,
    statuses: Statuses,
}

fn file(dir: &TempDir) -> PathBuf {
    dir.path().join("state.db")
}

fn jails() -> Vec<JailSpec> {
    let jail = |name: &str| JailSpec {
        maxretry: 3,
        statuses: vec![401..=401],
        findtime: Duration::from_secs(600),
        bantime: Duration::from_secs(3600),
        ..JailSpec::named(name)
    };
    let sliding = JailSpec {
        window: WindowKind::Sliding,
        ..jail("sliding")
    };
    let growing = JailSpec {
        increment: Some(Increment {
            factor: 1.0,
            maxtime: Duration::from_secs(86_400),
            rndtime: Duration::ZERO,
            remember: Duration::from_secs(86_400),
        }),
        ..jail("growing")
    };
    vec![jail("web"), sliding, growing]
}

impl Life {
    fn begin(dir: &TempDir) -> Self {
        Self::at(&file(dir)).unwrap()
    }

    fn at(path: &Path) -> Result<Self, Error> {
        let limits = Limits {
            tracked_clients: 100_000,
            bans: 100_000,
            aggregate_ipv6: false,
        };
        let (clock, metrics) = (Clock::start(), Arc::new(Metrics::new()));
        let (statuses, engine) = (Statuses::new(), Arc::new(Engine::new(limits, 7)));
        engine.configure(jails(), NetSet::default(), clock.now());
        let (writer, found) = Writer::open(Setup {
            path: path.into(),
            keep: Duration::from_secs(86_400),
            engine: engine.clone(),
            clock,
            metrics: metrics.clone(),
            status: statuses.add("disk"),
        })?;
        Ok(Self {
            places: Arc::new(Mutex::new(found.clone())),
            engine,
            writer,
            found,
            clock,
            metrics,
            statuses,
        })
    }

    fn now(&self) -> Millis {
        self.clock.now()
    }

    fn instant(&self) -> Instant {
        let places = self.places.clone();
        Box::new(move |take| take(places.lock().clone()))
    }

    /// Writes until nothing is left to do.
    fn write(&mut self) {
        let instant = self.instant();
        while self.writer.step(&instant) {}
    }

    /// Writes counters as well, as at the end of a program.
    fn end(mut self) {
        let instant = self.instant();
        self.writer.last(&instant);
    }

    fn settled(&self) -> u64 {
        *self.engine.ledger().settled().borrow()
    }

    fn newest(&self) -> u64 {
        *self.engine.ledger().watch().borrow()
    }

    fn ban(&self, client: &str, jail: Option<&str>) {
        let ban = ban(client, jail, Origin::Manual, self.now());
        self.engine.ban(ban, self.now());
    }

    fn fail(&self, jail: &str, client: &str, times: usize) {
        let jail = self.engine.jail(jail).unwrap();
        for _ in 0..times {
            self.engine.observe(jail, &request(client), 401, self.now());
        }
    }

    fn clients(&self) -> Vec<String> {
        let mut all: Vec<_> = self
            .engine
            .ledger()
            .bans()
            .iter()
            .map(|ban| spelled(ban.client))
            .collect();
        all.sort();
        all
    }

    fn disk(&self) -> status::Snapshot {
        self.statuses.all().remove(0)
    }
}

fn request(client: &str) -> Request<'_> {
    Request {
        client: client.parse().unwrap(),
        method: b"GET",
        target: b"/login?user=root",
        told: Told::These {
            host: b"app.example.com",
            agent: b"",
        },
        plain: false,
    }
}

fn ban(client: &str, jail: Option<&str>, origin: Origin, now: Millis) -> Ban {
    let single = |_| client.parse::<std::net::IpAddr>().map(Into::into);
    Ban {
        client: client.parse().or_else(single).unwrap(),
        jail: jail.map(Into::into),
        origin,
        cause: Cause::Manual("told to".into()),
        count: 0,
        first_status: 0,
        last_status: 0,
        path: "".into(),
        since: now,
        until: now + HOUR,
    }
}

fn place(name: &[u8], offset: u64) -> Place {
    Place {
        path: OsString::from_vec(name.to_vec()).into(),
        dev: 64769,
        inode: u64::MAX - 1,
        offset,
        begin_len: 1024,
        begin_hash: 0xFEDC_BA98_7654_3210,
    }
}

fn sorted<T, K: Ord>(mut all: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    all.sort_by_key(key);
    all
}

/// Bans of every origin, cause, kind of client and length.
fn every_kind(now: Millis) -> Vec<(Origin, Ban)> {
    let outside = Origin::Outside("crowdsec/CAPI".into());
    let odd = Origin::Outside("manual".into());
    let caused = |origin: &Origin, client, jail, cause| {
        let ban = ban(client, jail, origin.clone(), now);
        (origin.clone(), Ban { cause, ..ban })
    };
    let (ours, hand) = (Origin::Jail, Origin::Manual);
    let mut all = vec![
        caused(&ours, "192.0.2.1", Some("web"), Cause::Failures),
        caused(
            &ours,
            "2001:db8::/64",
            Some("web"),
            Cause::Rule("^/\\.env'".into()),
        ),
        caused(&hand, "198.51.100.0/24", None, Cause::Manual("".into())),
        caused(
            &hand,
            "2001:db8:1::7",
            Some("gone from the file"),
            Cause::Manual("two\nlines".into()),
        ),
        caused(
            &outside,
            "192.0.2.1",
            None,
            Cause::Decision("crowdsecurity/ssh-bf".into()),
        ),
        caused(
            &odd,
            "192.0.2.1",
            None,
            Cause::Decision("one that calls itself manual".into()),
        ),
    ];
    all[0].1 = Ban {
        count: 4,
        first_status: 401,
        last_status: 429,
        path: "/lögin".into(),
        ..all[0].1.clone()
    };
    all[2].1.until = FOREVER;
    all
}

fn impose(engine: &Engine, all: Vec<(Origin, Ban)>, now: Millis) {
    for (origin, ban) in all {
        match &origin {
            Origin::Outside(_) => {
                let add = vec![ban];
                engine.apply(
                    &origin,
                    Delta {
                        add,
                        ..Delta::default()
                    },
                    now,
                );
            }
            _ => engine.ban(ban, now),
        }
    }
}

#[test]
fn bans_of_every_kind_come_back_as_they_were() {
    let dir = TempDir::new().unwrap();
    let mut life = Life::begin(&dir);
    impose(&life.engine, every_kind(life.now()), life.now());
    assert_eq!(
        (life.settled(), life.newest()),
        (0, 6),
        "told before it is on disk"
    );
    life.engine.cursors().acknowledge("lapi", 2);
    life.write();
    assert_eq!(life.settled(), 6);
    let before = life.engine.ledger().bans();
    drop(life);
    let next = Life::begin(&dir);
    assert_eq!(next.engine.ledger().bans(), before);
    assert_eq!((next.settled(), next.newest()), (6, 6), "numbers go on");
    next.engine.check_invariants(next.now());
    assert!(
        matches!(next.engine.ledger().since(2, 100), Since::Changes { changes, .. } if changes.len() == 4)
    );
}

#[test]
fn a_ban_that_was_lifted_stays_lifted_and_followers_hear_of_it() {
    let dir = TempDir::new().unwrap();
    let mut life = Life::begin(&dir);
    for client in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        life.ban(client, Some("web"));
    }
    life.engine.cursors().acknowledge("lapi", 3);
    life.write();
    let one = Selector::Client("192.0.2.2/32".parse().unwrap(), None);
    assert_eq!(life.engine.unban(&one, life.now()).len(), 1);
    let soon = Ban {
        until: life.now() + 1,
        ..ban("192.0.2.9", None, Origin::Manual, life.now())
    };
    life.engine.ban(soon, life.now());
    life.write();
    drop(life);
    std::thread::sleep(Duration::from_millis(5));
    let mut next = Life::begin(&dir);
    assert_eq!(next.clients(), ["192.0.2.1", "192.0.2.3"]);
    assert_eq!(next.engine.cursors().get("lapi"), 3);
    let Since::Changes { changes, .. } = next.engine.ledger().since(3, 100) else {
        panic!("the cursor is not too old");
    };
    let lifts: Vec<_> = changes
        .iter()
        .map(|c| (spelled(c.ban.client), c.lift))
        .collect();
    let expected = [
        ("192.0.2.2".to_owned(), Some(Lift::Unbanned)),
        ("192.0.2.9".to_owned(), Some(Lift::Expired)),
    ];
    assert_eq!(lifts, expected, "what ended meanwhile ends now");
    // A ban at the same place again: one row, not two.
    next.ban("192.0.2.2", Some("web"));
    next.ban("192.0.2.2", Some("web"));
    next.write();
    assert_eq!(
        Life::begin_after(next, &dir).clients(),
        ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    );
}

impl Life {
    fn begin_after(earlier: Self, dir: &TempDir) -> Self {
        drop(earlier);
        Self::begin(dir)
    }
}

#[test]
fn counters_history_places_and_the_allow_list_come_back() {
    let dir = TempDir::new().unwrap();
    let mut life = Life::begin(&dir);
    life.fail("web", "192.0.2.1", 2);
    life.fail("sliding", "2001:db8::1", 2);
    life.fail("growing", "192.0.2.3", 3);
    let allowed = Allowed {
        subject: "office.example.com".into(),
        nets: vec![
            "203.0.113.7/32".parse().unwrap(),
            "2001:db9::/48".parse().unwrap(),
        ],
        note: "the office".into(),
        since: life.now(),
        until: FOREVER,
    };
    life.engine.allow(allowed);
    *life.places.lock() = vec![place(b"/var/log/a.log", 17), place(b"/var/log/\xff.log", 4)];
    life.write();
    let everything = |life: &Life| {
        let counters = sorted(life.engine.counters(), |c: &Tracked| c.client);
        (counters, life.engine.history(), life.engine.allowed())
    };
    let (before, places) = (everything(&life), life.places.lock().clone());
    assert_eq!((before.0.len(), before.1.len()), (2, 1));
    life.end();
    let next = Life::begin(&dir);
    assert_eq!(everything(&next), before);
    assert_eq!(next.found, places);
    // Of three failures two were counted in the life before.
    next.fail("web", "192.0.2.1", 1);
    next.fail("sliding", "2001:db8::1", 1);
    assert_eq!(next.clients(), ["192.0.2.1", "192.0.2.3", "2001:db8::/64"]);
    // And the second ban is twice as long.
    next.engine.unban(&Selector::All, next.now());
    next.fail("growing", "192.0.2.3", 3);
    let ban = &next.engine.ledger().bans()[0];
    assert_eq!(ban.until - ban.since, 2 * HOUR);
}

/// Without a save since the ban: its growth is kept with it.
#[test]
fn how_often_a_client_was_banned_is_kept_with_the_ban() {
    let dir = TempDir::new().unwrap();
    let mut life = Life::begin(&dir);
    life.fail("growing", "192.0.2.3", 3);
    life.write();
    let before = life.engine.history();
    assert_eq!(before.len(), 1);
    assert_eq!(Life::begin_after(life, &dir).engine.history(), before);
}

/// A save of many counters is written in parts; only a whole one counts.
#[test]
fn half_a_save_is_none() {
    let dir = TempDir::new().unwrap();
    let mut life = Life::begin(&dir);
    life.fail("web", "192.0.2.1", 2);
    *life.places.lock() = vec![place(b"/a", 1)];
    life.write();
    life.end();
    let mut life = Life::begin(&dir);
    for n in 0..10_000u32 {
        let client = std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string();
        life.fail("web", &client, 1);
    }
    *life.places.lock() = vec![place(b"/a", 2)];
    let instant = life.instant();
    life.writer.save_now(&instant);
    assert!(life.writer.step(&instant), "a part is written");
    drop(life);
    let mut life = Life::begin(&dir);
    assert_eq!(
        (life.engine.counters().len(), &*life.found),
        (1, &[place(b"/a", 1)][..])
    );
    for n in 0..10_000u32 {
        let client = std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string();
        life.fail("web", &client, 1);
    }
    *life.places.lock() = vec![place(b"/a", 2)];
    let instant = life.instant();
    life.writer.save_now(&instant);
    life.write();
    let life = Life::begin_after(life, &dir);
    assert_eq!(
        (life.engine.counters().len(), &*life.found),
        (10_001, &[place(b"/a", 2)][..])
    );
}

#[test]
fn what_has_not_changed_is_not_saved_again() {
    let dir = TempDir::new().unwrap();
    let mut life = Life::begin(&dir);
    let saves = |life: &mut Life| {
        let instant = life.instant();
        life.writer.save_now(&instant);
        life.write();
        let db = rusqlite::Connection::open(file(&dir)).unwrap();
        let sql = "SELECT value FROM state WHERE key = 'save'";
        db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    life.fail("web", "192.0.2.1", 1);
    assert_eq!((saves(&mut life), saves(&mut life)), (1, 1));
    life.fail("web", "192.0.2.1", 1);
    assert_eq!((saves(&mut life), saves(&mut life)), (2, 2));
    *life.places.lock() = vec![place(b"/a", 1)];
    assert_eq!(saves(&mut life), 3);
}

/// Lines that were counted before an operator lifted a ban must not be read again.
#[test]
fn a_lift_by_hand_takes_the_places_in_logs_with_it() {
    let dir = TempDir::new().unwrap();
    let mut life = Life::begin(&dir);
    *life.places.lock() = vec![place(b"/a", 1)];
    life.fail("web", "192.0.2.1", 3);
    life.write();
    *life.places.lock() = vec![place(b"/a", 500)];
    life.engine.unban(&Selector::All, life.now());
    life.write();
    assert_eq!(life.settled(), life.newest());
    let next = Life::begin_after(life, &dir);
    assert_eq!(
        (next.clients(), &*next.found),
        (Vec::new(), &[place(b"/a", 500)][..])
    );
}

#[test]
fn a_follower_that_is_too_far_behind_gets_a_snapshot_after_a_restart_too() {
    let dir = TempDir::new().unwrap();
    let mut life = Life::begin(&dir);
    life.ban("192.0.2.1", None);
    life.ban("192.0.2.2", None);
    life.engine.unban(&Selector::All, life.now());
    life.ban("192.0.2.3", None);
    life.engine.cursors().acknowledge("lapi", 4);
    life.write();
    life.writer.tidy_now();
    life.write();
    let next = Life::begin_after(life, &dir);
    assert!(
        matches!(next.engine.ledger().since(2, 9), Since::Snapshot { bans, next: 5 } if bans.len() == 1)
    );
    assert!(
        matches!(next.engine.ledger().since(4, 9), Since::Changes { changes, .. } if changes.len() == 1)
    );
}

#[test]
fn ended_bans_go_after_their_time_and_outside_ones_at_once() {
    let dir = TempDir::new().unwrap();
    let mut life = Life::begin(&dir);
    impose(&life.engine, every_kind(life.now()), life.now());
    life.write();
    life.engine.unban(&Selector::All, life.now());
    for name in ["crowdsec/CAPI", "manual"] {
        let delta = Delta {
            replace: true,
            ..Delta::default()
        };
        life.engine
            .apply(&Origin::Outside(name.into()), delta, life.now());
    }
    life.write();
    let past = |path: &Path| {
        let db = rusqlite::Connection::open(path).unwrap();
        let sql = "SELECT count(*), coalesce(sum(outside), 0) FROM past";
        db.query_row(sql, [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })
        .unwrap()
    };
    assert_eq!(past(&file(&dir)), (6, 2));
    life.writer.tidy_now();
    life.write();
    assert_eq!(past(&file(&dir)), (4, 0));
    let db = rusqlite::Connection::open(file(&dir)).unwrap();
    db.execute(
        "UPDATE past SET ended = ended - 86400001 WHERE jail IS NULL",
        [],
    )
    .unwrap();
    drop(db);
    life.writer.tidy_now();
    life.write();
    assert_eq!(past(&file(&dir)), (3, 0));
}

fn history(life: &mut Life, client: Option<&str>) -> Vec<String> {
    let (reply, answer) = oneshot::channel();
    let client = client.map(|text| ban(text, None, Origin::Manual, 0).client);
    let instant = life.instant();
    let order = archive::Order::History(client, 10, reply);
    life.writer.answer(&instant, order);
    let ended = answer.blocking_recv().unwrap().unwrap();
    let each = ended
        .iter()
        .map(|ended| format!("{} {}", spelled(ended.ban.client), ended.lift.as_str()));
    each.collect()
}

#[test]
fn people_can_ask_for_ended_bans_and_have_a_client_forgotten() {
    let dir = TempDir::new().unwrap();
    let mut life = Life::begin(&dir);
    life.engine.cursors().acknowledge("lapi", 0);
    for client in ["192.0.2.1", "192.0.2.0/24", "192.0.2.7", "2001:db8::/64"] {
        life.ban(client, None);
    }
    life.engine.unban(&Selector::All, life.now());
    let all = [
        "2001:db8::/64 unbanned",
        "192.0.2.7 unbanned",
        "192.0.2.0/24 unbanned",
        "192.0.2.1 unbanned",
    ];
    assert_eq!(history(&mut life, None), all);
    assert_eq!(
        history(&mut life, Some("192.0.2.1")),
        [all[2], all[3]],
        "and the range it was in"
    );
    assert_eq!(
        history(&mut life, Some("192.0.2.0/28")),
        [all[1], all[2], all[3]]
    );
    assert_eq!(history(&mut life, Some("2001:db8::5")), [all[0]]);
    for client in ["192.0.2.1", "2001:db8::5"] {
        let (reply, answer) = oneshot::channel();
        let client = ban(client, None, Origin::Manual, 0).client;
        let (order, instant) = (archive::Order::Forget(client, reply), life.instant());
        life.writer.answer(&instant, order);
        answer.blocking_recv().unwrap().unwrap();
    }
    // LAPI has not heard of these lifts: they stay until it has, and tell nothing but whom.
    let told = life.newest();
    life.engine.cursors().acknowledge("lapi", told);
    life.write();
    life.writer.tidy_now();
    life.write();
    assert_eq!(history(&mut life, None), [all[1], all[2]]);
}

#[test]
fn nobody_else_can_read_the_file_or_run_on_it() {
    let dir = TempDir::new().unwrap();
    let mut life = Life::begin(&dir);
    life.ban("192.0.2.1", None);
    life.write();
    for name in ["state.db", "state.db-wal", "state.db.lock"] {
        let mode = fs::metadata(dir.path().join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert!(matches!(Life::at(&file(&dir)), Err(Error::Taken { .. })));
    assert_eq!(Life::begin_after(life, &dir).clients(), ["192.0.2.1"]);
}

#[track_caller]
fn refused(prepare: &str, expected: &str) {
    let dir = TempDir::new().unwrap();
    let db = rusqlite::Connection::open(file(&dir)).unwrap();
    db.execute_batch(prepare).unwrap();
    drop(db);
    let before = fs::read(file(&dir)).unwrap();
    let error = Life::at(&file(&dir)).err().expect("refused");
    assert!(error.to_string().contains(expected), "{error}");
    assert_eq!(fs::read(file(&dir)).unwrap(), before, "untouched");
}

#[test]
fn a_newer_file_and_one_of_another_program_are_left_alone() {
    refused(
        "PRAGMA application_id = 1784768876; PRAGMA user_version = 999; CREATE TABLE t(a);",
        "newer jailgate (schema 999",
    );
    refused("CREATE TABLE somebody(elses)", "not jailgate's");
}

#[track_caller]
fn set_aside_when(damage: impl Fn(&mut Vec<u8>)) {
    let dir = TempDir::new().unwrap();
    let mut life = Life::begin(&dir);
    for n in 0..2000 {
        life.ban(&format!("10.1.{}.{}", n / 200, n % 200), None);
    }
    life.write();
    life.end();
    let mut bytes = fs::read(file(&dir)).unwrap();
    damage(&mut bytes);
    fs::write(file(&dir), &bytes).unwrap();
    let mut next = Life::begin(&dir);
    assert_eq!(next.clients().len(), 0);
    assert_eq!(next.disk().state, status::State::Ok);
    next.ban("192.0.2.1", None);
    next.write();
    assert_eq!(Life::begin_after(next, &dir).clients(), ["192.0.2.1"]);
    let names = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path());
    let aside = names.filter(|p| p.to_string_lossy().contains("state.db.damaged-"));
    let aside: Vec<_> = aside.collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert_eq!(fs::read(&aside[0]).unwrap(), bytes, "kept as it was");
}

#[test]
fn a_damaged_file_is_set_aside_and_a_fresh_one_begun() {
    set_aside_when(|bytes| *bytes = b"this is no database at all, whoever wrote it".repeat(200));
    set_aside_when(|bytes| bytes.truncate(3 * 4096 + 17));
    set_aside_when(|bytes| {
        let middle = bytes.len() / 2;
        bytes[middle..middle + 20_000].fill(0xA5);
    });
}

/// As on a read-only or full disk, or one that is not mounted.
#[test]
fn a_disk_out_of_reach_stops_nothing_and_is_caught_up_with() {
    let dir = TempDir::new().unwrap();
    let mut life = Life::begin(&dir);
    life.ban("192.0.2.1", Some("web"));
    life.ban("192.0.2.2", Some("web"));
    life.write();
    life.end();
    let (place, away) = (dir.path().join("state.db"), dir.path().join("away.db"));
    fs::rename(&place, &away).unwrap();
    fs::create_dir(&place).unwrap();
    let mut life = Life::begin(&dir);
    assert_eq!(life.disk().state, status::State::Failing);
    assert_eq!(life.metrics.state_errors.get(), 1);
    life.ban("192.0.2.2", Some("web"));
    life.ban("192.0.2.3", Some("web"));
    assert_eq!(life.settled(), 2, "the world does not wait for it");
    fs::remove_dir(&place).unwrap();
    fs::rename(&away, &place).unwrap();
    life.writer.retry_now();
    life.write();
    assert_eq!(life.disk().state, status::State::Ok);
    assert_eq!(
        life.clients(),
        ["192.0.2.1", "192.0.2.2", "192.0.2.3"],
        "also what was on disk"
    );
    life.ban("192.0.2.4", Some("web"));
    assert!(life.settled() < life.newest(), "it waits again");
    life.write();
    assert_eq!(life.settled(), life.newest());
    let next = Life::begin_after(life, &dir);
    assert_eq!(
        next.clients(),
        ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]
    );
    next.engine.check_invariants(next.now());
}

#[test]
fn a_file_that_somebody_removed_is_written_anew() {
    let dir = TempDir::new().unwrap();
    let mut life = Life::begin(&dir);
    life.ban("192.0.2.1", None);
    life.write();
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    life.ban("192.0.2.2", None);
    life.writer.tidy_now();
    life.write();
    assert_eq!(life.disk().state, status::State::Failing);
    life.writer.retry_now();
    life.write();
    assert_eq!(life.disk().state, status::State::Ok);
    assert_eq!(
        Life::begin_after(life, &dir).clients(),
        ["192.0.2.1", "192.0.2.2"]
    );
}
