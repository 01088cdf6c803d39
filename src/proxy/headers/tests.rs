//! One line per case: the client's header lines, and what goes upstream.

use http::{HeaderMap, HeaderName, HeaderValue, Request, Version};

use super::{Outgoing, clean_trailers, strip_response, upgrade_wanted};
use crate::proxy::Forwarded;

const LOCAL: Option<std::net::IpAddr> =
    Some(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)));

fn map(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn sent(lines: &[(&str, &str)], forwarded: &Forwarded) -> Vec<String> {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.headers = map(lines);
    let outgoing = Outgoing {
        upgrade: upgrade_wanted(&parts).is_some(),
        parts: &parts,
        forwarded,
        client_host: b"app.example.com:8443",
        machine: "",
        h1: true,
        trailers: true,
    };
    let mut sent = Vec::new();
    outgoing.each(&mut |name, value| {
        sent.push(format!("{name}: {}", String::from_utf8_lossy(value)));
    });
    sent
}

/// What remains of `lines` from a peer that is not believed, but for the forwarding lines.
#[track_caller]
fn check(lines: &[(&str, &str)], expected: &[&str]) {
    let mut sent = sent(lines, &Forwarded::new(LOCAL, false, false));
    sent.retain(|line| !line.starts_with("x-forwarded-") && !line.starts_with("x-real-ip"));
    assert_eq!(sent, expected, "{lines:?}");
}

#[test]
fn hop_by_hop_lines_end_here() {
    check(
        &[
            ("accept", "*/*"),
            ("keep-alive", "5"),
            ("proxy-connection", "x"),
        ],
        &["accept: */*"],
    );
    check(
        &[
            ("connection", "x-one, X-Two"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
        ],
        &["x-three: 3"],
    );
    check(
        &[
            ("connection", "close, content-type"),
            ("content-type", "a/b"),
        ],
        &["content-type: a/b"],
    );
    check(
        &[
            ("connection", "authorization, cookie"),
            ("authorization", "x"),
            ("cookie", "y"),
        ],
        &["authorization: x", "cookie: y"],
    );
    check(
        &[("te", "trailers, deflate")],
        &["connection: te", "te: trailers"],
    );
    check(&[("te", "gzip")], &[]);
    check(&[("proxy-authorization", "Basic x")], &[]);
    check(
        &[
            ("connection", "upgrade, http2-settings"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
        ],
        &[],
    );
    check(
        &[("connection", "upgrade"), ("upgrade", "websocket, H2C")],
        &[],
    );
    check(
        &[("connection", "Upgrade"), ("upgrade", "websocket")],
        &["connection: upgrade", "upgrade: websocket"],
    );
    check(&[("upgrade", "websocket")], &[]);
    check(
        &[
            ("connection", "upgrade"),
            ("upgrade", "a"),
            ("upgrade", "b"),
        ],
        &[],
    );
    check(
        &[("cookie", "a=1"), ("x", "1"), ("cookie", "b=2")],
        &["cookie: a=1; b=2", "x: 1"],
    );
    check(
        &[("via", "1.1 x"), ("forwarded", "for=1.1.1.1")],
        &["via: 1.1 x", "forwarded: for=1.1.1.1"],
    );
}

#[test]
fn an_upgrade_is_for_http_1_1_only() {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.headers = map(&[("connection", "upgrade"), ("upgrade", "websocket")]);
    assert!(upgrade_wanted(&parts).is_some());
    parts.version = Version::HTTP_10;
    assert!(upgrade_wanted(&parts).is_none());
}

/// The forwarding lines, from a peer that is believed or not.
#[track_caller]
fn check_forwarded(trusted: bool, lines: &[(&str, &str)], expected: &[&str]) {
    assert_eq!(
        sent(lines, &Forwarded::new(LOCAL, trusted, true)),
        expected,
        "{lines:?}"
    );
}

#[test]
fn forwarding_lines_are_written_by_us_unless_the_peer_is_believed() {
    let ours = &[
        "x-forwarded-for: 192.0.2.7",
        "x-real-ip: 192.0.2.7",
        "x-forwarded-proto: https",
        "x-forwarded-host: app.example.com:8443",
        "x-forwarded-port: 8443",
    ];
    let theirs: &[(&str, &str)] = &[
        ("x-forwarded-for", "10.1.1.1"),
        ("x-forwarded-for", "10.2.2.2"),
        ("x-real-ip", "10.3.3.3"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "other"),
        ("x-forwarded-port", "81"),
        ("x-forwarded-prefix", "/x"),
        ("x_forwarded_for", "10.4.4.4"),
        ("X-Forwarded_For", "10.4.4.4"),
        ("x.real~ip", "10.4.4.4"),
    ];
    check_forwarded(false, &[], ours);
    check_forwarded(true, &[], ours);
    check_forwarded(false, theirs, ours);
    check_forwarded(
        true,
        theirs,
        &[
            "x-forwarded-prefix: /x",
            "x-forwarded-for: 10.1.1.1, 10.2.2.2, 192.0.2.7",
            "x-real-ip: 10.3.3.3",
            "x-forwarded-proto: http",
            "x-forwarded-host: other",
            "x-forwarded-port: 81",
        ],
    );
    let mut taken_away = vec![("connection", "x-forwarded-for, x-real-ip, x-forwarded-host")];
    check_forwarded(false, &taken_away, ours);
    taken_away.push(("x-forwarded-for", "10.1.1.1"));
    assert_eq!(
        sent(&taken_away, &Forwarded::new(LOCAL, true, true))[0],
        "x-forwarded-for: 10.1.1.1, 192.0.2.7"
    );
}

#[test]
fn a_unix_peer_has_no_address_to_add() {
    let forwarded = Forwarded::new(None, true, false);
    let sent = sent(&[("x-forwarded-for", "10.1.1.1")], &forwarded);
    assert_eq!(
        sent[..2],
        ["x-forwarded-for: 10.1.1.1", "x-forwarded-proto: http"]
    );
}

#[test]
fn responses_lose_their_hop_by_hop_lines_and_trailers_what_frames_or_identifies() {
    let mut headers = map(&[
        ("connection", "x-one, set-cookie"),
        ("x-one", "1"),
        ("set-cookie", "a"),
        ("set-cookie", "b"),
        ("keep-alive", "5"),
        ("transfer-encoding", "chunked"),
    ]);
    strip_response(&mut headers);
    assert_eq!(headers, map(&[("set-cookie", "a"), ("set-cookie", "b")]));
    let mut trailers = map(&[
        ("grpc-status", "0"),
        ("x-forwarded-for", "1.1.1.1"),
        ("x_real_ip", "1.1.1.1"),
        ("content-length", "1"),
        ("host", "x"),
        ("te", "x"),
    ]);
    clean_trailers(&mut trailers);
    assert_eq!(trailers, map(&[("grpc-status", "0")]));
}
