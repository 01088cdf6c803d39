//! The documents' configurations as they stand there, with real nginx and Caddy: only addresses
//! and log files are replaced, and the machine itself is not spared.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use crate::support::{Jailgate, Origin, Peer, Raw, free_port};

/// Not spared here, and not the address that the proxies ask from.
const CLIENT: [u8; 4] = [127, 0, 0, 2];

/// The block of a document with this language whose text contains `mark`.
#[track_caller]
fn block(document: &str, language: &str, mark: &str) -> String {
    let path = format!("{}/docs/{document}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).expect("the document is there");
    let opening = format!("```{language}\n");
    let blocks = text.split(&opening).skip(1);
    let mut blocks = blocks.filter_map(|rest| rest.split("\n```").next());
    let found = blocks.find(|block| block.contains(mark));
    found.map(str::to_owned).expect("the block is there")
}

#[track_caller]
fn replaced(mut text: String, pairs: &[(&str, &str)]) -> String {
    for (shown, real) in pairs {
        assert!(text.contains(shown), "{shown} is not in\n{text}");
        text = text.replace(shown, real);
    }
    text
}

/// The status that a client at [`CLIENT`] gets for this path of `app.example.com`. With the port:
/// off the usual ones, Caddy 2.6 logs requests only whose Host has it.
#[track_caller]
fn ask(proxy: &Peer, path: &str) -> u16 {
    let mut client = Raw::connect_from(CLIENT.into(), proxy.address);
    client.send(format!(
        "GET {path} HTTP/1.1\r\nHost: app.example.com:{}\r\nConnection: close\r\n\r\n",
        proxy.address.port()
    ));
    client.answer().status
}

/// Starts jailgate with the document's configuration and the proxy it was written for; four
/// failures, and within a second of the fourth the fifth request is denied.
#[track_caller]
fn run(document: &str, log: &str, start: impl Fn(&str, &str, &str) -> Peer) {
    let origin = Origin::start();
    let logs = tempfile::tempdir().expect("a directory");
    let real_log = logs.path().join("access.log").display().to_string();
    let auth = format!("127.0.0.1:{}", free_port());
    let jailgate = replaced(
        block(document, "yaml", "# jailgate.yaml"),
        &[
            ("127.0.0.1:4181", &auth),
            (log, &real_log),
            ("  web:\n", "  web:\n    ignoreself: false\n"),
        ],
    );
    let _jailgate = Jailgate::run(&jailgate);
    let proxy = start(&auth, &origin.address.to_string(), &real_log);

    assert_eq!(ask(&proxy, "/status/200"), 200);
    let failures: Vec<u16> = (0..4).map(|_| ask(&proxy, "/status/401")).collect();
    assert_eq!(failures, [401; 4]);
    let before = origin.seen().len();
    let deadline = Instant::now() + Duration::from_secs(1);
    while ask(&proxy, "/") != 403 {
        assert!(Instant::now() < deadline, "not banned within a second");
        thread::sleep(Duration::from_millis(20));
    }
    let passed = origin.seen().len() - before;
    assert_eq!(ask(&proxy, "/status/401"), 403);
    assert_eq!(origin.seen().len() - before, passed, "the denied reach it");
}

#[test]
fn nginx_asks_and_tells() {
    run(
        "nginx.md",
        "/var/log/nginx/jailgate.log",
        |auth, app, log| {
            Peer::nginx(&replaced(
                block("nginx.md", "nginx", "auth_request"),
                &[
                    ("127.0.0.1:4181", auth),
                    ("127.0.0.1:3000", app),
                    ("/var/log/nginx/jailgate.log", log),
                    ("listen 80;", "listen 127.0.0.1:PORT;"),
                ],
            ))
        },
    );
}

#[test]
fn caddy_asks_and_tells() {
    run("caddy.md", "/var/log/caddy/access.log", |auth, app, log| {
        Peer::caddy(&replaced(
            block("caddy.md", "caddyfile", "forward_auth"),
            &[
                ("127.0.0.1:4181", auth),
                ("127.0.0.1:3000", app),
                ("/var/log/caddy/access.log", log),
                (
                    "http://app.example.com {",
                    "http://app.example.com:PORT {\n\tbind 127.0.0.1",
                ),
            ],
        ))
    });
}
