//! `jailgate sync` between a real LAPI and the simulator of Cloudflare's lists: what it prints,
//! how it exits, what it pushes.

use std::{process::Output, time::Duration};

use serde_json::json;

use crate::support::{ACCOUNT, Cloudflare, Jailgate, KEY, LIST, Lapi, Origin, TOKEN};

/// One run of the command in the environment of the cron job.
struct Run<'a> {
    lapi: &'a str,
    sim: &'a Cloudflare,
    more: Vec<(&'a str, &'a str)>,
}

impl<'a> Run<'a> {
    fn of(lapi: &'a str, sim: &'a Cloudflare) -> Self {
        Self {
            lapi,
            sim,
            more: Vec::new(),
        }
    }

    fn with(mut self, name: &'a str, value: &'a str) -> Self {
        self.more.push((name, value));
        self
    }

    fn go(&self) -> Output {
        let mut command = Jailgate::command();
        command.arg("sync").env_clear();
        command.env("LAPI_URL", self.lapi).env("LAPI_KEY", KEY);
        command
            .env("CF_ACCOUNT_ID", ACCOUNT)
            .env("CF_API_TOKEN", TOKEN);
        command
            .env("CF_BAN_LIST_ID", LIST)
            .env("CF_API_URL", self.sim.url());
        command.envs(self.more.iter().copied());
        command.output().expect("jailgate runs")
    }

    /// Exit code, standard output and standard error; neither holds a secret.
    #[track_caller]
    fn said(&self) -> (Option<i32>, String, String) {
        let output = self.go();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        for secret in [KEY, TOKEN] {
            assert!(!out.contains(secret) && !err.contains(secret), "{out}{err}");
        }
        (output.status.code(), out, err)
    }
}

fn decide(lapi: &Lapi, decision: &[&str]) {
    let add = ["decisions", "add", "--duration", "1h"];
    lapi.cscli(&[&add[..], decision].concat());
}

/// What a Pushgateway received last: request line and body.
fn pushed(gateway: &Origin) -> (String, String) {
    let seen = gateway.seen();
    let last = seen.last().expect("something was pushed");
    (
        last.line.clone(),
        String::from_utf8_lossy(&last.body).into_owned(),
    )
}

#[test]
fn the_list_becomes_what_lapi_says() {
    let (lapi, sim, gateway) = (Lapi::start(), Cloudflare::start(&[]), Origin::start());
    decide(&lapi, &["--ip", "192.0.2.1"]);
    decide(&lapi, &["--ip", "192.0.2.2", "--type", "captcha"]);
    decide(&lapi, &["--ip", "192.0.2.3", "--type", "throttle"]);
    decide(&lapi, &["--ip", "2001:db8::1"]);
    decide(&lapi, &["--ip", "2001:db8::2"]);
    decide(&lapi, &["--range", "198.51.100.0/24"]);
    decide(&lapi, &["--scope", "username", "--value", "bob"]);
    sim.fill(&[("9.9.9.9", "by hand"), ("192.0.2.2", "the cron job")]);
    let (url, push) = (lapi.url() + "/", format!("http://{}/", gateway.address));
    let run = Run::of(&url, &sim).with("PUSHGATEWAY_URL", &push);
    let (code, out, err) = run.said();
    assert_eq!(
        (code, &*out),
        (Some(0), "+3 / -1 (desired=4, was=2)\n"),
        "{err}"
    );
    assert_eq!(
        sim.listed(),
        ["192.0.2.1", "192.0.2.2", "198.51.100.0/24", "2001:db8::/64"]
    );
    let (line, body) = pushed(&gateway);
    assert_eq!(line, "PUT /metrics/job/crowdsec-cf-list-sync HTTP/1.1");
    assert!(body.contains("crowdsec_cf_list_ban_count 4\n"), "{body}");
    assert!(body.contains("crowdsec_cf_list_sync_success 1\n"), "{body}");
    assert!(
        body.contains("crowdsec_cf_list_sync_last_run_seconds 1"),
        "{body}"
    );

    let (code, out, _) = run.said();
    assert_eq!((code, &*out), (Some(0), "+0 / -0 (desired=4, was=4)\n"));
    lapi.cscli(&["decisions", "delete", "--ip", "2001:db8::1"]);
    assert_eq!(
        run.said().1,
        "+0 / -0 (desired=4, was=4)\n",
        "the other holds the prefix"
    );
    lapi.cscli(&["decisions", "delete", "--all"]);
    assert_eq!(run.said().1, "+0 / -4 (desired=0, was=4)\n");
    assert_eq!(sim.listed(), [""; 0]);
}

#[test]
fn an_unreadable_lapi_leaves_the_list_untouched() {
    let (mut lapi, sim, gateway) = (Lapi::start(), Cloudflare::start(&[]), Origin::start());
    sim.fill(&[("192.0.2.1", ""), ("192.0.2.2", "")]);
    let (url, push) = (lapi.url(), format!("http://{}", gateway.address));
    let check = |run: Run<'_>, why: &str| {
        let (code, out, err) = run.with("PUSHGATEWAY_URL", &push).said();
        assert_eq!((code, &*out), (Some(0), ""), "{err}");
        assert!(err.starts_with("skip: ") && err.contains(why), "{err}");
        let (_, body) = pushed(&gateway);
        assert!(body.contains("crowdsec_cf_list_sync_success 0\n"), "{body}");
        assert!(body.contains("crowdsec_cf_list_ban_count 2\n"), "{body}");
    };
    check(Run::of(&url, &sim).with("LAPI_KEY", "another"), "403");
    lapi.stop();
    check(Run::of(&url, &sim), "refused");
    // Something that answers, but is no LAPI.
    let other = format!("http://{}", gateway.address);
    check(Run::of(&other, &sim), "expected value");
    assert_eq!(sim.listed().len(), 2);
    assert_eq!(
        sim.count("POST") + sim.count("DELETE") + sim.count("PUT"),
        0
    );
}

#[test]
fn an_error_of_cloudflare_is_one_line_and_exit_code_1() {
    let (lapi, sim, gateway) = (Lapi::start(), Cloudflare::start(&[]), Origin::start());
    decide(&lapi, &["--ip", "192.0.2.1"]);
    let (url, push) = (lapi.url(), format!("http://{}", gateway.address));
    let check = |run: Run<'_>, words: &[&str]| {
        let (code, out, err) = run.with("PUSHGATEWAY_URL", &push).said();
        assert_eq!(
            (code, &*out, err.lines().count()),
            (Some(1), "", 1),
            "{err}"
        );
        for word in words {
            assert!(err.contains(word), "no {word} in {err}");
        }
        let (_, body) = pushed(&gateway);
        assert!(body.contains("crowdsec_cf_list_sync_success 0\n"), "{body}");
    };
    let long = "x".repeat(2000) + "\nthe end";
    sim.fault(json!({ "method": "POST", "status": 500, "body": long }));
    check(
        Run::of(&url, &sim),
        &["POST http://", &format!("/lists/{LIST}/items"), "500 xxx"],
    );
    let (_, _, err) = {
        sim.fault(json!({ "method": "POST", "status": 500, "body": long }));
        Run::of(&url, &sim).said()
    };
    assert!(err.len() < 800 && !err.contains("the end"), "{err}");
    sim.fault(json!({ "method": "GET", "drop": "before" }));
    check(Run::of(&url, &sim), &["GET http://"]);
    sim.fault(json!({ "operation": { "fail": "no such luck" } }));
    check(Run::of(&url, &sim), &["failed: no such luck"]);
    check(
        Run::of(&url, &sim).with("CF_ACCOUNT_ID", "0000"),
        &["10000", "403"],
    );
    assert_eq!(Run::of(&url, &sim).said().1, "+1 / -0 (desired=1, was=0)\n");
}

#[test]
fn a_missing_variable_stops_it_at_once() {
    let output = Jailgate::command()
        .arg("sync")
        .env_clear()
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{err}");
    for name in [
        "LAPI_KEY",
        "CF_ACCOUNT_ID",
        "CF_API_TOKEN",
        "CF_BAN_LIST_ID",
    ] {
        assert!(err.contains(name), "no {name} in {err}");
    }
}

#[test]
fn a_hanging_operation_defers_the_rest() {
    let (lapi, sim) = (Lapi::start(), Cloudflare::start(&[]));
    decide(&lapi, &["--ip", "192.0.2.1"]);
    sim.fill(&[("9.9.9.9", "")]);
    sim.fault(json!({ "operation": { "hang": true } }));
    let url = lapi.url();
    let (code, out, err) = Run::of(&url, &sim).said();
    assert_eq!((code, &*out), (Some(0), ""), "{err}");
    assert!(err.contains("still pending"), "{err}");
    assert_eq!(
        (sim.count("POST"), sim.count("DELETE")),
        (1, 0),
        "{:#?}",
        sim.asked()
    );
    sim.release();
    assert_eq!(Run::of(&url, &sim).said().1, "+0 / -1 (desired=1, was=2)\n");
}

#[test]
fn patience_is_kept_within_the_budget() {
    let (lapi, sim) = (Lapi::start(), Cloudflare::start(&[]));
    decide(&lapi, &["--ip", "192.0.2.1"]);
    let url = lapi.url();
    sim.fault(json!({ "method": "POST", "status": 429, "code": 971, "retry_after": 2 }));
    let (code, out, err) = Run::of(&url, &sim).said();
    assert_eq!(
        (code, &*out),
        (Some(0), "+1 / -0 (desired=1, was=0)\n"),
        "{err}"
    );
    lapi.cscli(&["decisions", "delete", "--all"]);
    sim.fault(json!({ "method": "DELETE", "status": 429, "code": 971 }));
    let began = std::time::Instant::now();
    let (code, _, err) = Run::of(&url, &sim).said();
    assert_eq!(code, Some(1), "five minutes are too long: {err}");
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_list_without_room_takes_what_ends_last() {
    let (lapi, sim) = (Lapi::start(), Cloudflare::start(&["quota=3"]));
    for (ip, hours) in [
        ("192.0.2.1", "2h"),
        ("192.0.2.2", "5h"),
        ("192.0.2.3", "1h"),
        ("192.0.2.4", "3h"),
        ("192.0.2.5", "4h"),
    ] {
        lapi.cscli(&["decisions", "add", "--ip", ip, "--duration", hours]);
    }
    let url = lapi.url();
    let (code, out, err) = Run::of(&url, &sim).with("CF_LIST_CAPACITY", "2").said();
    assert_eq!(
        (code, &*out),
        (Some(0), "+2 / -0 (desired=5, was=0)\n"),
        "{err}"
    );
    assert!(err.contains("3 bans have no room"), "{err}");
    assert_eq!(sim.listed(), ["192.0.2.2", "192.0.2.5"]);
    // The quota itself is lower than what was said.
    let (code, _, err) = Run::of(&url, &sim).said();
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(sim.listed(), ["192.0.2.2", "192.0.2.4", "192.0.2.5"]);
}
