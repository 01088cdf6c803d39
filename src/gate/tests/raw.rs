//! What ordinary requests get, and what a jail does to them.

use super::support::{Client, Running, Service, empty, status};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn proxying(service: &Service, jail: &str) -> String {
    format!(
        "entryPoints: {{web: {{address: '127.0.0.1:0', forwardedHeaders: {{trustedIPs: [127.0.0.1]}}}}}}\n\
         services: {{app: {{servers: [{{url: 'http://{}'}}]}}}}\n\
         routes: [{{service: app, jails: [web]}}]\n\
         jails: {{web: {jail}}}\n",
        service.address
    )
}

#[tokio::test]
async fn whoami_says_who_it_takes_the_client_for() {
    let gate = Running::start(
        "entryPoints: {web: {address: '127.0.0.1:0', forwardedHeaders: {trustedIPs: [127.0.0.1]}}}\n\
         routes: [{service: whoami@internal}]\n",
    );
    let mut client = gate.client().await;
    let plain = client.ask(GET).await;
    assert_eq!(status(&plain), 200);
    assert!(
        plain.contains("client: 127.0.0.1 (found by: the peer)"),
        "{plain}"
    );
    let forwarded = client
        .ask("GET /x HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n")
        .await;
    assert!(forwarded.contains("client: 192.0.2.7"), "{forwarded}");
    assert!(forwarded.contains("GET /x HTTP/1.1"), "{forwarded}");
}

#[tokio::test]
async fn the_failure_that_crosses_the_limit_is_replaced_and_then_the_service_is_spared() {
    let service = Service::start(|_| empty(404)).await;
    let gate = Running::start(&proxying(
        &service,
        "{rules: {maxretry: 4, statuscode: '404'}}",
    ));
    let mut client = gate.client().await;
    let ask = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n";
    let mut seen = Vec::new();
    for _ in 0..6 {
        let response = client.ask(ask).await;
        seen.push(status(&response));
        if status(&response) == 403 {
            assert!(response.contains("x-jailgate-reason: banned"), "{response}");
            assert!(response.contains("retry-after: "), "{response}");
        }
    }
    assert_eq!(seen, [404, 404, 404, 403, 403, 403]);
    assert_eq!(service.requests(), 4);
    let other = client.ask(ask.replace("192.0.2.7", "192.0.2.8")).await;
    assert_eq!(status(&other), 404);
}

#[tokio::test]
async fn fifty_failures_at_once_show_three() {
    let service = Service::start(|_| empty(401)).await;
    let gate = Running::start(&proxying(
        &service,
        "{rules: {maxretry: 4, statuscode: '401'}}",
    ));
    let address = gate.address();
    let asking = (0..50).map(|_| async {
        let mut client = Client::connect(address).await;
        let ask = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n";
        status(&client.ask(ask).await)
    });
    let seen = futures_util::future::join_all(asking).await;
    let failures = seen.iter().filter(|status| **status == 401).count();
    assert_eq!((failures, seen.len()), (3, 50));
}

#[tokio::test]
async fn an_outage_bans_nobody() {
    let service = Service::start(|head| empty(if head.contains("/503") { 503 } else { 502 })).await;
    let gate = Running::start(&proxying(
        &service,
        "{rules: {maxretry: 2, statuscode: '400-599'}}",
    ));
    let mut client = gate.client().await;
    for path in ["/502", "/503", "/502", "/503"] {
        let ask = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n");
        assert_ne!(status(&client.ask(ask).await), 403);
    }
}

#[tokio::test]
async fn what_no_route_takes_is_counted_by_default() {
    let gate = Running::start(
        "entryPoints: {web: {address: '127.0.0.1:0', forwardedHeaders: {trustedIPs: [127.0.0.1]}}}\n\
         routes: [{host: other, service: whoami@internal}]\n\
         jails: {default: {rules: {maxretry: 3, statuscode: '404'}}}\n",
    );
    let mut client = gate.client().await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        let ask = "GET /nope HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n";
        seen.push(status(&client.ask(ask).await));
    }
    assert_eq!(seen, [404, 404, 403, 403]);
}

#[tokio::test]
async fn a_reload_changes_what_open_connections_get() {
    let yaml = |host: &str| {
        format!(
            "entryPoints: {{web: {{address: '127.0.0.1:0'}}}}\n\
             routes: [{{host: {host}, service: whoami@internal}}]\n"
        )
    };
    let gate = Running::start(&yaml("a"));
    let mut client = gate.client().await;
    assert_eq!(status(&client.ask(GET).await), 200);
    gate.reload(&yaml("b"));
    assert_eq!(status(&client.ask(GET).await), 404);
}

#[tokio::test]
async fn early_hints_come_before_the_answer() {
    let service = Service::start(|_| {
        format!(
            "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n{}",
            empty(200)
        )
    })
    .await;
    let gate = Running::start(&proxying(&service, "{}"));
    let mut client = gate.client().await;
    client
        .send(GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"))
        .await;
    let all = client.read_all().await;
    assert!(
        all.starts_with("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 200"),
        "{all}"
    );
}

#[tokio::test]
async fn the_access_log_has_one_line_a_request_denied_or_not() {
    let dir = tempfile::tempdir().unwrap();
    for format in ["text", "json"] {
        let path = dir.path().join(format);
        let service = Service::start(|_| empty(404)).await;
        let yaml = proxying(&service, "{rules: {maxretry: 2, statuscode: '404'}}");
        let log = format!("log: {{format: {format}, access: '{}'}}\n", path.display());
        let gate = Running::start(&format!("{yaml}{log}"));
        let mut client = gate.client().await;
        let ask = "GET /a\"b HTTP/1.1\r\nHost: a\r\nUser-Agent: x\"\r\nCookie: secret\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n";
        client.ask(ask).await;
        client.ask(ask).await;
        let read = || std::fs::read_to_string(&path).unwrap_or_default();
        let two = async {
            while read().lines().count() < 2 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(5), two)
            .await
            .unwrap();
        let log = read();
        let (passed, denied) = log.split_once('\n').unwrap();
        assert!(!log.contains("secret"), "{log}");
        if format == "json" {
            let passed: serde_json::Value = serde_json::from_str(passed).unwrap();
            let denied: serde_json::Value = serde_json::from_str(denied).unwrap();
            assert_eq!(
                (&passed["client"], &passed["status"]),
                (&"192.0.2.7".into(), &404.into())
            );
            assert_eq!(
                (&denied["jail"], &denied["reason"]),
                (&"web".into(), &"banned".into())
            );
            assert_eq!(
                (&denied["path"], &denied["user_agent"]),
                (&"/a\"b".into(), &"x\"".into())
            );
        } else {
            assert!(
                passed.starts_with("192.0.2.7 - - [")
                    && passed.contains("\"GET /a\\x22b HTTP/1.1\" 404 0"),
                "{passed}"
            );
            assert!(
                denied.trim_end().ends_with("app web:banned") && denied.contains("\" 403 0"),
                "{denied}"
            );
        }
    }
}
