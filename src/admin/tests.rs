//! The listener without a socket: who may do what, and what the routes answer.

use axum::{
    body::{Body, to_bytes},
    extract::ConnectInfo,
    http::Request,
};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::{
    config::Secret,
    engine::{Cause, JailSpec, Limits, Origin, ban::FOREVER, nets::NetSet},
};

struct Bench {
    shared: Shared,
    router: Router,
}

struct Answered {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Bench {
    /// On `127.0.0.1:9180`; tokens `full` and `read` when `tokens`.
    fn new(tokens: bool) -> Self {
        let limits = Limits {
            tracked_clients: 1000,
            bans: 1_000_000,
            aggregate_ipv6: false,
        };
        let clock = Clock::start();
        let engine = Arc::new(Engine::new(limits, 7));
        let own = NetSet::build(["127.0.0.0/8".parse().unwrap()]);
        let web = JailSpec {
            statuses: vec![404..=404],
            ..JailSpec::named("web")
        };
        engine.configure(vec![web], own, clock.now());
        let mut config = empty();
        if tokens {
            config.admin.token = Some(Secret::new("full"));
            config.admin.read_token = Some(Secret::new("read"));
        }
        config.admin.hosts = vec!["admin.example.com".to_owned()];
        let address = Address::parse("127.0.0.1:9180").unwrap();
        let tasks = Tasks::new();
        let shared = Shared {
            engine,
            metrics: Arc::new(Metrics::new()),
            clock,
            ready: Arc::default(),
            config: Arc::new(ArcSwap::from_pointee(config)),
            statuses: Statuses::new(),
            reload: mpsc::channel(1).0,
            reloads: watch::Sender::new(Reloaded::default()).subscribe(),
            arrive: Arc::new(|approach| {
                vec![Arrived {
                    jail: "web".into(),
                    client: approach.peer,
                    from: "the test".to_owned(),
                }]
            }),
            archive: None,
            keys: Arc::new(Keys::new(address)),
            timeline: Arc::default(),
            listeners: places(),
            stop: tasks.stopping(),
            tasks,
        };
        Self {
            router: router(shared.clone()),
            shared,
        }
    }

    /// `headers` is lines of `name: value`; the peer is 198.51.100.99.
    async fn ask(&self, method: &str, target: &str, headers: &str, body: &str) -> Answered {
        let peer: SocketAddr = "198.51.100.99:5".parse().unwrap();
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .extension(ConnectInfo(peer));
        if !headers.contains("host:") {
            request = request.header("host", "127.0.0.1:9180");
        }
        for line in headers.lines() {
            let (name, value) = line.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        if !body.is_empty() {
            request = request.header("content-length", body.len());
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        // Events go on; the head is enough.
        let events = parts
            .headers
            .get("content-type")
            .is_some_and(|kind| kind == "text/event-stream");
        let bytes = if events {
            Default::default()
        } else {
            to_bytes(body, 1 << 26).await.unwrap()
        };
        Answered {
            status: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    async fn json(&self, method: &str, target: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let headers = "content-type: application/json";
        let answered = self.ask(method, target, headers, &body).await;
        let value = serde_json::from_str(&answered.text);
        (
            answered.status,
            value.unwrap_or_else(|_| panic!("{target}: {}", answered.text)),
        )
    }

    fn ban(&self, client: &str) {
        let now = self.shared.clock.now();
        let ban = Ban {
            client: client.parse().unwrap(),
            jail: None,
            origin: Origin::Manual,
            cause: Cause::Manual("test".into()),
            count: 0,
            first_status: 0,
            last_status: 0,
            path: "".into(),
            since: now,
            until: FOREVER,
        };
        self.shared.engine.ban(ban, now);
    }
}

fn empty() -> Config {
    let text = "entryPoints: {web: {address: '127.0.0.1:0'}}\nroutes: [{service: whoami@internal, jails: [web]}]\n\
                jails: {web: {rules: {statuscode: '404', bantime: 10m}}}\n";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Config::load(file.path()).unwrap()
}

/// Every route of the API with its methods, as its own description has them.
async fn routes(bench: &Bench) -> Vec<(String, String)> {
    let answered = bench
        .ask(
            "GET",
            "/api/v1/openapi.json",
            "authorization: Bearer full",
            "",
        )
        .await;
    let document: Value = serde_json::from_str(&answered.text).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let routes = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().keys();
        methods.map(|method| {
            (
                method.to_uppercase(),
                path.replace("{client}", "198.51.100.7"),
            )
        })
    });
    routes.collect()
}

#[tokio::test]
async fn probes_are_open_and_everything_else_asks_for_the_token() {
    let bench = Bench::new(true);
    let routes = routes(&bench).await;
    assert!(routes.len() >= 15, "{routes:?}");
    let more = [
        "/",
        "/metrics",
        "/api/v1/openapi.json",
        "/nothing",
        "/api/v1/nothing",
    ];
    let more = more.map(|path| ("GET".to_owned(), path.to_owned()));
    for (method, path) in routes.iter().chain(&more) {
        for wrong in [
            "",
            "authorization: Bearer ful",
            "authorization: full",
            "authorization: Basic ZnVsbA==",
            "cookie: jailgate_session=full",
        ] {
            let answered = bench.ask(method, path, wrong, "").await;
            assert_eq!(answered.status, 401, "{method} {path} {wrong}");
            let problem: Value = serde_json::from_str(&answered.text).unwrap();
            assert_eq!(
                (&problem["status"], &answered.headers["content-type"]),
                (&json!(401), &"application/problem+json".parse().unwrap()),
                "{path}"
            );
        }
    }
    for (path, expected) in [("/healthz", 200), ("/readyz", 503)] {
        assert_eq!(
            bench.ask("GET", path, "host: 10.1.2.3", "").await.status,
            expected
        );
    }
    bench.shared.ready.store(true, Ordering::Release);
    assert_eq!(bench.ask("GET", "/readyz", "", "").await.status, 200);
}

#[tokio::test]
async fn a_read_token_looks_and_changes_nothing() {
    let bench = Bench::new(true);
    bench.ban("203.0.113.7/32");
    for (method, path) in routes(&bench).await {
        if path.ends_with("reload") {
            continue;
        }
        let read = bench
            .ask(&method, &path, "authorization: Bearer read", "")
            .await
            .status;
        let full = bench
            .ask(&method, &path, "authorization: Bearer full", "")
            .await
            .status;
        match method.as_str() {
            "GET" => assert_eq!((read, full), (200, 200), "{path}"),
            _ => assert!(
                read == 403 && full != 403 && full < 500,
                "{method} {path} {read} {full}"
            ),
        }
    }
    assert_eq!(bench.shared.engine.ledger().len(), 1);
}

#[tokio::test]
async fn names_that_are_not_ours_are_refused() {
    let bench = Bench::new(false);
    for (host, expected) in [
        ("127.0.0.1:9180", 200),
        ("localhost:9180", 200),
        ("[::1]:9180", 200),
        ("jailgate.localhost", 200),
        ("admin.example.com", 200),
        ("ADMIN.example.com.", 200),
        ("evil.example", 403),
        ("evil.example:9180", 403),
        ("localhost.evil.example", 403),
        ("203.0.113.9", 403),
    ] {
        for path in ["/api/v1/status", "/", "/metrics"] {
            let answered = bench.ask("GET", path, &format!("host: {host}"), "").await;
            assert_eq!(answered.status, expected, "{host} {path}");
        }
    }
    let tokens = Bench::new(true);
    let scraped = "host: jailgate.monitoring.svc\nauthorization: Bearer read";
    assert_eq!(tokens.ask("GET", "/metrics", scraped, "").await.status, 200);
}

#[tokio::test]
async fn other_websites_change_nothing() {
    let open = Bench::new(false);
    let body = json!({"clients": ["203.0.113.7"]}).to_string();
    for (headers, expected) in [
        ("content-type: application/json", 200),
        (
            "content-type: application/json\norigin: http://127.0.0.1:9180",
            200,
        ),
        (
            "content-type: application/json\nsec-fetch-site: same-origin",
            200,
        ),
        (
            "content-type: application/json\norigin: http://evil.example",
            403,
        ),
        ("content-type: application/json\norigin: null", 403),
        (
            "content-type: application/json\nsec-fetch-site: cross-site",
            403,
        ),
        (
            "content-type: application/json\nsec-fetch-site: same-site",
            403,
        ),
        ("content-type: text/plain", 415),
        ("content-type: application/x-www-form-urlencoded", 415),
        ("content-type: text/plain\nsec-fetch-site: same-origin", 415),
    ] {
        let answered = open.ask("POST", "/api/v1/bans", headers, &body).await;
        assert_eq!(answered.status, expected, "{headers}: {}", answered.text);
    }
    let answered = open
        .ask(
            "DELETE",
            "/api/v1/bans?all=true",
            "sec-fetch-site: cross-site",
            "",
        )
        .await;
    assert_eq!(
        (answered.status, open.shared.engine.ledger().len()),
        (403, 1)
    );
}

#[tokio::test]
async fn a_browser_logs_in_by_cookie_and_out_again() {
    let bench = Bench::new(true);
    let page = bench.ask("GET", "/", "accept: text/html,*/*", "").await;
    assert!(
        page.status == 401 && page.text.contains("<form"),
        "{}",
        page.text
    );
    let form = "content-type: application/x-www-form-urlencoded\nsec-fetch-site: same-origin";
    let wrong = bench.ask("POST", "/login", form, "token=nope").await;
    assert!(wrong.status == 401 && wrong.text.contains("not the token"));
    let elsewhere = form.replace("same-origin", "cross-site");
    assert_eq!(
        bench
            .ask("POST", "/login", &elsewhere, "token=read")
            .await
            .status,
        403
    );
    let inside = bench.ask("POST", "/login", form, "token=full").await;
    assert_eq!(
        (inside.status, &inside.headers["location"]),
        (303, &"/".parse().unwrap())
    );
    let cookie = inside.headers["set-cookie"].to_str().unwrap();
    assert!(
        cookie.contains("HttpOnly; SameSite=Strict") && !cookie.contains("full"),
        "{cookie}"
    );
    let cookie = format!("cookie: a=b; {}", cookie.split(';').next().unwrap());
    let status = bench.ask("GET", "/api/v1/status", &cookie, "").await;
    assert!(
        status.text.contains(r#""access":"full""#),
        "{}",
        status.text
    );
    let ban = json!({"clients": ["203.0.113.7"]}).to_string();
    let posted = |more: &str| format!("{cookie}\ncontent-type: application/json{more}");
    assert_eq!(
        bench
            .ask("POST", "/api/v1/bans", &posted(""), &ban)
            .await
            .status,
        403
    );
    let own = posted("\norigin: http://127.0.0.1:9180");
    assert_eq!(
        bench.ask("POST", "/api/v1/bans", &own, &ban).await.status,
        200
    );
    assert_eq!(bench.ask("POST", "/logout", &own, "").await.status, 204);
    assert_eq!(
        bench.ask("GET", "/api/v1/status", &cookie, "").await.status,
        401
    );
}

#[tokio::test]
async fn a_changed_token_ends_the_sessions_it_opened() {
    let bench = Bench::new(true);
    let headers = "content-type: application/json\nsec-fetch-site: same-origin";
    let inside = bench
        .ask("POST", "/login", headers, r#"{"token":"read"}"#)
        .await;
    assert_eq!(inside.status, 204);
    let cookie = inside.headers["set-cookie"].to_str().unwrap();
    let cookie = format!("cookie: {}", cookie.split(';').next().unwrap());
    assert_eq!(
        bench.ask("GET", "/api/v1/status", &cookie, "").await.status,
        200
    );
    let mut config = Config::clone(&bench.shared.config.load());
    config.admin.read_token = Some(Secret::new("other"));
    bench.shared.config.store(Arc::new(config));
    assert_eq!(
        bench.ask("GET", "/api/v1/status", &cookie, "").await.status,
        401
    );
}

#[tokio::test]
async fn bans_come_page_by_page_and_filtered() {
    let bench = Bench::new(false);
    for n in 0..25 {
        bench.ban(&format!("203.0.113.{n}/32"));
    }
    bench.ban("198.51.100.0/24");
    let (mut seen, mut target) = (Vec::new(), "/api/v1/bans?limit=10".to_owned());
    for page in [10, 10, 6] {
        let (status, body) = bench.json("GET", &target, Value::Null).await;
        let bans = body["bans"].as_array().unwrap();
        assert_eq!(
            (status, bans.len(), &body["total"]),
            (200, page, &json!(26))
        );
        seen.extend(
            bans.iter()
                .map(|ban| ban["client"].as_str().unwrap().to_owned()),
        );
        target = format!(
            "/api/v1/bans?limit=10&cursor={}",
            body["next"].as_str().unwrap_or("end")
        );
    }
    assert!(target.ends_with("end"));
    assert_eq!(
        (seen[0].as_str(), seen[25].as_str()),
        ("198.51.100.0/24", "203.0.113.0")
    );
    for (filter, expected) in [
        ("jail=*", 26),
        ("jail=web", 0),
        ("origin=manual", 26),
        ("origin=jailgate", 0),
        ("text=198.51.100.77", 1),
        ("text=TEST", 26),
        ("text=113.2", 6),
        ("since=2100-01-01T00:00:00Z", 0),
    ] {
        let (_, body) = bench
            .json("GET", &format!("/api/v1/bans?{filter}"), Value::Null)
            .await;
        assert_eq!(body["bans"].as_array().unwrap().len(), expected, "{filter}");
    }
    for wrong in [
        "limit=0",
        "limit=99999",
        "limit=x",
        "since=yesterday",
        "nonsense=1",
        "cursor=-1",
    ] {
        let (status, _) = bench
            .json("GET", &format!("/api/v1/bans?{wrong}"), Value::Null)
            .await;
        assert_eq!(status, 422, "{wrong}");
    }
}

#[tokio::test]
async fn bans_by_hand_are_all_or_none_and_lock_nobody_out() {
    let bench = Bench::new(false);
    let ban = async |body: Value| bench.json("POST", "/api/v1/bans", body).await;
    for (client, why) in [
        ("127.0.0.1", "self"),
        ("127.0.0.0/9", "self"),
        ("198.51.100.99", "caller"),
        ("198.51.100.0/24", "caller"),
        ("0.0.0.0/0", "tooWide"),
        ("2001::/15", "tooWide"),
    ] {
        let (status, body) = ban(json!({"clients": ["203.0.113.7", client]})).await;
        assert_eq!(
            (status, &body["refused"][0]["why"]),
            (409, &json!(why)),
            "{client}"
        );
        assert_eq!(bench.shared.engine.ledger().len(), 0, "all or none");
    }
    let (status, _) = ban(json!({"clients": ["127.0.0.1"], "force": true})).await;
    assert_eq!(status, 200);
    let (_, body) =
        ban(json!({"clients": ["::ffff:203.0.113.7"], "jail": "web", "reason": "why"})).await;
    let made = &body["bans"][0];
    let expected = [
        json!("203.0.113.7"),
        json!("web"),
        json!("manual"),
        json!("why"),
    ];
    assert_eq!(
        ["client", "jail", "origin", "reason"].map(|key| made[key].clone()),
        expected
    );
    let times = ["since", "until"].map(|key| {
        made[key]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
    });
    assert_eq!(
        times[1].as_second() - times[0].as_second(),
        600,
        "the jail's bantime"
    );
    for wrong in [
        json!({"clients": []}),
        json!({"clients": ["x"]}),
        json!({"clients": ["203.0.113.7"], "jail": "nope"}),
        json!({"clients": ["203.0.113.7"], "for": "-3h"}),
        json!({"clients": ["203.0.113.7"], "for": "0"}),
        json!({"clients": ["203.0.113.7"], "more": 1}),
    ] {
        assert_eq!(ban(wrong.clone()).await.0, 422, "{wrong}");
    }
}

#[tokio::test]
async fn what_is_lifted_missing_and_still_covered_is_said() {
    let bench = Bench::new(false);
    bench.ban("203.0.113.7/32");
    bench.ban("203.0.113.0/24");
    let target = "/api/v1/bans?client=203.0.113.7&client=192.0.2.200";
    let (status, body) = bench.json("DELETE", target, Value::Null).await;
    assert_eq!((status, &body["missing"]), (200, &json!(["192.0.2.200"])));
    assert_eq!(body["lifted"][0]["client"], "203.0.113.7");
    assert_eq!(body["covering"][0]["client"], "203.0.113.0/24");
    let (_, body) = bench
        .json("DELETE", "/api/v1/bans?all=true", Value::Null)
        .await;
    assert_eq!(body["lifted"].as_array().unwrap().len(), 1);
    for wrong in ["", "?all=false", "?all=true&client=203.0.113.7", "?x=y"] {
        assert_eq!(
            bench
                .json("DELETE", &format!("/api/v1/bans{wrong}"), Value::Null)
                .await
                .0,
            422
        );
    }
}

#[tokio::test]
async fn whoever_asks_may_allow_himself_and_be_forgotten() {
    let bench = Bench::new(false);
    bench.ban("198.51.100.99/32");
    let body = json!({"subjects": ["me", "203.0.113.0/24"], "for": "2h", "note": "n"});
    let (status, body) = bench.json("POST", "/api/v1/allow", body).await;
    assert_eq!(
        (status, &body["allowed"][0]["subject"]),
        (200, &json!("198.51.100.99"))
    );
    let explain = "/api/v1/clients/198.51.100.99";
    let (_, told) = bench.json("GET", explain, Value::Null).await;
    assert_eq!(told["verdict"], "pass");
    let steps = told["jails"][0]["steps"].as_array().unwrap();
    let last = steps.last().unwrap();
    assert_eq!(
        (&last["step"], &last["decides"]),
        (&json!("allowed"), &json!(true))
    );
    let gone = "/api/v1/allow?subject=me&subject=203.0.113.0/24&subject=nobody.example";
    let (_, body) = bench.json("DELETE", gone, Value::Null).await;
    assert_eq!(body["removed"].as_array().unwrap().len(), 2);
    assert_eq!(body["missing"], json!(["nobody.example"]));
    assert_eq!(
        bench.json("GET", explain, Value::Null).await.1["verdict"],
        "deny"
    );
    let (_, body) = bench.json("DELETE", explain, Value::Null).await;
    assert_eq!(body["lifted"][0]["client"], "198.51.100.99");
    assert_eq!(
        bench.json("GET", explain, Value::Null).await.1["verdict"],
        "pass"
    );
    for wrong in [
        json!({"subjects": ["a b"]}),
        json!({"subjects": ["nobody.invalid"]}),
        json!({"subjects": []}),
    ] {
        assert_eq!(bench.json("POST", "/api/v1/allow", wrong).await.0, 422);
    }
}

#[tokio::test]
async fn strange_requests_get_problems_not_errors() {
    let bench = Bench::new(false);
    for (method, path, expected) in [
        ("GET", "/api/v1/clients/nonsense", 422),
        ("GET", "/api/v1/clients/198.51.100.7?jail=nope", 422),
        ("GET", "/api/v1/clients/198.51.100.7?url=%00", 422),
        ("GET", "/api/v1/clients/198.51.100.7?header=x", 422),
        ("GET", "/api/v1/clients/198.51.100.7?method=a%20b", 422),
        ("GET", "/api/v1/stats?minutes=0", 422),
        ("GET", "/api/v1/history?limit=9999", 422),
        ("GET", "/api/v1/events?since=x", 422),
        ("PUT", "/api/v1/bans", 405),
        ("POST", "/api/v1/status", 405),
        ("GET", "/api/v2", 404),
    ] {
        let (status, body) = bench.json(method, path, Value::Null).await;
        assert_eq!(
            (status, &body["status"]),
            (expected, &json!(expected)),
            "{method} {path}"
        );
    }
}
