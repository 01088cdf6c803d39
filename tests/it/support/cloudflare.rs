//! The simulator of Cloudflare's lists (compose/cloudflare-sim) as a child process on a free port.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::raw::{Answer, send};

/// The simulator's account.
pub const ACCOUNT: &str = "aaaabbbbccccddddeeeeffff00001111";
/// Its one list.
pub const LIST: &str = "fedcba9876543210fedcba9876543210";
/// The token it takes.
pub const TOKEN: &str = "simulated-token";

/// A running simulator with one empty list. Killed by pid when dropped.
pub struct Cloudflare {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Cloudflare {
    /// Starts it with these settings, `key=value`.
    #[track_caller]
    pub fn start(settings: &[&str]) -> Self {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/compose/cloudflare-sim/sim.py");
        let mut command = Command::new("python3");
        command
            .arg(program)
            .args(["--account", ACCOUNT, "--list"])
            .arg(format!("{LIST}=bans"));
        for setting in settings {
            command.args(["--set", setting]);
        }
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        stdout
            .read_line(&mut line)
            .expect("it says where it listens");
        let address = line.trim().strip_prefix("listening on ");
        let address = address.and_then(|address| address.parse().ok());
        Self {
            address: address.unwrap_or_else(|| panic!("{line:?}")),
            child,
        }
    }

    /// Base URL of its API.
    pub fn url(&self) -> String {
        format!("http://{}/client/v4", self.address)
    }

    /// One request to the API, as an HTTP client would send it.
    #[track_caller]
    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.send(
            method,
            &format!("/client/v4/accounts/{ACCOUNT}/rules{path}"),
            body,
        )
    }

    #[track_caller]
    fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let body = body.map(Value::to_string).unwrap_or_default();
        let length = body.len();
        let headers = format!(
            "Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n"
        );
        send(self.address, method, path, &headers, &body)
    }

    #[track_caller]
    fn control(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.send(method, &format!("/_sim{path}"), Some(body));
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        body["result"].clone()
    }

    /// Makes requests fail: see the simulator's `fault`. `{"operation": …}` is the fate of the
    /// next operation.
    #[track_caller]
    pub fn fault(&self, fault: Value) {
        self.control("POST", "/faults", &fault);
    }

    /// Lets hanging operations end.
    #[track_caller]
    pub fn release(&self) {
        self.control("POST", "/release", &json!({}));
    }

    /// Puts exactly these items into the list: address and comment.
    #[track_caller]
    pub fn fill(&self, items: &[(&str, &str)]) {
        let items = items
            .iter()
            .map(|(ip, comment)| json!({ "ip": ip, "comment": comment }));
        let items: Vec<Value> = items.collect();
        self.control("PUT", &format!("/lists/{LIST}"), &json!({ "items": items }));
    }

    /// Lets a rule refer to the list.
    #[track_caller]
    pub fn refer(&self) {
        self.control(
            "PUT",
            &format!("/lists/{LIST}"),
            &json!({ "references": 1 }),
        );
    }

    /// The operations of the schema that it answers, ordered.
    #[track_caller]
    pub fn routes(&self) -> Vec<String> {
        let routes = self.control("GET", "/routes", &json!({}));
        let names = routes.as_array().expect("routes").iter();
        let names = names.map(|route| route["operation"].as_str().expect("a name").to_owned());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// User-Agents of the requests so far.
    #[track_caller]
    pub fn agents(&self) -> Vec<String> {
        let log = self.control("GET", "/log", &json!({}));
        let entries = log.as_array().expect("a log").iter();
        entries
            .map(|entry| entry["agent"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// Addresses and comments in the list, ordered.
    #[track_caller]
    pub fn items(&self) -> Vec<(String, String)> {
        let lists = self.control("GET", "/items", &json!({}));
        let text = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
        let items = lists["bans"].as_array().expect("the list").iter();
        let mut items: Vec<_> = items
            .map(|item| (text(item, "ip"), text(item, "comment")))
            .collect();
        items.sort();
        items
    }

    /// Addresses in the list, ordered.
    #[track_caller]
    pub fn listed(&self) -> Vec<String> {
        self.items().into_iter().map(|(ip, _)| ip).collect()
    }

    /// Waits at most `wait` until the list holds exactly these and answers how long that took.
    #[track_caller]
    pub fn until(&self, wait: Duration, expected: &[&str]) -> Duration {
        let began = Instant::now();
        loop {
            let listed = self.listed();
            if listed == expected {
                return began.elapsed();
            }
            assert!(
                began.elapsed() < wait,
                "after {wait:?} it lists {listed:?}, not {expected:?}\n{:#?}",
                self.asked()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Every request to the API so far: `POST /lists/…/items 200`, the account left out.
    #[track_caller]
    pub fn asked(&self) -> Vec<String> {
        let log = self.control("GET", "/log", &json!({}));
        let prefix = format!("/accounts/{ACCOUNT}/rules");
        let line = |entry: &Value| {
            let path = entry["path"]
                .as_str()
                .expect("a path")
                .replacen(&prefix, "", 1);
            let path = path.replace(LIST, "LIST");
            let query = entry["query"].as_str().filter(|query| !query.is_empty());
            let query = query.map(|query| format!("?{query}")).unwrap_or_default();
            let status = entry["status"].to_string().replace('"', "");
            format!(
                "{} {path}{query} {status}",
                entry["method"].as_str().expect("a method")
            )
        };
        log.as_array().expect("a log").iter().map(line).collect()
    }

    /// How many requests so far begin with `text`.
    #[track_caller]
    pub fn count(&self, text: &str) -> usize {
        self.asked()
            .iter()
            .filter(|line| line.starts_with(text))
            .count()
    }
}

impl Drop for Cloudflare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
