//! Long bodies, whose bytes go from the service's socket to the client's past the gate's memory.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
    time::{sleep, timeout},
};

use super::support::{Client, Running, Service, content_length, shortest};
use crate::{tasks::Tasks, time::Clock};

/// Well below the 200 ms that the kernel holds back bytes it was told more would follow.
const SOON: u64 = 150;

/// Bytes that tell where they belong.
fn numbered(length: usize) -> String {
    let mut text: String = (0..length / 8 + 1).map(|n| format!("{n:07} ")).collect();
    text.truncate(length);
    text
}

/// A gate that waits 600 ms for clients and for the service.
fn gate(address: std::net::SocketAddr) -> Running {
    Running::start(&format!(
        "entryPoints: {{web: {{address: '127.0.0.1:0', transport: {{respondingTimeouts: \
         {{readTimeout: 600ms}}}}}}}}\n\
         services: {{app: {{servers: [{{url: 'http://{address}'}}], serversTransport: \
         {{readTimeout: 600ms}}}}}}\n\
         routes: [{{service: app}}]\n"
    ))
}

/// A gate before a service that answers with as many bytes as the path says.
async fn sized() -> Running {
    let service = Service::start(|head| {
        let path = head.split([' ', '/']).nth(2).unwrap();
        let body = numbered(path.parse().unwrap());
        format!(
            "HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    });
    gate(service.await.address)
}

/// A gate before a service that says it has `length` bytes, sends those of `pieces` a while apart,
/// and closes.
async fn pieces(length: usize, pieces: &'static [usize], apart: Duration) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    Tasks::new().spawn(async move {
        let all = numbered(length);
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            let head = format!("HTTP/1.1 200 X\r\nContent-Length: {length}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            let mut at = 0;
            for piece in pieces {
                let _ = stream.write_all(&all.as_bytes()[at..at + piece]).await;
                at += piece;
                sleep(apart).await;
            }
        }
    });
    gate(address)
}

/// A client that has begun to take eight megabytes, and what it has of them.
async fn slow(gate: &Running) -> (Client, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = Client(socket.connect(gate.address()).await.unwrap());
    client
        .send("GET /8000000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    let mut first = [0; 1000];
    client.0.read_exact(&mut first).await.unwrap();
    (client, String::from_utf8_lossy(&first).into_owned())
}

/// All that a client gets who asks once, until the gate closes.
async fn all_of(gate: &Running) -> String {
    let mut client = gate.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_all().await
}

/// The bodies of the responses a client was sent.
fn bodies(mut all: &str) -> Vec<&str> {
    let mut bodies = Vec::new();
    while let Some((head, rest)) = all.split_once("\r\n\r\n") {
        let (body, next) = rest.split_at(content_length(head).min(rest.len()));
        bodies.push(body);
        all = next;
    }
    bodies
}

#[tokio::test]
async fn they_come_whole_among_others_on_one_connection() {
    let lengths = [3_000_000, 5, 65_536, 0, 1_048_576, 300, 65_535, 700_001];
    let mut client = sized().await.client().await;
    for length in lengths {
        client
            .send(format!("GET /{length} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .await;
    }
    client
        .send("GET /9 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    let all = client.read_all().await;
    let expected = lengths.iter().chain([&9]).map(|length| numbered(*length));
    let got = bodies(&all);
    assert_eq!(got.len(), lengths.len() + 1);
    assert!(expected.zip(got).all(|(expected, got)| expected == got));
}

#[tokio::test]
async fn a_slow_client_gets_them_whole_and_another_is_not_held_up() {
    let gate = sized().await;
    let (mut slow, first) = slow(&gate).await;
    sleep(Duration::from_millis(50)).await;
    for _ in 0..4 {
        let mut other = gate.client().await;
        let answer = other.ask("GET /400000 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(bodies(&answer) == [numbered(400_000)]);
    }
    let all = first + &slow.read_all().await;
    assert!(bodies(&all) == [numbered(8_000_000)]);
}

#[tokio::test]
async fn a_client_that_takes_no_more_is_not_waited_for() {
    let gate = sized().await;
    let (mut slow, first) = slow(&gate).await;
    sleep(Duration::from_secs(3)).await;
    let all = first + &slow.read_all().await;
    let (got, whole) = (bodies(&all)[0], numbered(8_000_000));
    assert!(got.len() < whole.len(), "it was waited for");
    assert!(whole.starts_with(got));
}

#[tokio::test]
async fn one_that_breaks_off_ends_where_it_broke_off() {
    let gate = pieces(3_000_000, &[700_000, 300_000], Duration::from_millis(20)).await;
    let all = all_of(&gate).await;
    assert!(bodies(&all) == [&numbered(3_000_000)[..1_000_000]]);
}

#[tokio::test]
async fn one_that_does_not_go_on_is_not_waited_for() {
    let gate = pieces(3_000_000, &[700_000], Duration::from_secs(60)).await;
    let all = all_of(&gate).await;
    assert!(bodies(&all) == [&numbered(3_000_000)[..700_000]]);
}

#[tokio::test]
async fn what_has_come_is_not_held_back_for_what_has_not() {
    let apart = Duration::from_millis(300);
    let gate = pieces(600_000, &[200_000, 30_000], apart).await;
    let clock = Clock::start();
    let took = shortest(clock, async || {
        let mut client = gate.client().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let (mut all, wait) = (Vec::new(), Duration::from_secs(5));
        let body = |all: &[u8]| String::from_utf8_lossy(all).find("0000000 ").unwrap_or(0);
        while all.len() < body(&all) + 230_000 {
            let read = timeout(wait, client.0.read_buf(&mut all)).await;
            assert_ne!(read.expect("held back").unwrap(), 0);
        }
        clock.now()
    });
    assert!(took.await < apart.as_millis() as u64 + SOON);
}
