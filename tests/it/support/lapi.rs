//! The real LAPI 1.4.6 of Debian's package, unpacked by tests/tools.sh: started on a free port in
//! its own directory, asked as `cscli` and as a bouncer would, stopped and started again.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{Raw, free_port, get};

/// The machine that tests publish as.
pub const MACHINE: &str = "jailgate";
/// Its password.
pub const PASSWORD: &str = "machine-password-of-the-tests";
/// The bouncer key that jailgate subscribes with.
pub const KEY: &str = "0123456789abcdef0123456789abcdef";
/// A second bouncer, for looking: two readers of one key take each other's changes.
const SPY: &str = "fedcba9876543210fedcba9876543210";

/// A LAPI with one machine and two bouncers. Ended by pid when dropped.
pub struct Lapi {
    child: Option<Child>,
    dir: TempDir,
    /// Where it listens, also after a restart.
    pub address: SocketAddr,
    scheme: &'static str,
}

/// An active decision.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decision {
    /// `Ip` or `Range`, as stored.
    pub scope: String,
    /// Address or network, as stored.
    pub value: String,
    /// Who decided.
    pub origin: String,
    /// Why.
    pub scenario: String,
    /// `ban`, `captcha`, …
    pub kind: String,
    /// What is left, in seconds.
    pub left: i64,
}

impl Lapi {
    /// Starts one that keeps a hundred thousand alerts.
    #[track_caller]
    pub fn start() -> Self {
        Self::with("flush: {max_items: 100000, max_age: 7d}", "")
    }

    /// The same with these keys in its `db_config` and `api.server` blocks (flow style, each
    /// `key: value` on one line). `DIR` is its directory.
    #[track_caller]
    pub fn with(database: &str, server: &str) -> Self {
        Self::in_dir(
            tempfile::tempdir().expect("a temporary directory"),
            database,
            server,
        )
    }

    /// The same in a directory that holds files already.
    #[track_caller]
    pub fn in_dir(dir: TempDir, database: &str, server: &str) -> Self {
        let port = free_port();
        let write = |name: &str, text: String| {
            fs::write(dir.path().join(name), text).expect("the configuration is written");
        };
        let root = dir.path().display().to_string();
        let config = format!(
            "common: {{daemonize: false, log_media: stdout, log_level: info}}\n\
             config_paths: {{config_dir: DIR, data_dir: DIR, hub_dir: DIR}}\n\
             db_config:\n  type: sqlite\n  db_path: DIR/cs.db\n  use_wal: true\n  {database}\n\
             api:\n  client: {{credentials_path: DIR/client.yaml, insecure_skip_verify: true}}\n  server:\n    \
             listen_uri: 127.0.0.1:{port}\n    profiles_path: DIR/profiles.yaml\n    \
             console_path: DIR/console.yaml\n    {server}\n\
             prometheus: {{enabled: false}}\n"
        );
        write("config.yaml", config.replace("DIR", &root));
        write(
            "profiles.yaml",
            "name: none\nfilters:\n - \"false\"\n".to_owned(),
        );
        write("console.yaml", "{}\n".to_owned());
        write("client.yaml", String::new());
        let mut lapi = Self {
            child: None,
            dir,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            scheme: if server.contains("tls:") {
                "https"
            } else {
                "http"
            },
        };
        let client = lapi.path().join("client.yaml").display().to_string();
        lapi.cscli(&[
            "machines", "add", MACHINE, "-p", PASSWORD, "-f", &client, "--force",
        ]);
        let credentials = fs::read_to_string(&client).expect("cscli wrote it");
        let credentials = credentials.replace("http:", &format!("{}:", lapi.scheme));
        fs::write(&client, credentials).expect("the credentials are written");
        lapi.cscli(&["bouncers", "add", "jailgate", "-k", KEY]);
        lapi.cscli(&["bouncers", "add", "spy", "-k", SPY]);
        lapi.begin();
        lapi
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Ends it; its database stays.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let deadline = Instant::now() + Duration::from_secs(5);
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it (again) on its port.
    #[track_caller]
    pub fn begin(&mut self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path().join("output.log"))
            .expect("a log");
        let child = self
            .command("crowdsec")
            .arg("-no-cs")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("crowdsec: {error} (`make test` unpacks it)"));
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(self.address).is_err() {
            assert!(
                Instant::now() < deadline,
                "it does not listen:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs `cscli` on its database and answers what it printed.
    #[track_caller]
    pub fn cscli(&self, arguments: &[&str]) -> String {
        let output = self.command("cscli").args(arguments).output();
        let output =
            output.unwrap_or_else(|error| panic!("cscli: {error} (`make test` unpacks it)"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cscli {arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Stores alerts (the body of `POST /v1/alerts`) as the machine.
    #[track_caller]
    pub fn post_alerts(&self, alerts: &str) {
        let send = |path: &str, headers: &str, body: &str| {
            let mut raw = Raw::connect(self.address);
            let length = body.len();
            raw.send(format!(
                "POST {path} HTTP/1.1\r\nHost: lapi\r\nUser-Agent: test/1\r\nConnection: close\r\n\
                 {headers}Content-Length: {length}\r\n\r\n{body}"
            ));
            raw.answer()
        };
        let login = format!("{{\"machine_id\":\"{MACHINE}\",\"password\":\"{PASSWORD}\"}}");
        let answer = send("/v1/watchers/login", "", &login);
        let token: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let token = token["token"].as_str().expect("a token");
        let answer = send(
            "/v1/alerts",
            &format!("Authorization: Bearer {token}\r\n"),
            alerts,
        );
        assert_eq!(answer.status, 201, "{}", answer.text());
    }

    /// Puts alerts of jailgate's into its database, one a second up to now and each with a decision
    /// for a client from 12.0.0.0 on: as many take minutes to be posted.
    pub fn fill(&mut self, alerts: u32) {
        self.stop();
        let time = |past: &str| format!("strftime('%Y-%m-%d %H:%M:%f', 'now', {past}) || '+00:00'");
        let (came, ends) = (time("(i - number) || ' seconds'"), time("'4 hours'"));
        let client = "printf('12.%d.%d.%d', i >> 16, (i >> 8) & 255, i & 255)";
        let each = format!(
            "WITH RECURSIVE n(i, number) AS \
             (SELECT 1, {alerts} UNION ALL SELECT i + 1, number FROM n WHERE i < number)"
        );
        let fill = format!(
            "BEGIN;
             INSERT INTO alerts (id, created_at, updated_at, started_at, stopped_at, scenario, \
             message, source_scope, source_value, source_ip, capacity, leak_speed, \
             scenario_version, scenario_hash, simulated) \
             {each} SELECT i, {came}, {came}, {came}, {came}, 'jailgate/web', '', 'Ip', {client}, \
             {client}, 0, '0', '', '', 0 FROM n;
             INSERT INTO decisions (created_at, updated_at, until, scenario, type, start_ip, \
             end_ip, start_suffix, end_suffix, ip_size, scope, value, origin, simulated, \
             alert_decisions) \
             {each} SELECT {came}, {came}, {ends}, 'jailgate/web', 'ban', (12 << 24) + i, \
             (12 << 24) + i, 0, 0, 4, 'Ip', {client}, 'jailgate', 0, i FROM n;
             COMMIT;"
        );
        let db = rusqlite::Connection::open(self.path().join("cs.db")).expect("its database");
        db.execute_batch(&fill).expect("its tables are as in 1.4.6");
        drop(db);
        self.begin();
    }

    /// Its own database, read beside it.
    pub fn db(&self) -> rusqlite::Connection {
        let read = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let db = rusqlite::Connection::open_with_flags(self.path().join("cs.db"), read);
        db.expect("its database")
    }

    /// How many decisions it ever made for this address.
    pub fn made_for(&self, address: &str) -> u32 {
        let count = "SELECT count(*) FROM decisions WHERE value = ?1";
        self.db()
            .query_one(count, [address], |row| row.get(0))
            .expect("its tables are as in 1.4.6")
    }

    /// Every active decision of scope Ip or Range, ordered by scope and value. Over plain HTTP.
    #[track_caller]
    pub fn decisions(&self) -> Vec<Decision> {
        let path = "/v1/decisions?scopes=Ip,Range";
        let answer = get(self.address, path, &format!("X-Api-Key: {SPY}\r\n"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let text = |row: &Value, key: &str| row[key].as_str().expect("text").to_owned();
        let rows = body.as_array().cloned().unwrap_or_default();
        let mut all: Vec<Decision> = rows
            .iter()
            .map(|row| Decision {
                scope: text(row, "scope"),
                value: text(row, "value"),
                origin: text(row, "origin"),
                scenario: text(row, "scenario"),
                kind: text(row, "type"),
                left: seconds(&text(row, "duration")),
            })
            .collect();
        all.sort();
        all
    }

    /// Waits at most `wait` until the active decisions are so, and answers them.
    #[track_caller]
    pub fn until(&self, wait: Duration, so: impl Fn(&[Decision]) -> bool) -> Vec<Decision> {
        let deadline = Instant::now() + wait;
        loop {
            let now = self.decisions();
            if so(&now) {
                return now;
            }
            assert!(
                Instant::now() < deadline,
                "after {wait:?} there are {}: {:?}\n{}",
                now.len(),
                now.iter().take(20).collect::<Vec<_>>(),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What it logged, its last 4,000 bytes.
    pub fn log(&self) -> String {
        let text = fs::read(self.path().join("output.log")).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(4000)..]).into_owned()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(tree().join("usr/bin").join(program));
        command.arg("-c").arg(self.path().join("config.yaml"));
        command.current_dir(self.path());
        command
    }
}

impl Drop for Lapi {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Where tests/tools.sh unpacked the package.
fn tree() -> PathBuf {
    tools().join("crowdsec")
}

/// Where tests/tools.sh keeps what it fetched.
pub fn tools() -> PathBuf {
    let set = |name| std::env::var_os(name).map(PathBuf::from);
    let home = || Some(set("HOME")?.join(".cache"));
    let cache = || Some(set("XDG_CACHE_HOME").or_else(home)?.join("jailgate"));
    let tools = set("JAILGATE_TOOLS").or_else(cache);
    tools.expect("HOME is set")
}

/// Whole seconds of a Go duration such as `3h59m59.2s`.
fn seconds(go: &str) -> i64 {
    let (mut total, mut number) = (0.0, String::new());
    let mut units = go.trim_start_matches('-').chars().peekable();
    while let Some(c) = units.next() {
        if c.is_ascii_digit() || c == '.' {
            number.push(c);
            continue;
        }
        let milli = c == 'm' && units.next_if_eq(&'s').is_some();
        let scale = match c {
            'h' => 3600.0,
            'm' if milli => 0.001,
            'm' => 60.0,
            's' => 1.0,
            _ => 0.0,
        };
        total += scale * number.parse::<f64>().unwrap_or(0.0);
        number.clear();
    }
    total as i64
}
