//! Ways to a server: whose connection a request gets, how many are kept, and for how long.

use tokio::{net::TcpSocket, sync::mpsc, time::timeout};

use super::{
    super::dial::{Dialled, Stream},
    *,
};

/// A server that lets nobody else in once its first connection is there: its queue of those not
/// yet accepted is full. That connection answers in 50 ms. Answers the service, its listener, and
/// what fills the queue.
async fn crowded(proxy: &Proxy) -> (Arc<Upstream>, TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let upstream = upstream(&[address]);
    let first = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        head(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        stream
    };
    let (answer, mut stream) = tokio::join!(forward(proxy, &upstream, get("/first")), first);
    text(answer.unwrap()).await;
    Tasks::new().spawn(async move {
        loop {
            let asked = head(&mut stream).await;
            if asked.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.write_all(OK).await.unwrap();
        }
    });
    let mut queue = Vec::new();
    while let Ok(Ok(stream)) =
        timeout(Duration::from_millis(100), TcpStream::connect(address)).await
    {
        queue.push(stream);
    }
    (upstream, listener, queue)
}

#[tokio::test]
async fn who_waits_for_a_connection_is_given_the_next_in_the_order_of_coming() {
    let proxy = proxy();
    let (upstream, _listener, _queue) = crowded(&proxy).await;
    let (done, mut order) = mpsc::unbounded_channel();
    let asks = (0..4).map(|number| {
        let (proxy, upstream, done) = (&proxy, &upstream, done.clone());
        async move {
            let answer = forward(proxy, upstream, get("/next")).await.unwrap();
            assert_eq!(text(answer).await, "ok");
            done.send(number).unwrap();
        }
    });
    // A connection of their own would take a second at least, when the handshake is repeated.
    let all = futures_util::future::join_all(asks);
    timeout(Duration::from_millis(900), all).await.unwrap();
    drop(done);
    let mut seen = Vec::new();
    order.recv_many(&mut seen, 4).await;
    assert_eq!(seen, [0, 1, 2, 3]);
    let left = proxy.0.pool.left(&upstream.servers[0]);
    assert!(left.is_some(), "no dial was left to the next");
}

#[tokio::test]
async fn a_dial_left_by_one_request_is_gone_on_with_by_another() {
    let (elsewhere, _) = answering("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nleft").await;
    let (address, connections) = answering(OK).await;
    let (proxy, upstream) = (proxy(), upstream(&[address]));
    let dial = Box::pin(async move {
        let stream = TcpStream::connect(elsewhere).await.unwrap();
        Ok(Dialled::H1(Stream::Tcp(stream)))
    });
    let now = proxy.0.clock.now();
    proxy.0.pool.leave(&upstream.servers[0], dial, now);
    let answer = forward(&proxy, &upstream, get("/")).await.unwrap();
    assert_eq!(text(answer).await, "left");
    assert_eq!(connections.load(Relaxed), 0);
}

#[tokio::test]
async fn a_failed_dial_that_was_left_is_nobodys_failure() {
    let (address, _) = answering(OK).await;
    let (proxy, upstream) = (proxy(), upstream(&[address]));
    let server = &upstream.servers[0];
    let refused = Error::NoServer {
        service: "left".into(),
    };
    let dial = Box::pin(async { Err(refused) });
    proxy.0.pool.leave(server, dial, proxy.0.clock.now());
    let answer = forward(&proxy, &upstream, get("/")).await.unwrap();
    assert_eq!(text(answer).await, "ok");
}

/// A service whose `max_idle` is `kept`.
fn keeping(kept: usize, address: SocketAddr) -> Arc<Upstream> {
    let mut service = one(Scheme::Http, &address.ip().to_string(), address.port());
    service.transport.max_idle = kept;
    built(&service)
}

/// Three requests at once.
async fn burst(proxy: &Proxy, upstream: &Arc<Upstream>) {
    let answers = (0..3).map(|_| forward(proxy, upstream, get("/")));
    for answer in futures_util::future::join_all(answers).await {
        text(answer.unwrap()).await;
    }
}

#[tokio::test]
async fn connections_used_lately_are_none_too_many() {
    let (address, connections) = answering(OK).await;
    let (proxy, upstream) = (proxy(), keeping(1, address));
    burst(&proxy, &upstream).await;
    proxy.0.pool.sweep(proxy.0.clock.now());
    burst(&proxy, &upstream).await;
    assert_eq!(
        connections.load(Relaxed),
        3,
        "all three served the second burst"
    );
    proxy.0.pool.sweep(proxy.0.clock.now() + 5_000);
    burst(&proxy, &upstream).await;
    assert_eq!(connections.load(Relaxed), 5, "one was kept");
}

#[tokio::test]
async fn a_dial_that_nobody_needs_is_given_up() {
    let (proxy, upstream) = (proxy(), upstream(&["127.0.0.1:9".parse().unwrap()]));
    let (server, pool) = (&upstream.servers[0], &proxy.0.pool);
    let now = proxy.0.clock.now();
    pool.leave(server, Box::pin(std::future::pending()), now);
    pool.sweep(now + 4_999);
    let left = pool.left(server).expect("kept while it may be needed");
    pool.leave(server, left, now);
    pool.sweep(now + 5_000);
    assert!(pool.left(server).is_none());
}

#[tokio::test]
async fn where_none_is_to_be_kept_each_request_has_a_connection_of_its_own() {
    let (address, connections) = answering(OK).await;
    let (proxy, upstream) = (proxy(), keeping(0, address));
    burst(&proxy, &upstream).await;
    burst(&proxy, &upstream).await;
    assert_eq!(connections.load(Relaxed), 6);
}
