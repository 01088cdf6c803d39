//! HTTP/2, TLS, unix sockets, upgrades and health checks, against hyper's and hand-made servers.

use std::{convert::Infallible, path::Path};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use hyper::{body::Incoming, server::conn as serve, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::proxy::{Routing, watch_health};

/// Answers with what it was asked, the body and its trailers.
async fn echo(request: Request<Incoming>) -> Result<Response<TrailedBody>, Infallible> {
    let mut response = Response::new(TrailedBody(None));
    let headers = response.headers_mut();
    headers.insert("x-version", text_value(&format!("{:?}", request.version())));
    headers.insert("x-uri", text_value(&request.uri().to_string()));
    for name in ["te", "connection", "x-forwarded-for"] {
        if let Some(value) = request.headers().get(name) {
            headers.insert(
                http::HeaderName::try_from(format!("x-{name}")).unwrap(),
                value.clone(),
            );
        }
    }
    response.body_mut().0 = Some(request.into_body());
    Ok(response)
}

fn text_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap()
}

/// The request's body back, with trailers of its own.
struct TrailedBody(Option<Incoming>);

impl http_body::Body for TrailedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        use std::task::Poll;
        let Some(body) = &mut self.0 else {
            return Poll::Ready(None);
        };
        match std::task::ready!(std::pin::Pin::new(body).poll_frame(cx)) {
            Some(frame) => Poll::Ready(Some(frame)),
            None => {
                self.0 = None;
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                trailers.insert("x-forwarded-for", HeaderValue::from_static("1.1.1.1"));
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
        }
    }
}

async fn serve_h2(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let builder = serve::http2::Builder::new(TokioExecutor::new());
    _ = builder
        .serve_connection(TokioIo::new(stream), service_fn(echo))
        .await;
}

async fn serve_h1(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let builder = serve::http1::Builder::new();
    _ = builder
        .serve_connection(TokioIo::new(stream), service_fn(echo))
        .await;
}

#[tokio::test]
async fn h2c_carries_trailers_both_ways_on_one_connection() {
    let (address, connections) = raw(|_, stream| serve_h2(stream)).await;
    let (proxy, upstream) = (
        proxy(),
        built(&one(Scheme::H2c, "127.0.0.1", address.port())),
    );
    let ask = async |number: usize| {
        let mut request = post("hello");
        let headers = request.headers_mut();
        headers.insert("te", HeaderValue::from_static("trailers"));
        headers.insert("connection", HeaderValue::from_static("keep-alive"));
        let response = forward(&proxy, &upstream, request).await.unwrap();
        assert_eq!(response.headers()["x-version"], "HTTP/2.0", "{number}");
        assert_eq!(response.headers()["x-uri"], "http://app.example.com/upload");
        assert_eq!(response.headers()["x-te"], "trailers");
        assert_eq!(response.headers()["x-x-forwarded-for"], "192.0.2.7");
        assert!(!response.headers().contains_key("x-connection"));
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap().len(), 1);
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(body.to_bytes(), "hello");
    };
    futures_util::future::join_all((0..50).map(ask)).await;
    assert_eq!(connections.load(Relaxed), 1);
}

#[tokio::test]
async fn an_h2_session_that_was_closed_is_replaced() {
    let (address, connections) = raw(|number, stream| async move {
        match number {
            0 => _ = tokio::time::timeout(Duration::from_millis(50), serve_h2(stream)).await,
            _ => serve_h2(stream).await,
        }
    })
    .await;
    let (proxy, upstream) = (
        proxy(),
        built(&one(Scheme::H2c, "127.0.0.1", address.port())),
    );
    for _ in 0..2 {
        let response = forward(&proxy, &upstream, post("hello")).await.unwrap();
        assert_eq!(text(response).await, "hello");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(connections.load(Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_silent_h2_server_times_out() {
    let (address, _) = raw(|_, stream| async move {
        let silent = service_fn(|_: Request<Incoming>| {
            std::future::pending::<Result<Response<Empty<Bytes>>, Infallible>>()
        });
        let builder = serve::http2::Builder::new(TokioExecutor::new());
        _ = builder.serve_connection(TokioIo::new(stream), silent).await;
    })
    .await;
    let upstream = built(&one(Scheme::H2c, "127.0.0.1", address.port()));
    let error = forward(&proxy(), &upstream, get("/")).await.unwrap_err();
    assert_eq!(error.status(), 504, "{error:?}");
}

/// A TLS server that offers `alpn`, and its certificate as a root.
async fn tls_server(alpn: &[&str]) -> (SocketAddr, tempfile::NamedTempFile) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["app.test".into()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    tls.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let (address, _) = raw(move |_, stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => serve_h2(stream).await,
                _ => serve_h1(stream).await,
            }
        }
    })
    .await;
    let root = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(root.path(), cert.pem()).unwrap();
    (address, root)
}

#[tokio::test]
async fn tls_takes_the_protocol_the_server_chose_and_believes_known_roots_only() {
    for (alpn, version) in [
        (&["h2", "http/1.1"][..], "HTTP/2.0"),
        (&["http/1.1"], "HTTP/1.1"),
        (&[], "HTTP/1.1"),
    ] {
        let (address, root) = tls_server(alpn).await;
        let mut service = one(Scheme::Https, "127.0.0.1", address.port());
        service.transport.server_name = Some("app.test".into());
        let proxy = proxy();
        let error = forward(&proxy, &built(&service), get("/"))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Tls { .. }), "{error:?}");
        service.transport.root_ca = Some(root.path().into());
        let upstream = built(&service);
        for _ in 0..3 {
            let response = forward(&proxy, &upstream, post("hello")).await.unwrap();
            assert_eq!(response.headers()["x-version"], version);
            assert_eq!(text(response).await, "hello");
        }
        service.transport.server_name = Some("other.test".into());
        let error = forward(&proxy, &built(&service), get("/"))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Tls { .. }), "{error:?}");
        service.transport.insecure_skip_verify = true;
        let response = forward(&proxy, &built(&service), post("hello"))
            .await
            .unwrap();
        assert_eq!(text(response).await, "hello");
    }
}

#[tokio::test]
async fn a_unix_socket_is_a_server_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    Tasks::new().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            serve_h1(stream).await;
        }
    });
    let upstream = built(&one(Scheme::Unix, path.to_str().unwrap(), 0));
    let proxy = proxy();
    for _ in 0..2 {
        let response = forward(&proxy, &upstream, post("hello")).await.unwrap();
        assert_eq!(text(response).await, "hello");
    }
    assert!(Path::new(&path).exists());
}

#[tokio::test]
async fn the_servers_own_host_and_base_path_go_out_when_asked_for() {
    let (address, _) = raw(|_, mut stream| async move {
        let request = head(&mut stream).await;
        let port = stream.local_addr().unwrap().port();
        let start = format!("GET /base/a?b HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n");
        assert!(request.starts_with(&start), "{request}");
        stream.write_all(OK).await.unwrap();
    })
    .await;
    let mut service = one(Scheme::Http, "127.0.0.1", address.port());
    service.pass_host_header = false;
    service.servers[0].base_path = "/base".into();
    forward(&proxy(), &built(&service), get("/a?b"))
        .await
        .unwrap();
}

/// A gate of one line in front of `upstream`.
async fn gate(upstream: Arc<Upstream>) -> SocketAddr {
    let proxy = proxy();
    let (address, _) = raw(move |_, stream| {
        let (proxy, upstream) = (proxy.clone(), upstream.clone());
        async move {
            let service = service_fn(move |request| {
                let (proxy, upstream) = (proxy.clone(), upstream.clone());
                async move { forward(&proxy, &upstream, request).await }
            });
            let connection =
                serve::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            _ = connection.with_upgrades().await;
        }
    })
    .await;
    address
}

const WEBSOCKET: &[u8] =
    b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";

#[tokio::test]
async fn an_upgrade_passes_bytes_both_ways_and_none_before_101() {
    let (address, _) = raw(|_, mut stream| async move {
        let request = head(&mut stream).await;
        assert!(request.contains("\r\nconnection: upgrade\r\nupgrade: websocket\r\n"), "{request}");
        let early = tokio::time::timeout(Duration::from_millis(30), stream.read_u8()).await;
        assert!(early.is_err(), "client bytes came before 101");
        let switch = b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nserver first";
        stream.write_all(switch).await.unwrap();
        let mut bytes = [0; 12];
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"client early");
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    })
    .await;
    let gate = gate(upstream(&[address])).await;
    let mut client = TcpStream::connect(gate).await.unwrap();
    client
        .write_all(&[WEBSOCKET, b"client early"].concat())
        .await
        .unwrap();
    let answer = head(&mut client).await;
    assert!(
        answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
        "{answer}"
    );
    assert!(answer.contains("upgrade: websocket\r\n"), "{answer}");
    let mut bytes = [0; 12];
    client.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"server first");
    let payload = vec![7; 300_000];
    let (mut read, mut write) = client.split();
    let send = async {
        write.write_all(&payload).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut echoed = Vec::new();
    let (_, got) = tokio::join!(send, read.read_to_end(&mut echoed));
    got.unwrap();
    assert!(echoed == payload);
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_answer() {
    let (address, _) = raw(|_, mut stream| async move {
        head(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno")
            .await
            .unwrap();
        let request = head(&mut stream).await;
        assert!(
            request.starts_with("GET /next "),
            "the client's next request: {request}"
        );
        stream.write_all(OK).await.unwrap();
    })
    .await;
    let gate = gate(upstream(&[address])).await;
    let mut client = TcpStream::connect(gate).await.unwrap();
    let next = b"GET /next HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    client.write_all(&[WEBSOCKET, next].concat()).await.unwrap();
    let mut answers = String::new();
    client.read_to_string(&mut answers).await.unwrap();
    assert!(
        answers.starts_with("HTTP/1.1 403 Forbidden\r\n"),
        "{answers}"
    );
    assert!(answers.ends_with("\r\n\r\nok"), "{answers}");
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_exchange_upstream() {
    let (ended, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let (address, _) = raw(move |_, mut stream| {
        let ended = ended.clone();
        async move {
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            while stream.write_all(&[b'x'; 10_000]).await.is_ok() {}
            ended.send(()).unwrap();
        }
    })
    .await;
    let gate = gate(upstream(&[address])).await;
    let mut client = TcpStream::connect(gate).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    client.read_exact(&mut [0; 50_000]).await.unwrap();
    drop(client);
    seen.recv().await.unwrap();
}

fn routed(service: config::Service) -> config::Config {
    let mut config = config::Config::example();
    config.routes = vec![config::Route {
        host: None,
        path_prefix: "/".into(),
        service: service.name.clone(),
        jails: Vec::new(),
    }];
    config.services = vec![service];
    config
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_its_check_is_passed_over_until_it_is_well_again() {
    let status = Arc::new(AtomicUsize::new(500));
    let told = status.clone();
    let (address, _) = raw(move |_, mut stream| {
        let told = told.clone();
        async move {
            while !head(&mut stream).await.is_empty() {
                let status = told.load(Relaxed);
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    let mut service = one(Scheme::Http, "127.0.0.1", address.port());
    service.health_check = Some(config::HealthCheck {
        path: "/health".into(),
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(1),
    });
    let routing = Arc::new(Routing::build(&routed(service.clone()), None).unwrap());
    let current = Arc::new(ArcSwap::new(routing.clone()));
    let (tasks, clock, watched) = (Tasks::new(), Clock::start(), current.clone());
    tasks.spawn(watch_health(
        move || watched.load_full(),
        clock,
        tasks.clone(),
    ));
    let proxy = proxy();
    let upstream = || current.load().services()[0].clone();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let error = forward(&proxy, &upstream(), get("/")).await.unwrap_err();
    assert!(matches!(error, Error::NoServer { .. }), "{error:?}");
    // What was found out outlives a reload.
    current.store(Arc::new(
        Routing::build(&routed(service), Some(&routing)).unwrap(),
    ));
    assert!(forward(&proxy, &upstream(), get("/")).await.is_err());
    status.store(204, Relaxed);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(
        forward(&proxy, &upstream(), get("/"))
            .await
            .unwrap()
            .status(),
        204
    );
}

#[tokio::test]
async fn a_head_response_passes_hyper_with_its_length() {
    let (address, _) = answering("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n").await;
    let gate = gate(upstream(&[address])).await;
    let mut client = TcpStream::connect(gate).await.unwrap();
    let asked = b"HEAD / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    client.write_all(asked).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("content-length: 99\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}
