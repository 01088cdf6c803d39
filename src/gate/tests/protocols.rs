//! HTTP/2 with and without TLS, unix sockets, WebSockets.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
};

use super::support::{Running, Service, empty, status};
use crate::{config::Address, tasks::Tasks};

#[derive(Clone)]
struct Spawner;

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, future: F) {
        Tasks::new().spawn(future);
    }
}

pub async fn h2<T>(io: T) -> SendRequest<Full<Bytes>>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http2::handshake(Spawner, TokioIo::new(io))
        .await
        .unwrap();
    Tasks::new().spawn(async move {
        let _ = connection.await;
    });
    sender
}

pub async fn get(
    sender: &mut SendRequest<Full<Bytes>>,
    uri: &str,
    headers: &[(&str, &str)],
) -> (u16, String) {
    let mut request = Request::get(uri).version(Version::HTTP_2);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender
        .send_request(request.body(Full::default()).unwrap())
        .await
        .unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

pub const WHOAMI: &str = "routes: [{service: whoami@internal, jails: [web]}]\n\
     jails: {web: {denylist: {ip: 192.0.2.1}}}\n";

#[tokio::test]
async fn http2_by_prior_knowledge() {
    let gate = Running::start(&format!(
        "entryPoints: {{web: {{address: '127.0.0.1:0', forwardedHeaders: {{trustedIPs: [127.0.0.1]}}}}}}\n{WHOAMI}"
    ));
    let mut sender = h2(TcpStream::connect(gate.address()).await.unwrap()).await;
    let (code, page) = get(&mut sender, "http://a/x?y", &[]).await;
    assert_eq!(code, 200);
    assert!(
        page.contains("GET /x?y HTTP/2.0") && page.contains("host: a"),
        "{page}"
    );
    let denied = get(
        &mut sender,
        "http://a/",
        &[("x-forwarded-for", "192.0.2.1")],
    )
    .await;
    assert_eq!(denied.0, 403);
    let mismatch = get(&mut sender, "http://a/", &[("host", "b")]).await;
    assert_eq!(mismatch.0, 400);
}

/// A certificate in files, and a client that trusts nothing else.
pub fn certificate(dir: &std::path::Path) -> tokio_rustls::TlsConnector {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn tls_from_files_speaks_both_protocols() {
    let dir = tempfile::tempdir().unwrap();
    let connector = certificate(dir.path());
    let gate = Running::start(&format!(
        "entryPoints: {{web: {{address: '127.0.0.1:0', tls: {{certFile: {0}/cert.pem, keyFile: {0}/key.pem}}}}}}\n{WHOAMI}",
        dir.path().display()
    ));
    for (alpn, version) in [(&b"h2"[..], "HTTP/2.0"), (b"http/1.1", "HTTP/1.1")] {
        let mut config = (**connector.config()).clone();
        config.alpn_protocols = vec![alpn.to_vec()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = TcpStream::connect(gate.address()).await.unwrap();
        let mut stream = connector
            .connect("localhost".try_into().unwrap(), stream)
            .await
            .unwrap();
        let page = match alpn {
            b"h2" => get(&mut h2(stream).await, "https://a/", &[]).await.1,
            _ => {
                stream
                    .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                    .await
                    .unwrap();
                let mut all = String::new();
                let _ = stream.read_to_string(&mut all).await;
                all
            }
        };
        assert!(page.contains(&format!("GET / {version}")), "{page}");
    }
    let mut plain = gate.client().await;
    assert_eq!(
        plain
            .ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .find("200"),
        None
    );
}

#[tokio::test]
async fn a_unix_socket_must_say_for_whom_it_asks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gate.sock");
    let gate = Running::start(&format!(
        "entryPoints: {{web: {{address: 'unix:{}'}}}}\n{WHOAMI}",
        path.display()
    ));
    assert_eq!(gate.addresses, [Address::Unix(path.clone())]);
    for (line, expected) in [
        ("", 400),
        ("X-Forwarded-For: nonsense\r\n", 400),
        ("X-Forwarded-For: 192.0.2.2\r\n", 200),
        ("X-Forwarded-For: 192.0.2.1\r\n", 403),
    ] {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let ask = format!("GET / HTTP/1.1\r\nHost: a\r\n{line}Connection: close\r\n\r\n");
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        assert_eq!(status(&all), expected, "{line}");
    }
}

/// Answers an upgrade, then gives back what it gets.
async fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    Tasks::new().spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            Tasks::new().spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
                stream.write_all(answer).await.unwrap();
                let (mut reading, mut writing) = stream.split();
                let _ = tokio::io::copy(&mut reading, &mut writing).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn websockets_echo_and_outlive_the_idle_timeout() {
    let service = echo().await;
    let gate = Running::start(&format!(
        "entryPoints: {{web: {{address: '127.0.0.1:0', transport: {{respondingTimeouts: \
         {{headerTimeout: 200ms, readTimeout: 200ms, idleTimeout: 200ms}}}}}}}}\n\
         services: {{app: {{servers: [{{url: 'http://{service}'}}]}}}}\n\
         routes: [{{service: app}}]\n"
    ));
    // All open before any of them speaks: the plugin once deadlocked there.
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = gate.client().await;
        let response = client
            .ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .await;
        assert_eq!(status(&response), 101, "{response}");
        clients.push(client);
    }
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    for (number, client) in clients.iter_mut().enumerate() {
        let said = format!("frame {number}: GET / HTTP/1.1\n\n");
        client.send(&said).await;
        let mut heard = vec![0; said.len()];
        client.0.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, said.as_bytes());
    }
    gate.drained().await;
    for client in &mut clients {
        assert_eq!(client.read_all().await, "", "tunnels end with the gate");
    }
}

#[tokio::test]
async fn an_upgrade_that_is_not_answered_by_101_is_an_ordinary_request() {
    let service = Service::start(|_| empty(200)).await;
    let gate = Running::start(&format!(
        "entryPoints: {{web: {{address: '127.0.0.1:0'}}}}\n\
         services: {{app: {{servers: [{{url: 'http://{}'}}]}}}}\n\
         routes: [{{service: app}}]\n",
        service.address
    ));
    let mut client = gate.client().await;
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(status(&client.ask(upgrade).await), 200);
    let next = "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(
        status(&client.ask(next).await),
        400,
        "what follows is read as requests"
    );
}

#[tokio::test]
async fn the_body_is_asked_for_when_the_service_wants_it() {
    let service =
        Service::start(|head| empty(if head.ends_with("body") { 200 } else { 417 })).await;
    let gate = Running::start(&format!(
        "entryPoints: {{web: {{address: '127.0.0.1:0'}}}}\n\
         services: {{app: {{servers: [{{url: 'http://{}'}}]}}}}\n\
         routes: [{{service: app}}]\n",
        service.address
    ));
    let mut client = gate.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        .await;
    assert_eq!(
        client.read_response().await,
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    let response = client.ask("body").await;
    assert_eq!(status(&response), 200, "{response}");
}
