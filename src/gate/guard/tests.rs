//! The guard around a closure: no socket, no server.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use http::{Method, Response};
use tower::{Layer, Service};

use super::GuardLayer;
use crate::{
    gate::{
        exchange::{Body, Exchange, RequestBody, Served},
        link::{Link, Timeouts},
        respond::Refusal,
        site::Site,
        tests::support::site,
    },
    time::Clock,
};

/// A guard around a service that answers what it is told to, and what came of it.
struct Bench {
    site: Arc<Site>,
    clock: Clock,
    forwarded: Arc<AtomicUsize>,
}

impl Bench {
    /// One route with these jails; `jails` is YAML in braces.
    fn new(jails: &str, names: &str) -> Self {
        let site = site(&format!(
            "entryPoints: {{web: {{address: '127.0.0.1:0', forwardedHeaders: {{trustedIPs: [10.0.0.1]}}}}}}\n\
             routes: [{{service: whoami@internal, jails: [{names}]}}]\n\
             jails: {jails}\n"
        ));
        Self {
            site: Arc::new(site),
            clock: Clock::start(),
            forwarded: Arc::default(),
        }
    }

    fn exchange(&self, method: Method, client: &str, target: &str) -> Box<Exchange> {
        let request = http::Request::builder()
            .method(method)
            .uri(target)
            .header("host", "a")
            .header("x-forwarded-for", client);
        let timeouts = Timeouts {
            header: 0,
            body: 0,
            idle: 0,
        };
        Box::new(Exchange {
            head: request.body(()).unwrap().into_parts().0,
            body: RequestBody::default(),
            link: Link::new(
                Arc::default(),
                Some(([10, 0, 0, 1], 9).into()),
                false,
                timeouts,
            ),
            site: self.site.clone(),
            number: 0,
            timed: false,
            door: 0,
            now: self.clock.now(),
            trusted: true,
            route: Some(0),
            plain: false,
            client: None,
            verdicts: Vec::new(),
            record: None,
        })
    }

    /// What a client gets when the service answers `status`.
    async fn ask(&self, client: &str, target: &str, status: u16) -> u16 {
        self.call(self.exchange(Method::GET, client, target), status)
            .await
    }

    async fn call(&self, exchange: Box<Exchange>, status: u16) -> u16 {
        let forwarded = self.forwarded.clone();
        let service = tower::service_fn(move |exchange: Box<Exchange>| {
            forwarded.fetch_add(1, Relaxed);
            let mut response = Response::new(Body::empty());
            *response.status_mut() = status.try_into().unwrap();
            std::future::ready(Ok::<Served, Infallible>((Ok(response), exchange)))
        });
        let mut guard = GuardLayer { clock: self.clock }.layer(service);
        let answer: Result<Response<Body>, Infallible> = match guard.call(exchange).await {
            Ok(response) => Ok(response),
            Err(refusal) => Ok(crate::gate::respond::render(
                &refusal,
                false,
                self.clock.now(),
            )),
        };
        answer.unwrap().status().as_u16()
    }

    async fn ask_all(&self, client: &str, answers: &[u16]) -> Vec<u16> {
        let mut seen = Vec::new();
        for status in answers {
            seen.push(self.ask(client, "/", *status).await);
        }
        seen
    }

    fn forwarded(&self) -> usize {
        self.forwarded.load(Relaxed)
    }
}

#[tokio::test]
async fn only_listed_statuses_count_and_the_last_one_is_replaced() {
    let bench = Bench::new("{web: {rules: {maxretry: 3, statuscode: '404'}}}", "web");
    let answers = [404, 200, 404, 404, 200, 200];
    assert_eq!(
        bench.ask_all("192.0.2.1", &answers).await,
        [404, 200, 404, 403, 403, 403]
    );
    assert_eq!(bench.forwarded(), 4);
}

#[tokio::test]
async fn a_denied_request_never_reaches_the_service() {
    let bench = Bench::new(
        "{web: {denylist: {ip: 192.0.2.1}, rules: {urlregexps: [{regexp: ^/no, mode: block}]}}}",
        "web",
    );
    assert_eq!(bench.ask("192.0.2.1", "/", 200).await, 403);
    assert_eq!(bench.ask("192.0.2.2", "/no", 200).await, 403);
    assert_eq!(bench.forwarded(), 0);
    assert_eq!(bench.ask("192.0.2.3", "/", 200).await, 200);
}

#[tokio::test]
async fn what_counted_is_kept_with_what_the_head_said() {
    let bench = Bench::new("{web: {rules: {maxretry: 3, statuscode: '404'}}}", "web");
    let mut exchange = bench.exchange(Method::GET, "192.0.2.1", "/x?y");
    exchange
        .head
        .headers
        .insert("user-agent", "curl/8.0".parse().unwrap());
    bench.call(exchange, 404).await;
    bench.ask("192.0.2.1", "/y", 200).await;
    let kept = bench.site.engine.evidence("192.0.2.1/32".parse().unwrap());
    let [one] = &kept[..] else {
        panic!("{kept:?}");
    };
    assert_eq!((&*one.host, &*one.agent), ("a", "curl/8.0"));
    assert_eq!((&*one.path, one.status), ("/x", 404));
}

#[tokio::test]
async fn gateway_errors_never_count() {
    let bench = Bench::new(
        "{web: {rules: {maxretry: 1, statuscode: '400-599'}}}",
        "web",
    );
    let answers = [502, 503, 504, 499];
    assert_eq!(bench.ask_all("192.0.2.1", &answers).await, answers);
    assert_eq!(bench.ask("192.0.2.1", "/", 500).await, 403);
}

#[tokio::test]
async fn every_jail_counts_and_the_first_to_ban_answers() {
    let jails = "{slow: {rules: {maxretry: 3, statuscode: '404'}, response: {status: 410}}, \
                 quick: {rules: {maxretry: 2, statuscode: '404'}, response: {status: 429}}}";
    let bench = Bench::new(jails, "slow, quick");
    assert_eq!(
        bench.ask_all("192.0.2.1", &[404, 404, 404]).await,
        [404, 429, 429]
    );
    assert_eq!(bench.forwarded(), 2);
}

#[tokio::test]
async fn a_jail_that_simulates_changes_nothing() {
    let bench = Bench::new(
        "{web: {simulate: true, rules: {maxretry: 1, statuscode: '404'}}}",
        "web",
    );
    assert_eq!(
        bench.ask_all("192.0.2.1", &[404, 404, 200]).await,
        [404, 404, 200]
    );
}

#[tokio::test]
async fn the_allowlisted_are_neither_denied_nor_counted() {
    let bench = Bench::new(
        "{web: {allowlist: {ip: 192.0.2.0/24}, rules: {maxretry: 1, statuscode: '404', \
         urlregexps: [{regexp: ^/no, mode: block}]}}}",
        "web",
    );
    assert_eq!(bench.ask("192.0.2.1", "/no", 404).await, 404);
    assert_eq!(bench.ask_all("192.0.2.1", &[404, 404]).await, [404, 404]);
}

#[tokio::test]
async fn card_stuffing_is_stopped_by_method_and_path_though_every_answer_is_200() {
    let jail = "{web: {match: {methods: [POST], pathRegexp: ^/pay$}, rules: {maxretry: 3}}}";
    let bench = Bench::new(jail, "web");
    let mut seen = Vec::new();
    for (method, path) in [
        (Method::GET, "/pay"),
        (Method::POST, "/pay"),
        (Method::POST, "/other"),
        (Method::POST, "/pay"),
        (Method::POST, "/pay"),
        (Method::GET, "/"),
    ] {
        let exchange = bench.exchange(method, "192.0.2.1", path);
        seen.push(bench.call(exchange, 200).await);
    }
    assert_eq!(seen, [200, 200, 200, 200, 403, 403]);
}

#[tokio::test]
async fn a_refusal_of_ours_is_not_counted_but_a_missing_route_is() {
    let bench = Bench::new(
        "{default: {rules: {maxretry: 2, statuscode: '400-499'}}}",
        "default",
    );
    for (refusal, expected) in [
        (Refusal::Malformed("x"), 400),
        (Refusal::BodyTooLarge, 413),
        (Refusal::NoRoute, 404),
        (Refusal::NoRoute, 403),
    ] {
        let mut refusal = Some(refusal);
        let service = tower::service_fn(move |exchange: Box<Exchange>| {
            let answer = Err(refusal.take().unwrap());
            std::future::ready(Ok::<Served, Infallible>((answer, exchange)))
        });
        let mut guard = GuardLayer { clock: bench.clock }.layer(service);
        let mut exchange = bench.exchange(Method::GET, "192.0.2.1", "/");
        exchange.route = None;
        let refusal = guard.call(exchange).await.unwrap_err();
        assert_eq!(refusal.status().as_u16(), expected);
    }
}
