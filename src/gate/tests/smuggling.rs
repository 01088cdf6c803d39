//! What desyncs is refused; what hyper normalises goes upstream in normal form only, and its
//! connection closes.

use super::support::{Running, Service, empty, status};

async fn gate() -> (Running, Service) {
    let service = Service::start(|_| empty(200)).await;
    let gate = Running::start(&format!(
        "entryPoints: {{web: {{address: '127.0.0.1:0'}}}}\n\
         services: {{app: {{servers: [{{url: 'http://{}'}}]}}}}\n\
         routes: [{{service: app}}]\n",
        service.address
    ));
    (gate, service)
}

/// A second request that would be answered if the connection stayed open.
const NEXT: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn what_reads_two_ways_is_400_and_the_connection_closes() {
    let (gate, service) = gate().await;
    let post = "POST / HTTP/1.1\r\nHost: a\r\n";
    let cases = [
        (
            "differing lengths",
            format!("{post}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        ),
        (
            "length list",
            format!("{post}Content-Length: 1, 1\r\n\r\na"),
        ),
        (
            "signed length",
            format!("{post}Content-Length: +1\r\n\r\na"),
        ),
        ("hex length", format!("{post}Content-Length: 0x1\r\n\r\na")),
        (
            "huge length",
            format!("{post}Content-Length: 99999999999999999999\r\n\r\na"),
        ),
        (
            "space before colon",
            format!("{post}Content-Length : 1\r\n\r\na"),
        ),
        (
            "unknown coding",
            format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ),
        (
            "two codings",
            format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ),
        (
            "two coding lines",
            format!(
                "{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
        ),
        (
            "chunked not last",
            format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        ),
        (
            "vertical tab",
            format!("{post}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
        ),
        (
            "coding in 1.0",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        ),
        (
            "folded line",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n".into(),
        ),
        (
            "bare CR",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n".into(),
        ),
        ("NUL", "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n".into()),
        ("no host", "GET / HTTP/1.1\r\n\r\n".into()),
        (
            "two hosts",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".into(),
        ),
        ("host list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".into()),
        (
            "another host",
            "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        ),
        (
            "CONNECT",
            "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n".into(),
        ),
        (
            "authority as target",
            "GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n".into(),
        ),
        ("asterisk", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (
            "opaque target",
            "GET mailto:a HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        ),
        (
            "tab in request line",
            "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        ),
        (
            "unknown version",
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n".into(),
        ),
    ];
    for (what, request) in cases {
        let mut client = gate.client().await;
        client.send(format!("{request}{NEXT}")).await;
        let all = client.read_all().await;
        assert_eq!(status(&all), 400, "{what}: {all}");
        assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{what}: {all}");
    }
    assert_eq!(*service.heads.lock(), Vec::<String>::new());
}

#[tokio::test]
async fn bad_chunks_are_400_and_the_connection_closes() {
    let (gate, service) = gate().await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in [
        "x\r\n",
        "-1\r\na\r\n0\r\n\r\n",
        "1\na\n0\n\n",
        "1\r\nab\r\n0\r\n\r\n",
        "1;a\nb\r\na\r\n0\r\n\r\n",
        "1 1\r\na\r\n0\r\n\r\n",
        "fffffffffffffffff\r\na\r\n0\r\n\r\n",
    ] {
        let mut client = gate.client().await;
        client.send(format!("{head}{body}{NEXT}")).await;
        let all = client.read_all().await;
        assert_eq!(status(&all), 400, "{body:?}: {all}");
        assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{body:?}: {all}");
    }
    let seen = service.heads.lock();
    assert!(
        !seen.iter().any(|head| head.contains("smuggled")),
        "{seen:?}"
    );
}

#[tokio::test]
async fn what_hyper_folds_goes_upstream_in_normal_form_and_the_connection_closes() {
    let (gate, service) = gate().await;
    let post = "POST / HTTP/1.1\r\nHost: a\r\n";
    let cases = [
        format!("{post}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"),
        format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n1\r\na\r\n0\r\n\r\n"),
        format!("{post}Content-Length: 1\r\nContent-Length: 1\r\n\r\na"),
        format!("{post}X: y\nContent-Length: 1\r\n\r\na"),
    ];
    for request in &cases {
        let mut client = gate.client().await;
        client.send(format!("{request}{NEXT}")).await;
        let all = client.read_all().await;
        assert_eq!(status(&all), 200, "{request:?}: {all}");
        assert!(
            all.to_lowercase().contains("connection: close"),
            "{request:?}: {all}"
        );
        assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{request:?}: {all}");
    }
    let seen = service.heads.lock();
    assert_eq!(seen.len(), cases.len());
    for head in seen.iter() {
        let lower = head.to_lowercase();
        let framed =
            lower.matches("content-length:").count() + lower.matches("transfer-encoding:").count();
        assert_eq!(framed, 1, "{head}");
        assert!(!head.replace("\r\n", "").contains('\n'), "{head:?}");
    }
}

#[tokio::test]
async fn a_fold_closes_after_its_own_request_not_before() {
    let (gate, service) = gate().await;
    let mut client = gate.client().await;
    let clean = "GET /first HTTP/1.1\r\nHost: a\r\n\r\n";
    let folded = "GET /second HTTP/1.1\r\nHost: a\n\r\n";
    client.send(format!("{clean}{folded}{NEXT}")).await;
    let all = client.read_all().await;
    assert_eq!(all.matches("HTTP/1.1 200").count(), 2, "{all}");
    assert_eq!(service.requests(), 2);
}

#[tokio::test]
async fn the_absolute_form_of_the_same_host_matches_like_the_origin_form() {
    let service = Service::start(|_| empty(200)).await;
    let gate = Running::start(&format!(
        "entryPoints: {{web: {{address: '127.0.0.1:0', forwardedHeaders: {{trustedIPs: [127.0.0.1]}}}}}}\n\
         services: {{app: {{servers: [{{url: 'http://{}'}}]}}}}\n\
         routes: [{{service: app, jails: [web]}}]\n\
         jails: {{web: {{rules: {{urlregexps: [{{regexp: ^/no$, mode: block}}]}}}}}}\n",
        service.address
    ));
    for (target, expected) in [("/yes", 200), ("http://a/no", 403), ("http://a/yes", 403)] {
        let mut client = gate.client().await;
        let ask = format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n");
        assert_eq!(status(&client.ask(ask).await), expected, "{target}");
    }
    assert!(service.heads.lock()[0].starts_with("GET /yes HTTP/1.1\r\n"));
}

#[tokio::test]
async fn an_answer_before_the_body_leaves_nothing_of_it_to_be_read_as_a_request() {
    let gate = Running::start(
        "entryPoints: {web: {address: '127.0.0.1:0'}}\n\
         routes: [{host: other, service: whoami@internal}]\n",
    );
    let mut client = gate.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    let all = client.read_all().await;
    assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{all}");
}
