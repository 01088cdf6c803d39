//! The state on disk: what a killed program leaves to its next life, and disks that are full or
//! damaged.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::Write,
    net::Ipv4Addr,
    path::Path,
    process::Command,
    sync::{Arc, atomic::AtomicU32},
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use crate::support::{Flood, Jailgate, Origin, get, request, send};

/// Three 401s ban. Clients come by X-Forwarded-For from loopback; `more` are further blocks.
fn config(origin: &Origin, rules: &str, more: &str) -> String {
    format!(
        "entryPoints:\n  web:\n    address: \"127.0.0.1:0\"\n    \
         forwardedHeaders: {{ trustedIPs: [\"127.0.0.1/32\"] }}\n\
         routes:\n  - {{ service: app, jails: [web] }}\n\
         services:\n  app: {{ servers: [{{ url: \"http://{}\" }}] }}\n\
         jails:\n  web: {{ enableBlockLogs: false, rules: {{ maxretry: 3, findtime: 10m, \
         statuscode: \"401\", bantime: 1h }}{rules} }}\n\
         state: {{ path: \"state/jailgate.db\" }}\n{more}\n",
        origin.address
    )
}

fn directory() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("state")).unwrap();
    dir
}

fn ask(gate: &Jailgate, client: &str, path: &str) -> u16 {
    let from = format!("X-Forwarded-For: {client}\r\n");
    get(gate.address("web"), path, &from).status
}

fn banned_by_three(gate: &Jailgate, client: &str) {
    let answers = [0; 3].map(|_| ask(gate, client, "/status/401"));
    assert_eq!(answers, [401, 401, 403]);
    gate.wait_for(&format!("client={client} "));
}

/// What the file of a program holds that runs or has ended.
fn rows<T: rusqlite::types::FromSql>(dir: &Path, sql: &str) -> Vec<T> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let db = Connection::open_with_flags(dir.join("state/jailgate.db"), flags).unwrap();
    let mut statement = db.prepare(sql).unwrap();
    let found = statement.query_map([], |row| row.get(0)).unwrap();
    found.map(Result::unwrap).collect()
}

/// The clients that a log says to be banned.
fn begun(log: &str) -> BTreeSet<Ipv4Addr> {
    let lines = log.lines().filter(|line| line.contains("ban begins"));
    let client = |line: &str| {
        let (_, rest) = line.split_once("client=")?;
        rest.split(' ').next()?.parse().ok()
    };
    lines
        .map(|line| client(line).unwrap_or_else(|| panic!("no client in {line}")))
        .collect()
}

#[test]
fn a_ban_outlives_kill_9_and_a_count_outlives_an_orderly_end() {
    let origin = Origin::start();
    let config = config(&origin, "", "");
    let gate = Jailgate::run_in(directory(), &config);
    banned_by_three(&gate, "203.0.113.1");
    let (dir, _) = gate.stop("KILL");
    let gate = Jailgate::run_in(dir, &config);
    let seen = origin.seen().len();
    assert_eq!(ask(&gate, "203.0.113.1", "/"), 403);
    assert_eq!(origin.seen().len(), seen, "the service is not asked");
    assert_eq!(ask(&gate, "203.0.113.2", "/"), 200);
    assert_eq!(gate.count("ban begins"), 0, "it began in an earlier life");
    let metrics = get(gate.address("admin"), "/metrics", "").text();
    let active = "jailgate_bans_active{jail=\"web\",origin=\"jailgate\"} 1";
    assert!(metrics.contains(active), "{metrics}");
    for _ in 0..2 {
        assert_eq!(ask(&gate, "203.0.113.3", "/status/401"), 401);
    }
    let (dir, _) = gate.stop("TERM");
    let gate = Jailgate::run_in(dir, &config);
    assert_eq!(ask(&gate, "203.0.113.3", "/status/401"), 403, "the third");
    assert_eq!(ask(&gate, "203.0.113.1", "/"), 403);
}

#[test]
fn bans_that_ended_meanwhile_end_and_grow_from_then_on() {
    let origin = Origin::start();
    let grows = ", bantimeIncrement: { factor: 1, maxtime: 1h, remember: 1d }";
    let config = config(&origin, grows, "").replace("bantime: 1h", "bantime: 700ms");
    let gate = Jailgate::run_in(directory(), &config);
    banned_by_three(&gate, "203.0.113.1");
    let (dir, _) = gate.stop("KILL");
    std::thread::sleep(Duration::from_millis(800));
    let gate = Jailgate::run_in(dir, &config);
    let ended = gate.wait_for("ban ends");
    assert!(
        ended.contains("client=203.0.113.1 ") && ended.contains("expired"),
        "{ended}"
    );
    banned_by_three(&gate, "203.0.113.1");
    gate.wait_for("ban begins");
    let lengths: Vec<i64> = rows(gate.path(), "SELECT until - since FROM bans");
    assert_eq!(lengths, [1400], "the second is twice as long");
}

/// Killed while it bans as fast as it can: whoever was logged as banned is banned.
#[test]
fn no_ban_that_was_logged_is_lost_to_kill_9() {
    let origin = Origin::start();
    let config = config(&origin, "", "");
    let (mut dir, mut all) = (directory(), BTreeSet::new());
    let next = Arc::new(AtomicU32::new(0));
    for round in 0..5 {
        let gate = Jailgate::run_in(dir, &config);
        let flood = Flood::start(gate.address("web"), "/status/401", 3, 2000, &next);
        std::thread::sleep(Duration::from_millis(300 + 70 * round));
        let (kept, log) = gate.stop("KILL");
        flood.end();
        all.extend(begun(&log));
        dir = kept;
    }
    assert!(all.len() > 100, "only {} bans: no load", all.len());
    let gate = Jailgate::run_in(dir, &config);
    let held: Vec<String> = rows(gate.path(), "SELECT client FROM bans");
    let held: BTreeSet<Ipv4Addr> = held.iter().map(|text| text.parse().unwrap()).collect();
    let lost: Vec<_> = all.difference(&held).collect();
    assert!(
        lost.is_empty(),
        "{} of {} lost: {lost:?}",
        lost.len(),
        all.len()
    );
    for client in all.iter().step_by(all.len() / 50) {
        assert_eq!(ask(&gate, &client.to_string(), "/"), 403, "{client}");
    }
    assert_eq!(ask(&gate, "203.0.113.1", "/"), 200);
}

/// Lines of a log that is followed through kills and orderly ends: counters and bans are those of
/// one uninterrupted life.
#[test]
fn no_line_of_a_log_is_lost_or_counted_twice_over_kill_9() {
    let origin = Origin::start();
    let dir = directory();
    let log = dir.path().join("access.log");
    let config = config(
        &origin,
        "",
        &format!(
            "accessLogs:\n  - {{ path: \"{}\", format: combined, jails: [web, many] }}\n",
            log.display()
        ),
    )
    .replace("jails:\n  web", "jails:\n  many: { rules: { maxretry: 1000000, findtime: 1h, statuscode: \"401\" } }\n  web");
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)
        .unwrap();
    let mut line = |client: &str| {
        let now = jiff::Timestamp::now().strftime("%d/%b/%Y:%H:%M:%S +0000");
        writeln!(
            file,
            "{client} - - [{now}] \"GET /login HTTP/1.1\" 401 0 \"-\" \"-\""
        )
        .unwrap();
    };
    let (mut dir, mut begins, mut written) = (dir, Vec::new(), 0);
    for round in 0..12 {
        let gate = Jailgate::run_in(dir, &config);
        for _ in 0..200 {
            line("198.51.100.1");
        }
        written += 200;
        // Each of these fails three times in all, across lives.
        line(&format!("203.0.113.{round}"));
        line(&format!("203.0.113.{}", round + 1));
        line(&format!("203.0.113.{}", round + 2));
        if round >= 2 {
            gate.wait_for(&format!("client=203.0.113.{round} "));
        }
        let (kept, said) = gate.stop(if round % 3 == 1 { "TERM" } else { "KILL" });
        let lines = said.lines().filter(|line| line.contains("ban begins"));
        begins.extend(
            lines.filter_map(|line| {
                Some(line.split_once("client=")?.1.split(' ').next()?.to_owned())
            }),
        );
        dir = kept;
    }
    let gate = Jailgate::run_in(dir, &config);
    let metric = "jailgate_access_log_lag_bytes 0\n";
    let deadline = Instant::now() + Duration::from_secs(10);
    while !get(gate.address("admin"), "/metrics", "")
        .text()
        .contains(metric)
    {
        assert!(Instant::now() < deadline, "the log is not read");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(1100));
    let (dir, _) = gate.stop("TERM");
    let counted = "SELECT count FROM counters WHERE jail = 'many' AND client = '198.51.100.1' \
                   AND save = (SELECT value FROM state WHERE key = 'save')";
    assert_eq!(rows::<i64>(dir.path(), counted), [written]);
    begins.sort();
    let before = begins.len();
    begins.dedup();
    assert_eq!(begins.len(), before, "banned twice: {begins:?}");
    let banned: Vec<String> = rows(
        dir.path(),
        "SELECT client FROM bans WHERE jail = 'web' ORDER BY client",
    );
    // The first log line of each pair at the ends has too few; everybody else has exactly three.
    let mut expected: Vec<String> = (2..12).map(|n| format!("203.0.113.{n}")).collect();
    expected.push("198.51.100.1".to_owned());
    expected.sort();
    assert_eq!(banned, expected);
}

/// The program on a disk where no file grows beyond so many blocks of 512 bytes. The soft limit of
/// a file's size stands for a full disk: no mount, no root. SIGXFSZ is ignored, so that a write
/// beyond it fails as one on a full disk does.
fn limited(blocks: u32) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!(
        "trap '' XFSZ; ulimit -S -f {blocks}; exec {} run -c jailgate.yaml",
        env!("CARGO_BIN_EXE_jailgate")
    ));
    command
}

fn unlimit(gate: &Jailgate) {
    let raised = Command::new("prlimit")
        .args(["--fsize=unlimited", "--pid", &gate.pid().to_string()])
        .status();
    assert!(raised.expect("util-linux has prlimit").success());
}

#[test]
fn a_full_disk_stops_no_ban_and_is_caught_up_with() {
    let origin = Origin::start();
    let dir = directory();
    let config = config(&origin, "", "admin: { address: \"127.0.0.1:0\" }");
    fs::write(dir.path().join("jailgate.yaml"), &config).unwrap();
    let gate = Jailgate::start(limited(200), dir);
    gate.wait_for("ready");
    banned_by_three(&gate, "203.0.113.1");
    let mut last = 0;
    while gate.count("state not kept on disk") == 0 {
        last += 1;
        assert!(last < 3000, "the disk never filled:\n{}", gate.text());
        let client = Ipv4Addr::from(0x0b00_0000 + last).to_string();
        for _ in 0..3 {
            ask(&gate, &client, "/status/401");
        }
    }
    // Enforced and told all the same, and said once.
    banned_by_three(&gate, "203.0.113.2");
    assert_eq!(ask(&gate, "203.0.113.2", "/"), 403);
    let metrics = get(gate.address("admin"), "/metrics", "").text();
    assert!(
        !metrics.contains("jailgate_state_errors_total 0"),
        "{metrics}"
    );
    unlimit(&gate);
    gate.wait_for("state kept on disk again");
    assert_eq!(gate.count("state not kept on disk"), 1);
    let (dir, log) = gate.stop("KILL");
    let gate = Jailgate::run_in(dir, &config);
    let held: Vec<String> = rows(gate.path(), "SELECT client FROM bans");
    let held: BTreeSet<Ipv4Addr> = held.iter().map(|text| text.parse().unwrap()).collect();
    assert!(begun(&log).is_subset(&held));
    assert_eq!(ask(&gate, "203.0.113.2", "/"), 403);
}

/// Started on a full disk: what is on it holds from the first request on.
#[test]
fn a_start_on_a_full_disk_knows_its_bans() {
    let origin = Origin::start();
    let config = config(&origin, "", "admin: { address: \"127.0.0.1:0\" }");
    let gate = Jailgate::run_in(directory(), &config);
    banned_by_three(&gate, "203.0.113.1");
    let (dir, _) = gate.stop("KILL");
    let gate = Jailgate::start(limited(4), dir);
    gate.wait_for("ready");
    gate.wait_for("state not kept on disk");
    assert_eq!(ask(&gate, "203.0.113.1", "/"), 403);
    banned_by_three(&gate, "203.0.113.2");
    unlimit(&gate);
    gate.wait_for("state kept on disk again");
    let (dir, _) = gate.stop("KILL");
    let gate = Jailgate::run_in(dir, &config);
    for client in ["203.0.113.1", "203.0.113.2"] {
        assert_eq!(ask(&gate, client, "/"), 403, "{client}");
    }
}

#[test]
fn a_damaged_file_is_set_aside_with_a_clear_word() {
    let origin = Origin::start();
    let config = config(&origin, "", "");
    let dir = directory();
    fs::write(
        dir.path().join("state/jailgate.db"),
        b"rubbish ".repeat(4096),
    )
    .unwrap();
    let gate = Jailgate::run_in(dir, &config);
    let said = gate.wait_for("set aside");
    assert!(
        said.contains("ERROR") && said.contains("jailgate.db.damaged-"),
        "{said}"
    );
    banned_by_three(&gate, "203.0.113.1");
    let (dir, _) = gate.stop("KILL");
    assert_eq!(
        ask(&Jailgate::run_in(dir, &config), "203.0.113.1", "/"),
        403
    );
}

#[test]
fn a_second_process_on_the_same_file_says_why_it_does_not_start() {
    let origin = Origin::start();
    let config = config(&origin, "", "admin: { address: \"127.0.0.1:0\" }");
    let gate = Jailgate::run_in(directory(), &config);
    let second = Jailgate::command()
        .args(["run", "-c"])
        .arg(gate.path().join("jailgate.yaml"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(
        said.contains("another jailgate is running with this file"),
        "{said}"
    );
    banned_by_three(&gate, "203.0.113.1");
}

/// A disk that hangs, for which a lock that somebody else holds stands: bans are enforced at once
/// and told once they are kept; no request waits.
#[test]
fn a_disk_that_hangs_is_noticed_by_nobody_who_asks() {
    let origin = Origin::start();
    let config = config(&origin, "", "");
    let gate = Jailgate::run_in(directory(), &config);
    banned_by_three(&gate, "203.0.113.1");
    let db = Connection::open(gate.path().join("state/jailgate.db")).unwrap();
    db.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let (held, mut slowest) = (Instant::now(), Duration::ZERO);
    for client in 0..100 {
        let client = format!("198.51.100.{client}");
        for expected in [401, 401, 403, 403] {
            let asked = Instant::now();
            assert_eq!(ask(&gate, &client, "/status/401"), expected);
            slowest = slowest.max(asked.elapsed());
        }
    }
    let early = gate.count("ban begins") - 1;
    // Longer than that, and it counts as a disk that fails.
    if held.elapsed() < Duration::from_secs(2) {
        assert_eq!(early, 0, "told before they are kept");
    }
    assert!(
        slowest < Duration::from_millis(500),
        "a request took {slowest:?}"
    );
    db.execute_batch("ROLLBACK").unwrap();
    gate.wait_for("client=198.51.100.99 ");
    let held: Vec<i64> = rows(gate.path(), "SELECT count(*) FROM bans");
    assert_eq!(held, [101]);
}

/// What an operator was told to be done is done for good, killed right after the answer.
#[test]
fn what_an_operator_was_told_outlives_kill_9() {
    let origin = Origin::start();
    let config = config(&origin, "", "");
    let mut dir = directory();
    for round in 0..8 {
        let gate = Jailgate::run_in(dir, &config);
        let admin = gate.address("admin");
        let (lifted, stays) = (format!("203.0.113.{round}"), format!("198.51.100.{round}"));
        for client in [&lifted, &stays] {
            for _ in 0..3 {
                ask(&gate, client, "/status/401");
            }
        }
        let body = format!("{{\"clients\": [\"198.18.0.{round}\"], \"for\": \"1h\"}}");
        let json = format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
        let banned = send(admin, "POST", "/api/v1/bans", &json, &body);
        assert_eq!(banned.status, 200, "{}", banned.text());
        let unban = format!("/api/v1/bans?client={lifted}");
        let answer = request(admin, "DELETE", &unban, "");
        assert_eq!(answer.status, 200, "{}", answer.text());
        (dir, _) = gate.stop("KILL");
    }
    let gate = Jailgate::run_in(dir, &config);
    for round in 0..8 {
        assert_eq!(
            ask(&gate, &format!("203.0.113.{round}"), "/"),
            200,
            "revived"
        );
        assert_eq!(ask(&gate, &format!("198.51.100.{round}"), "/"), 403, "lost");
        assert_eq!(
            ask(&gate, &format!("198.18.0.{round}"), "/"),
            403,
            "lost by hand"
        );
    }
    let admin = gate.address("admin");
    let history = |client: &str| get(admin, &format!("/api/v1/history?client={client}"), "").text();
    assert!(
        history("203.0.113.3").contains("\"unbanned\""),
        "{}",
        history("203.0.113.3")
    );
    assert_eq!(
        request(admin, "DELETE", "/api/v1/clients/203.0.113.3", "").status,
        200
    );
    let past = "SELECT count(*) FROM past WHERE client = '203.0.113.3' AND path <> ''";
    assert_eq!(
        rows::<i64>(gate.path(), past),
        [0],
        "forgotten on disk, too"
    );
}
