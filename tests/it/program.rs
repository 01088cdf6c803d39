//! The program as an operator meets it: commands, exit codes, signals, reloads.

use std::{fs, process::Output, time::Duration};

use crate::support::{Jailgate, Origin, Raw, get};

/// One jail in front of one origin; clients come by X-Forwarded-For from loopback.
fn config(origin: &Origin, maxretry: u32) -> String {
    format!(
        "entryPoints:\n  web:\n    address: \"127.0.0.1:0\"\n    \
         forwardedHeaders: {{ trustedIPs: [\"127.0.0.1/32\"] }}\n\
         routes:\n  - {{ service: app, jails: [web] }}\n\
         services:\n  app: {{ servers: [{{ url: \"http://{}\" }}] }}\n\
         jails:\n  web: {{ rules: {{ maxretry: {maxretry}, findtime: 10m, bantime: 1h, \
         statuscode: \"400-499\" }} }}\n\
         admin: {{ address: \"127.0.0.1:0\" }}\nstate: {{ path: \"\" }}\n",
        origin.address
    )
}

fn run(arguments: &[&str]) -> Output {
    Jailgate::command()
        .args(arguments)
        .output()
        .expect("jailgate runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_bad_configuration_is_exit_code_78_with_every_problem_at_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("jailgate.yaml");
    let bad = "jails:\n  web:\n    rules: { maxRetries: 4, bantime: 3x }\nlimit: {}\n";
    fs::write(&file, bad).unwrap();
    for command in ["check", "run"] {
        let output = run(&[command, "-c", file.to_str().unwrap()]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{said}");
        let name = file.display();
        assert!(said.contains(&format!("{name}:3:14: ")), "{said}");
        assert!(said.contains("did you mean `maxretry`?"), "{said}");
        assert!(said.contains(&format!("{name}:3:38: ")), "{said}");
        assert!(said.contains(&format!("{name}:4:1: ")), "{said}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let output = run(&["check", "-c", "/nowhere/jailgate.yaml"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("/nowhere/jailgate.yaml"));
}

#[test]
fn check_says_what_will_run() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config.example.yaml");
    let output = run(&["check", "-c", example]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    for word in ["web", "0.0.0.0:8080", "whoami@internal"] {
        assert!(said.contains(word), "no {word} in {said}");
    }
}

#[test]
fn completions_and_manual_name_every_command() {
    for arguments in [&["completions", "bash"][..], &["man"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0));
        let said = text(&output.stdout).replace("\\-", "-");
        for command in ["run", "proxy", "check", "healthcheck"] {
            assert!(said.contains(command), "{arguments:?} lacks {command}");
        }
    }
}

#[test]
fn an_address_in_use_is_named_and_the_exit_code_is_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let listen = address.to_string();
    let upstream = [
        "proxy",
        "--to",
        "http://127.0.0.1:9",
        "--admin",
        "127.0.0.1:0",
    ];
    let output = run(&[&upstream[..], &["--listen", &listen]].concat());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&listen), "{said}");
}

#[test]
fn the_health_check_follows_the_program() {
    let origin = Origin::start();
    let mut gate = Jailgate::run(&config(&origin, 4));
    let admin = gate.address("admin").to_string();
    let probe = || run(&["healthcheck", "--admin", &admin]).status.code();
    assert_eq!(probe(), Some(0));
    assert_eq!(get(gate.address("admin"), "/readyz", "").status, 200);
    gate.signal("TERM");
    assert_eq!(gate.wait(), Some(0));
    assert_eq!(probe(), Some(1));
}

/// Who asks it needs neither its secrets nor a file that it would start with.
#[test]
fn a_running_program_is_reached_by_a_file_it_would_refuse() {
    let origin = Origin::start();
    let gate = Jailgate::run(&config(&origin, 4));
    let admin = gate.address("admin");
    let file = gate.path().join("other.yaml");
    let broken = "crowdsec: { url: \"http://127.0.0.1:1\", subscribe: { apiKey: \"${NOT_SET}\" } }\n\
                  jails: { web: { rules: { maxRetries: x } } }\nnonsense: 1\n";
    fs::write(
        &file,
        format!("admin: {{ address: \"{admin}\" }}\n{broken}"),
    )
    .unwrap();
    let file = file.to_str().unwrap();
    for command in [
        &["ban", "203.0.113.9"][..],
        &["bans"],
        &["unban", "203.0.113.9"],
        &["healthcheck"],
    ] {
        let output = run(&[command, &["-c", file]].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{command:?}: {said}");
    }
    assert_eq!(run(&["check", "-c", file]).status.code(), Some(78));
    fs::write(gate.path().join("other.yaml"), "admin: { adress: x }\n").unwrap();
    assert_eq!(run(&["bans", "-c", file]).status.code(), Some(78));
}

#[test]
fn proxy_to_needs_no_file() {
    let origin = Origin::start();
    let mut command = Jailgate::command();
    let upstream = format!("http://{}", origin.address);
    command.args(["proxy", "--to", &upstream, "--listen", "127.0.0.1:0"]);
    command.args(["--maxretry", "2", "--trusted", "127.0.0.1"]);
    command.args(["--admin", "127.0.0.1:0"]);
    let gate = Jailgate::start(command, tempfile::tempdir().unwrap());
    gate.wait_for("ready");
    let web = gate.address("web");
    let from = "X-Forwarded-For: 203.0.113.7\r\n";
    assert_eq!(get(web, "/status/404", from).status, 404);
    assert_eq!(get(web, "/status/404", from).status, 403);
    assert_eq!(get(web, "/", from).status, 403);
    assert_eq!(
        get(web, "/", "X-Forwarded-For: 203.0.113.8\r\n").status,
        200
    );
}

#[test]
fn a_reload_keeps_counts_and_bans_and_takes_the_new_rules() {
    let origin = Origin::start();
    let gate = Jailgate::run(&config(&origin, 3));
    let web = gate.address("web");
    let (banned, half) = (
        "X-Forwarded-For: 203.0.113.1\r\n",
        "X-Forwarded-For: 203.0.113.2\r\n",
    );
    for expected in [404, 404, 403] {
        assert_eq!(get(web, "/status/404", banned).status, expected);
    }
    assert_eq!(get(web, "/status/404", half).status, 404);
    gate.rewrite(&config(&origin, 2));
    gate.wait_for("configuration reloaded");
    assert_eq!(get(web, "/", banned).status, 403);
    assert_eq!(get(web, "/status/404", half).status, 403);
}

#[test]
fn a_reload_that_fails_keeps_the_old_configuration() {
    let origin = Origin::start();
    let gate = Jailgate::run(&config(&origin, 2));
    let web = gate.address("web");
    gate.rewrite("jails: { web: { rules: { maxRetries: 9 } } }\n");
    gate.wait_for("configuration not reloaded");
    gate.wait_for("unknown key `maxRetries`");
    let metrics = get(gate.address("admin"), "/metrics", "").text();
    assert!(metrics.contains("jailgate_config_last_reload_successful 0"));
    let from = "X-Forwarded-For: 203.0.113.3\r\n";
    assert_eq!(get(web, "/status/404", from).status, 404);
    assert_eq!(get(web, "/status/404", from).status, 403);
    gate.rewrite(&config(&origin, 5));
    gate.signal("HUP");
    gate.wait_for("configuration reloaded");
    let metrics = get(gate.address("admin"), "/metrics", "").text();
    assert!(metrics.contains("jailgate_config_last_reload_successful 1"));
}

#[test]
fn a_reload_whose_certificate_is_refused_changes_nothing() {
    let origin = Origin::start();
    let gate = Jailgate::run(&config(&origin, 2));
    let web = gate.address("web");
    let secured = config(&origin, 9)
        + "forwardAuth: { address: \"127.0.0.1:0\", tls: { certFile: none.pem, keyFile: none.pem } }\n";
    fs::write(gate.path().join("none.pem"), "no certificate\n").unwrap();
    gate.rewrite(&secured);
    gate.wait_for("configuration not reloaded");
    let from = "X-Forwarded-For: 203.0.113.4\r\n";
    assert_eq!(get(web, "/status/404", from).status, 404);
    assert_eq!(
        get(web, "/status/404", from).status,
        403,
        "the old maxretry"
    );
}

#[test]
fn a_list_file_is_read_again_when_it_changes() {
    let origin = Origin::start();
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("deny.txt");
    fs::write(&list, "# nobody yet\n").unwrap();
    let config = config(&origin, 4).replace(
        "web: { rules",
        "web: { denylist: { files: deny.txt }, rules",
    );
    let gate = Jailgate::run_in(dir, &config);
    let web = gate.address("web");
    let from = "X-Forwarded-For: 203.0.113.66\r\n";
    assert_eq!(get(web, "/", from).status, 200);
    fs::write(&list, "203.0.113.0/24").unwrap();
    gate.wait_for("configuration reloaded");
    let denied = get(web, "/", from);
    assert_eq!(denied.status, 403);
    assert_eq!(denied.header("x-jailgate-reason"), Some("denylist"));
}

#[test]
fn a_request_under_way_ends_well_when_the_program_is_told_to_stop() {
    let origin = Origin::start();
    let mut gate = Jailgate::run(&config(&origin, 4));
    let mut raw = Raw::connect(gate.address("web"));
    raw.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    // The service must have the head before the signal comes.
    std::thread::sleep(Duration::from_millis(200));
    gate.signal("TERM");
    gate.wait_for("draining");
    raw.send("world");
    let answer = raw.answer();
    assert_eq!(answer.status, 200);
    assert!(raw.closed(), "a draining gate keeps no connection");
    assert_eq!(gate.wait(), Some(0));
    assert_eq!(origin.seen().last().unwrap().body, b"helloworld");
}

#[test]
fn a_ban_is_logged_once_when_it_begins_and_once_when_it_ends() {
    let origin = Origin::start();
    let short = config(&origin, 2).replace("bantime: 1h", "bantime: 1s");
    let gate = Jailgate::run(&short);
    let from = "X-Forwarded-For: 203.0.113.5\r\n";
    for expected in [404, 403, 403, 403] {
        assert_eq!(
            get(gate.address("web"), "/status/404", from).status,
            expected
        );
    }
    let begins = gate.wait_for("ban begins");
    for part in [
        "jail=\"web\"",
        "client=203.0.113.5",
        "count=2",
        "first_status=404",
        "last_status=404",
        "path=\"/status/404\"",
        "until=",
    ] {
        assert!(begins.contains(part), "no {part} in {begins}");
    }
    gate.wait_for("ban ends");
    assert_eq!((gate.count("ban begins"), gate.count("ban ends")), (1, 1));
    assert_eq!(get(gate.address("web"), "/", from).status, 200);
}

#[test]
fn logs_name_no_whole_address_where_they_are_to_cut_them() {
    let origin = Origin::start();
    let config = format!(
        "{}log: {{ level: debug, access: access.log, truncate: {{ ipv4: 24, ipv6: 48 }} }}\n",
        config(&origin, 2)
    );
    let gate = Jailgate::run(&config);
    for client in ["203.0.113.77", "2001:db8:77:77::77"] {
        let from = format!("X-Forwarded-For: {client}\r\n");
        for expected in [404, 403, 403] {
            let answer = get(gate.address("web"), "/status/404", &from);
            assert_eq!(answer.status, expected);
        }
    }
    gate.wait_for("ban begins jail=\"web\" client=203.0.113.0/24");
    gate.wait_for("ban begins jail=\"web\" client=2001:db8:77::/48");
    let bans = get(gate.address("admin"), "/api/v1/bans", "").text();
    assert!(bans.contains("203.0.113.77"), "{bans}");
    let (dir, log) = gate.stop("TERM");
    let lines = fs::read_to_string(dir.path().join("access.log")).unwrap();
    assert_eq!(lines.lines().count(), 6, "{lines}");
    for said in [&log, &lines] {
        assert!(said.contains("203.0.113.0"), "{said}");
        assert!(
            !said.contains("113.77") && !said.contains("77:77:"),
            "{said}"
        );
    }
}

#[test]
fn what_traefik_s_plugin_was_told_becomes_a_configuration_that_loads() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).display().to_string()
    };
    let dynamic = put(
        "dynamic.yml",
        "http:\n  middlewares:\n    web:\n      plugin:\n        fail2ban:\n          \
         rules: { maxretry: 4, findtime: 10m, bantime: 3h, statuscode: \"401\" }\n",
    );
    let made = run(&["import", "traefik", &dynamic]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let file = put("jailgate.yaml", &text(&made.stdout));
    let checked = run(&["check", "-c", &file]);
    let said = text(&checked.stdout) + &text(&checked.stderr);
    assert!(checked.status.success(), "{said}");
    assert!(said.contains("4 times 401 in 10m"), "{said}");

    let theirs = run(&["import", "traefik", "--traefik", &dynamic]);
    let theirs = text(&theirs.stdout);
    let asked =
        "    web:\n      forwardAuth:\n        address: http://127.0.0.1:4181/forward-auth/web\n";
    assert!(theirs.contains(asked), "{theirs}");

    let wrong = put(
        "wrong.yml",
        &fs::read_to_string(&dynamic).unwrap().replace("3h", "3H"),
    );
    let refused = run(&["import", "traefik", &wrong]);
    assert_eq!(refused.status.code(), Some(78));
    let said = text(&refused.stderr);
    assert!(
        said.contains(&format!("{wrong}:6:57: `rules.bantime`")),
        "{said}"
    );
    assert!(
        text(&refused.stdout).contains("bantime: 3H"),
        "nothing is lost"
    );

    let none = run(&["import", "traefik", &put("none.yml", "http: {}\n")]);
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains("no middleware of the Fail2Ban plugin"));
}
