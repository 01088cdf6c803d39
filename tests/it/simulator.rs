//! The simulator of Cloudflare's lists itself: it has the routes of the published schema, the
//! official SDK is content with it, and it refuses what Cloudflare refuses.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use serde_json::{Value, json};

use crate::support::{ACCOUNT, Answer, Cloudflare, LIST, TOKEN, tools};

fn schema() -> Value {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/cloudflare/rules-lists.openapi.yaml"
    );
    let text = fs::read_to_string(file).expect("the schema");
    serde_saphyr::from_str(&text).expect("YAML")
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{}", answer.text()))
}

fn code(answer: &Answer) -> (u16, Option<u64>) {
    (answer.status, json_of(answer)["errors"][0]["code"].as_u64())
}

fn items() -> String {
    format!("/lists/{LIST}/items")
}

fn put(sim: &Cloudflare, ips: &[&str]) -> Answer {
    let body: Vec<Value> = ips.iter().map(|ip| json!({ "ip": ip })).collect();
    sim.api("POST", &items(), Some(&json!(body)))
}

/// Waits until an operation that began with success ends, and answers it.
#[track_caller]
fn ended(sim: &Cloudflare, begun: &Answer) -> Value {
    assert_eq!(begun.status, 200, "{}", begun.text());
    let id = json_of(begun)["result"]["operation_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    for _ in 0..200 {
        let operation = json_of(&sim.api("GET", &format!("/lists/bulk_operations/{id}"), None));
        let operation = operation["result"].clone();
        if !matches!(operation["status"].as_str(), Some("pending" | "running")) {
            return operation;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("it does not end");
}

#[test]
fn it_has_the_routes_parameters_and_bodies_of_the_published_schema() {
    let sim = Cloudflare::start(&["operation_seconds=0"]);
    ended(&sim, &put(&sim, &["192.0.2.1"]));
    let first = json_of(&sim.api("GET", &items(), None))["result"][0]["id"].clone();
    let operation = json_of(&put(&sim, &["192.0.2.2"]))["result"]["operation_id"].clone();
    let filled = |path: &str| {
        path.replace("/accounts/{account_identifier}/rules", "")
            .replace("{list_id}", LIST)
            .replace("{item_id}", first.as_str().expect("an id"))
            .replace("{operation_id}", operation.as_str().expect("an id"))
    };
    let schema = schema();
    let mut known = Vec::new();
    let paths = schema["paths"].as_object().expect("paths").iter();
    for (path, verb, what) in paths.flat_map(|(path, verbs)| {
        let verbs = verbs.as_object().expect("methods").iter();
        verbs.map(move |(verb, what)| (filled(path), verb.to_uppercase(), what.clone()))
    }) {
        known.push(what["operationId"].as_str().expect("an id").to_owned());
        // Deleting the list itself comes last, in the test of the SDK.
        if what["operationId"] == "lists-delete-a-list" {
            continue;
        }
        let nothing = sim.api(&verb, &path, None);
        let envelope = json_of(&nothing);
        for key in ["success", "errors", "messages", "result"] {
            assert!(envelope.get(key).is_some(), "{verb} {path} lacks {key}");
        }
        let needs_body = what["requestBody"]["required"] == true;
        let expected = if needs_body { 400 } else { 200 };
        assert_eq!(
            nothing.status,
            expected,
            "{verb} {path}: {}",
            nothing.text()
        );
        let body = &what["requestBody"]["content"]["application/json"]["schema"];
        if body["required"].is_array() || body["properties"]["items"]["minItems"] == 1 {
            let empty = sim.api(&verb, &path, Some(&json!({ "items": [] })));
            assert_eq!(empty.status, 400, "{verb} {path}");
        }
        for parameter in what["parameters"].as_array().into_iter().flatten() {
            if parameter["in"] == "query" {
                let name = parameter["name"].as_str().expect("a name");
                let answer = sim.api(&verb, &format!("{path}?{name}="), None);
                assert_eq!(answer.status, 200, "{verb} {path}?{name}");
            }
        }
    }
    known.sort();
    assert_eq!(sim.routes(), known);
}

#[test]
fn the_official_sdk_is_content_with_it() {
    let sim = Cloudflare::start(&[]);
    let python = tools().join("cloudflare-sdk/bin/python");
    let script =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/cloudflare_sdk.py");
    let mut command = Command::new(&python);
    command.arg(script).args([&sim.url(), ACCOUNT, TOKEN]);
    let output = command.env("NO_PROXY", "127.0.0.1").output();
    let output = output.unwrap_or_else(|error| panic!("{python:?}: {error} (`make tools`)"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n");
    assert!(
        sim.agents()
            .iter()
            .any(|agent| agent.starts_with("Cloudflare/Python "))
    );
}

#[test]
fn it_refuses_what_lists_do_not_take() {
    let sim = Cloudflare::start(&["operation_seconds=0"]);
    for wrong in [
        "2001:db8::1",
        "2001:db8::/65",
        "2000::/11",
        "10.0.0.0/7",
        "10.0.0.1/8",
        "example.com",
    ] {
        assert_eq!(put(&sim, &[wrong, "192.0.2.1"]).status, 400, "{wrong}");
    }
    for double in [
        ["192.0.2.1", "192.0.2.1/32"],
        ["2001:db8::/64", "2001:DB8:0::/64"],
    ] {
        assert_eq!(code(&put(&sim, &double)), (400, Some(10028)), "{double:?}");
    }
    let long = json!([{ "ip": "192.0.2.1", "comment": "x".repeat(501) }]);
    assert_eq!(sim.api("POST", &items(), Some(&long)).status, 400);
    let none = json!({ "items": [] });
    assert_eq!(sim.api("DELETE", &items(), Some(&none)).status, 400);
    assert_eq!(sim.listed(), [""; 0], "a refused request does nothing");
    let list = json!({ "name": "a-b", "kind": "ip" });
    assert_eq!(sim.api("POST", "/lists", Some(&list)).status, 400);
    sim.refer();
    let deleted = sim.api("DELETE", &format!("/lists/{LIST}"), None);
    assert_eq!(code(&deleted), (400, Some(10031)));
}

#[test]
fn one_operation_is_pending_at_a_time_and_takes_effect_at_its_end() {
    let sim = Cloudflare::start(&["operation_seconds=0.4", "quota=2"]);
    let begun = put(&sim, &["192.0.2.1"]);
    assert_eq!(sim.listed(), [""; 0]);
    assert_eq!(code(&put(&sim, &["192.0.2.2"])).0, 429);
    assert_eq!(ended(&sim, &begun)["status"], "completed");
    // The same again replaces its comment and takes no room.
    let again = json!([{ "ip": "192.0.2.1/32", "comment": "new" }, { "ip": "192.0.2.2" }]);
    ended(&sim, &sim.api("POST", &items(), Some(&again)));
    assert_eq!(sim.items()[0], ("192.0.2.1".to_owned(), "new".to_owned()));
    let full = ended(&sim, &put(&sim, &["192.0.2.3"]));
    assert_eq!(full["error"], "This list is at the maximum number of items");
    let all = json!([{ "ip": "10.0.0.0/8" }]);
    ended(&sim, &sim.api("PUT", &items(), Some(&all)));
    assert_eq!(sim.listed(), ["10.0.0.0/8"]);
}

#[test]
fn pages_hold_25_items_and_lead_to_the_next() {
    let sim = Cloudflare::start(&["operation_seconds=0"]);
    let ips: Vec<String> = (0..60).map(|n| format!("192.0.2.{n}")).collect();
    ended(
        &sim,
        &put(&sim, &ips.iter().map(String::as_str).collect::<Vec<_>>()),
    );
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for expected in [25, 25, 10] {
        let page = json_of(&sim.api("GET", &format!("{}?cursor={cursor}", items()), None));
        let rows = page["result"].as_array().expect("rows");
        assert_eq!(rows.len(), expected);
        seen.extend(
            rows.iter()
                .map(|row| row["ip"].as_str().expect("an ip").to_owned()),
        );
        cursor = page["result_info"]["cursors"]["after"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
    }
    assert!(cursor.is_empty());
    assert_eq!(seen, ips);
    let found = json_of(&sim.api("GET", &format!("{}?search=192.0.2.5", items()), None));
    assert_eq!(
        found["result"].as_array().expect("rows").len(),
        11,
        "a search is a prefix"
    );
}

#[test]
fn too_many_requests_close_the_door_for_a_while() {
    let sim = Cloudflare::start(&["requests=5", "window=1"]);
    for _ in 0..5 {
        assert_eq!(sim.api("GET", "/lists", None).status, 200);
    }
    let refused = sim.api("GET", "/lists", None);
    assert_eq!(code(&refused), (429, Some(971)));
    let wait: u64 = refused
        .header("retry-after")
        .expect("a header")
        .parse()
        .expect("seconds");
    std::thread::sleep(Duration::from_secs(wait));
    assert_eq!(sim.api("GET", "/lists", None).status, 200);
}
