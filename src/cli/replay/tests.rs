//! Replays of small logs with a known end.

use std::{fs, io::Write, path::PathBuf};

use clap::Parser;
use tempfile::TempDir;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

const CONFIG: &str = r#"
entryPoints: { web: { address: "127.0.0.1:8080" } }
jails:
  web:
    rules: { findtime: 10m, bantime: 1h, maxretry: 4, statuscode: "401,404" }
  admin:
    rules:
      findtime: 10m
      bantime: 1h
      maxretry: 2
      statuscode: "404"
      urlregexps: [{ regexp: "^/wp-login", mode: block }]
    simulate: true
"#;

/// One combined line, `minute` after noon.
fn line(minute: u32, ip: &str, path: &str, status: u16) -> String {
    let (hour, minute) = (12 + minute / 60, minute % 60);
    format!(
        "{ip} - - [21/Nov/2026:{hour}:{minute:02}:00 +0000] \"GET {path} HTTP/1.1\" {status} 9 \"-\" \"-\"\n"
    )
}

/// A bot (4 failures, comes back), a user (2 failures among successes, later 4), a scanner that
/// takes its time, and a client that hits a block rule.
fn log() -> String {
    let mut all = Vec::new();
    for minute in 0..6 {
        all.push((minute, line(minute, "203.0.113.9", "/login", 401)));
    }
    all.push((70, line(70, "203.0.113.9", "/login", 401)));
    for minute in 0..30 {
        let status = if (20..24).contains(&minute) { 401 } else { 200 };
        all.push((minute, line(minute, "198.51.100.7", "/<b>&'", status)));
    }
    for step in 0..8 {
        all.push((step * 11, line(step * 11, "192.0.2.1", "/slow", 404)));
    }
    all.push((5, line(5, "192.0.2.77", "/wp-login.php", 200)));
    all.sort();
    all.into_iter().map(|(_, line)| line).collect()
}

struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("jailgate.yaml"), CONFIG).unwrap();
        Self { dir }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn replay(&self, args: &[&str]) -> anyhow::Result<Report> {
        let config = self.dir.path().join("jailgate.yaml");
        let words = ["replay", "-c", config.to_str().unwrap()];
        let line = Line::try_parse_from(words.iter().chain(args)).unwrap();
        replay(&line.args, &line.args.config.load()?)
    }
}

fn found(report: &Report) -> Vec<String> {
    let client = |row: &report::ClientRow| {
        format!(
            "{} {} x{} at {} for {} {} {}: {} requests, {} ok, {} denied{}",
            row.jail,
            row.client,
            row.bans,
            &row.first_ban[11..16],
            row.reason,
            row.last_status,
            row.path,
            row.requests,
            row.successes,
            row.denied,
            if row.likely_real_user { ", real?" } else { "" },
        )
    };
    report.clients.iter().map(client).collect()
}

#[test]
fn who_would_have_been_banned_when_and_by_what() {
    let bench = Bench::new();
    let path = bench.file("access.log", log().as_bytes());
    let report = bench.replay(&[path.to_str().unwrap()]).unwrap();
    insta::assert_snapshot!(found(&report).join("\n"), @r##"
    web 198.51.100.7 x1 at 12:23 for failures 401 /<b>&': 30 requests, 26 ok, 6 denied, real?
    web 203.0.113.9 x1 at 12:03 for failures 401 /login: 7 requests, 0 ok, 2 denied
    admin 192.0.2.77 x1 at 12:05 for rule ^/wp-login 0 /wp-login.php: 1 requests, 0 ok, 1 denied
    "##);
    let web = &report.jails[0];
    assert_eq!(
        (
            web.jail.as_str(),
            web.bans,
            web.clients_banned,
            web.likely_real_users
        ),
        ("web", 2, 2, 1)
    );
    let hours: Vec<_> = web
        .hours
        .iter()
        .map(|row| (&row.hour[11..13], row.failures, row.bans, row.denied))
        .collect();
    insta::assert_debug_snapshot!(hours, @r##"
    [
        (
            "12",
            14,
            2,
            8,
        ),
        (
            "13",
            3,
            0,
            0,
        ),
    ]
    "##);
    assert_eq!(
        (
            report.logs[0].format,
            report.logs[0].lines,
            report.logs[0].unparsed
        ),
        ("combined", 46, 0)
    );
}

#[test]
fn packed_and_split_logs_tell_the_same() {
    let bench = Bench::new();
    let text = log();
    let plain = bench.file("plain", text.as_bytes());
    let whole = found(&bench.replay(&[plain.to_str().unwrap()]).unwrap());
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(text.as_bytes()).unwrap();
    let gz = bench.file("no-ending-says-so", &gz.finish().unwrap());
    assert_eq!(
        found(&bench.replay(&[gz.to_str().unwrap()]).unwrap()),
        whole
    );
    let zst = bench.file("b", &zstd::encode_all(text.as_bytes(), 1).unwrap());
    assert_eq!(
        found(&bench.replay(&[zst.to_str().unwrap()]).unwrap()),
        whole
    );
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let odd: String = lines.iter().skip(1).step_by(2).copied().collect();
    let even: String = lines.iter().step_by(2).copied().collect();
    let (odd, even) = (
        bench.file("odd", odd.as_bytes()),
        bench.file("even", even.as_bytes()),
    );
    let both = bench
        .replay(&[odd.to_str().unwrap(), even.to_str().unwrap()])
        .unwrap();
    assert_eq!(found(&both), whole);
}

#[test]
fn jails_formats_and_proxies_can_be_named() {
    let bench = Bench::new();
    let path = bench.file("access.log", log().as_bytes());
    let path = path.to_str().unwrap();
    let report = bench.replay(&[path, "--jail", "admin"]).unwrap();
    assert!(report.clients.iter().all(|row| row.jail == "admin") && !report.clients.is_empty());
    let wrong = bench.replay(&[path, "--format", "traefik-json"]).unwrap();
    assert_eq!((wrong.events, wrong.logs[0].unparsed), (0, 46));
    let spared = bench
        .replay(&[path, "--trusted-ips", "203.0.113.0/24"])
        .unwrap();
    assert!(!spared.clients.iter().any(|row| row.client == "203.0.113.9"));
    assert!(bench.replay(&[path, "--jail", "nope"]).is_err());
    let odd = bench.file("odd", b"what\nis\nthis\n");
    assert!(bench.replay(&[odd.to_str().unwrap()]).is_err());
    assert!(bench.replay(&["/nonexistent"]).is_err());
}

#[test]
fn the_page_escapes_what_the_log_says_and_asks_nobody() {
    let bench = Bench::new();
    let path = bench.file("<img src=x onerror=alert(1)>.log", log().as_bytes());
    let report = bench.replay(&[path.to_str().unwrap()]).unwrap();
    let page = html::page(&report);
    assert!(!page.contains("<b>") && !page.contains("<img"), "{page}");
    assert!(page.contains("/&lt;b&gt;&amp;&#39;"), "{page}");
    for outside in [
        "http:", "https:", "src=", "href=", "@import", "url(", "<script",
    ] {
        let own = page.replace("src=x onerror", "");
        assert!(!own.contains(outside), "{outside}");
    }
    assert!(page.contains("<svg") && page.matches("class=\"ban\" cx").count() >= 2);
}

#[test]
fn the_table_shows_no_control_characters() {
    let bench = Bench::new();
    let mut text = String::new();
    for minute in 0..4 {
        text += &format!(
            "{{\"remote_addr\":\"203.0.113.9\",\"time_iso8601\":\"2026-11-21T12:0{minute}:00+00:00\",\
             \"request_method\":\"GET\",\"request_uri\":\"/\\u001b[2J\",\"status\":404}}\n"
        );
    }
    let path = bench.file("access.json", text.as_bytes());
    let report = bench.replay(&[path.to_str().unwrap()]).unwrap();
    assert_eq!(report.clients.len(), 2);
    assert!(!report.table().contains('\u{1b}'));
    assert!(!html::page(&report).contains('\u{1b}'));
    assert!(report.table().contains("203.0.113.9"));
}
