//! Access-log lines per second of one core, parse to counted event, from memory and from a file
//! through the follower; and the same files read by Debian's fail2ban with its traefik-auth filter.
//! Rates are per second of CPU time, so that a busy machine changes little; bounded to two minutes.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench owns its clock and its output"
)]

use std::{fs, path::Path, process::Command, sync::Arc, time::Instant};

use jailgate::{
    access_log::{
        checkpoint::Checkpoints,
        follow::{Follower, Line},
        format::Format,
        intake::{Intake, OwnAddresses},
    },
    config::Config,
    engine::{Engine, Limits, nets::NetSet},
    telemetry::Metrics,
    time::Millis,
};

const LINES: u32 = 300_000;
/// fail2ban reads the first lines only: it takes about a minute for a million.
const PEER_LINES: usize = 20_000;
const FAILURES: &str = "jailgate_failures_total{jail=\"web\"} ";
const NOW: Millis = 1_795_296_000_000;

fn main() {
    // `cargo bench NAME` passes the name of somebody else's bench here too.
    if std::env::args()
        .skip(1)
        .any(|arg| !arg.starts_with('-') && !"intake".contains(&arg))
    {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let json: String = (0..LINES).map(json).collect();
    let clf: String = (0..LINES).map(clf).collect();
    println!(
        "{LINES} lines, Traefik JSON {} B and CLF {} B on average; every fifth is a 401",
        json.len() / LINES as usize,
        clf.len() / LINES as usize
    );
    for (name, text, format) in [
        ("Traefik JSON", &json, Format::TraefikJson),
        ("Traefik CLF", &clf, Format::Clf),
    ] {
        let path = dir.path().join("access.log");
        fs::write(&path, text).unwrap();
        let memory = best(|| from_memory(&format, text.as_bytes()));
        let file = best(|| from_file(&format, &path));
        println!("\n{name}");
        row(
            "parse only, from memory",
            best(|| parse_only(&format, text.as_bytes())),
            None,
        );
        row("parse to counted event, from memory", memory, None);
        row("parse to counted event, from the file", file, None);
        let head: String = text.split_inclusive('\n').take(PEER_LINES).collect();
        let sample = dir.path().join("sample.log");
        fs::write(&sample, head).unwrap();
        row(
            "fail2ban-regex, traefik-auth",
            fail2ban(&sample, "traefik-auth"),
            Some(file),
        );
        if name == "Traefik JSON" {
            let own = r#"^.*"ClientHost":"<HOST>".*"DownstreamStatus":401\b"#;
            row(
                "fail2ban-regex, one failregex for JSON",
                fail2ban(&sample, own),
                Some(file),
            );
        }
    }
}

fn row(what: &str, rate: f64, ours: Option<f64>) {
    let ratio = ours.map_or(String::new(), |ours| {
        format!("  jailgate reads {:.0} times as fast", ours / rate)
    });
    println!("  {what:42} {:>11.0} lines/s{ratio}", rate);
}

/// The best of five: what the code can do when the machine lets it.
fn best(run: impl Fn() -> f64) -> f64 {
    (0..5).map(|_| run()).fold(0.0, f64::max)
}

fn parse_only(format: &Format, text: &[u8]) -> f64 {
    let began = cpu();
    for line in lines(text) {
        std::hint::black_box(format.parse(line).unwrap());
    }
    f64::from(LINES) / (cpu() - began)
}

fn from_memory(format: &Format, text: &[u8]) -> f64 {
    let (intake, metrics) = intake();
    let began = cpu();
    for line in lines(text) {
        intake.take(&format.parse(line).unwrap(), NOW);
    }
    let took = cpu() - began;
    counted(&metrics);
    f64::from(LINES) / took
}

fn from_file(format: &Format, path: &Path) -> f64 {
    let (intake, metrics) = intake();
    let mut follower = Follower::new(path.into(), Checkpoints::new());
    let began = cpu();
    let mut take = |line: Line<'_>| {
        let Line::Whole(line) = line else {
            panic!("no long lines here")
        };
        intake.take(&format.parse(line).unwrap(), NOW);
    };
    while follower.pump(NOW, &mut take).more {}
    let took = cpu() - began;
    counted(&metrics);
    f64::from(LINES) / took
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = 0;
    memchr::memchr_iter(b'\n', text).map(move |end| {
        let line = &text[at..end];
        at = end + 1;
        line
    })
}

/// All lines arrived and every failure was counted: nothing was measured that did not happen.
#[track_caller]
fn counted(metrics: &Metrics) {
    assert_eq!(metrics.log_lines.get(), u64::from(LINES));
    let text = metrics.render();
    let line = text.lines().find_map(|line| line.strip_prefix(FAILURES));
    assert_eq!(line, Some(&*(LINES / 5).to_string()), "failures counted");
}

/// An engine with one jail that counts 401 and never fills: the table work of a flood by many.
fn intake() -> (Intake, Arc<Metrics>) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("jailgate.yaml");
    let text = "otlp: { address: \"127.0.0.1:0\", token: x, jails: [web] }\n\
                jails: { web: { rules: { statuscode: \"401\", maxretry: 100, findtime: 1h, bantime: 1h } } }\n";
    fs::write(&file, text).unwrap();
    let config = Config::load(&file).unwrap();
    let limits = Limits {
        tracked_clients: 1_000_000,
        bans: 1000,
        aggregate_ipv6: false,
    };
    let engine = Arc::new(Engine::new(limits, 1));
    let jails = config.jails.iter().map(|jail| jail.spec.clone()).collect();
    engine.configure(jails, NetSet::default(), NOW);
    let metrics = Arc::new(Metrics::new());
    let jails: Vec<_> = config.jails.iter().collect();
    let own = OwnAddresses::default();
    (
        Intake::new(
            "bench",
            engine,
            metrics.clone(),
            &jails,
            Arc::default(),
            own,
        ),
        metrics,
    )
}

/// Lines per second of fail2ban's CPU time, its start-up (an empty log) taken off.
fn fail2ban(log: &Path, filter: &str) -> f64 {
    let empty = log.with_extension("empty");
    fs::write(&empty, "").unwrap();
    let run = |log: &Path| {
        let began = (children(), Instant::now());
        let output = Command::new("fail2ban-regex")
            .arg(log)
            .arg(filter)
            .output()
            .expect("fail2ban-regex (Debian package fail2ban)");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(began.1.elapsed().as_secs() < 100, "bounded");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let summary = said
            .lines()
            .find(|line| line.starts_with("Lines:"))
            .map(str::to_owned);
        (children() - began.0, summary)
    };
    let (start_up, _) = run(&empty);
    let (took, summary) = run(log);
    if let Some(summary) = summary {
        println!("    fail2ban says: {summary}");
    }
    PEER_LINES as f64 / (took - start_up).max(0.01)
}

/// CPU seconds of this thread.
fn cpu() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// CPU seconds of ended children, in hundredths.
fn children() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap();
    let after = text.rsplit(") ").next().unwrap();
    let field = |n: usize| after.split(' ').nth(n).unwrap().parse::<f64>().unwrap();
    (field(13) + field(14)) / 100.0
}

struct Sample {
    ip: String,
    status: u16,
    second: u32,
}

/// A hundred thousand clients; every fifth line is a failure.
fn sample(n: u32) -> Sample {
    let mixed = n.wrapping_mul(2_654_435_761) % 100_000;
    Sample {
        ip: format!(
            "{}.{}.{}.{}",
            11 + mixed % 80,
            mixed / 80 % 250,
            mixed / 20_000 + 1,
            mixed % 250 + 1
        ),
        status: if n.is_multiple_of(5) { 401 } else { 200 },
        second: n / 6_000 % 60,
    }
}

fn json(n: u32) -> String {
    let Sample { ip, status, second } = sample(n);
    format!(
        "{{\"ClientAddr\":\"{ip}:{port}\",\"ClientHost\":\"{ip}\",\"ClientPort\":\"{port}\",\"ClientUsername\":\"-\",\
         \"DownstreamContentSize\":1{n},\"DownstreamStatus\":{status},\"Duration\":51{n},\"GzipRatio\":0,\
         \"OriginContentSize\":1{n},\"OriginDuration\":48{n},\"OriginStatus\":{status},\"Overhead\":3{n},\
         \"RequestAddr\":\"app.example.com\",\"RequestContentSize\":0,\"RequestCount\":{n},\
         \"RequestHost\":\"app.example.com\",\"RequestMethod\":\"GET\",\"RequestPath\":\"/api/v1/items/{n}?page=2&sort=name\",\
         \"RequestPort\":\"-\",\"RequestProtocol\":\"HTTP/2.0\",\"RequestScheme\":\"https\",\"RetryAttempts\":0,\
         \"RouterName\":\"websecure-app@docker\",\"ServiceAddr\":\"172.18.0.5:3000\",\"ServiceName\":\"app@docker\",\
         \"ServiceURL\":\"http://172.18.0.5:3000\",\"StartLocal\":\"2026-11-21T20:30:{second:02}.123456789Z\",\
         \"StartUTC\":\"2026-11-21T20:30:{second:02}.123456789Z\",\"TLSCipher\":\"TLS_AES_128_GCM_SHA256\",\"TLSVersion\":\"1.3\",\
         \"entryPointName\":\"websecure\",\"level\":\"info\",\"msg\":\"\",\
         \"request_User-Agent\":\"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\",\
         \"time\":\"2026-11-21T20:30:{second:02}Z\"}}\n",
        port = 10_000 + n % 50_000,
    )
}

fn clf(n: u32) -> String {
    let Sample { ip, status, second } = sample(n);
    format!(
        "{ip} - jo [21/Nov/2026:20:30:{second:02} +0000] \"GET /api/v1/items/{n} HTTP/2.0\" {status} 1{n} \"-\" \"Mozilla/5.0\" \
         {n} \"app@docker\" \"http://172.18.0.5:3000\" 5ms\n"
    )
}
