//! What a service manager sees: readiness, reloads, the watchdog, logs that are rotated.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    time::{Duration, Instant},
};

use crate::support::{Jailgate, get};

const CONFIG: &str = "entryPoints: { web: { address: \"127.0.0.1:0\" } }\n\
    routes: [{ service: whoami@internal, jails: [web] }]\njails: { web: { simulate: true } }\n\
    admin: { address: \"127.0.0.1:0\" }\nstate: { path: \"\" }\nlog: { access: access.log }\n";

/// The next message that says `word`, others passed over.
#[track_caller]
fn told(socket: &UnixDatagram, word: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut buffer = [0; 4096];
    let mut others = Vec::new();
    while Instant::now() < deadline {
        let length = socket.recv(&mut buffer).unwrap_or(0);
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if text.lines().any(|line| line == word) {
            return text;
        }
        others.push(text);
    }
    panic!("no {word} among {others:?}");
}

#[test]
fn systemd_is_told_of_readiness_life_reloads_and_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("jailgate.yaml");
    fs::write(&file, CONFIG).unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut command = Jailgate::command();
    command.arg("run").arg("-c").arg(&file);
    command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "600000");
    // From here, because beats wait in the socket while this test does other things.
    let begun = Instant::now();
    let mut program = Jailgate::start(command, dir);
    told(&socket, "READY=1");
    assert_eq!(get(program.address("web"), "/", "").status, 200);
    for _ in 0..8 {
        told(&socket, "WATCHDOG=1");
    }
    assert!(
        begun.elapsed() >= Duration::from_millis(7 * 200),
        "it beats without a pause"
    );
    program.signal("HUP");
    let reload = told(&socket, "RELOADING=1");
    assert!(reload.contains("MONOTONIC_USEC="), "{reload}");
    told(&socket, "READY=1");
    program.signal("TERM");
    told(&socket, "STOPPING=1");
    assert_eq!(program.wait(), Some(0));
}

#[test]
fn logrotate_moves_the_access_log_away_and_no_line_is_lost() {
    let program = Jailgate::run(CONFIG);
    let (log, old) = (
        program.path().join("access.log"),
        program.path().join("access.log.1"),
    );
    let has = |file: &std::path::Path, what: &str| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !fs::read_to_string(file).is_ok_and(|text| text.contains(what)) {
            assert!(Instant::now() < deadline, "no {what} in {}", file.display());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    get(program.address("web"), "/first", "");
    has(&log, "/first");
    rotate(&program);
    // The signal is on its way; until it is heard, lines go to the renamed file.
    get(program.address("web"), "/second", "");
    has(&log, "");
    let deadline = Instant::now() + Duration::from_secs(20);
    while fs::metadata(&log).unwrap().len() == 0 {
        assert!(
            Instant::now() < deadline,
            "nothing is written to the new file"
        );
        get(program.address("web"), "/third", "");
        std::thread::sleep(Duration::from_millis(20));
    }
    let both = fs::read_to_string(&old).unwrap() + &fs::read_to_string(&log).unwrap();
    for path in ["/first", "/second"] {
        assert!(both.contains(path), "no {path} in {both}");
    }
    let before = fs::read_to_string(&old).unwrap();
    get(program.address("web"), "/fourth", "");
    has(&log, "/fourth");
    assert_eq!(
        fs::read_to_string(&old).unwrap(),
        before,
        "the old file is still written"
    );
}

/// Runs logrotate with the file of `contrib/`, for the place and the process of this test.
#[track_caller]
fn rotate(program: &Jailgate) {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/logrotate/jailgate");
    let text = fs::read_to_string(file).unwrap();
    let systemctl = "systemctl kill --kill-who=main --signal=USR1 jailgate.service";
    let kill = format!("kill -USR1 {}", program.pid());
    assert!(text.contains(systemctl), "{text}");
    let dir = program.path().display();
    let text = text
        .replace(systemctl, &kill)
        .replace("/var/log/jailgate", &dir.to_string())
        .replace("create 0640 jailgate jailgate", "create 0640");
    let conf = program.path().join("logrotate.conf");
    fs::write(&conf, text).unwrap();
    fs::set_permissions(&conf, fs::Permissions::from_mode(0o644)).unwrap();
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = std::process::Command::new("logrotate")
        .env("PATH", path)
        .args(["--force", "--state"])
        .arg(program.path().join("state"))
        .arg(&conf)
        .output()
        .expect("logrotate is installed (tests/tools.sh)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
