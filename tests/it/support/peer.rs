//! Real servers and clients from Debian's packages, each in its own directory, killed by pid.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// A running server.
pub struct Peer {
    child: Child,
    dir: TempDir,
    /// Where it listens.
    pub address: SocketAddr,
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

impl Peer {
    /// nginx with this `http { … }` body; `PORT` and `DIR` in it are replaced.
    #[track_caller]
    pub fn nginx(http: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = format!(
            "daemon off; worker_processes 1; pid DIR/nginx.pid; error_log DIR/error.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; client_body_temp_path DIR/body; proxy_temp_path DIR/proxy;\n\
             fastcgi_temp_path DIR/fcgi; uwsgi_temp_path DIR/uwsgi; scgi_temp_path DIR/scgi;\n\
             {http}\n}}\n"
        );
        let file = "nginx.conf";
        Self::start(dir, file, &config, |dir| {
            let mut command = Command::new("nginx");
            command.arg("-p").arg(dir).arg("-c").arg(dir.join(file));
            command.arg("-e").arg(dir.join("error.log"));
            command
        })
    }

    /// Caddy with this Caddyfile (its admin end is switched off); `PORT` and `DIR` are replaced.
    #[track_caller]
    pub fn caddy(caddyfile: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = format!("{{\n admin off\n auto_https off\n}}\n{caddyfile}\n");
        let file = "Caddyfile";
        Self::start(dir, file, &config, |dir| {
            let mut command = Command::new("caddy");
            command.args(["run", "--adapter", "caddyfile", "--config"]);
            command.arg(dir.join(file)).env("HOME", dir);
            command
        })
    }

    /// HAProxy with these sections; `PORT` and `DIR` are replaced.
    #[track_caller]
    pub fn haproxy(sections: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = format!(
            "global\n maxconn 200\ndefaults\n mode http\n timeout connect 5s\n \
             timeout client 20s\n timeout server 20s\n{sections}\n"
        );
        let file = "haproxy.cfg";
        Self::start(dir, file, &config, |dir| {
            let mut command = Command::new("haproxy");
            command.arg("-db").arg("-f").arg(dir.join(file));
            command
        })
    }

    #[track_caller]
    fn start(dir: TempDir, file: &str, config: &str, make: impl Fn(&Path) -> Command) -> Self {
        let port = free_port();
        let root = dir.path().display().to_string();
        let config = config
            .replace("PORT", &port.to_string())
            .replace("DIR", &root);
        fs::write(dir.path().join(file), config).expect("the configuration is written");
        let log = fs::File::create(dir.path().join("output.log")).expect("a log");
        let mut command = make(dir.path());
        // Where Debian keeps servers is not on every user's path.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error} (`make test` installs it)"));
        let mut peer = Self {
            child,
            dir,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
        };
        peer.wait_until_listening();
        peer
    }

    #[track_caller]
    fn wait_until_listening(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(self.address).is_err() {
            let ended = self.child.try_wait().expect("waited");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "it does not listen: {ended:?}\n{}",
                fs::read_to_string(self.dir.path().join("output.log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // nginx's master ends its workers on TERM, not on KILL.
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
