//! The jailgate binary as a child process with its own directory.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// A running jailgate. Killed by pid when dropped.
pub struct Jailgate {
    child: Child,
    dir: TempDir,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

impl Jailgate {
    /// Starts `jailgate run` on this configuration and waits until it says that it is ready.
    /// Listen on port 0 and ask [`Jailgate::address`]; `admin` is set to port 0 when absent.
    #[track_caller]
    pub fn run(config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self::run_in(dir, config)
    }

    /// The same in a directory that holds other files already.
    #[track_caller]
    pub fn run_in(dir: TempDir, config: &str) -> Self {
        let mut config = config.to_owned();
        if !config.contains("\nadmin:") && !config.starts_with("admin:") {
            config.push_str("\nadmin: { address: \"127.0.0.1:0\" }\n");
        }
        if !config.contains("\nstate:") && !config.starts_with("state:") {
            config.push_str("state: { path: \"\" }\n");
        }
        let file = dir.path().join("jailgate.yaml");
        fs::write(&file, config).expect("the configuration is written");
        let mut command = Self::command();
        command.arg("run").arg("-c").arg(&file);
        let program = Self::start(command, dir);
        program.wait_for("ready");
        program
    }

    /// The binary under test, not yet started.
    pub fn command() -> Command {
        Command::new(env!("CARGO_BIN_EXE_jailgate"))
    }

    /// Starts any command line of the binary and reads its standard error.
    #[track_caller]
    pub fn start(mut command: Command, dir: TempDir) -> Self {
        let mut child = command
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("jailgate starts");
        let log = Arc::new(Log::default());
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let sink = log.clone();
        let reader = std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                sink.lines.lock().unwrap().push(line);
                sink.grown.notify_all();
            }
        });
        Self {
            child,
            dir,
            log,
            reader: Some(reader),
        }
    }

    /// Ends it by a signal; answers its directory, for a next life, and its whole log.
    #[track_caller]
    pub fn stop(mut self, signal: &str) -> (TempDir, String) {
        self.signal(signal);
        self.wait();
        let reader = self.reader.take().expect("it is stopped once");
        reader.join().expect("the log is read");
        let elsewhere = tempfile::tempdir().expect("a temporary directory");
        (std::mem::replace(&mut self.dir, elsewhere), self.text())
    }

    /// The address an entry point (or `admin`, `forwardAuth`) was bound to. Waits for the line
    /// that says it: who learns of readiness otherwise (systemd's socket) may be ahead of the log.
    #[track_caller]
    pub fn address(&self, name: &str) -> SocketAddr {
        let line = self.wait_for(&format!("listening name=\"{name}\""));
        let (_, rest) = line.split_once("address=").expect("it names its address");
        let address = rest.split_whitespace().next().unwrap_or_default();
        address.trim_matches('"').parse().expect("an address")
    }

    /// Waits at most 20 s for a log line that contains `text` and answers it.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        self.wait_for_within(text, Duration::from_secs(20))
    }

    /// The same with another patience.
    #[track_caller]
    pub fn wait_for_within(&self, text: &str, wait: Duration) -> String {
        let deadline = Instant::now() + wait;
        let mut lines = self.log.lines.lock().unwrap();
        loop {
            if let Some(line) = lines.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no `{text}` in:\n{}", lines.join("\n"));
            lines = self.log.grown.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// How many log lines so far contain `text`.
    pub fn count(&self, text: &str) -> usize {
        let lines = self.log.lines.lock().unwrap();
        lines.iter().filter(|line| line.contains(text)).count()
    }

    /// The whole log so far.
    pub fn text(&self) -> String {
        // Also while a test fails that waits for a line.
        let lines = self.log.lines.lock();
        let lines = lines.unwrap_or_else(PoisonError::into_inner);
        lines.join("\n")
    }

    /// Its working directory, with `jailgate.yaml` in it.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Replaces the configuration file in one rename, as editors do.
    pub fn rewrite(&self, config: &str) {
        let next: PathBuf = self.path().join("jailgate.yaml.next");
        fs::write(&next, config).expect("written");
        fs::rename(next, self.path().join("jailgate.yaml")).expect("renamed");
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name (`TERM`, `HUP`, `KILL`).
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status()
            .expect("kill runs");
        assert!(status.success(), "kill -{name} {}", self.pid());
    }

    /// Waits at most 20 s for the end and answers the exit code.
    #[track_caller]
    pub fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().expect("waited") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "still running:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Resident memory in KiB.
    pub fn rss_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// The same without the pages of the program's own file, which a new errand brings in.
    pub fn anon_kib(&self) -> u64 {
        self.status_kib("RssAnon:")
    }

    fn status_kib(&self, key: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("alive");
        status
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .expect("Linux tells it")
    }
}

impl Drop for Jailgate {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- jailgate's log ---\n{}", self.text());
        }
    }
}
