//! Request bodies, retries, timeouts: what is sent when, and what is tried again.

use futures_util::stream;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::{sync::mpsc, time::timeout};

use super::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A body fed by hand; dropping the sender ends it.
fn fed() -> (
    mpsc::UnboundedSender<Result<Frame<Bytes>, BoxError>>,
    impl http_body::Body<Data = Bytes, Error = BoxError> + Send + Unpin,
) {
    let (feed, frames) = mpsc::unbounded_channel();
    let frames = stream::unfold(frames, |mut frames| async move {
        let frame = frames.recv().await?;
        Some((frame, frames))
    });
    (feed, StreamBody::new(Box::pin(frames)))
}

fn data(text: &'static str) -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(text.into()))
}

fn put<B>(body: B) -> Request<B> {
    let request = Request::put("/upload").header("host", "app.example.com");
    request.body(body).unwrap()
}

async fn expect(stream: &mut TcpStream, bytes: &str) {
    let mut got = vec![0; bytes.len()];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(String::from_utf8(got).unwrap(), bytes);
}

/// The status, or the error's Debug form up to its first `{` or `(`.
fn outcome(result: Result<Response<Body>, Error>) -> String {
    match result {
        Ok(response) => response.status().as_str().to_owned(),
        Err(error) => {
            let status = error.status();
            let debug = format!("{error:?}");
            let name = debug.split([' ', '(', '{']).next().unwrap();
            format!("{name} {}", status.as_u16())
        }
    }
}

#[tokio::test]
async fn bodies_are_framed_by_what_is_known_of_them() {
    let (address, connections) = raw(|_, mut stream| async move {
        let request = head(&mut stream).await;
        assert!(request.contains("\r\ncontent-length: 5\r\n"), "{request}");
        assert!(!request.contains("transfer-encoding"), "{request}");
        expect(&mut stream, "hello").await;
        stream.write_all(OK).await.unwrap();
        let request = head(&mut stream).await;
        assert!(
            request.contains("\r\ntransfer-encoding: chunked\r\n"),
            "{request}"
        );
        assert!(!request.contains("content-length"), "{request}");
        expect(
            &mut stream,
            "5\r\nhello\r\n6\r\n world\r\n0\r\nx-sum: 1\r\n\r\n",
        )
        .await;
        stream.write_all(OK).await.unwrap();
        let request = head(&mut stream).await;
        assert!(request.contains("\r\ncontent-length: 0\r\n"), "{request}");
        stream.write_all(OK).await.unwrap();
        head(&mut stream).await;
    })
    .await;
    let (proxy, upstream) = (proxy(), upstream(&[address]));
    forward(&proxy, &upstream, post("hello")).await.unwrap();
    let (feed, body) = fed();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "1".parse().unwrap());
    trailers.insert("x-forwarded-for", "1.1.1.1".parse().unwrap());
    for frame in [data("hello"), data(" world"), Ok(Frame::trailers(trailers))] {
        feed.send(frame).unwrap();
    }
    let mut request = put(body);
    let headers = request.headers_mut();
    headers.insert("transfer-encoding", "chunked".parse().unwrap());
    forward(&proxy, &upstream, request).await.unwrap();
    forward(&proxy, &upstream, post("")).await.unwrap();
    assert_eq!(connections.load(Relaxed), 1);
}

/// The first exchange is fine, the second connection use is cut without an answer.
async fn cut_when_used_again() -> (SocketAddr, Arc<AtomicUsize>) {
    raw(|number, mut stream| async move {
        head(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        head(&mut stream).await;
        if number > 0 {
            stream.write_all(OK).await.unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn a_pooled_connection_that_dies_is_replaced_when_repeating_does_no_harm() {
    for (method, expected, connections) in [
        ("GET", "200", 2),
        ("DELETE", "200", 2),
        ("POST", "Reset 502", 1),
        ("PATCH", "Reset 502", 1),
    ] {
        let (address, count) = cut_when_used_again().await;
        let (proxy, upstream) = (proxy(), upstream(&[address]));
        forward(&proxy, &upstream, get("/")).await.unwrap();
        let mut request = get("/");
        *request.method_mut() = method.parse().unwrap();
        assert_eq!(
            outcome(forward(&proxy, &upstream, request).await),
            expected,
            "{method}"
        );
        assert_eq!(count.load(Relaxed), connections, "{method}");
    }
}

#[tokio::test]
async fn a_body_that_was_begun_is_not_sent_twice() {
    let (address, count) = raw(|_, mut stream| async move {
        head(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        head(&mut stream).await;
        expect(&mut stream, "hello").await;
    })
    .await;
    let (proxy, upstream) = (proxy(), upstream(&[address]));
    forward(&proxy, &upstream, get("/")).await.unwrap();
    let request = put(Full::new(Bytes::from("hello")));
    assert_eq!(
        outcome(forward(&proxy, &upstream, request).await),
        "Reset 502"
    );
    assert_eq!(count.load(Relaxed), 1);
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_passed_over_for_any_method() {
    let (good, connections) = answering(OK).await;
    let dead = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let (proxy, upstream) = (proxy(), upstream(&[dead, good]));
    for _ in 0..4 {
        assert_eq!(outcome(forward(&proxy, &upstream, post("x")).await), "200");
    }
    assert!(connections.load(Relaxed) > 0);
    let now = proxy.0.clock.now();
    let up: Vec<bool> = upstream.servers(now).map(|(_, up)| up).collect();
    assert_eq!(up, [false, true]);
    let only_dead = super::upstream(&[dead]);
    for _ in 0..2 {
        assert_eq!(
            outcome(forward(&proxy, &only_dead, get("/")).await),
            "Connect 502"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_times_out() {
    let (address, _) = raw(|_, mut stream| async move {
        head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let clock = Clock::start();
    let result = forward(&proxy(), &upstream(&[address]), get("/")).await;
    assert_eq!(outcome(result), "Timeout 504");
    assert!(
        (60_000..61_000).contains(&clock.uptime()),
        "{}",
        clock.uptime()
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_times_out() {
    let (address, _) = raw(|_, mut stream| async move {
        head(&mut stream).await;
        let start = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n";
        stream.write_all(start).await.unwrap();
        for byte in [b"a", b"b", b"c"] {
            tokio::time::sleep(Duration::from_secs(80)).await;
            stream.write_all(byte).await.unwrap();
        }
        std::future::pending::<()>().await;
    })
    .await;
    let server = server(Scheme::Http, "127.0.0.1", address.port());
    let mut service = service(vec![server]);
    service.transport.body_timeout = Duration::from_secs(90);
    let upstream = built(&service);
    let clock = Clock::start();
    let response = forward(&proxy(), &upstream, get("/")).await.unwrap();
    let error = response.into_body().collect().await.unwrap_err();
    let phase = super::super::Phase::ResponseBody;
    assert!(
        matches!(error, Error::Timeout { phase: p, .. } if p == phase),
        "{error:?}"
    );
    let waited = clock.uptime() / 1_000;
    assert_eq!(waited, 3 * 80 + 90, "from the last byte on");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_no_more_of_an_upload_times_out() {
    let (address, _) = raw(|_, stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let body = Full::new(Bytes::from(vec![b'x'; 64 << 20]));
    let error = forward(&proxy(), &upstream(&[address]), put(body))
        .await
        .unwrap_err();
    let request_body = super::super::Phase::RequestBody;
    assert!(
        matches!(error, Error::Timeout { phase, .. } if phase == request_body),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_client_that_breaks_off_is_its_own_error() {
    let (address, _) = answering("").await;
    let (feed, body) = fed();
    feed.send(Err("gone".into())).unwrap();
    let result = forward(&proxy(), &upstream(&[address]), put(body)).await;
    assert_eq!(outcome(result), "ClientBody 400");
}

fn expecting<B>(body: B) -> Request<B> {
    let mut request = put(body);
    let headers = request.headers_mut();
    headers.insert("expect", "100-continue".parse().unwrap());
    request
}

#[tokio::test]
async fn a_body_waits_for_100_continue() {
    let (feed, body) = fed();
    let (address, _) = raw(move |_, mut stream| {
        let feed = feed.clone();
        async move {
            assert!(
                head(&mut stream)
                    .await
                    .contains("\r\nexpect: 100-continue\r\n")
            );
            let early = timeout(Duration::from_millis(30), stream.read_u8()).await;
            assert!(early.is_err(), "the body came before 100");
            stream
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .await
                .unwrap();
            feed.send(data("hello")).unwrap();
            expect(&mut stream, "5\r\nhello\r\n").await;
            stream.write_all(OK).await.unwrap();
        }
    })
    .await;
    let response = forward(&proxy(), &upstream(&[address]), expecting(body))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn a_final_answer_in_place_of_100_leaves_the_body_unasked() {
    let no = "HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n";
    let (address, connections) = answering(no).await;
    let (proxy, upstream) = (proxy(), upstream(&[address]));
    for _ in 0..2 {
        let (feed, body) = fed();
        let request = expecting(body);
        assert_eq!(outcome(forward(&proxy, &upstream, request).await), "417");
        assert!(feed.is_closed(), "the body is let go of");
    }
    assert_eq!(
        connections.load(Relaxed),
        2,
        "the server still waits for a body on the first"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ignores_expect_gets_the_body_after_a_second() {
    let (address, _) = raw(|_, mut stream| async move {
        head(&mut stream).await;
        expect(&mut stream, "hello").await;
        stream.write_all(OK).await.unwrap();
        head(&mut stream).await;
    })
    .await;
    let clock = Clock::start();
    let request = expecting(Full::new(Bytes::from("hello")));
    assert_eq!(
        outcome(forward(&proxy(), &upstream(&[address]), request).await),
        "200"
    );
    assert!(
        (1_000..1_200).contains(&clock.uptime()),
        "{}",
        clock.uptime()
    );
}

#[tokio::test]
async fn request_and_response_stream_at_the_same_time() {
    let (address, connections) = raw(|_, mut stream| async move {
        head(&mut stream).await;
        let start = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(start).await.unwrap();
        for _ in 0..3 {
            expect(&mut stream, "4\r\nping\r\n").await;
            stream.write_all(b"4\r\npong\r\n").await.unwrap();
        }
        expect(&mut stream, "0\r\n\r\n").await;
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        head(&mut stream).await;
        stream.write_all(OK).await.unwrap();
    })
    .await;
    let (proxy, upstream) = (proxy(), upstream(&[address]));
    let (feed, body) = fed();
    let mut response = forward(&proxy, &upstream, put(body))
        .await
        .unwrap()
        .into_body();
    for _ in 0..3 {
        feed.send(data("ping")).unwrap();
        let frame = response.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "pong");
    }
    drop(feed);
    assert!(response.frame().await.is_none());
    forward(&proxy, &upstream, get("/")).await.unwrap();
    assert_eq!(
        connections.load(Relaxed),
        1,
        "all was sent, so it serves again"
    );
}

#[tokio::test]
async fn an_answer_before_the_whole_request_costs_the_connection() {
    let (address, connections) = answering(OK).await;
    let (proxy, upstream) = (proxy(), upstream(&[address]));
    for _ in 0..2 {
        let (_feed, body) = fed();
        let response = forward(&proxy, &upstream, put(body)).await.unwrap();
        assert_eq!(text(response).await, "ok");
    }
    assert_eq!(connections.load(Relaxed), 2);
}

#[tokio::test]
async fn idle_connections_end() {
    tokio::time::pause();
    let (address, connections) = answering(OK).await;
    let (proxy, upstream) = (proxy(), upstream(&[address]));
    for (pause, expected) in [(0, 1), (80, 1), (91, 2)] {
        tokio::time::advance(Duration::from_secs(pause)).await;
        forward(&proxy, &upstream, get("/")).await.unwrap();
        assert_eq!(connections.load(Relaxed), expected);
    }
}

#[tokio::test]
async fn answers_never_reach_another_request() {
    let (address, connections) = raw(|number, mut stream| async move {
        for turn in 0.. {
            let request = head(&mut stream).await;
            let Some(path) = request.split(' ').nth(1) else {
                return;
            };
            let junk = "x".repeat((turn * 7919 + number * 31) % 5000);
            let answer = match turn % 4 {
                0 => format!(
                    "content-length: {}\r\n\r\n{path} {junk}",
                    path.len() + 1 + junk.len()
                ),
                1 => format!(
                    "transfer-encoding: chunked\r\n\r\n{:x}\r\n{path} \r\n{}0\r\n\r\n",
                    path.len() + 1,
                    if junk.is_empty() {
                        String::new()
                    } else {
                        format!("{:x}\r\n{junk}\r\n", junk.len())
                    }
                ),
                2 => format!(
                    "content-length: {}\r\n\r\n{path} HTTP/1.1 200 OK\r\n",
                    path.len() + 1
                ),
                _ => format!("connection: close\r\n\r\n{path} {junk}"),
            };
            let answer = format!("HTTP/1.1 200 OK\r\n{answer}");
            let cut = answer.len() / 2;
            let (first, rest) = answer.as_bytes().split_at(cut);
            if stream.write_all(first).await.is_err() || stream.write_all(rest).await.is_err() {
                return;
            }
            if turn % 4 == 3 {
                return;
            }
        }
    })
    .await;
    let (proxy, upstream) = (proxy(), upstream(&[address]));
    let clients = (0..16).map(|client| {
        let (proxy, upstream) = (proxy.clone(), upstream.clone());
        async move {
            for turn in 0..200 {
                let path = format!("/{client}/{turn}");
                let response = forward(&proxy, &upstream, get(&path)).await.unwrap();
                if turn % 11 == 5 {
                    continue; // gone before the body
                }
                let body = text(response).await;
                assert_eq!(body.split(' ').next().unwrap(), path);
            }
        }
    });
    futures_util::future::join_all(clients).await;
    assert!(connections.load(Relaxed) < 3200, "none was ever used again");
}
