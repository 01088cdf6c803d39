//! HTTP/2 frame by frame: what leaves together, clients that take nothing, floods.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tokio_util::io::InspectReader;

use crate::tasks::Tasks;

use super::{
    protocols::{WHOAMI, certificate},
    support::{Client, Running, Service},
};

const DATA: u8 = 0;
const GOAWAY: u8 = 7;

/// As many as a client may have open at once.
const STREAMS: u32 = 100;
/// A window for everything, and one that makes short frames.
const WIDE: u32 = 0x3fff_0000;
const NARROW: u32 = 4_000;
const WAYS: [(bool, u32); 4] = [(false, WIDE), (false, NARROW), (true, WIDE), (true, NARROW)];

/// One HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

struct Frame<'a> {
    kind: u8,
    stream: u32,
    payload: &'a [u8],
}

/// Every whole one.
fn frames(mut bytes: &[u8]) -> Vec<Frame<'_>> {
    let mut all = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let Some((payload, rest)) = rest.split_at_checked(length as usize) else {
            break;
        };
        all.push(Frame {
            kind: head[3],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload,
        });
        bytes = rest;
    }
    all
}

/// What a client begins with, and how much of each answer may come before it says more.
fn preface(window: u32) -> Vec<u8> {
    let mut begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let settings = [&[0, 4], &window.to_be_bytes()[..]].concat();
    begin.extend(frame(4, 0, 0, &settings));
    begin.extend(more(0, WIDE));
    begin
}

/// So much more may come.
fn more(stream: u32, window: u32) -> Vec<u8> {
    frame(8, 0, stream, &window.to_be_bytes())
}

/// GET http://a/
fn request(stream: u32) -> Vec<u8> {
    frame(1, 5, stream, &[0x82, 0x86, 0x84, 0x41, 1, b'a'])
}

/// The same with a long path and user agent, for whoami to tell.
fn wordy(stream: u32) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x41, 1, b'a', 4, 126];
    block.extend([b'/'; 126]);
    block.extend([0x0f, 43, 126]);
    block.extend([b'u'; 126]);
    frame(1, 5, stream, &block)
}

/// All that a client may have open at once.
fn streams() -> impl Iterator<Item = u32> {
    (0..STREAMS).map(|number| 2 * number + 1)
}

/// Lengths of TLS records.
fn records(mut bytes: &[u8]) -> Vec<usize> {
    let mut all = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(5) {
        let length = usize::from(head[3]) << 8 | usize::from(head[4]);
        all.push(length);
        bytes = rest.get(length..).unwrap_or_default();
    }
    all
}

fn connector(dir: &Path) -> tokio_rustls::TlsConnector {
    let mut config = (**certificate(dir).config()).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

fn tls(dir: &Path) -> String {
    let dir = dir.display();
    format!("tls: {{certFile: {dir}/cert.pem, keyFile: {dir}/key.pem}}")
}

#[tokio::test]
async fn answers_that_are_ready_together_leave_as_one_record() {
    let dir = tempfile::tempdir().unwrap();
    let connector = connector(dir.path());
    let gate = Running::start(&format!(
        "entryPoints: {{web: {{address: '127.0.0.1:0', {}}}}}\n\
         routes: [{{service: whoami@internal}}]",
        tls(dir.path())
    ));
    let raw = Arc::new(Mutex::new(Vec::new()));
    let noted = raw.clone();
    let stream = TcpStream::connect(gate.address()).await.unwrap();
    let stream = InspectReader::new(stream, move |read| noted.lock().extend_from_slice(read));
    let mut client = connector
        .connect("localhost".try_into().unwrap(), stream)
        .await
        .unwrap();
    let asked = streams().take(8).flat_map(wordy);
    let asked: Vec<u8> = preface(WIDE).into_iter().chain(asked).collect();
    client.write_all(&asked).await.unwrap();
    let (mut answer, mut lengths) = (Vec::new(), Vec::new());
    while lengths.len() < 8 {
        assert!(client.read_buf(&mut answer).await.unwrap() > 0, "closed");
        let bodies = frames(&answer)
            .into_iter()
            .filter(|frame| frame.kind == DATA);
        lengths = bodies.map(|frame| frame.payload.len()).collect();
        lengths.retain(|length| *length > 0);
    }
    let (all, longest) = (lengths.iter().sum(), *lengths.iter().max().unwrap());
    assert!(longest > 256, "h2 itself gathers {longest} bytes");
    let largest = records(&raw.lock()).into_iter().max();
    assert!(
        largest > Some(all),
        "{all} bytes in records of {largest:?} at most"
    );
}

/// A long page.
fn page() -> String {
    (0..10_000).map(|number| format!("{number:06} ")).collect()
}

/// In the clear or not.
trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// A client whose system takes little at a time.
async fn narrow(gate: &Running) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(gate.address()).await.unwrap()
}

/// Asks for it on every stream: more than the sockets between hold.
async fn ask_for_pages(timeout: &str, secure: bool, window: u32) -> (Box<dyn Stream>, Running) {
    let service = Service::start(|_| {
        let page = page();
        let length = page.len();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{page}")
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let connector = connector(dir.path());
    let secured = if secure {
        tls(dir.path()) + ", "
    } else {
        String::new()
    };
    let gate = Running::start(&format!(
        "entryPoints: {{web: {{address: '127.0.0.1:0', {secured}\
         transport: {{respondingTimeouts: {{readTimeout: {timeout}}}}}}}}}\n\
         services: {{app: {{servers: [{{url: 'http://{}'}}]}}}}\n\
         routes: [{{service: app}}]\n",
        service.address
    ));
    let socket = narrow(&gate).await;
    let name = "localhost".try_into().unwrap();
    let mut client: Box<dyn Stream> = match secure {
        true => Box::new(connector.connect(name, socket).await.unwrap()),
        false => Box::new(socket),
    };
    client.write_all(&preface(window)).await.unwrap();
    let asked: Vec<u8> = streams().flat_map(request).collect();
    client.write_all(&asked).await.unwrap();
    for _ in 0..page().len().div_ceil(window as usize) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let windows: Vec<u8> = streams().flat_map(|stream| more(stream, window)).collect();
        // it may have been given up by now
        let _ = client.write_all(&windows).await;
        let _ = client.flush().await;
    }
    (client, gate)
}

#[tokio::test]
async fn a_client_that_reads_late_gets_every_answer_whole() {
    for (secure, window) in WAYS {
        let (mut client, _gate) = ask_for_pages("60s", secure, window).await;
        let (mut answer, mut all) = (Vec::new(), 0);
        while all < STREAMS as usize * page().len() {
            assert!(client.read_buf(&mut answer).await.unwrap() > 0, "closed");
            let bodies = frames(&answer)
                .into_iter()
                .filter(|frame| frame.kind == DATA);
            all = bodies.map(|frame| frame.payload.len()).sum();
        }
        let mut bodies = HashMap::<u32, Vec<u8>>::new();
        for frame in frames(&answer).iter().filter(|frame| frame.kind == DATA) {
            bodies
                .entry(frame.stream)
                .or_default()
                .extend(frame.payload);
        }
        for stream in streams() {
            let body = &bodies[&stream];
            assert!(
                body == page().as_bytes(),
                "stream {stream}: {} bytes",
                body.len()
            );
        }
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_given_up() {
    for (secure, window) in WAYS {
        let (mut client, _gate) = ask_for_pages("300ms", secure, window).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        // to ask on is not to read
        let _ = client.write_all(&request(2 * STREAMS + 1)).await;
        let _ = client.flush().await;
        for _ in 0..40 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            // nor is to say how much one would read
            let _ = client.write_all(&more(0, 1)).await;
            let _ = client.flush().await;
        }
        let mut answer = Vec::new();
        let end = client.read_to_end(&mut answer);
        let end = tokio::time::timeout(Duration::from_secs(5), end).await;
        assert!(end.is_ok(), "still open after {} bytes", answer.len());
        let all = STREAMS as usize * page().len();
        assert!(answer.len() < all, "all was sent: nothing was blocked");
    }
}

#[tokio::test]
async fn a_rapid_reset_ends_the_connection_within_a_thousand_streams() {
    let gate = Running::start(&format!(
        "entryPoints: {{web: {{address: '127.0.0.1:0'}}}}\n{WHOAMI}"
    ));
    let mut client = gate.client().await;
    let mut flood = preface(WIDE);
    for stream in (1..6_000).step_by(2) {
        flood.extend(request(stream));
        // CANCEL at once
        flood.extend(frame(3, 0, stream, &[0, 0, 0, 8]));
    }
    client.send(flood).await;
    let mut answer = Vec::new();
    let read = client.0.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(10), read)
        .await
        .unwrap();
    let frames = frames(&answer);
    let goaway = frames.iter().find(|frame| frame.kind == GOAWAY);
    let last = goaway.expect("no GOAWAY").payload.first_chunk().unwrap();
    let last = u32::from_be_bytes(*last);
    assert!(last < 2_000, "{last}");
}

/// An answer of many frames, from a service that pauses so long before its head and its end.
async fn long_answer(pauses: [Duration; 2], timeouts: &str) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    Tasks::new().spawn(async move {
        while let Ok((mut service, _)) = listener.accept().await {
            let page = page();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                4 * page.len()
            );
            let mut request = Vec::with_capacity(4096);
            service.read_buf(&mut request).await.unwrap();
            for (part, pause) in [head + &page, page.repeat(3)].into_iter().zip(pauses) {
                tokio::time::sleep(pause).await;
                // the gate may have gone by now
                let _ = service.write_all(part.as_bytes()).await;
            }
        }
    });
    Running::start(&format!(
        "entryPoints: {{web: {{address: '127.0.0.1:0', \
         transport: {{respondingTimeouts: {{{timeouts}}}}}}}}}\n\
         services: {{app: {{servers: [{{url: 'http://{address}'}}]}}}}\n\
         routes: [{{service: app}}]\n"
    ))
}

/// Everything until the gate closes, at the latest after two seconds of PINGs.
async fn pinging(client: &mut Client) -> Vec<u8> {
    let mut answer = Vec::new();
    let closed = async {
        loop {
            client.send(frame(6, 0, 0, &[0; 8])).await;
            let more = client.0.read_buf(&mut answer);
            let more = tokio::time::timeout(Duration::from_millis(50), more).await;
            if matches!(more, Ok(Ok(0) | Err(_))) {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(2), closed).await;
    answer
}

fn data(answer: &[u8]) -> usize {
    let frames = frames(answer).into_iter();
    let data = frames.filter(|frame| frame.kind == DATA);
    data.map(|frame| frame.payload.len()).sum()
}

/// The code of the first RST_STREAM.
fn reset(answer: &[u8]) -> Option<u8> {
    let frames = frames(answer).into_iter();
    let mut resets = frames.filter(|frame| frame.kind == 3);
    resets.next().map(|frame| frame.payload[3])
}

#[tokio::test]
async fn a_stream_whose_client_gives_no_window_is_reset() {
    for window in [0, 1, 20_000] {
        let gate = long_answer([Duration::ZERO; 2], "readTimeout: 300ms").await;
        let mut client = gate.client().await;
        client.send(preface(window)).await;
        client.send(request(1)).await;
        let answer = pinging(&mut client).await;
        assert_eq!(reset(&answer), Some(8), "CANCEL");
        assert_eq!(data(&answer), window as usize);
    }
}

/// Reads all of an answer in pieces, with a pause after each, and gives as much window.
async fn read_slowly(client: &mut Client, answer: &mut Vec<u8>, pause: Duration) {
    let (mut told, mut some) = (0, [0; 8 << 10]);
    while data(answer) < 4 * page().len() {
        let read = client.0.read(&mut some).await.unwrap();
        assert!(read > 0, "closed after {} bytes", answer.len());
        answer.extend_from_slice(&some[..read]);
        tokio::time::sleep(pause).await;
        let new = data(answer) - told;
        if new > 0 {
            client.send(more(1, u32::try_from(new).unwrap())).await;
            told += new;
        }
    }
}

#[tokio::test]
async fn neither_slow_clients_nor_slow_services_are_given_up() {
    let timeouts = "readTimeout: 300ms, idleTimeout: 300ms";
    let gate = long_answer([Duration::from_millis(900); 2], timeouts).await;
    for window in [4 << 10, WIDE] {
        let mut client = gate.client().await;
        client.send(preface(window)).await;
        client.send(request(1)).await;
        let mut answer = Vec::new();
        read_slowly(&mut client, &mut answer, Duration::from_millis(15)).await;
        let all = frames(&answer);
        let bad = all.iter().find(|frame| [3, GOAWAY].contains(&frame.kind));
        let bad = bad.map(|frame| frame.kind);
        assert_eq!(bad, None, "window {window}");
    }
}

/// All of it was written, and is on its way still, when there is no more request.
#[tokio::test]
async fn a_gate_that_stops_takes_no_answer_back() {
    let pauses = [Duration::ZERO, Duration::from_millis(500)];
    let gate = long_answer(pauses, "readTimeout: 60s").await;
    let mut client = Client(narrow(&gate).await);
    client.send(preface(WIDE)).await;
    client.send(request(1)).await;
    client.0.readable().await.unwrap();
    gate.stop();
    let mut answer = Vec::new();
    let pong = pong(&mut client.0, &mut answer).await;
    client.send(pong).await;
    read_slowly(&mut client, &mut answer, Duration::from_millis(15)).await;
    client.0.read_to_end(&mut answer).await.unwrap();
}

/// Reads until the gate, having said GOAWAY, wants to know whether it was heard; the answer to that.
async fn pong(client: &mut TcpStream, answer: &mut Vec<u8>) -> Vec<u8> {
    loop {
        assert!(client.read_buf(answer).await.unwrap() > 0, "closed");
        let all = frames(answer);
        let mut told = all.iter().skip_while(|frame| frame.kind != GOAWAY);
        if let Some(ping) = told.find(|frame| frame.kind == 6) {
            return frame(6, 1, 0, ping.payload);
        }
    }
}

#[tokio::test]
async fn an_idle_client_is_told_before_it_is_closed() {
    let gate = long_answer([Duration::ZERO; 2], "idleTimeout: 300ms").await;
    let mut client = gate.client().await;
    client.send(preface(WIDE)).await;
    client.send(request(1)).await;
    let mut answer = Vec::new();
    let pong = pong(&mut client.0, &mut answer).await;
    // a request that was on its way
    client.send(request(3)).await;
    client.send(pong).await;
    let end = client.0.read_to_end(&mut answer);
    let end = tokio::time::timeout(Duration::from_secs(3), end).await;
    end.expect("open still").unwrap();
    assert_eq!(data(&answer), 2 * 4 * page().len());
}

#[tokio::test]
async fn an_answer_ends_with_the_request_it_still_reads() {
    let pauses = [Duration::ZERO, Duration::from_secs(60)];
    let gate = long_answer(pauses, "readTimeout: 300ms").await;
    let mut client = gate.client().await;
    client.send(preface(WIDE)).await;
    // GET without END_STREAM
    let mut open = request(1);
    open[4] = 4;
    client.send(open).await;
    let answer = pinging(&mut client).await;
    assert_eq!(data(&answer), page().len());
    assert!(reset(&answer).is_some());
}
