//! Real servers behind the gate, real proxies before it, real clients through it.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    thread,
};

use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, logs_service_client::LogsServiceClient,
};
use tungstenite::Message;

use crate::support::{Jailgate, Peer, Raw, get};

const JAIL: &str = "jails:\n  web: { rules: { maxretry: 3, findtime: 10m, bantime: 1h, statuscode: \"400-499\" } }\n";
const FROM: &str = "X-Forwarded-For: 198.51.100.77\r\n";

/// One entry point `web` (`entry` is put into it) in front of one server.
fn gate(entry: &str, server: &str) -> Jailgate {
    Jailgate::run(&format!(
        "entryPoints:\n  web:\n    address: \"127.0.0.1:0\"\n    \
         forwardedHeaders: {{ trustedIPs: [\"127.0.0.1/32\"] }}\n{entry}\
         routes:\n  - {{ service: app, jails: [web] }}\n\
         services:\n  app: {{ servers: [{{ url: \"{server}\" }}] }}\n{JAIL}"
    ))
}

#[track_caller]
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error} (`make test` installs it)"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program}: {said}{error}");
    said
}

#[test]
fn nginx_behind_the_gate_is_banned_for_its_own_statuses() {
    let nginx = Peer::nginx(
        "server { listen 127.0.0.1:PORT; location /no { return 401 \"who?\"; } \
         location / { return 200 \"from nginx\"; } }",
    );
    let gate = gate("", &format!("http://{}", nginx.address));
    let web = gate.address("web");
    assert_eq!(get(web, "/", FROM).text(), "from nginx");
    let seen: Vec<u16> = (0..4).map(|_| get(web, "/no", FROM).status).collect();
    assert_eq!(seen, [401, 401, 403, 403]);
}

#[test]
fn proxies_in_front_hand_on_who_asks() {
    let origin = Peer::caddy(
        ":PORT {\n handle /no {\n respond 404\n }\n \
         handle {\n respond \"from caddy\"\n }\n}",
    );
    let gate = gate("", &format!("http://{}", origin.address));
    let web = gate.address("web");
    let fronts = [
        Peer::nginx(&format!(
            "server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://{web}; \
             proxy_set_header X-Forwarded-For $http_x_test_client; }} }}"
        )),
        Peer::caddy(&format!(
            ":PORT {{\n reverse_proxy {web} {{\n \
             header_up X-Forwarded-For {{http.request.header.X-Test-Client}}\n }}\n}}"
        )),
    ];
    for (front, client) in fronts.iter().zip(["203.0.113.21", "203.0.113.22"]) {
        let bad = format!("X-Test-Client: {client}\r\n");
        let seen: Vec<u16> = (0..4)
            .map(|_| get(front.address, "/no", &bad).status)
            .collect();
        assert_eq!(seen, [404, 404, 403, 403]);
        let good = get(front.address, "/", "X-Test-Client: 203.0.113.99\r\n");
        assert_eq!(good.text(), "from caddy");
    }
}

#[test]
fn haproxy_speaks_the_proxy_protocol_in_both_versions() {
    let origin = Peer::nginx("server { listen 127.0.0.1:PORT; return 404; }");
    let entry = "    proxyProtocol: { trustedIPs: [\"127.0.0.1/32\"] }\n";
    let gate = gate(entry, &format!("http://{}", origin.address));
    let web = gate.address("web");
    for (version, source) in [
        ("send-proxy", "127.0.0.31"),
        ("send-proxy-v2", "127.0.0.32"),
    ] {
        // Sources of the loopback range are the machine itself: seen, and never banned.
        let front = Peer::haproxy(&format!(
            "frontend f\n bind 127.0.0.1:PORT\n default_backend b\n\
             backend b\n source 0.0.0.0\n server s {web} {version}\n"
        ));
        for _ in 0..4 {
            let out = run(
                "curl",
                &[
                    "-s",
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_code}",
                    "--interface",
                    source,
                    &format!("http://{}/x", front.address),
                ],
            );
            assert_eq!(out, "404");
        }
    }
    let mut plain = Raw::connect(web);
    plain.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(
        plain.closed(),
        "a listed peer without a PROXY header got in"
    );
}

#[test]
fn a_client_named_by_the_proxy_protocol_is_the_one_banned() {
    let origin = Peer::nginx("server { listen 127.0.0.1:PORT; return 404; }");
    let entry = "    proxyProtocol: { trustedIPs: [\"127.0.0.1/32\"] }\n";
    let gate = gate(entry, &format!("http://{}", origin.address));
    let ask = |client: &str| {
        let mut raw = Raw::connect(gate.address("web"));
        raw.send(format!(
            "PROXY TCP4 {client} 127.0.0.1 4711 80\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"
        ));
        raw.answer().status
    };
    let seen: Vec<u16> = (0..4).map(|_| ask("203.0.113.50")).collect();
    assert_eq!(seen, [404, 404, 403, 403]);
    assert_eq!(ask("203.0.113.51"), 404);
}

#[test]
fn curl_speaks_http_2_in_the_clear_and_over_tls() {
    let origin = Peer::nginx("server { listen 127.0.0.1:PORT; return 200 \"over h2\"; }");
    let server = format!("http://{}", origin.address);
    let plain = gate("", &server);
    let secure = gate("    tls: { selfSigned: true }\n", &server);
    let version = ["-s", "-w", " %{http_version}"];
    let h2c = format!("http://{}/", plain.address("web"));
    let said = run(
        "curl",
        &[&version[..], &["--http2-prior-knowledge", &h2c]].concat(),
    );
    assert_eq!(said, "over h2 2");
    let h2 = format!("https://{}/", secure.address("web"));
    for (flag, expected) in [("--http2", "over h2 2"), ("--http1.1", "over h2 1.1")] {
        let said = run("curl", &[&version[..], &["-k", flag, &h2]].concat());
        assert_eq!(said, expected);
    }
}

#[test]
fn h2load_gets_every_answer() {
    let origin = Peer::nginx("server { listen 127.0.0.1:PORT; return 200 \"ok\"; }");
    let gate = gate("", &format!("http://{}", origin.address));
    let url = format!("http://{}/", gate.address("web"));
    let said = run("h2load", &["-n", "2000", "-c", "4", "-m", "16", &url]);
    assert!(
        said.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"),
        "{said}"
    );
}

#[test]
fn grpc_passes_with_its_trailers() {
    let receiver = Jailgate::run(&format!(
        "otlp: {{ address: \"127.0.0.1:0\", token: hunter2, jails: [web] }}\n{JAIL}"
    ));
    let gate = gate("", &format!("h2c://{}", receiver.address("otlp")));
    let endpoint = format!("http://{}", gate.address("web"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let channel = tonic::transport::Endpoint::new(endpoint)
            .unwrap()
            .connect()
            .await
            .unwrap();
        let mut client = LogsServiceClient::new(channel);
        let mut export = tonic::Request::new(ExportLogsServiceRequest::default());
        let token = "Bearer hunter2".parse().unwrap();
        export.metadata_mut().insert("authorization", token);
        client.export(export).await.expect("grpc-status 0");
        let refused = client
            .export(ExportLogsServiceRequest::default())
            .await
            .unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{refused:?}");
    });
}

#[test]
fn a_websocket_echoes_through_the_gate() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let echo = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut socket = tungstenite::accept(stream).unwrap();
                while let Ok(message) = socket.read() {
                    if message.is_close() || socket.send(message).is_err() {
                        break;
                    }
                }
            });
        }
    });
    let gate = gate("", &format!("http://{echo}"));
    let url = format!("ws://{}/chat", gate.address("web"));
    // All open before any speaks: the plugin once deadlocked here (#67).
    let mut sockets: Vec<_> = (0..10)
        .map(|_| tungstenite::connect(&url).expect("upgraded").0)
        .collect();
    for (index, socket) in sockets.iter_mut().enumerate() {
        for message in [
            Message::text(format!("hello {index}")),
            Message::binary(vec![index as u8; 100_000]),
        ] {
            socket.send(message.clone()).unwrap();
            assert_eq!(socket.read().unwrap(), message);
        }
        socket.close(None).unwrap();
    }
}

/// Bytes of one direction of the stream test: more than any buffer, less than a minute.
const STREAM: u64 = 1 << 30;

#[test]
fn a_gigabyte_streams_both_ways_at_flat_memory() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || swallow_and_pour(&mut stream));
        }
    });
    let gate = gate("", &format!("http://{origin}"));
    let web = gate.address("web");
    assert_eq!(get(web, "/warm", "").status, 200);
    let before = gate.rss_kib();

    let mut down = Raw::connect(web);
    down.send("GET /pour HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(down.count_rest(), STREAM);
    let mut up = TcpStream::connect(web).unwrap();
    up.write_all(
        format!(
            "POST /up HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {STREAM}\r\n\r\n"
        )
        .as_bytes(),
    )
    .unwrap();
    let block = vec![b'x'; 1 << 20];
    for _ in 0..STREAM >> 20 {
        up.write_all(&block).unwrap();
    }
    let mut answer = String::new();
    up.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with(&format!("got {STREAM}")), "{answer}");

    let grown = gate.rss_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more than before");
}

/// Answers `/pour` with [`STREAM`] bytes and any upload with how much came.
fn swallow_and_pour(stream: &mut TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length: u64 = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
        .unwrap_or(0);
    let mut block = vec![0; 1 << 20];
    let mut left = length;
    while left > 0 {
        left -= stream.read(&mut block).ok()? as u64;
    }
    if head.starts_with("get /pour") {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {STREAM}\r\n\r\n");
        stream.write_all(answer.as_bytes()).ok()?;
        for _ in 0..STREAM >> 20 {
            stream.write_all(&block).ok()?;
        }
    } else {
        let body = format!("got {length}");
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).ok()?;
    }
    Some(())
}
