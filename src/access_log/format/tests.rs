//! Every format on lines its server wrote, and on lines an attacker would like it to write.

use super::{Chain, Event, Format, Mark, Unparsed, origin_form, without_port};
use crate::config::LogLineFormat;

const TRAEFIK: &str = include_str!("../../../tests/fixtures/logs/traefik.json");
const TRAEFIK_CLF: &str = include_str!("../../../tests/fixtures/logs/traefik.clf");
const NGINX: &str = include_str!("../../../tests/fixtures/logs/nginx-combined.log");
const NGINX_JSON: &str = include_str!("../../../tests/fixtures/logs/nginx.json");
const CADDY: &str = include_str!("../../../tests/fixtures/logs/caddy.json");
const APACHE: &str = include_str!("../../../tests/fixtures/logs/apache.clf");

/// `peer|forwarded method host target status agent`.
fn show(event: &Event<'_>) -> String {
    let text = |bytes: &[u8]| match bytes {
        b"" => "-".into(),
        _ => bytes.escape_ascii().to_string(),
    };
    let Chain {
        forwarded, peer, ..
    } = &event.chain;
    format!(
        "{}|{} {} {} {} {} {}",
        text(peer),
        text(forwarded),
        text(&event.method),
        text(&event.host),
        text(&event.target),
        event.status,
        text(&event.agent),
    )
}

fn read(format: &Format, lines: &str) -> Vec<String> {
    let one = |line: &str| match format.parse(line.as_bytes()) {
        Ok(event) => show(&event),
        Err(why) => format!("! {why}"),
    };
    lines.lines().map(one).collect()
}

#[test]
fn traefik_json() {
    insta::assert_snapshot!(read(&Format::TraefikJson, TRAEFIK).join("\n"), @r#"
    203.0.113.9:54321|203.0.113.9 GET app.example.com /login?next=%2F 401 Mozilla/5.0 (X11; Linux x86_64) \"quoted\"
    172.18.0.1:40000|198.51.100.4, 203.0.113.9 GET 203.0.113.200 /.env 404 -
    [2001:db8::7]:54321|2001:db8::7 POST app.example.com /a\\b<script> 200 -
    ! no `ClientHost`
    203.0.113.9:54321|203.0.113.9 GET app.example.com /ws 0 -
    "#);
}

#[test]
fn traefik_common_and_generic() {
    insta::assert_snapshot!(read(&Format::Clf, TRAEFIK_CLF).join("\n"), @r#"
    -|203.0.113.9 GET - /login 401 -
    -|198.51.100.4, 203.0.113.9 GET - /.env 404 curl/8.5.0
    -|2001:db8::7 POST - /a 200 Mozilla/5.0
    -|203.0.113.9 GET - /login 401 curl/8.5.0
    ! `ClientHost` has more than one reading
    ! not in this format
    "#);
}

#[test]
fn nginx_combined_and_main() {
    insta::assert_snapshot!(read(&Format::Combined, NGINX).join("\n"), @r#"
    203.0.113.9|- GET - /login?next=/ 401 curl/8.5.0
    203.0.113.9|- POST - /login 200 Mozilla/5.0 (X11; Linux x86_64)
    203.0.113.9|- - - - 400 -
    203.0.113.9|- - - - 400 -
    203.0.113.9|- GET - /x 404 -
    203.0.113.9|- GET - /\\x22 404 a\\x5C
    172.18.0.1|198.51.100.4, 203.0.113.9 GET - / 403 -
    2001:db8::7|- GET - / 499 -
    ! not in this format
    ! bad `status`
    "#);
}

#[test]
fn nginx_json() {
    insta::assert_snapshot!(read(&Format::NginxJson, NGINX_JSON).join("\n"), @r#"
    203.0.113.9|- GET app.example.com /login?next=/ 401 curl/8.5.0
    172.18.0.1|198.51.100.4, 203.0.113.9 POST app.example.com /login 200 -
    203.0.113.9|- - - - 400 -
    ! no `request`
    "#);
}

#[test]
fn caddy_json() {
    insta::assert_snapshot!(read(&Format::CaddyJson, CADDY).join("\n"), @r#"
    127.0.0.1|- GET 127.0.0.1 /login?next=/ 401 curl/7.88.1
    127.0.0.1|- GET 127.0.0.1 /.env 404 a\"b\\c
    2001:db8::7|- POST app.example.com /a?b 200 -
    ! no `request`
    "#);
}

#[test]
fn apache_common() {
    insta::assert_snapshot!(read(&Format::Clf, APACHE).join("\n"), @r#"
    203.0.113.9|- GET - /login 401 -
    203.0.113.9|- GET - /login 401 -
    203.0.113.9|- GET - /\\\"q\\\" 404 -
    203.0.113.9|- - - - 408 -
    ! not in this format
    "#);
}

#[test]
fn formats_are_told_apart() {
    let detected = |log: &'static str| {
        let lines = log.lines().map(str::as_bytes);
        Format::detect(lines).map(|format| format.name())
    };
    assert_eq!(detected(TRAEFIK), Some("traefik-json"));
    assert_eq!(detected(TRAEFIK_CLF), Some("clf"));
    assert_eq!(detected(NGINX), Some("combined"));
    assert_eq!(detected(NGINX_JSON), Some("nginx-json"));
    assert_eq!(detected(CADDY), Some("caddy-json"));
    assert_eq!(detected(APACHE), Some("clf"));
    assert_eq!(detected("one\ntwo\n"), None);
    assert_eq!(detected(""), None);
}

#[test]
fn times_are_those_of_the_answer() {
    let line = TRAEFIK.lines().next().unwrap();
    let event = Format::TraefikJson.parse(line.as_bytes()).unwrap();
    assert_eq!(
        event.time,
        Some(1_795_296_022_123 + 5),
        "StartUTC + Duration"
    );
    let line = NGINX.lines().next().unwrap();
    let event = Format::Combined.parse(line.as_bytes()).unwrap();
    assert_eq!(event.time, Some(1_795_296_022_000));
}

#[test]
fn own_denials_are_marked() {
    let mark =
        |format: Format, line: &'static str| match format.parse(line.as_bytes()).unwrap().mark {
            Mark::None => "none".to_owned(),
            Mark::Header => "header".to_owned(),
            Mark::Stamp(word) => String::from_utf8(word.into_owned()).unwrap(),
        };
    let traefik = |extra: &str| {
        let line = format!(
            r#"{{"ClientHost":"203.0.113.9","RequestMethod":"GET","RequestPath":"/","DownstreamStatus":403,"StartUTC":"2026-11-21T21:20:22Z",{extra}}}"#
        );
        mark(Format::TraefikJson, line.leak())
    };
    assert_eq!(
        traefik(r#""downstream_X-Jailgate-Reason":"banned""#),
        "header"
    );
    assert_eq!(
        traefik(r#""OriginStatus":0,"ClientUsername":"banned""#),
        "banned"
    );
    assert_eq!(
        traefik(r#""OriginStatus":403,"ClientUsername":"banned""#),
        "none"
    );
    assert_eq!(traefik(r#""OriginStatus":0,"ClientUsername":"-""#), "none");
    assert_eq!(traefik(r#""RequestHost":"x""#), "none");
    let nginx = r#"{"remote_addr":"203.0.113.9","time_iso8601":"2026-11-21T21:20:22+00:00","request":"GET / HTTP/1.1","status":"403","sent_http_x_jailgate_reason":"banned"}"#;
    assert_eq!(mark(Format::NginxJson, nginx), "header");
    let caddy = r#"{"ts":1795296022.5,"request":{"remote_ip":"203.0.113.9","method":"GET","uri":"/"},"status":403,"resp_headers":{"X-Jailgate-Reason":["banned"]}}"#;
    assert_eq!(mark(Format::CaddyJson, caddy), "header");
}

#[test]
fn a_pattern_matches_whole_lines_and_names_its_groups() {
    let pattern = r"(?P<time>\S+) (?P<ip>\S+) (?P<method>[A-Z]+) (?P<host>[^/ ]*)(?P<path>/\S*) (?P<status>\d+)";
    let format = Format::compile(&LogLineFormat::Regex(pattern.into())).unwrap();
    let lines = "2026-11-21T21:20:22Z 203.0.113.9 GET app.example.com:8443/login?x=1 401\n\
                 2026-11-21T21:20:22Z 203.0.113.9 GET app.example.com/login 401 198.51.100.1\n\
                 yesterday 203.0.113.9 GET app.example.com/login 401\n\
                 2026-11-21T21:20:22Z 203.0.113.9 GET app.example.com/login 4011";
    insta::assert_snapshot!(read(&format, lines).join("\n"), @r#"
    -|203.0.113.9 GET app.example.com /login?x=1 401 -
    ! not in this format
    ! bad `time`
    ! bad `status`
    "#);
    let raw = b"2026-11-21T21:20:22Z 203.0.113.9 GET app/\xff\xfe 401";
    assert_eq!(format.parse(raw).map(|event| event.status), Ok(401));
    assert!(Format::compile(&LogLineFormat::Regex("(".into())).is_err());
    let untimed = Format::compile(&LogLineFormat::Regex(r"(?P<ip>\S+) (?P<status>\d+)".into()));
    assert_eq!(
        untimed.unwrap().parse(b"203.0.113.9 401").unwrap().time,
        None
    );
}

#[test]
fn targets_and_hosts_are_cut_to_form() {
    for (sent, read) in [
        ("/a?b", "/a?b"),
        ("http://h:80/a?b", "/a?b"),
        ("http://h", "/"),
        ("*", ""),
        ("h:443", ""),
        ("", ""),
        ("//h/a", "//h/a"),
    ] {
        assert_eq!(origin_form(sent.as_bytes()), read.as_bytes(), "{sent}");
    }
    for (sent, read) in [
        ("h", "h"),
        ("h:80", "h"),
        ("[2001:db8::1]:80", "[2001:db8::1]"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "[2001:db8::1]"),
        ("", ""),
        ("h:x", "h:x"),
    ] {
        assert_eq!(
            &*without_port(sent.as_bytes().into()),
            read.as_bytes(),
            "{sent}"
        );
    }
}

/// What attackers send: Fail2Ban's CVE-2007-4321, CVE-2009-0362, CVE-2013-2178 and CVE-2013-7176
/// carried over to paths, users and agents, beside escapes, terminal codes and JSON breakouts.
const POISON: &[&str] = &[
    "9.9.9.9",
    "/ 9.9.9.9",
    " - 9.9.9.9 - ",
    "<HOST>",
    "/\" 401 0 \"-\" \"-\"\n9.9.9.9 - - [21/Nov/2026:21:20:22 +0000] \"GET / HTTP/1.1\" 401 0",
    "9.9.9.9 - - [21/Nov/2026:21:20:22 +0000] \"GET / HTTP/1.1\" 401 0 \"-\" \"-\"",
    "9.9.9.9 - - [21/Nov/2026:21:20:22 +0000] \"GET / HTTP/1.1\" 401 0 \"-\" \"-\" 1 \"r\" \"s\" 1ms",
    "] [client 9.9.9.9] user x not found",
    "Failed password for root from 9.9.9.9 port 22 ssh2",
    "\",\"ClientHost\":\"9.9.9.9\",\"x\":\"",
    "\"},\"request\":{\"remote_ip\":\"9.9.9.9\",\"client_ip\":\"9.9.9.9\"},\"y\":{\"z\":\"",
    "\",\"remote_addr\":\"9.9.9.9\",\"status\":\"401\",\"x\":\"",
    "\\\",\\\"ClientHost\\\":\\\"9.9.9.9\\\",\\\"x\\\":\\\"",
    "\\",
    "\\\\\"",
    "\u{1b}[2J\u{1b}]0;9.9.9.9\u{7}",
    "\0\r\n9.9.9.9",
    "rhost=9.9.9.9",
    "::ffff:9.9.9.9, 9.9.9.9",
    "%0a9.9.9.9 - - [",
];

/// No line that a server writes for such a request may name anyone but its client.
#[track_caller]
fn only_the_client(format: &Format, line: &[u8]) {
    for line in line.split(|b| *b == b'\n') {
        if let Ok(event) = format.parse(line) {
            let Chain {
                forwarded, peer, ..
            } = &event.chain;
            let named = [&**peer, &**forwarded].concat();
            assert!(
                !String::from_utf8_lossy(&named).contains("9.9.9.9") && event.status == 401,
                "{} names another in {}",
                format.name(),
                line.escape_ascii()
            );
        }
    }
}

#[test]
fn attacker_text_in_json_names_nobody() {
    for poison in POISON {
        let text = serde_json::to_string(poison).unwrap();
        let user_agent = format!(r#""request_User-Agent":{text},"#);
        let line = format!(
            r#"{{"ClientAddr":"203.0.113.9:1","ClientHost":"203.0.113.9","ClientUsername":{text},"DownstreamStatus":401,"OriginStatus":0,"RequestHost":{text},"RequestMethod":"GET","RequestPath":{text},"RouterName":{text},"StartUTC":"2026-11-21T21:20:22Z",{user_agent}"time":"2026-11-21T21:20:22Z"}}"#
        );
        only_the_client(&Format::TraefikJson, line.as_bytes());
        assert!(
            Format::TraefikJson.parse(line.as_bytes()).is_ok(),
            "hides by {poison:?}"
        );
        let line = format!(
            r#"{{"ts":1795296022.5,"request":{{"remote_ip":"203.0.113.9","method":"GET","host":{text},"uri":{text},"headers":{{"User-Agent":[{text}],"X-Forwarded-For":[{text}]}}}},"user_id":{text},"status":401}}"#
        );
        only_the_client(&Format::CaddyJson, line.as_bytes());
        assert!(
            Format::CaddyJson.parse(line.as_bytes()).is_ok(),
            "hides by {poison:?}"
        );
        for text in [text, format!("\"{}\"", nginx_escape(poison))] {
            let line = format!(
                r#"{{"remote_addr":"203.0.113.9","remote_user":{text},"time_iso8601":"2026-11-21T21:20:22+00:00","request":{text},"status":"401","http_user_agent":{text}}}"#
            );
            only_the_client(&Format::NginxJson, line.as_bytes());
            assert!(
                Format::NginxJson.parse(line.as_bytes()).is_ok(),
                "hides by {poison:?}"
            );
        }
    }
}

#[test]
fn attacker_text_in_text_logs_names_nobody_and_hides_nothing() {
    for poison in POISON {
        let text = nginx_escape(poison);
        for line in [
            format!(
                r#"203.0.113.9 - {text} [21/Nov/2026:21:20:22 +0000] "GET / HTTP/1.1" 401 9 "-" "-""#
            ),
            format!(r#"203.0.113.9 - - [21/Nov/2026:21:20:22 +0000] "{text}" 401 9 "-" "-""#),
            format!(
                r#"203.0.113.9 - - [21/Nov/2026:21:20:22 +0000] "GET /{text} HTTP/1.1" 401 9 "{text}" "{text}""#
            ),
        ] {
            only_the_client(&Format::Combined, line.as_bytes());
            assert!(
                Format::Combined.parse(line.as_bytes()).is_ok(),
                "hides by {line}"
            );
        }
    }
}

/// Traefik writes user and `ClientHost` bare; a line feed in a user is beyond any parser, all else
/// must be refused.
#[test]
fn attacker_text_in_traefik_common_names_nobody() {
    for poison in POISON.iter().filter(|text| !text.contains('\n')) {
        let quoted = poison.replace('"', "\\\"");
        for (host, user, path) in [
            (format!("{poison}, 203.0.113.9"), "-".into(), "/"),
            ("203.0.113.9".into(), (*poison).to_owned(), "/"),
            ("203.0.113.9".into(), "-".into(), quoted.as_str()),
        ] {
            let line = format!(
                r#"{host} - {user} [21/Nov/2026:21:20:22 +0000] "GET {path} HTTP/1.1" 401 17 "{quoted}" "{quoted}" 1 "r@file" "http://s" 0ms"#
            );
            if let Ok(event) = Format::Clf.parse(line.as_bytes()) {
                let last = event.chain.forwarded.rsplit(|b| *b == b',').next().unwrap();
                assert_eq!(last.trim_ascii(), b"203.0.113.9", "{line}");
            }
        }
    }
}

#[test]
fn a_key_that_occurs_twice_has_no_reading() {
    let line = br#"{"ClientHost":"203.0.113.9","ClientHost":"9.9.9.9","RequestMethod":"GET","RequestPath":"/","DownstreamStatus":401,"StartUTC":"2026-11-21T21:20:22Z"}"#;
    assert_eq!(
        Format::TraefikJson.parse(line),
        Err(Unparsed::Ambiguous("ClientHost"))
    );
    for key in [
        "time",
        "StartUTC",
        "Duration",
        "ClientAddr",
        "ClientHost",
        "ClientUsername",
        "DownstreamStatus",
        "OriginStatus",
        "RequestMethod",
        "RequestHost",
        "RequestPath",
        "request_User-Agent",
        "ServiceAddr",
    ] {
        let value = match key {
            "time" | "StartUTC" => "2026-11-21T21:20:22Z",
            _ => "200",
        };
        let line = format!(r#"{{"{key}":"{value}","{key}":"{value}"}}"#);
        let read = Format::TraefikJson.parse(line.as_bytes());
        assert_eq!(read, Err(Unparsed::Ambiguous(key)));
    }
}

/// nginx's own escaping of a variable.
fn nginx_escape(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'"' | b'\\' | 0..=31 | 127.. => format!("\\x{b:02X}"),
            _ => char::from(b).to_string(),
        })
        .collect()
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(line: Vec<u8>, cut in 0_usize..400) {
        for (format, sample) in [
            (Format::TraefikJson, TRAEFIK), (Format::CaddyJson, CADDY), (Format::NginxJson, NGINX_JSON),
            (Format::Combined, NGINX), (Format::Clf, TRAEFIK_CLF),
        ] {
            let sample = &sample.as_bytes()[..cut.min(sample.len())];
            for line in [line.clone(), [sample, &line].concat(), [&line, sample].concat()] {
                let _ = format.parse(&line);
            }
        }
    }
}
