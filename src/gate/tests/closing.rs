//! The last answer on a connection, which goes out in one segment with its end.

use std::time::Duration;

use super::support::{Running, Service, empty, shortest, status};
use crate::time::{Clock, Millis};

const LAST: &str = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// Well below the 200 ms that the kernel waits for the end.
const SOON: Millis = 150;

/// `/last` and what is not listed here take `delay` at the service.
async fn gate(delay: Duration) -> Running {
    let service = Service::slow(delay, |_| empty(200)).await;
    Running::start(&format!(
        "entryPoints: {{web: {{address: '127.0.0.1:0'}}}}\n\
         services: {{app: {{servers: [{{url: 'http://{}'}}]}}}}\n\
         routes: [{{pathPrefix: /at-once, service: whoami@internal}}, {{service: app}}]\n",
        service.address
    ))
}

#[tokio::test]
async fn it_comes_at_once_and_whole() {
    let gate = gate(Duration::ZERO).await;
    let clock = Clock::start();
    let took = shortest(clock, async || {
        let mut client = gate.client().await;
        client.send(LAST).await;
        let all = client.read_all().await;
        assert_eq!(status(&all), 200);
        assert!(all.contains("connection: close"), "{all}");
        clock.now()
    });
    assert!(took.await < SOON);
}

#[tokio::test]
async fn one_before_it_does_not_wait_for_it() {
    let gate = gate(Duration::from_millis(600)).await;
    let clock = Clock::start();
    let took = shortest(clock, async || {
        let mut client = gate.client().await;
        client
            .send(format!("GET /at-once HTTP/1.1\r\nHost: a\r\n\r\n{LAST}"))
            .await;
        assert_eq!(status(&client.read_response().await), 200);
        let at = clock.now();
        assert_eq!(status(&client.read_all().await), 200);
        at
    });
    assert!(took.await < SOON);
}

/// Closing on bytes that were not read resets the connection.
#[tokio::test]
async fn a_client_that_sent_more_than_that_request_gets_it_all_the_same() {
    let gate = gate(Duration::from_millis(100)).await;
    let mut client = gate.client().await;
    client.send(LAST).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    client.send("GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(status(&client.read_all().await), 200);
}
