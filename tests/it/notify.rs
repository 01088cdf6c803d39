//! Notifications as their receivers get them: of bans that real requests caused, and of
//! `jailgate notify test`.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Output,
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{Jailgate, get};

/// Longer than any message takes that is due.
const SOON: Duration = Duration::from_secs(20);

/// An HTTP receiver that answers with these statuses in turn, then with 200, and hands on the bodies.
fn receiver(statuses: &'static [u16]) -> (SocketAddr, Receiver<(Instant, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, received) = channel();
    std::thread::spawn(move || {
        let mut statuses = statuses.iter();
        for stream in listener.incoming().map_while(Result::ok) {
            let status = statuses.next().unwrap_or(&200);
            if sender
                .send((Instant::now(), take(stream, *status)))
                .is_err()
            {
                break;
            }
        }
    });
    (address, received)
}

fn take(mut stream: TcpStream, status: u16) -> String {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line).unwrap() > 2 {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let answer = format!(
        "HTTP/1.1 {status} x\r\nlocation: /elsewhere\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).unwrap();
    String::from_utf8(body).unwrap()
}

/// Every request of a client of ours is its last; loopback speaks for others.
fn config(notify: &str) -> String {
    format!(
        "entryPoints:\n  web:\n    address: \"127.0.0.1:0\"\n    \
         forwardedHeaders: {{ trustedIPs: [\"127.0.0.1/32\"] }}\n\
         routes:\n  - {{ service: whoami@internal, jails: [web] }}\n\
         jails:\n  web: {{ rules: {{ maxretry: 1, bantime: 1h }} }}\n\
         admin: {{ address: \"127.0.0.1:0\" }}\nstate: {{ path: \"\" }}\nnotify:\n{notify}"
    )
}

#[track_caller]
fn ban(program: &Jailgate, last: u8, path: &str) {
    let from = format!("X-Forwarded-For: 203.0.113.{last}\r\n");
    assert_eq!(get(program.address("web"), path, &from).status, 403);
}

#[test]
fn a_ban_is_told_and_no_second_message_follows_within_the_minute() {
    let (hook, received) = receiver(&[]);
    let program = Jailgate::run(&config(&format!(
        "  - webhook: {{ url: \"http://{hook}/hunter2\" }}\n"
    )));
    ban(&program, 1, "/login?password=hunter2");
    let (_, body) = received.recv_timeout(SOON).unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["count"], 1);
    let event = &body["events"][0];
    assert_eq!(
        (&event["client"], &event["jail"]),
        (&"203.0.113.1".into(), &"web".into())
    );
    assert_eq!(
        (&event["event"], &event["path"]),
        (&"ban".into(), &"/login".into())
    );
    for last in 2..40 {
        ban(&program, last, "/");
    }
    let silence = received.recv_timeout(Duration::from_secs(4));
    assert_eq!(
        silence.map(|(_, body)| body),
        Err(RecvTimeoutError::Timeout)
    );
    // What the minute gathered is not lost when the program ends within it.
    program.signal("TERM");
    let (_, body) = received.recv_timeout(SOON).unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&body["count"], body["events"].as_array().unwrap().len()),
        (&38.into(), 5)
    );
    assert!(!program.text().contains("hunter2"), "a secret is logged");
}

#[test]
fn a_target_that_is_down_is_tried_again_and_a_reload_changes_targets() {
    let (hook, received) = receiver(&[500, 302]);
    let target = |hook: SocketAddr| {
        config(&format!(
            "  - slack: {{ url: \"http://{hook}/services/hunter2\" }}\n    interval: 1s\n"
        ))
    };
    let program = Jailgate::run(&target(hook));
    ban(&program, 1, "/");
    let times: Vec<_> = (0..3)
        .map(|_| received.recv_timeout(SOON).unwrap())
        .collect();
    assert!(times.iter().all(|(_, body)| body.contains("203.0.113.1")));
    assert!(times[1].0 - times[0].0 >= Duration::from_millis(900));
    assert!(
        times[2].0 - times[1].0 >= Duration::from_millis(1900),
        "the pause doubles"
    );
    let said = program.wait_for("redirects are not followed");
    assert!(said.contains("302"), "{said}");

    let (other, received_there) = receiver(&[]);
    program.rewrite(&target(other));
    program.wait_for("configuration reloaded");
    ban(&program, 2, "/");
    let (_, body) = received_there.recv_timeout(SOON).unwrap();
    assert!(
        body.contains("203.0.113.2") && !body.contains("203.0.113.1"),
        "{body}"
    );
    assert!(received.try_recv().is_err());
    assert!(!program.text().contains("hunter2"), "a secret is logged");
}

fn test_command(notify: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("jailgate.yaml");
    fs::write(&file, config(notify)).unwrap();
    let mut command = Jailgate::command();
    command.args(["notify", "test", "-c"]).arg(&file);
    command.output().unwrap()
}

#[test]
fn notify_test_says_what_happened_to_each_target() {
    let (good, received) = receiver(&[]);
    let (moved, _keep) = receiver(&[301]);
    let mail = mail_server();
    let output = test_command(&format!(
        "  - ntfy: {{ url: \"http://{good}\", topic: hunter2 }}\n    on: failing\n\
         \x20 - webhook: {{ url: \"http://{moved}/hunter2\" }}\n\
         \x20 - webhook: {{ url: \"http://169.254.169.254/latest/hunter2\" }}\n\
         \x20 - email: {{ smtp: \"{mail}\", tls: none, from: a@example.com, to: b@example.com,\n\
         \x20     username: u, password: hunter2 }}\n\
         \x20 - email: {{ smtp: \"{mail}\", from: a@example.com, to: b@example.com }}\n"
    ));
    let said = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(lines[0], "ntfy: sent");
    assert_eq!(
        lines[1],
        "webhook: failed: the answer is 301 Moved Permanently, and redirects are not followed"
    );
    assert_eq!(
        lines[2],
        "webhook 2: failed: 169.254.169.254 is link-local or a metadata service; \
         `allowLocal: true` permits it"
    );
    assert_eq!(lines[3], "email: sent");
    assert!(
        lines[4].starts_with("email 2: failed: the mail server did not take it: "),
        "{said}"
    );
    assert_eq!(lines.len(), 5);
    assert!(!said.contains("hunter2") && output.stderr.is_empty());
    let (_, body) = received.recv_timeout(SOON).unwrap();
    assert!(body.contains("this is a test"), "{body}");

    let output = test_command(&format!("  - slack: {{ url: \"http://{good}/\" }}\n"));
    assert_eq!(output.status.code(), Some(0));
}

/// Takes a login and every letter; offers no STARTTLS.
fn mail_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut writer = stream.try_clone().unwrap();
            let mut say = move |text: &str| writer.write_all(text.as_bytes()).is_ok();
            let mut inside = false;
            say("220 here\r\n");
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            for line in lines.map_while(Result::ok) {
                let answer = match (inside, line.get(..4).unwrap_or(&line)) {
                    (true, ".") => "250 taken\r\n",
                    (true, _) => continue,
                    (false, "EHLO") => "250-here\r\n250 AUTH PLAIN\r\n",
                    (false, "AUTH") => "235 welcome\r\n",
                    (false, "DATA") => "354 go on\r\n",
                    (false, "QUIT") => break,
                    (false, _) => "250 fine\r\n",
                };
                inside = answer.starts_with("354");
                if !say(answer) {
                    break;
                }
            }
        }
    });
    address
}
