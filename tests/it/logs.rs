//! Beside real proxies: they ask jailgate before each request, and their own access logs tell it
//! what came of it.

use std::{
    net::{IpAddr, SocketAddr},
    process::Command,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::support::{Answer, Jailgate, Origin, Peer, Raw, get};

/// Longest time from a failing line to the ban.
const PROMPT: Duration = Duration::from_secs(1);

/// jailgate as a target that follows `DIR/access.log`.
fn jailgate(dir: &TempDir, format: &str, jail: &str) -> Jailgate {
    Jailgate::run(&format!(
        "forwardAuth: {{ address: \"127.0.0.1:0\", trustedIPs: [\"127.0.0.1/32\"] }}\n\
         accessLogs:\n  - {{ path: \"{}/access.log\", format: {format}, jails: [web] }}\n\
         jails:\n  web:\n    {jail}\n    rules: {{ maxretry: 4, findtime: 10m, bantime: 1h, \
         statuscode: \"401,403,404\" }}\n",
        dir.path().display()
    ))
}

/// nginx in front of the origin, asking at `/auth-request/web`. Clients come by X-Forwarded-For,
/// which nginx believes of loopback.
fn nginx(dir: &TempDir, origin: &Origin, gate: &Jailgate, log: &str) -> Peer {
    Peer::nginx(&format!(
        "set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For;\n\
         log_format json escape=json '{{\"time\":\"$time_iso8601\",\"remote_addr\":\"$remote_addr\",\
         \"request\":\"$request\",\"status\":$status,\"http_user_agent\":\"$http_user_agent\",\
         \"sent_http_x_jailgate_reason\":\"$sent_http_x_jailgate_reason\"}}';\n\
         server {{ listen 127.0.0.1:PORT; access_log {dir}/access.log {log};\n\
         location / {{ auth_request /jailgate; proxy_pass http://{origin}; }}\n\
         location = /jailgate {{ internal; access_log off; proxy_pass http://{gate}/auth-request/web;\n\
         proxy_pass_request_body off; proxy_set_header Content-Length \"\";\n\
         proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Method $request_method;\n\
         proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host;\n\
         proxy_set_header X-Forwarded-Uri $request_uri; }} }}",
        dir = dir.path().display(),
        origin = origin.address,
        gate = gate.address("forwardAuth"),
    ))
}

fn caddy(dir: &TempDir, origin: &Origin, gate: &Jailgate) -> Peer {
    Peer::caddy(&format!(
        "http://127.0.0.1:PORT {{\n log {{\n  output file {dir}/access.log\n }}\n \
         forward_auth {gate} {{\n  uri /forward-auth/web\n }}\n reverse_proxy {origin}\n}}",
        dir = dir.path().display(),
        origin = origin.address,
        gate = gate.address("forwardAuth"),
    ))
}

/// Four failures of one client; then, within a second, a denial; nobody else notices.
#[track_caller]
fn four_failures_deny_the_fifth(
    gate: &Jailgate,
    ask: impl Fn(&str, &str) -> Answer,
    bad: &str,
    good: &str,
) {
    for _ in 0..3 {
        assert_eq!(ask(bad, "/status/401").status, 401);
        assert_eq!(ask(bad, "/").status, 200);
    }
    assert_eq!(gate.count("ban begins"), 0, "three are not four");
    assert_eq!(ask(bad, "/status/401").status, 401);
    let failed = Instant::now();
    gate.wait_for("ban begins");
    let answer = ask(bad, "/");
    assert!(
        failed.elapsed() < PROMPT,
        "denied only after {:?}",
        failed.elapsed()
    );
    assert_eq!(answer.status, 403);
    assert_eq!(ask(good, "/").status, 200);
    // Denials stand in the log too, and are no failures.
    for _ in 0..6 {
        assert_eq!(ask(bad, "/status/404").status, 403);
    }
    assert_eq!(ask(good, "/status/404").status, 404);
    let metrics = metrics_when(gate, "jailgate_access_log_lines_total 16");
    assert!(
        metrics.contains("jailgate_failures_total{jail=\"web\"} 5\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("jailgate_access_log_unparsed_total 0\n"),
        "{metrics}"
    );
    assert_eq!(gate.count("ban begins"), 1);
}

#[track_caller]
fn metrics_when(gate: &Jailgate, line: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let text = get(gate.address("admin"), "/metrics", "").text();
        if text.lines().any(|known| known == line) {
            return text;
        }
        assert!(Instant::now() < deadline, "no `{line}` in {text}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn forwarded(address: SocketAddr) -> impl Fn(&str, &str) -> Answer {
    move |client, path| get(address, path, &format!("X-Forwarded-For: {client}\r\n"))
}

#[test]
fn nginx_with_its_combined_log() {
    let (dir, origin) = (tempfile::tempdir().unwrap(), Origin::start());
    let gate = jailgate(&dir, "combined", "ignoreself: true");
    let nginx = nginx(&dir, &origin, &gate, "combined");
    four_failures_deny_the_fifth(
        &gate,
        forwarded(nginx.address),
        "203.0.113.9",
        "198.51.100.7",
    );
}

#[test]
fn nginx_with_a_json_log() {
    let (dir, origin) = (tempfile::tempdir().unwrap(), Origin::start());
    let gate = jailgate(&dir, "nginx-json", "ignoreself: true");
    let nginx = nginx(&dir, &origin, &gate, "json");
    four_failures_deny_the_fifth(
        &gate,
        forwarded(nginx.address),
        "203.0.113.9",
        "2001:db8::7",
    );
}

/// Caddy 2.6 knows its peers only: clients are other addresses of this machine, which is why this
/// jail does not spare them.
#[test]
fn caddy_with_its_json_log() {
    let (dir, origin) = (tempfile::tempdir().unwrap(), Origin::start());
    let gate = jailgate(&dir, "caddy-json", "ignoreself: false");
    let caddy = caddy(&dir, &origin, &gate);
    let ask = |client: &str, path: &str| {
        let client: IpAddr = client.parse().unwrap();
        let mut raw = Raw::connect_from(client, caddy.address);
        raw.send(format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            caddy.address
        ));
        raw.answer()
    };
    four_failures_deny_the_fifth(&gate, ask, "127.0.0.2", "127.0.0.3");
}

#[test]
fn nginx_rotated_by_rename_and_reopen_goes_on_counting() {
    let (dir, origin) = (tempfile::tempdir().unwrap(), Origin::start());
    let gate = jailgate(&dir, "combined", "ignoreself: true");
    let nginx = nginx(&dir, &origin, &gate, "combined");
    let ask = forwarded(nginx.address);
    for round in 0..4 {
        let log = dir.path().join("access.log");
        std::fs::rename(&log, dir.path().join(format!("access.log.{round}"))).unwrap();
        if round % 2 == 0 {
            let pid = std::fs::read_to_string(nginx.path().join("nginx.pid")).unwrap();
            let reopened = Command::new("kill")
                .args(["-USR1", pid.trim()])
                .status()
                .unwrap();
            assert!(reopened.success());
            wait_for_file(&log);
        } else {
            // nginx writes to the renamed file until it is told.
            std::fs::File::create(&log).unwrap();
        }
        assert_eq!(gate.count("ban begins"), 0);
        assert_eq!(ask("203.0.113.9", "/status/401").status, 401);
        metrics_when(
            &gate,
            &format!("jailgate_access_log_lines_total {}", round + 1),
        );
    }
    gate.wait_for("ban begins");
    assert_eq!(ask("203.0.113.9", "/").status, 403);
}

#[track_caller]
fn wait_for_file(path: &std::path::Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !path.exists() {
        assert!(Instant::now() < deadline, "no {}", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}
