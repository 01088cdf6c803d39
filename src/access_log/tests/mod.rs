//! From lines and exports to bans, with a real engine.

mod otlp;

use std::{fs, io::Write, net::IpAddr, path::Path, sync::Arc, time::Duration};

use tempfile::TempDir;

use super::{
    Shared, Sources,
    checkpoint::Checkpoints,
    format::{Chain, Format},
    intake::{Intake, OwnAddresses, Taken},
};
use crate::{
    config::Config,
    engine::{Engine, Limits, Request, Told, Verdict, nets::NetSet},
    tasks::Tasks,
    telemetry::Metrics,
    time::{Clock, Millis},
};

/// Enough to do for a configuration; the log tests make their intake themselves.
const OTLP: &str = "otlp: { address: \"127.0.0.1:0\", token: hunter2, jails: [web] }";

/// A configuration, its engine and its sources.
struct Bench {
    dir: TempDir,
    config: Config,
    shared: Shared,
    checkpoints: Checkpoints,
}

impl Bench {
    fn new(sources: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let here = dir.path().display().to_string();
        let text = format!(
            "state: {{ path: \"{here}/state.db\" }}\n{}\njails:\n  web:\n    rules: {{ findtime: 10m, \
             bantime: 1h, maxretry: 4, statuscode: \"401,403,404,500-504\" }}\n",
            sources.replace("HERE", &here)
        );
        fs::write(dir.path().join("jailgate.yaml"), text).unwrap();
        let config = Config::load(&dir.path().join("jailgate.yaml")).unwrap();
        let limits = Limits {
            tracked_clients: 1000,
            bans: 1000,
            aggregate_ipv6: false,
        };
        let clock = Clock::start();
        let engine = Arc::new(Engine::new(limits, 1));
        let jails = config.jails.iter().map(|jail| jail.spec.clone());
        engine.configure(jails.collect(), nets(&["127.0.0.0/8"]), clock.now());
        let shared = Shared {
            engine,
            metrics: Arc::new(Metrics::new()),
            clock,
            tasks: Tasks::new(),
        };
        Self {
            dir,
            config,
            shared,
            checkpoints: Checkpoints::new(),
        }
    }

    fn intake(&self, trusted: &[&str]) -> Intake {
        let own = OwnAddresses {
            ports: vec![8080],
            itself: Arc::new(nets(&["172.18.0.5/32"])),
        };
        let Shared {
            engine, metrics, ..
        } = self.shared.clone();
        let jails: Vec<_> = self.config.jails.iter().collect();
        Intake::new(
            "test",
            engine,
            metrics,
            &jails,
            Arc::new(nets(trusted)),
            own,
        )
    }

    fn sources(&self) -> Sources {
        let (shared, places) = (self.shared.clone(), self.checkpoints.clone());
        Sources::build(&self.config, shared, &NetSet::default(), places).unwrap()
    }

    fn now(&self) -> Millis {
        self.shared.clock.now()
    }

    fn banned(&self, ip: &str) -> bool {
        let client: IpAddr = ip.parse().unwrap();
        let request = Request {
            client,
            method: b"GET",
            target: b"/other",
            told: Told::These {
                host: b"",
                agent: b"",
            },
            plain: false,
        };
        let jail = self.shared.engine.jail("web").unwrap();
        matches!(
            self.shared.engine.check(jail, &request, self.now()),
            Verdict::Deny(_)
        )
    }

    /// Waits for what another task does; the time is only for when it never happens.
    async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !done(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waiting)
            .await
            .expect(what);
    }
}

fn nets(nets: &[&str]) -> NetSet {
    NetSet::build(nets.iter().map(|net| net.parse().unwrap()))
}

fn rfc3339(at: Millis) -> String {
    jiff::Timestamp::from_millisecond(at as i64)
        .unwrap()
        .to_string()
}

/// A Traefik line with these members added or put in place.
fn traefik(at: Millis, more: &str) -> String {
    let mut line = serde_json::json!({
        "ClientAddr": "203.0.113.9:4711", "ClientHost": "203.0.113.9", "DownstreamStatus": 401,
        "OriginStatus": 401, "RequestHost": "app", "RequestMethod": "GET", "RequestPath": "/login",
        "StartUTC": rfc3339(at),
    });
    let more: serde_json::Value = serde_json::from_str(more).unwrap();
    for (key, value) in more.as_object().unwrap() {
        line[key] = value.clone();
    }
    line.to_string()
}

fn take(intake: &Intake, line: &str, now: Millis) -> Taken {
    intake.take(&Format::TraefikJson.parse(line.as_bytes()).unwrap(), now)
}

#[test]
fn the_fourth_failure_bans_at_the_times_of_the_lines() {
    let bench = Bench::new(OTLP);
    let (intake, now) = (bench.intake(&[]), bench.now());
    for minute in [8, 7, 6] {
        take(&intake, &traefik(now - minute * 60_000, "{}"), now);
    }
    assert!(!bench.banned("203.0.113.9"));
    take(&intake, &traefik(now - 5 * 60_000, "{}"), now);
    assert!(bench.banned("203.0.113.9"));
    let (bans, _) = ledger(&bench);
    assert_eq!(bans, [(now - 5 * 60_000, now + 55 * 60_000)]);
}

#[test]
fn failures_spread_wider_than_findtime_ban_nobody() {
    let bench = Bench::new(OTLP);
    let (intake, now) = (bench.intake(&[]), bench.now());
    for minute in [50, 39, 28, 17, 6] {
        assert_eq!(
            take(&intake, &traefik(now - minute * 60_000, "{}"), now),
            Taken::Judged
        );
    }
    assert!(!bench.banned("203.0.113.9"));
}

#[test]
fn the_future_and_last_year_are_not_now() {
    let bench = Bench::new(OTLP);
    let (intake, now) = (bench.intake(&[]), bench.now());
    let year = 365 * 86_400_000;
    for _ in 0..9 {
        assert_eq!(take(&intake, &traefik(now - year, "{}"), now), Taken::Stale);
        assert_eq!(
            take(&intake, &traefik(now + 120_000, "{}"), now),
            Taken::Future
        );
    }
    assert!(!bench.banned("203.0.113.9"));
    assert_eq!(
        take(&intake, &traefik(now + 1_000, "{}"), now),
        Taken::Judged
    );
}

#[test]
fn what_jailgate_said_itself_is_no_failure() {
    let bench = Bench::new(OTLP);
    let (intake, now) = (bench.intake(&[]), bench.now());
    let own = [
        r#"{"DownstreamStatus":403,"OriginStatus":0,"downstream_X-Jailgate-Reason":"banned"}"#,
        r#"{"DownstreamStatus":403,"OriginStatus":0,"ClientUsername":"rule"}"#,
        r#"{"DownstreamStatus":400,"OriginStatus":0,"ClientUsername":"refused"}"#,
        r#"{"OriginStatus":0,"downstream_X-Jailgate-Reason":"refused"}"#,
        r#"{"ServiceAddr":"172.18.0.5:8080"}"#,
        r#"{"ServiceAddr":"127.0.0.1:8080"}"#,
    ];
    for _ in 0..5 {
        for more in own {
            assert_eq!(
                take(&intake, &traefik(now, more), now),
                Taken::Own,
                "{more}"
            );
        }
        for status in [0, 499, 502, 503, 504] {
            let more = format!(r#"{{"DownstreamStatus":{status}}}"#);
            assert_eq!(take(&intake, &traefik(now, &more), now), Taken::Meaningless);
        }
    }
    assert!(!bench.banned("203.0.113.9"));
}

#[test]
fn nobody_hides_failures_by_naming_himself_banned() {
    let hiding = [
        r#"{"ClientUsername":"banned","OriginStatus":0}"#,
        r#"{"ClientUsername":"banned","OriginStatus":0,"DownstreamStatus":404}"#,
        r#"{"ClientUsername":"banned","OriginStatus":403,"DownstreamStatus":403}"#,
        r#"{"ClientUsername":"banned2","OriginStatus":0,"DownstreamStatus":403}"#,
        r#"{"ServiceAddr":"172.18.0.6:8080"}"#,
        r#"{"OriginStatus":0,"DownstreamStatus":404}"#,
        r#"{"ClientUsername":"refused","OriginStatus":0}"#,
        r#"{"ClientUsername":"refused","OriginStatus":0,"DownstreamStatus":404}"#,
    ];
    for more in hiding {
        let bench = Bench::new(OTLP);
        let (intake, now) = (bench.intake(&[]), bench.now());
        for _ in 0..4 {
            take(&intake, &traefik(now, more), now);
        }
        assert!(bench.banned("203.0.113.9"), "{more}");
    }
}

#[test]
fn the_client_is_the_rightmost_address_not_trusted() {
    let chain = |forwarded: &'static str, peer: &'static str| Chain {
        forwarded: forwarded.as_bytes().into(),
        peer: peer.as_bytes().into(),
        believed: true,
    };
    let trusted = nets(&["10.0.0.0/8", "2001:db8:1::/48"]);
    let check = |forwarded, peer, expected: Option<&str>, unlisted: bool| {
        let found = chain(forwarded, peer).client(&trusted);
        let found = found.map(|client| (client.addr.to_string(), client.unlisted_peer));
        assert_eq!(
            found,
            expected.map(|ip| (ip.into(), unlisted)),
            "{forwarded} | {peer}"
        );
    };
    check("203.0.113.9", "203.0.113.9:1", Some("203.0.113.9"), false);
    check("203.0.113.9", "10.0.0.1:1", Some("203.0.113.9"), false);
    check(
        "9.9.9.9, 203.0.113.9",
        "10.0.0.1:1",
        Some("203.0.113.9"),
        false,
    );
    check(
        "9.9.9.9, 203.0.113.9, 10.0.0.2",
        "10.0.0.1:1",
        Some("203.0.113.9"),
        false,
    );
    check(
        "9.9.9.9, 203.0.113.9",
        "198.51.100.1:1",
        Some("198.51.100.1"),
        true,
    );
    check("10.0.0.3", "10.0.0.1:1", Some("10.0.0.3"), false);
    check("10.0.0.1", "10.0.0.1:1", Some("10.0.0.1"), false);
    check(
        "9.9.9.9, junk, 10.0.0.2",
        "10.0.0.1:1",
        Some("10.0.0.2"),
        false,
    );
    check("", "[2001:db8::7]:443", Some("2001:db8::7"), false);
    check(
        "::ffff:203.0.113.9",
        "[2001:db8:1::5]:443",
        Some("203.0.113.9"),
        false,
    );
    check("203.0.113.9", "junk", None, false);
    check("", "", None, false);
    check("203.0.113.9", "", Some("203.0.113.9"), false);
}

#[tokio::test]
async fn a_followed_log_bans_and_goes_on_after_a_restart() {
    let bench =
        Bench::new("accessLogs: [{ path: HERE/access.log, format: combined, jails: [web] }]");
    let path = bench.dir.path().join("access.log");
    let mut sources = bench.sources();
    sources.start();
    let line = |ip: &str| {
        let now = jiff::Timestamp::from_millisecond(bench.now() as i64).unwrap();
        let now = now.strftime("%d/%b/%Y:%H:%M:%S +0000");
        format!("{ip} - - [{now}] \"GET /login HTTP/1.1\" 401 0 \"-\" \"-\"\n")
    };
    append(&path, &line("203.0.113.9").repeat(3));
    append(&path, "rubbish\n");
    append(&path, &line("203.0.113.9"));
    bench
        .until("a ban by the log", |bench| bench.banned("203.0.113.9"))
        .await;
    append(&path, &line("198.51.100.7").repeat(3));
    bench
        .until("all lines", |bench| {
            bench.shared.metrics.log_lines.get() == 8
        })
        .await;
    assert_eq!(bench.shared.metrics.log_unparsed.get(), 1);
    assert!(bench.shared.tasks.drain(Duration::from_secs(5)).await);
    // The same engine, other tasks: three failures stay three.
    append(&path, &line("198.51.100.7"));
    let again = Shared {
        tasks: Tasks::new(),
        ..bench.shared.clone()
    };
    let places = bench.checkpoints.clone();
    let mut sources = Sources::build(&bench.config, again, &NetSet::default(), places).unwrap();
    sources.start();
    bench
        .until("the fourth failure", |bench| bench.banned("198.51.100.7"))
        .await;
    assert_eq!(bench.shared.metrics.log_lines.get(), 9);
}

#[tokio::test]
async fn a_reload_reads_no_line_twice_and_takes_on_new_logs() {
    let bench =
        Bench::new("accessLogs: [{ path: HERE/access.log, format: traefik-json, jails: [web] }]");
    let (path, more) = (
        bench.dir.path().join("access.log"),
        bench.dir.path().join("more.log"),
    );
    let mut sources = bench.sources();
    sources.start();
    let line = traefik(bench.now(), "{}") + "\n";
    append(&path, &line.repeat(3));
    bench
        .until("three lines", |bench| {
            bench.shared.metrics.log_lines.get() == 3
        })
        .await;
    let mut config = bench.config.clone();
    let mut second = config.access_logs[0].clone();
    second.path = more.clone();
    config.access_logs.push(second);
    sources.adopt(&config, &NetSet::default());
    append(&more, &line.replace("203.0.113.9", "198.51.100.7"));
    bench
        .until("a line of the new log", |bench| {
            bench.shared.metrics.log_lines.get() == 4
        })
        .await;
    assert!(!bench.banned("203.0.113.9"));
    append(&path, &line);
    bench
        .until("the fourth", |bench| bench.banned("203.0.113.9"))
        .await;
}

/// A head of 1 MiB, which is what Traefik takes, is six times as long in its log.
#[tokio::test]
async fn nobody_hides_failures_in_long_lines() {
    let bench =
        Bench::new("accessLogs: [{ path: HERE/access.log, format: traefik-json, jails: [web] }]");
    let path = bench.dir.path().join("access.log");
    let mut sources = bench.sources();
    sources.start();
    let long = format!(
        r#"{{"RequestPath":"/login?{}"}}"#,
        "\\u0026".repeat(1 << 20)
    );
    let line = traefik(bench.now(), &long).replace('&', "\\u0026") + "\n";
    assert!(line.len() > 6 << 20, "{}", line.len());
    append(&path, &line.repeat(4));
    bench
        .until("a ban by long lines", |bench| bench.banned("203.0.113.9"))
        .await;
}

/// And not at the next look, which is once a second.
#[tokio::test]
async fn a_line_is_counted_when_it_is_written() {
    let bench =
        Bench::new("accessLogs: [{ path: HERE/access.log, format: traefik-json, jails: [web] }]");
    let path = bench.dir.path().join("access.log");
    let mut sources = bench.sources();
    sources.start();
    let line = traefik(bench.now(), "{}") + "\n";
    let all = async {
        for lines in 1..=20 {
            append(&path, &line);
            bench
                .until("a line", |bench| {
                    bench.shared.metrics.log_lines.get() == lines
                })
                .await;
        }
    };
    let soon = Duration::from_secs(5);
    tokio::time::timeout(soon, all).await.expect("lines wait");
}

fn append(path: &Path, text: &str) {
    let mut file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn ledger(bench: &Bench) -> (Vec<(Millis, Millis)>, u64) {
    match bench.shared.engine.ledger().since(0, 100) {
        crate::engine::Since::Changes { changes, next } => (
            changes
                .iter()
                .map(|change| (change.ban.since, change.ban.until))
                .collect(),
            next,
        ),
        crate::engine::Since::Snapshot { .. } => panic!("nothing was forgotten"),
    }
}
