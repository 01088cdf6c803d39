//! What one client may send and hold, at and beyond the edge.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::{Client, Running, Service, config, empty, status};

fn yaml(options: &str) -> String {
    format!(
        "entryPoints: {{web: {{address: '127.0.0.1:0', {options}}}}}\n\
         routes: [{{service: whoami@internal}}]\n"
    )
}

#[tokio::test]
async fn heads_pass_at_the_limit_and_not_beyond() {
    let gate = Running::start(&yaml("http: {maxUriBytes: 100}"));
    let headers = |count: usize| {
        let lines: String = (1..count).map(|n| format!("X-{n}: y\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
    };
    let sized = |bytes: usize| {
        let rest = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "y".repeat(bytes - rest)
        )
    };
    let target =
        |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "y".repeat(bytes - 1));
    for (what, request, expected) in [
        ("100 header lines", headers(100), 200),
        ("101 header lines", headers(101), 431),
        ("64 KiB", sized(64 << 10), 200),
        ("64 KiB and one", sized((64 << 10) + 1), 431),
        ("target at the limit", target(100), 200),
        ("target beyond", target(101), 414),
    ] {
        let mut client = gate.client().await;
        client.send(request).await;
        let response = client.read_response().await;
        assert_eq!(status(&response), expected, "{what}");
        let closes = response.to_lowercase().contains("connection: close");
        assert_eq!(closes, expected != 200, "{what}");
    }
}

#[tokio::test]
async fn other_header_counts_hold_too() {
    for (limit, count, expected) in [(5, 5, 200), (5, 6, 431), (150, 150, 200), (150, 151, 431)] {
        let gate = Running::start(&yaml(&format!("http: {{maxHeaders: {limit}}}")));
        let lines: String = (1..count).map(|n| format!("X-{n}: y\r\n")).collect();
        let response = gate
            .client()
            .await
            .ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"))
            .await;
        assert_eq!(status(&response), expected, "{count} of {limit}");
    }
}

#[tokio::test]
async fn bodies_beyond_the_limit_are_413() {
    let service = Service::start(|_| empty(200)).await;
    let gate = Running::start(&format!(
        "entryPoints: {{web: {{address: '127.0.0.1:0', http: {{maxBodyBytes: 10}}}}}}\n\
         services: {{app: {{servers: [{{url: 'http://{}'}}]}}}}\n\
         routes: [{{service: app}}]\n",
        service.address
    ));
    let post = "POST / HTTP/1.1\r\nHost: a\r\n";
    for (request, expected) in [
        (format!("{post}Content-Length: 10\r\n\r\n0123456789"), 200),
        (format!("{post}Content-Length: 11\r\n\r\n0123456789a"), 413),
        (
            format!("{post}Transfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n"),
            200,
        ),
        (
            format!(
                "{post}Transfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n1\r\na\r\n0\r\n\r\n"
            ),
            413,
        ),
    ] {
        let response = gate.client().await.ask(&request).await;
        assert_eq!(status(&response), expected, "{request}");
    }
}

#[tokio::test]
async fn slow_heads_idle_connections_and_stalled_bodies_are_closed() {
    let service = Service::start(|_| empty(200)).await;
    let gate = Running::start(&format!(
        "entryPoints: {{web: {{address: '127.0.0.1:0', transport: {{respondingTimeouts: \
         {{headerTimeout: 300ms, readTimeout: 300ms, idleTimeout: 300ms}}}}}}}}\n\
         services: {{app: {{servers: [{{url: 'http://{}'}}]}}}}\n\
         routes: [{{service: app}}]\n",
        service.address
    ));
    let mut silent = gate.client().await;
    assert_eq!(silent.read_all().await, "", "no request");
    let mut idle = gate.client().await;
    assert_eq!(
        status(&idle.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await),
        200
    );
    assert_eq!(idle.read_all().await, "", "no second request");
    let mut stalled = gate.client().await;
    stalled
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
        .await;
    assert!(!stalled.read_all().await.contains(" 200 "), "half a body");
}

#[tokio::test]
async fn bytes_of_a_head_do_not_buy_time() {
    let gate = Running::start(&yaml(
        "transport: {respondingTimeouts: {headerTimeout: 400ms}}",
    ));
    let mut client = gate.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n").await;
    let (mut reading, mut writing) = client.0.split();
    let drip = async {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            if writing.write_all(b"X: y\r\n").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut nothing = Vec::new();
    let closed = tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut nothing);
    let closed = tokio::time::timeout(std::time::Duration::from_secs(5), async {
        tokio::select! { _ = closed => {}, () = drip => {} }
    });
    closed.await.expect("a head that never ends was waited for");
    assert!(nothing.is_empty());
}

#[tokio::test]
async fn a_slow_service_is_no_fault_of_the_clients() {
    let delay = std::time::Duration::from_millis(900);
    let service = Service::slow(delay, |_| empty(200)).await;
    let gate = Running::start(&format!(
        "entryPoints: {{web: {{address: '127.0.0.1:0', transport: {{respondingTimeouts: \
         {{headerTimeout: 200ms, readTimeout: 200ms, idleTimeout: 200ms}}}}}}}}\n\
         services: {{app: {{servers: [{{url: 'http://{}'}}]}}}}\n\
         routes: [{{service: app}}]\n",
        service.address
    ));
    let response = gate
        .client()
        .await
        .ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert_eq!(status(&response), 200);
}

#[tokio::test]
async fn connections_are_counted_per_client_except_for_trusted_peers() {
    let one = "http: {maxConnectionsPerClient: 1}";
    let gate = Running::start(&yaml(one));
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut first = gate.client().await;
    assert_eq!(status(&first.ask(get).await), 200);
    assert_eq!(gate.client().await.ask(get).await, "");
    drop(first);
    let again = async {
        while gate.client().await.ask(get).await.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(5), again)
        .await
        .unwrap();

    let gate = Running::start(&yaml(&format!(
        "{one}, forwardedHeaders: {{trustedIPs: [127.0.0.1]}}"
    )));
    let (mut first, mut second) = (gate.client().await, gate.client().await);
    assert_eq!(
        (
            status(&first.ask(get).await),
            status(&second.ask(get).await)
        ),
        (200, 200)
    );
}

#[tokio::test]
async fn a_proxy_header_is_believed_from_its_peers_and_required_there() {
    let gate = Running::start(&yaml("proxyProtocol: {trustedIPs: [127.0.0.1]}"));
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = gate.client().await;
    // In two parts, as a network may deliver it.
    client.send("PROXY TCP4 192.0.2.1 19").await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let response = client.ask(format!("2.0.2.2 4711 80\r\n{get}")).await;
    assert!(response.contains("peer: 192.0.2.1:4711"), "{response}");
    assert_eq!(gate.client().await.ask(get).await, "");

    let plain = Running::start(&yaml(""));
    let mut client = Client::connect(plain.address()).await;
    let response = client
        .ask(format!("PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n{get}"))
        .await;
    assert_eq!(status(&response), 400);
}

#[tokio::test]
async fn connections_are_counted_in_all_too() {
    let gate = Running::start(&yaml(
        "http: {maxConnections: 1}, forwardedHeaders: {trustedIPs: [127.0.0.1]}",
    ));
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut first = gate.client().await;
    assert_eq!(status(&first.ask(get).await), 200);
    assert_eq!(gate.client().await.ask(get).await, "");
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_not_waited_for() {
    let gate = Running::start(&yaml(
        "tls: {selfSigned: true}, transport: {respondingTimeouts: {headerTimeout: 200ms}}",
    ));
    assert_eq!(gate.client().await.read_all().await, "");
}

#[tokio::test]
async fn an_address_in_use_is_refused_though_workers_share_it() {
    let gate = Running::start(&yaml(""));
    let second = config(&yaml("").replace("127.0.0.1:0", &gate.address().to_string()));
    let refused = crate::gate::bind(&second, 2).unwrap_err().to_string();
    assert!(refused.contains(&gate.address().to_string()), "{refused}");
}

#[tokio::test]
async fn a_large_body_that_is_refused_does_not_swallow_the_answer() {
    let gate = Running::start(&yaml("http: {maxBodyBytes: 10}"));
    let mut client = gate.client().await;
    let length = 8 << 20;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
        ))
        .await;
    client.send(vec![b'x'; length]).await;
    let all = client.read_all().await;
    assert_eq!(status(&all), 413);
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_with_it() {
    let service = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gate = Running::start(&format!(
        "entryPoints: {{web: {{address: '127.0.0.1:0'}}}}\nroutes: [{{service: app}}]\n\
         services: {{app: {{servers: [{{url: 'http://{}'}}]}}}}\n",
        service.local_addr().unwrap()
    ));
    let mut client = gate.client().await;
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut asked, _) = service.accept().await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        assert!(asked.read_buf(&mut seen).await.unwrap() > 0);
    }
    drop(client);
    let (mut byte, patience) = ([0], std::time::Duration::from_secs(10));
    let ended = tokio::time::timeout(patience, asked.read(&mut byte)).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "it still waits");
}
