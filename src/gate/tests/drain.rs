//! The end: what was begun is finished, what is idle closes, nothing new is taken.

use std::time::Duration;

use tokio::net::TcpStream;

use super::support::{Running, Service, empty, status};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn a_request_under_way_is_answered_and_idle_connections_close() {
    let service = Service::slow(Duration::from_millis(200), |_| empty(200)).await;
    let gate = Running::start(&format!(
        "entryPoints: {{web: {{address: '127.0.0.1:0'}}}}\n\
         services: {{app: {{servers: [{{url: 'http://{}'}}]}}}}\n\
         routes: [{{service: app}}]\n",
        service.address
    ));
    let address = gate.address();
    let mut idle = gate.client().await;
    assert_eq!(status(&idle.ask(GET).await), 200);
    let mut busy = gate.client().await;
    busy.send(GET).await;
    while service.requests() < 2 {
        tokio::task::yield_now().await;
    }
    gate.stop();
    let answer = busy.read_all().await;
    assert_eq!(status(&answer), 200);
    assert!(
        answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );
    assert_eq!(idle.read_all().await, "");
    assert_eq!(gate.drained().await.cut, 0);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn what_does_not_end_is_cut_after_the_grace_time() {
    let service =
        Service::start(|_| "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".into()).await;
    let gate = Running::start(&format!(
        "entryPoints: {{web: {{address: '127.0.0.1:0', transport: {{lifeCycle: {{graceTimeOut: 300ms}}}}}}}}\n\
         services: {{app: {{servers: [{{url: 'http://{}'}}]}}}}\n\
         routes: [{{service: app}}]\n",
        service.address
    ));
    let mut client = gate.client().await;
    client.send(GET).await;
    while service.requests() < 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(gate.drained().await.cut, 1);
    client.read_all().await;
}
