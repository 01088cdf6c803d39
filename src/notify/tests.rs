//! What targets hear and when, with real receivers on loopback and, where minutes pass, paused time.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::Instant,
};

use super::*;
use crate::{
    config::{Channel, Email, EmailTls, NotifyOn, Secret, Template},
    engine::{Ban, Cause, Origin},
    telemetry::{in_full, status::Snapshot},
};

const HOSTILE: &str =
    "/<!channel>\r\nBcc: x@example.com\r\n\",\"a\":1}`@everyone` [x](http://e) \u{202e}\u{1b}[31m";

fn ban(client: &str, path: &str) -> Arc<Ban> {
    Arc::new(Ban {
        client: client.parse().unwrap(),
        jail: Some("web".into()),
        origin: Origin::Jail,
        cause: Cause::Failures,
        count: 4,
        first_status: 404,
        last_status: 401,
        path: path.into(),
        since: 1_700_000_000_000,
        until: 1_700_000_600_000,
    })
}

fn target(channel: Channel) -> NotifyTarget {
    NotifyTarget {
        name: "it".into(),
        channel,
        on: vec![NotifyOn::Ban, NotifyOn::Unban, NotifyOn::Failing],
        jails: Vec::new(),
        origins: vec!["jailgate".into(), "manual".into()],
        interval: Duration::from_secs(60),
        allow_local: false,
    }
}

fn webhook(address: SocketAddr) -> Channel {
    Channel::Webhook {
        url: Secret::new(format!("http://{address}/hook/hunter2")),
        headers: Vec::new(),
        template: Template::default(),
    }
}

fn shared() -> Shared {
    let limits = crate::engine::Limits {
        tracked_clients: 100,
        bans: 100,
        aggregate_ipv6: false,
    };
    Shared {
        engine: Arc::new(Engine::new(limits, 1)),
        metrics: Arc::new(Metrics::new()),
        statuses: Statuses::new(),
        clock: Clock::start(),
        tasks: Tasks::new(),
    }
}

/// Answers each connection's only request with the next status, `200` when none is left.
async fn receiver(
    statuses: &'static [u16],
) -> (SocketAddr, mpsc::UnboundedReceiver<(Instant, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut statuses = statuses.iter();
    let (sender, received) = mpsc::unbounded_channel();
    Tasks::new().spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let body = body(&mut stream).await;
            let _ = sender.send((Instant::now(), body));
            let status = statuses.next().unwrap_or(&200);
            let answer = format!(
                "HTTP/1.1 {status} x\r\nlocation: http://{address}/\r\ncontent-length: 0\r\n\
                 connection: close\r\n\r\n"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (address, received)
}

async fn body(stream: &mut TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line).await.unwrap() > 2 {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await.unwrap();
    String::from_utf8(body).unwrap()
}

fn digest(bans: impl IntoIterator<Item = Arc<Ban>>) -> Digest {
    let mut digest = Digest::default();
    for ban in bans {
        digest.ban(NotifyOn::Ban, &ban);
    }
    digest
}

#[test]
fn a_message_counts_everything_and_shows_the_first_few() {
    let many =
        (0..100_000_u32).map(|i| ban(&format!("{}/32", std::net::Ipv4Addr::from(i)), "/login"));
    let mut many = digest(many);
    many.ban(NotifyOn::Unban, &ban("203.0.113.0/24", ""));
    assert_eq!(many.title("edge"), "jailgate on edge: 100000 bans, 1 unban");
    let lines = many.lines(&str::to_owned);
    assert_eq!(
        lines[1],
        "ban: 0.0.0.1 in web by jailgate, failures (4 counted, last 401 on /login), \
         until 2023-11-14T22:23:20Z"
    );
    assert_eq!(lines.len(), 6);
    assert_eq!(lines[5], "… and 99996 more");
}

#[test]
fn what_could_not_be_sent_stands_before_what_came_later() {
    let mut kept = digest([ban("192.0.2.1/32", "/")]);
    kept.absorb(digest(
        (1..9).map(|i| ban(&format!("198.51.100.{i}/32"), "/")),
    ));
    assert_eq!(kept.title("edge"), "jailgate on edge: 9 bans");
    let lines = kept.lines(&str::to_owned);
    assert!(lines[0].starts_with("ban: 192.0.2.1 in"), "{lines:?}");
    assert!(lines[4].starts_with("ban: 198.51.100.4 in"), "{lines:?}");
    assert_eq!(lines[5], "… and 4 more");
}

#[test]
fn a_job_is_said_once_at_its_latest() {
    let job = |state, error: &str| Snapshot {
        name: "cloudflare".into(),
        state,
        since: 0,
        last_ok: None,
        last_error: Some((0, error.into())),
        lag: 0,
        detail: String::new(),
    };
    let mut news = Digest::default();
    news.job(job(State::Failing, "429\nx"));
    assert_eq!(news.title("edge"), "jailgate on edge: cloudflare fails");
    assert_eq!(
        news.lines(&str::to_owned),
        ["cloudflare fails: 429\u{fffd}x"]
    );
    news.job(job(State::Ok, ""));
    assert_eq!(
        news.title("edge"),
        "jailgate on edge: cloudflare works again"
    );
    assert!(!news.is_urgent() && news.lines(&str::to_owned).is_empty());
}

/// The body that a channel's receiver gets for one ban with a hostile path.
async fn said(channel: impl FnOnce(SocketAddr) -> Channel) -> serde_json::Value {
    let (address, mut received) = receiver(&[]).await;
    let way = Way::build(&target(channel(address))).unwrap();
    way.send(&digest([ban("198.51.100.7/32", HOSTILE)]))
        .await
        .unwrap();
    let (_, body) = received.recv().await.unwrap();
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

#[tokio::test]
async fn a_path_is_inert_in_json() {
    let template = r#"{"a": {"text": "{{text}}"}, "n": "{{count}}", "e": "{{events}}"}"#;
    let body = said(|address| Channel::Webhook {
        url: Secret::new(format!("http://{address}/")),
        headers: Vec::new(),
        template: Template::parse(template).unwrap(),
    })
    .await;
    let keys: Vec<_> = body.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["a", "n", "e"]);
    assert_eq!(
        (&body["n"], &body["e"][0]["client"]),
        (&1.into(), &"198.51.100.7".into())
    );
    let path = body["e"][0]["path"].as_str().unwrap();
    assert_eq!(
        path,
        "/<!channel>\u{fffd}\u{fffd}Bcc: x@example.com\u{fffd}\u{fffd}\",\"a\":1}`@everyone` \
         [x](http://e) \u{fffd}\u{fffd}[31m"
    );
}

#[tokio::test]
async fn a_path_is_inert_in_slack() {
    let body = said(|address| Channel::Slack {
        url: Secret::new(format!("http://{address}/")),
    })
    .await;
    let text = body["text"].as_str().unwrap();
    assert!(!text.contains(['<', '>']), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
    // One pair of backticks for the reason, one for the path; everything hostile is inside.
    let outside: Vec<_> = text.split('`').step_by(2).collect();
    assert_eq!(text.matches('`').count(), 4, "{text}");
    assert!(
        !outside.concat().contains(['@', '[', '\u{1b}', '\u{202e}']),
        "{text}"
    );
}

#[tokio::test]
async fn ntfy_gets_json_so_that_nothing_stands_in_a_header() {
    let body = said(|address| Channel::Ntfy {
        url: format!("http://{address}"),
        topic: Secret::new("t"),
        token: None,
    })
    .await;
    assert_eq!(body["topic"], "t");
    assert!(body["title"].as_str().unwrap().ends_with(": 1 ban"));
    assert!(
        !body["message"]
            .as_str()
            .unwrap()
            .contains(['\r', '\n', '\u{1b}'])
    );
}

/// A mail server that takes everything; the letters as they came.
async fn mail_server() -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, received) = mpsc::unbounded_channel();
    Tasks::new().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (reader, mut writer) = stream.into_split();
            let mut lines = BufReader::new(reader).lines();
            writer.write_all(b"220 here\r\n").await.unwrap();
            let (mut letter, mut inside) = (String::new(), false);
            while let Ok(Some(line)) = lines.next_line().await {
                let answer: &[u8] = match (inside, line.get(..4).unwrap_or(&line)) {
                    (true, ".") => {
                        inside = false;
                        let _ = sender.send(std::mem::take(&mut letter));
                        b"250 taken\r\n"
                    }
                    (true, _) => {
                        letter += &format!("{line}\n");
                        continue;
                    }
                    (false, "DATA") => {
                        inside = true;
                        b"354 go on\r\n"
                    }
                    (false, "QUIT") => break,
                    (false, _) => {
                        letter += &format!("{line}\n");
                        b"250 fine\r\n"
                    }
                };
                writer.write_all(answer).await.unwrap();
            }
        }
    });
    (address, received)
}

fn email(address: SocketAddr, tls: EmailTls) -> Channel {
    Channel::Email(Email {
        host: address.ip().to_string(),
        port: address.port(),
        tls,
        from: "jailgate <jailgate@example.com>".parse().unwrap(),
        to: vec![
            "ops@example.com".parse().unwrap(),
            "b@example.com".parse().unwrap(),
        ],
        login: None,
    })
}

#[tokio::test]
async fn a_path_is_inert_in_mail() {
    let (address, mut letters) = mail_server().await;
    let way = Way::build(&target(email(address, EmailTls::Plain))).unwrap();
    way.send(&digest([ban("198.51.100.7/32", HOSTILE)]))
        .await
        .unwrap();
    let letter = letters.recv().await.unwrap();
    let (head, text) = letter.split_once("\n\n").unwrap();
    assert!(head.contains("RCPT TO:<ops@example.com>"), "{head}");
    assert!(head.contains("RCPT TO:<b@example.com>"), "{head}");
    assert!(head.contains("\nSubject: jailgate on "), "{head}");
    assert!(!head.to_lowercase().contains("bcc"), "{head}");
    assert!(!text.contains("\nBcc"), "{text}");
}

#[tokio::test]
async fn mail_is_not_sent_without_the_protection_asked_for() {
    let (address, mut letters) = mail_server().await;
    let way = Way::build(&target(email(address, EmailTls::Starttls))).unwrap();
    let error = way
        .send(&digest([ban("198.51.100.7/32", "/")]))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Smtp(_)), "{error}");
    assert!(letters.try_recv().is_err());
}

#[tokio::test]
async fn redirects_and_metadata_addresses_are_refused_and_secrets_not_told() {
    let (address, mut received) = receiver(&[302, 500]).await;
    let way = Way::build(&target(webhook(address))).unwrap();
    let error = in_full(&way.send(&Digest::test()).await.unwrap_err());
    assert_eq!(
        error,
        "the answer is 302 Found, and redirects are not followed"
    );
    assert!(received.recv().await.is_some());
    assert!(received.try_recv().is_err(), "it was followed");
    let error = in_full(&way.send(&Digest::test()).await.unwrap_err());
    assert_eq!(error, "the answer is 500 Internal Server Error");

    let metadata = |url: &str| Channel::Slack {
        url: Secret::new(url),
    };
    for url in [
        "http://169.254.169.254/hunter2",
        "http://[fe80::1]:80/",
        "http://0xa9fea9fe/",
    ] {
        let way = Way::build(&target(metadata(url))).unwrap();
        let error = way.send(&Digest::test()).await.unwrap_err();
        assert!(
            matches!(error, Error::Refused(_)),
            "{url}: {}",
            in_full(&error)
        );
    }
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let way = Way::build(&target(webhook(closed))).unwrap();
    let error = way.send(&Digest::test()).await.unwrap_err();
    assert!(!in_full(&error).contains("hunter2"), "{}", in_full(&error));
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}

/// A courier to this receiver that runs until the set of tasks is stopped.
fn courier(shared: &Shared, target: NotifyTarget) -> Arc<Courier> {
    let mut notifier = Notifier::new(shared.clone());
    notifier.targets = vec![target.clone()];
    notifier.courier(&target, Way::build(&target).unwrap())
}

fn begun(ban: Arc<Ban>) -> crate::engine::Change {
    crate::engine::Change {
        seq: 1,
        ban,
        lift: None,
        updated: false,
    }
}

#[tokio::test(start_paused = true)]
async fn at_most_one_message_a_minute_and_nothing_is_forgotten() {
    let (address, mut received) = receiver(&[]).await;
    let shared = shared();
    let mut target = target(webhook(address));
    target.jails = vec!["web".into()];
    let courier = courier(&shared, target);
    let start = Instant::now();
    for i in 0..600_u32 {
        let net = format!("{}/32", std::net::Ipv4Addr::from(i));
        courier.change(&begun(ban(&net, "/")));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let mut other = Ban::clone(&ban("192.0.2.1/32", "/"));
    other.jail = Some("other".into());
    courier.change(&begun(Arc::new(other.clone())));
    other.jail = None;
    other.origin = Origin::Outside("crowdsec/CAPI".into());
    courier.change(&begun(Arc::new(other)));
    tokio::time::sleep(Duration::from_secs(120)).await;
    let (mut last, mut told, mut messages) = (None, 0, 0);
    while let Ok((at, body)) = received.try_recv() {
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        told += body["count"].as_u64().unwrap();
        messages += 1;
        if let Some(last) = last {
            assert!(at - last >= Duration::from_secs(59), "{:?}", at - last);
        } else {
            assert!(at - start < Duration::from_secs(2), "the first goes soon");
        }
        last = Some(at);
    }
    assert_eq!((told, messages), (600, 6));
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_away_gets_it_later_in_one_message() {
    let (address, mut received) = receiver(&[500, 503]).await;
    let shared = shared();
    let courier = courier(&shared, target(webhook(address)));
    courier.change(&begun(ban("198.51.100.1/32", "/")));
    let (first, _) = received.recv().await.unwrap();
    courier.change(&begun(ban("198.51.100.2/32", "/")));
    let (second, _) = received.recv().await.unwrap();
    courier.change(&begun(ban("198.51.100.3/32", "/")));
    let (third, body) = received.recv().await.unwrap();
    assert!((59..=63).contains(&(second - first).as_secs()));
    assert!(
        (118..=123).contains(&(third - second).as_secs()),
        "the pause doubles"
    );
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let clients: Vec<_> = (0..3)
        .map(|i| body["events"][i]["client"].clone())
        .collect();
    assert_eq!(clients, ["198.51.100.1", "198.51.100.2", "198.51.100.3"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let job = &shared.statuses.all()[0];
    assert_eq!((&*job.name, job.state), ("notify it", State::Ok));
    assert!(
        job.last_error
            .as_ref()
            .is_some_and(|(_, error)| error.contains("503"))
    );
    let metrics = shared.metrics.render();
    assert!(metrics.contains(r#"jailgate_notifications_total{target="it",result="failed"} 2"#));
    assert!(metrics.contains(r#"jailgate_notifications_total{target="it",result="sent"} 1"#));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_for_long_is_told_and_so_is_its_recovery() {
    let (address, mut received) = receiver(&[]).await;
    let shared = shared();
    let mut target = target(webhook(address));
    target.on = vec![NotifyOn::Failing];
    let mut notifier = Notifier::new(shared.clone());
    notifier.adopt(&[target]);
    let (blip, disk) = (shared.statuses.add("blip"), shared.statuses.add("disk"));
    let fail = |job: &crate::telemetry::Status, error: &str| job.failed(shared.clock.now(), error);
    fail(&blip, "for a moment");
    fail(&disk, "no space left");
    fail(
        &shared.statuses.add("notify it"),
        "its own failures are not its news",
    );
    tokio::time::sleep(Duration::from_secs(20)).await;
    blip.ok(shared.clock.now(), "");
    let next = |body: String| serde_json::from_str::<serde_json::Value>(&body).unwrap();
    let body = next(received.recv().await.unwrap().1);
    let expected = serde_json::json!([
        { "job": "disk", "state": "failing", "error": "no space left" }
    ]);
    assert_eq!((&body["jobs"], &body["count"]), (&expected, &0.into()));
    assert!((30_000..40_000).contains(&shared.clock.uptime()));
    disk.ok(shared.clock.now(), "");
    let body = next(received.recv().await.unwrap().1);
    assert!(
        body["title"]
            .as_str()
            .unwrap()
            .ends_with(": disk works again"),
        "{body}"
    );
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(received.try_recv().is_err(), "there is no more news");
}

#[tokio::test(start_paused = true)]
async fn bans_of_the_ledger_are_told_from_now_on_and_by_origin() {
    let (address, mut received) = receiver(&[]).await;
    let shared = shared();
    let made = |client: &str, origin| {
        let mut ban = Ban::clone(&ban(client, ""));
        ban.cause = Cause::Manual("spam".into());
        (ban.jail, ban.origin, ban.until) = (None, origin, crate::engine::ban::FOREVER);
        shared.engine.ban(ban, shared.clock.now());
    };
    made("192.0.2.1/32", Origin::Manual);
    let mut notifier = Notifier::new(shared.clone());
    notifier.adopt(&[target(webhook(address))]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    for i in 0..50 {
        let outside = Origin::Outside("crowdsec/CAPI".into());
        made(&format!("203.0.113.{i}/32"), outside);
    }
    made("198.51.100.0/24", Origin::Manual);
    let body = received.recv().await.unwrap().1;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["count"], 1, "{body}");
    let event = &body["events"][0];
    assert_eq!(
        (&event["client"], &event["reason"]),
        (&"198.51.100.0/24".into(), &"spam".into())
    );
    assert_eq!(
        (&event["origin"], &event["jail"]),
        (&"manual".into(), &serde_json::Value::Null)
    );
    assert_eq!(event["until"], serde_json::Value::Null);
}

/// The head of the request that a channel makes.
async fn head(channel: impl FnOnce(SocketAddr) -> Channel) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let way = Way::build(&target(channel(listener.local_addr().unwrap()))).unwrap();
    let digest = Digest::test();
    let read = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        let length = stream.read(&mut head).await.unwrap();
        String::from_utf8_lossy(&head[..length]).to_lowercase()
    };
    tokio::join!(way.send(&digest), read).1
}

#[tokio::test]
async fn tokens_and_headers_go_with_the_request() {
    let ntfy = head(|address| Channel::Ntfy {
        url: format!("http://{address}"),
        topic: Secret::new("t"),
        token: Some(Secret::new("tk_1")),
    })
    .await;
    assert!(
        ntfy.contains("\r\nauthorization: bearer tk_1\r\n"),
        "{ntfy}"
    );
    let webhook = head(|address| Channel::Webhook {
        url: Secret::new(format!("http://{address}/hook?key=1")),
        headers: vec![("x-a".parse().unwrap(), "b".parse().unwrap())],
        template: Template::default(),
    })
    .await;
    assert!(
        webhook.starts_with("post /hook?key=1 http/1.1\r\n"),
        "{webhook}"
    );
    assert!(webhook.contains("\r\nx-a: b\r\n"), "{webhook}");
    assert!(
        webhook.contains("\r\ncontent-type: application/json\r\n"),
        "{webhook}"
    );
}
