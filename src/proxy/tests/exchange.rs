//! Single exchanges over HTTP/1.1: what goes out, what comes back, when a connection is used
//! again.

use super::*;

#[tokio::test]
async fn a_request_goes_out_in_normal_form_and_the_connection_serves_the_next() {
    let (sent, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let (address, connections) = raw(move |_, mut stream| {
        let sent = sent.clone();
        async move {
            loop {
                let head = head(&mut stream).await;
                if head.is_empty() {
                    return;
                }
                sent.send(head).unwrap();
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-a: 1\r\n\r\nhello";
                stream.write_all(answer).await.unwrap();
            }
        }
    })
    .await;
    let (proxy, upstream) = (proxy(), upstream(&[address]));
    for _ in 0..3 {
        let mut request = get("/a?b=c");
        let headers = request.headers_mut();
        headers.insert("connection", "keep-alive, x-hop".parse().unwrap());
        headers.insert("x-hop", "1".parse().unwrap());
        headers.insert("x-forwarded-for", "10.0.0.1".parse().unwrap());
        headers.insert("accept", "*/*".parse().unwrap());
        let response = forward(&proxy, &upstream, request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["x-a"], "1");
        assert_eq!(text(response).await, "hello");
        let machine = &proxy.0.machine;
        assert_eq!(
            seen.recv().await.unwrap(),
            format!(
                "GET /a?b=c HTTP/1.1\r\nhost: app.example.com\r\naccept: */*\r\n\
                 x-forwarded-for: 192.0.2.7\r\nx-real-ip: 192.0.2.7\r\nx-forwarded-proto: http\r\n\
                 x-forwarded-host: app.example.com\r\nx-forwarded-port: 80\r\n\
                 x-forwarded-server: {machine}\r\n\r\n"
            )
        );
    }
    assert_eq!(connections.load(Relaxed), 1);
}

#[track_caller]
fn check(outcome: Result<String, Error>, expected: Result<&str, &str>, answer: &str) {
    let outcome = outcome.map_err(|error| match error {
        Error::BadResponse { why, .. } => why.to_owned(),
        other => panic!("{answer:?}: {other:?}"),
    });
    assert_eq!(
        outcome,
        expected.map(Into::into).map_err(Into::into),
        "{answer:?}"
    );
}

/// What a response that nobody may misread comes out as.
#[tokio::test]
async fn responses_that_read_in_two_ways_are_refused() {
    let cases: &[(&str, Result<&str, &str>)] = &[
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Ok("ok")),
        (
            "HTTP/1.1 200\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
            Ok("ok"),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n2;x=y\r\nok\r\n0\r\n\r\n",
            Ok("ok"),
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!",
            Err("differing Content-Length"),
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            Err("Content-Length beside Transfer-Encoding"),
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok",
            Err("bad Content-Length"),
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 0x2\r\n\r\nok",
            Err("bad Content-Length"),
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok",
            Err("bad Content-Length"),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
            Err("unknown Transfer-Encoding"),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            Err("unknown Transfer-Encoding"),
        ),
        (
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            Err("Transfer-Encoding in HTTP/1.0"),
        ),
        (
            "HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
            Err("not an HTTP/1.1 head"),
        ),
        (
            "HTTP/1.1 200 OK\r\na : b\r\n\r\n",
            Err("not an HTTP/1.1 head"),
        ),
        (
            "HTTP/1.1 200 OK\r\na: b\rc\r\n\r\n",
            Err("not an HTTP/1.1 head"),
        ),
        (
            "HTTP/1.1 200 OK\r\na: b\0c\r\n\r\n",
            Err("not an HTTP/1.1 head"),
        ),
        ("HTTP/1.1 099 OK\r\n\r\n", Err("bad status")),
        ("HTTP/2.0 200 OK\r\n\r\n", Err("not an HTTP/1.1 head")),
        ("SSH-2.0-OpenSSH\r\n\r\n", Err("not an HTTP/1.1 head")),
        (
            "HTTP/1.1 101 Hi\r\nupgrade: x\r\n\r\n",
            Err("101 nobody asked for"),
        ),
    ];
    let proxy = proxy();
    for (answer, expected) in cases {
        let (address, _) = answering(*answer).await;
        let outcome = match forward(&proxy, &upstream(&[address]), get("/")).await {
            Ok(response) => Ok(text(response).await),
            Err(error) => Err(error),
        };
        check(outcome, *expected, answer);
    }
}

/// Two requests after each other: how many connections did they take?
#[tokio::test]
async fn a_connection_is_used_again_only_when_nothing_is_left_on_it() {
    let cases = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 1),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            1,
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", 1),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: 2\r\n\r\n", 1),
        (
            "HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok",
            1,
        ),
        ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", 2),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
            2,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n",
            2,
        ),
        ("HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\nok", 2),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n",
            2,
        ),
    ];
    for (answer, expected) in cases {
        let (address, connections) = answering(answer).await;
        let (proxy, upstream) = (proxy(), upstream(&[address]));
        for _ in 0..2 {
            text(forward(&proxy, &upstream, get("/")).await.unwrap()).await;
        }
        assert_eq!(connections.load(Relaxed), expected, "{answer:?}");
    }
}

#[tokio::test]
async fn bytes_on_an_idle_connection_retire_it() {
    let (address, connections) = raw(|_, mut stream| async move {
        while !head(&mut stream).await.is_empty() {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(answer).await.unwrap();
            tokio::task::yield_now().await;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
                .await
                .unwrap();
        }
    })
    .await;
    let (proxy, upstream) = (proxy(), upstream(&[address]));
    for _ in 0..3 {
        let response = forward(&proxy, &upstream, get("/")).await.unwrap();
        assert_eq!(text(response).await, "ok");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(connections.load(Relaxed), 3);
}

#[tokio::test]
async fn head_has_no_body_and_keeps_its_length() {
    let (address, connections) = answering("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n").await;
    let (proxy, upstream) = (proxy(), upstream(&[address]));
    for _ in 0..2 {
        let mut request = get("/");
        *request.method_mut() = http::Method::HEAD;
        let response = forward(&proxy, &upstream, request).await.unwrap();
        assert_eq!(response.headers()["content-length"], "99");
        assert_eq!(text(response).await, "");
    }
    assert_eq!(connections.load(Relaxed), 1);
}

#[tokio::test]
async fn a_body_may_last_until_the_server_closes() {
    let (address, _) = raw(|_, mut stream| async move {
        head(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\n\r\nfirst")
            .await
            .unwrap();
        tokio::task::yield_now().await;
        stream.write_all(b" last").await.unwrap();
    })
    .await;
    let response = forward(&proxy(), &upstream(&[address]), get("/"))
        .await
        .unwrap();
    assert_eq!(text(response).await, "first last");
}

#[tokio::test]
async fn a_cut_body_is_an_error_and_not_an_end() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\n",
    ] {
        let (address, _) = raw(move |_, mut stream| async move {
            head(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let response = forward(&proxy(), &upstream(&[address]), get("/"))
            .await
            .unwrap();
        let error = response.into_body().collect().await.unwrap_err();
        assert!(matches!(error, Error::Reset { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn trailers_come_through_but_for_those_that_must_not() {
    let (address, _) = answering(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\
         grpc-status: 0\r\nx_forwarded_for: 1.1.1.1\r\nContent-Length: 3\r\n\r\n",
    )
    .await;
    let response = forward(&proxy(), &upstream(&[address]), get("/"))
        .await
        .unwrap();
    let body = response.into_body().collect().await.unwrap();
    let trailers = body.trailers().unwrap();
    assert_eq!(trailers.len(), 1);
    assert_eq!(trailers["grpc-status"], "0");
}

#[tokio::test]
async fn interim_responses_are_told_and_the_final_one_returned() {
    let (address, _) = answering(
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
         HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    )
    .await;
    let told = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let sink = told.clone();
    let informational = move |status, headers: &http::HeaderMap| {
        sink.lock().push((status, headers["link"].clone()))
    };
    let (mut parts, body) = get("/").into_parts();
    let response = proxy()
        .forward(
            &upstream(&[address]),
            &mut parts,
            body,
            &forwarded(),
            Some(&informational),
            0,
        )
        .await
        .unwrap();
    assert_eq!(text(response).await, "ok");
    assert_eq!(told.lock().len(), 1);
    assert_eq!(told.lock()[0].0, 103);
}
