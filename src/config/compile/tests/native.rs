//! Everything outside jails: exact keys and types, cross checks, secrets.

use std::time::Duration;

use super::*;
use crate::config::{Address, CloudflareSource, LogLineFormat, Scheme, Tls};

#[test]
fn a_short_file_gets_every_default() {
    let config = odd(
        "entryPoints: { web: { address: \":8080\" } }\nroutes: [{ service: whoami@internal }]\n",
        &["2:10 no jail judges this route: name `jails`, or define the jail `default`"],
    );
    let entry = &config.entry_points[0];
    assert_eq!(entry.address, Address::Tcp("[::]:8080".parse().unwrap()));
    assert!(entry.forwarded_trusted.is_empty() && entry.tls.is_none() && !entry.canonical_path);
    assert_eq!(
        (entry.timeouts.clone(), entry.limits.clone()),
        Default::default()
    );
    let route = &config.routes[0];
    assert_eq!(
        (
            route.host.as_deref(),
            &*route.path_prefix,
            route.jails.len()
        ),
        (None, "/", 0)
    );
    let state = config.state.unwrap();
    assert_eq!(state.path, Path::new("/etc/jailgate/jailgate.db"));
    assert_eq!(state.keep.as_secs(), 30 * 86_400);
    assert_eq!(config.admin.address.to_string(), "127.0.0.1:9180");
    assert_eq!(
        (config.limits, config.log.level.as_str()),
        (Limits::default(), "info")
    );
    assert!(config.crowdsec.is_none() && config.forward_auth.is_none() && config.otlp.is_none());
}

#[test]
fn every_problem_is_reported_at_once_with_its_line() {
    let text = "\
entrypoints:
  web: { address: \"0.0.0.0:99999\" }
entryPoints:
  web:
    address: localhost
    adress: 1
    forwardedHeaders: { trustedIPs: [10.0.0.0/33] }
routes:
  - host: app.example.com:80
    servcie: app
  - { service: ap, jails: [wbe], pathPrefix: x }
services:
  app: { servers: [{ url: \"127.0.0.1:3000\" }] }
  none: {}
jails:
  web: { rules: { maxRetries: 4 } }
limits: { bans: many, trackedClients: \"5\" }
log: { level: inof }
limits: { bans: 1 }
";
    let problems = load(text).unwrap_err();
    insta::assert_snapshot!(problems, @r#"
    t.yaml:1:1: unknown key `entrypoints`, did you mean `entryPoints`?
      1 | entrypoints:
        | ^^^^^^^^^^^
    t.yaml:5:14: `entryPoints.web.address`: `localhost` is not host:port, :port or unix:/path
      5 |     address: localhost
        |              ^^^^^^^^^
    t.yaml:6:5: unknown key `adress`, did you mean `address`?
      6 |     adress: 1
        |     ^^^^^^
    t.yaml:7:38: `10.0.0.0/33` is no IP address or CIDR; after the slash goes a number from 0 to 32
      7 |     forwardedHeaders: { trustedIPs: [10.0.0.0/33] }
        |                                      ^^^^^^^^^^^
    t.yaml:9:5: a route needs a `service`; `whoami@internal` is always there
      9 |   - host: app.example.com:80
        |     ^
    t.yaml:9:11: `app.example.com:80` is no host; write it without a port
      9 |   - host: app.example.com:80
        |           ^^^^^^^^^^^^^^^^^^
    t.yaml:10:5: unknown key `servcie`, did you mean `service`?
      10 |     servcie: app
         |     ^^^^^^^
    t.yaml:11:16: no service `ap`, did you mean `app`?
      11 |   - { service: ap, jails: [wbe], pathPrefix: x }
         |                ^^
    t.yaml:11:28: no jail `wbe`, did you mean `web`?
      11 |   - { service: ap, jails: [wbe], pathPrefix: x }
         |                            ^^^
    t.yaml:11:46: `x` is no path prefix; it starts with `/`
      11 |   - { service: ap, jails: [wbe], pathPrefix: x }
         |                                              ^
    t.yaml:13:27: `127.0.0.1:3000` is no server URL; write it like `http://host:port`, `https://…`, `h2c://…` or `unix:/path`
      13 |   app: { servers: [{ url: "127.0.0.1:3000" }] }
         |                           ^^^^^^^^^^^^^^^^
    t.yaml:14:9: `services.none` needs at least one server in `servers`
      14 |   none: {}
         |         ^
    t.yaml:16:19: unknown key `maxRetries`, did you mean `maxretry`?
      16 |   web: { rules: { maxRetries: 4 } }
         |                   ^^^^^^^^^^
    t.yaml:17:17: `limits.bans` must be a whole number, not `many`
      17 | limits: { bans: many, trackedClients: "5" }
         |                 ^^^^
    t.yaml:17:39: `limits.trackedClients` must be a whole number, not `5`
      17 | limits: { bans: many, trackedClients: "5" }
         |                                       ^^^
    t.yaml:18:15: `log.level` cannot be `inof`; did you mean `info`?
      18 | log: { level: inof }
         |               ^^^^
    t.yaml:19:1: duplicate key `limits`, first on line 17
      19 | limits: { bans: 1 }
         | ^^^^^^
    "#);
}

#[test]
fn a_document_that_is_none() {
    wrong("", &["0:0 the file says nothing"]);
    wrong("# nothing\n", &["0:0 the file says nothing"]);
    wrong(
        "hello",
        &["1:1 `the file` must be a block of keys, not `hello`"],
    );
    wrong(
        "jails: {}\n",
        &["1:1 nothing to do: it has neither `entryPoints` nor `forwardAuth` nor `accessLogs`"],
    );
    wrong(
        "entryPoints: []\n",
        &["1:14 `entryPoints` must be a block with a name for each entry, not a list"],
    );
    wrong("a: [\n", &["1:4 no YAML: unclosed bracket '['"]);
    wrong(
        "entryPoints: { \"a b\": { address: :1 } }\nroutes: []\n",
        &["1:16 `a b` is no name; names are made of letters, digits, `-`, `_` and `.`"],
    );
}

#[test]
fn native_keys_and_types_are_exact() {
    wrong(
        &format!("{FRAME}Log: {{ level: info }}\n"),
        &["3:1 unknown key `Log`, did you mean `log`?"],
    );
    wrong(
        &format!("{FRAME}limits: {{ bans: 0x10, aggregateIPv6: \"true\" }}\n"),
        &[
            "3:17 `limits.bans` must be a whole number, not `0x10`",
            "3:38 `limits.aggregateIPv6` must be true or false, write true",
        ],
    );
    wrong(
        &format!("{FRAME}log: {{ format: xml, level: verbose }}\n"),
        &[
            "3:16 `log.format` cannot be `xml`; it is one of text, json",
            "3:28 `log.level` cannot be `verbose`; a level is one of off, error, warn, info, debug, trace",
        ],
    );
    fine(&format!(
        "{FRAME}log: {{ level: \"info,jailgate::gate=debug\", access: stdout }}\n"
    ));
}

#[test]
fn addresses() {
    for (text, shown) in [
        ("127.0.0.1:80", "127.0.0.1:80"),
        (":80", "[::]:80"),
        ("[::1]:80", "[::1]:80"),
        ("localhost:80", "127.0.0.1:80"),
        ("unix:/run/j.sock", "unix:/run/j.sock"),
        ("unix:j.sock", "unix:/etc/jailgate/j.sock"),
        ("0.0.0.0:${PORT}", "0.0.0.0:8443"),
    ] {
        let config = fine(&format!(
            "entryPoints: {{ web: {{ address: \"{text}\" }} }}\nroutes: []\n"
        ));
        assert_eq!(config.entry_points[0].address.to_string(), shown);
    }
    for (text, message) in [
        ("8080", "`8080` is not host:port, :port or unix:/path"),
        (
            "1.2.3.4:65536",
            "port 65536 does not exist; the last one is 65535",
        ),
        (
            "example.com:80",
            "`example.com` is no address to listen on; write an IP, [v6] or nothing for all",
        ),
        (
            "::1:80",
            "`::1` is no address to listen on; write an IP, [v6] or nothing for all",
        ),
        (
            "unix:",
            "`unix:` needs a path, as in `unix:/run/jailgate.sock`",
        ),
    ] {
        let text = format!("entryPoints: {{ web: {{ address: \"{text}\" }} }}\nroutes: []\n");
        wrong(
            &text,
            &[&format!("1:32 `entryPoints.web.address`: {message}")],
        );
    }
    wrong(
        "entryPoints: { web: {} }\nroutes: []\n",
        &["1:16 `entryPoints.web` needs an `address`"],
    );
}

#[test]
fn two_listeners_on_one_address() {
    wrong(
        "entryPoints: { a: { address: \"127.0.0.1:80\" }, b: { address: \":80\" }, c: { address: \"127.0.0.1:9180\" } }\nroutes: []\n",
        &[
            "1:1 `admin` and `entryPoints.c` both listen on 127.0.0.1:9180",
            "1:48 `entryPoints.b` and `entryPoints.a` both listen on [::]:80",
        ],
    );
    fine(
        "entryPoints: { a: { address: \"127.0.0.1:0\" }, b: { address: \"127.0.0.1:0\" } }\nroutes: []\n",
    );
}

#[test]
fn routes_name_what_exists() {
    let config = fine(
        "entryPoints: { web: { address: :1 } }
routes:
  - { host: \"*.Example.com\", pathPrefix: /a, service: app, jails: web }
  - { service: app }
  - { service: app, jails: [] }
services: { app: { servers: [{ url: http://h:1 }] } }
jails: { web: {}, default: }
",
    );
    let jails: Vec<Vec<_>> = config
        .routes
        .iter()
        .map(|r| r.jails.iter().map(|j| j.to_string()).collect())
        .collect();
    assert_eq!(
        jails,
        [vec!["web".to_owned()], vec!["default".to_owned()], vec![]]
    );
    assert_eq!(config.routes[0].host.as_deref(), Some("*.example.com"));
    let frame = "entryPoints: { web: { address: :1 } }\njails: { web: {} }\nroutes:\n";
    wrong(
        &format!(
            "{frame}  - {{ service: whoami, jails: [wbe] }}\n  - {{ service: x, host: ä.de }}\n  - {{ host: \"a.*.de\", pathPrefix: a }}\n"
        ),
        &[
            "4:16 no service `whoami`; there are: whoami@internal",
            "4:32 no jail `wbe`, did you mean `web`?",
            "5:16 no service `x`; there are: whoami@internal",
            "5:25 `ä.de` is no host; write it in punycode (`xn--…`)",
            "6:5 a route needs a `service`; `whoami@internal` is always there",
            "6:13 `a.*.de` is no host; a wildcard is `*.` at the start",
            "6:35 `a` is no path prefix; it starts with `/`",
        ],
    );
}

#[test]
fn servers() {
    let of = |url: &str| {
        let text = format!("{FRAME}services: {{ s: {{ servers: [{{ url: \"{url}\" }}] }} }}\n");
        let server = fine(&text).services[0].servers[0].clone();
        (
            server.scheme,
            server.host.to_string(),
            server.port,
            server.base_path.to_string(),
        )
    };
    let server =
        |scheme, host: &str, port, path: &str| (scheme, host.to_owned(), port, path.to_owned());
    assert_eq!(of("http://app"), server(Scheme::Http, "app", 80, ""));
    assert_eq!(
        of("https://app/v1/"),
        server(Scheme::Https, "app", 443, "/v1")
    );
    assert_eq!(
        of("h2c://10.0.0.1:50051"),
        server(Scheme::H2c, "10.0.0.1", 50051, "")
    );
    assert_eq!(of("http://[::1]:81/"), server(Scheme::Http, "::1", 81, ""));
    assert_eq!(
        of("unix:/run/app.sock"),
        server(Scheme::Unix, "/run/app.sock", 0, "")
    );
    assert_eq!(
        of("unix:app.sock"),
        server(Scheme::Unix, "/etc/jailgate/app.sock", 0, "")
    );
    for url in [
        "app:80",
        "ftp://app",
        "http://",
        "http://u:p@app",
        "http://app?x=1",
        "http://app:0",
        "http://app:x",
        "unix:",
        "/x",
    ] {
        let text = format!("{FRAME}services: {{ s: {{ servers: [{{ url: \"{url}\" }}] }} }}\n");
        let problems = load(&text).unwrap_err();
        assert_eq!(
            (problems.len(), problems.iter().next().unwrap().at().col),
            (1, 35),
            "{problems}"
        );
    }
    wrong(
        &format!(
            "{FRAME}services: {{ a: , b: {{ servers: [] }}, c: {{ servers: {{ url: http://x }} }}, d: {{ servers: [{{}}] }} }}\n"
        ),
        &[
            "3:13 `services.a` needs at least one server in `servers`",
            "3:21 `services.b` needs at least one server in `servers`",
            "3:52 `services.c.servers` must be a list, not a block of keys",
            "3:88 a server needs a `url`",
        ],
    );
}

#[test]
fn traefiks_words_for_timeouts_and_limits() {
    let config = fine(
        "entryPoints:
  web:
    address: :1
    transport: { respondingTimeouts: { readTimeout: 1s, headerTimeout: 2s, idleTimeout: 0 }, lifeCycle: { graceTimeOut: 4s } }
    http: { maxHeaderBytes: 2048, maxHeaders: 5, maxUriBytes: 100, maxBodyBytes: 7, maxConnections: 8, maxConnectionsPerClient: 9, canonicalPath: true }
    http2: { maxConcurrentStreams: 11 }
routes: []
services:
  app:
    servers: [{ url: http://a }, { url: http://b }]
    passHostHeader: false
    healthCheck: { path: /up, interval: 1m }
    serversTransport: { dialTimeout: 1s, responseHeaderTimeout: 0s, readTimeout: 3s, idleConnTimeout: 4s, maxIdleConnsPerHost: 5, insecureSkipVerify: true, serverName: x, retries: 0 }
",
    );
    let second = Duration::from_secs(1);
    let entry = &config.entry_points[0];
    let times = &entry.timeouts;
    assert_eq!(
        (times.body, times.header, times.idle, times.grace),
        (second, 2 * second, Duration::ZERO, 4 * second)
    );
    let limits = &entry.limits;
    assert_eq!(
        (
            limits.header_bytes,
            limits.headers,
            limits.uri_bytes,
            limits.body_bytes
        ),
        (2048, 5, 100, 7)
    );
    assert_eq!(
        (
            limits.connections,
            limits.connections_per_client,
            limits.concurrent_streams
        ),
        (8, 9, 11)
    );
    assert!(entry.canonical_path);
    let service = &config.services[0];
    assert!(!service.pass_host_header && service.servers.len() == 2);
    let check = service.health_check.as_ref().unwrap();
    assert_eq!(
        (&*check.path, check.interval, check.timeout),
        ("/up", 60 * second, 5 * second)
    );
    let transport = &service.transport;
    assert_eq!(
        (transport.dial_timeout, transport.response_header_timeout),
        (second, Duration::ZERO)
    );
    assert_eq!(
        (transport.body_timeout, transport.idle_timeout),
        (3 * second, 4 * second)
    );
    assert_eq!((transport.max_idle, transport.retries), (5, 0));
    assert!(transport.insecure_skip_verify && transport.server_name.as_deref() == Some("x"));
    wrong(
        "entryPoints: { web: { address: :1, transport: { respondingTimeouts: { readTimeout: -1s } } } }\nroutes: []\n",
        &["1:84 `entryPoints.web.transport.respondingTimeouts.readTimeout` must not be negative"],
    );
}

#[test]
fn tls_wants_files_or_makes_its_own() {
    let config = fine(
        "entryPoints: { web: { address: :1, tls: { selfSigned: true } }, b: { address: :2, tls: {} } }\nroutes: []\n",
    );
    assert_eq!(
        (&config.entry_points[0].tls, &config.entry_points[1].tls),
        (&Some(Tls::SelfSigned), &None)
    );
    wrong(
        "entryPoints: { a: { address: :1, tls: { certFile: x } }, b: { address: :2, tls: { keyFile: x, certFile: y } } }\nroutes: []\n",
        &[
            "1:51 `entryPoints.a.tls.certFile` without `keyFile`",
            "1:92 cannot read `/etc/jailgate/x`: No such file or directory",
            "1:105 cannot read `/etc/jailgate/y`: No such file or directory",
        ],
    );
}

#[test]
fn off_loopback_a_token_is_mandatory() {
    wrong(
        &format!("{FRAME}admin: {{ address: \":9180\" }}\n"),
        &["3:19 `admin.address` is reachable from outside: set `admin.tokenFile`"],
    );
    for admin in [
        "{ address: unix:/run/a.sock }",
        "{ address: \"[::1]:1\" }",
        "{ address: :1, token: x }",
    ] {
        fine(&format!("{FRAME}admin: {admin}\n"));
    }
    let otlp = |body: &str| {
        format!("{FRAME}jails: {{ default: {{ rules: {{ statuscode: 401 }} }} }}\notlp: {body}\n")
    };
    fine(&otlp("{}"));
    fine(&otlp("{ address: :4318, token: x }"));
    wrong(
        &otlp("{ address: :4318 }"),
        &["4:18 `otlp.address` is reachable from outside: set `otlp.tokenFile`"],
    );
}

#[test]
fn logs_need_a_jail_that_knows_failures() {
    let logs = |body: &str| {
        let frame = FRAME.replace("[]", "[{ service: whoami@internal, jails: [web, bare] }]");
        let jails = "jails: { web: { rules: { statuscode: 401 } }, bare: {} }";
        format!("{frame}{jails}\naccessLogs:\n  - {body}\n")
    };
    let config = fine(&logs("{ path: /var/log/a.log, jails: [web] }"));
    assert_eq!(config.access_logs[0].format, LogLineFormat::TraefikJson);
    wrong(
        &logs("{ path: a, jails: [web, bare] }"),
        &[
            "5:23 the jail `bare` has no `statuscode`, so every line of a log would count; set one, such as `statuscode: \"401,403\"`",
        ],
    );
    wrong(
        &logs("{ path: a }"),
        &["5:5 `accessLogs.0` needs `jails`: the jails that count its lines"],
    );
    wrong(
        &logs("{ jails: [web], format: traefik }"),
        &[
            "5:5 an access log needs a `path`",
            "5:29 `accessLogs.0.format` cannot be `traefik`; it is one of traefik-json, clf, combined, caddy-json, nginx-json",
        ],
    );
    fine(&logs(
        "{ path: a, jails: [web], format: { regex: { pattern: '(?P<ip>\\S+) (?P<status>\\d+)$' } } }",
    ));
    wrong(
        &logs("{ path: a, jails: [web], format: { regex: { pattern: '(?P<ip>x)' } } }"),
        &["5:58 the pattern needs a group `(?P<status>…)`"],
    );
    wrong(
        &logs("{ path: a, jails: [web], format: { regex: '(' } }"),
        &["5:47 no regular expression: unclosed group"],
    );
}

#[test]
fn secrets_come_from_values_files_and_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "from file\r\n").unwrap();
    std::fs::write(dir.path().join("blank"), "\n").unwrap();
    let token = |admin: &str| {
        let config = load_in(dir.path(), &format!("{FRAME}admin: {{ {admin} }}\n"));
        config.map(|config| config.admin.token.map(|token| token.expose().to_owned()))
    };
    assert_eq!(token("token: plain").unwrap().as_deref(), Some("plain"));
    assert_eq!(
        token("token: \"${SECRET}!$$\"").unwrap().as_deref(),
        Some("hunter2!$")
    );
    assert_eq!(
        token("tokenFile: token").unwrap().as_deref(),
        Some("from file")
    );
    assert_eq!(
        token("token: \"\", tokenFile: token").unwrap().as_deref(),
        Some("from file")
    );
    assert_eq!(token("token: \"\", tokenFile: \"\"").unwrap(), None);
    for (admin, message) in [
        (
            "token: \"${NOWHERE}\"",
            "3:17: environment variable `NOWHERE` is not set",
        ),
        ("tokenFile: nothing", "nothing`: No such file or directory"),
        ("tokenFile: blank", "blank` is empty"),
        (
            "token: a, tokenFile: token",
            "both `token` and `tokenFile`; keep one",
        ),
    ] {
        let problems = token(admin).unwrap_err();
        assert!(
            problems.len() == 1 && problems.to_string().contains(message),
            "{problems}"
        );
    }
    let config = load(&format!("{FRAME}admin: {{ token: \"${{SECRET}}\" }}\n")).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    let problems = load(&format!(
        "{FRAME}admin: {{ token: [\"${{SECRET}}\"], address: \"${{SECRET}}\" }}\n"
    ));
    let shown = problems.unwrap_err().to_string();
    assert!(
        !shown.contains("hunter2\n") && !shown.contains("hunter2 |"),
        "{shown}"
    );
}

#[test]
fn crowdsec_and_cloudflare() {
    let all = format!(
        "{FRAME}crowdsec:
  url: http://127.0.0.1:8080/
  publish: {{ machineId: j, password: p }}
  subscribe: {{ apiKey: k, scopes: [ip, country] }}
cloudflare: {{ accountId: a1, listId: l1, apiToken: t, source: lapi, ownership: wholeList }}
pushgateway: {{ url: \"http://p:9091\" }}
state: {{ path: \"\" }}
"
    );
    let config = load(&all).unwrap();
    let crowdsec = config.crowdsec.unwrap();
    assert_eq!(
        (crowdsec.url.as_str(), crowdsec.open_when_unreachable),
        ("http://127.0.0.1:8080", false)
    );
    let publish = crowdsec.publish.unwrap();
    assert_eq!(
        (publish.interval.as_secs(), &*publish.origin),
        (1, "jailgate")
    );
    assert_eq!(crowdsec.subscribe.unwrap().scopes, ["ip", "country"]);
    let cloudflare = config.cloudflare.unwrap();
    assert_eq!(
        (cloudflare.source, cloudflare.whole_list),
        (CloudflareSource::Lapi, true)
    );
    assert_eq!(
        (cloudflare.capacity, cloudflare.interval.as_secs()),
        (10_000, 120)
    );
    assert_eq!(cloudflare.tag, "jailgate");
    assert_eq!(
        (config.pushgateway.as_deref(), config.state),
        (Some("http://p:9091"), None)
    );
    assert_eq!(config.warnings.len(), 0);
    wrong(
        &format!(
            "{FRAME}crowdsec: {{ url: lapi, publish: {{}}, subscribe: {{ scopes: [ips] }} }}\ncloudflare: {{ source: lapi, listId: a/b, tag: two words }}\n"
        ),
        &[
            "3:18 `crowdsec.url`: `lapi` is no URL like `http://host:port`",
            "3:24 `crowdsec.publish` needs `passwordFile` (or a certificate under `tls`)",
            "3:24 `crowdsec.publish` needs `machineId`, the name of `cscli machines add`",
            "3:37 `crowdsec.subscribe` needs `apiKeyFile` (or a certificate under `tls`)",
            "3:59 `crowdsec.subscribe.scopes.0` cannot be `ips`; did you mean `ip`?",
            "4:1 `cloudflare` needs `accountId`, the account's id",
            "4:1 `cloudflare` needs `apiTokenFile`",
            "4:37 `cloudflare.listId`: letters and digits only",
            "4:47 `cloudflare.tag`: one word of at most 100 bytes",
        ],
    );
    wrong(
        &format!(
            "{FRAME}crowdsec: {{ url: \"http://l\" }}\ncloudflare: {{ source: lapi, accountId: a, listId: b, apiToken: c }}\n"
        ),
        &[
            "3:1 `crowdsec` needs `publish` or `subscribe`, or both",
            "4:1 `cloudflare.source: lapi` needs `crowdsec.subscribe`",
        ],
    );
}

#[test]
fn what_loads_but_does_nothing_is_said() {
    odd(
        "entryPoints: { web: { address: :1 } }\njails: { web: {} }\n",
        &[
            "1:1 there are no `routes`: every request gets 404",
            "2:10 nothing names the jail `web`",
        ],
    );
    odd(
        "forwardAuth: { address: :1 }\njails: { web: { rules: { statuscode: 401 } } }\n",
        &[
            "1:1 `forwardAuth.trustedIPs` is empty: nobody may ask, every request gets 401",
            "1:1 forwardAuth asks before the service answers: without `accessLogs` or `otlp` \
             jailgate hears no status and a jail with `statuscode` counts nothing there",
        ],
    );
    odd(
        "forwardAuth: { address: :1, trustedIPs: [0.0.0.0/0, \"::ffff:1.2.3.4\"] }\n",
        &[
            "1:42 `0.0.0.0/0` holds every address there is",
            "1:53 `::ffff:1.2.3.4` stands for IPv4 and matches IPv4 clients",
        ],
    );
}

#[test]
fn anchors_serve_configurations() {
    let config = fine(
        "entryPoints: { web: { address: :1, forwardedHeaders: { trustedIPs: &proxies [10.0.0.1] } } }
routes: []
forwardAuth: { address: :4181, trustedIPs: *proxies }
jails:
  web: { rules: &rules { maxretry: 4, findtime: 1m } }
  slow: { rules: { <<: *rules, findtime: 1h } }
",
    );
    assert!(
        config
            .forward_auth
            .unwrap()
            .trusted
            .contains([10, 0, 0, 1].into())
    );
    let slow = &config.jails[1].spec;
    assert_eq!((slow.maxretry, slow.findtime.as_secs()), (4, 3600));
}

#[test]
fn the_summary_says_what_will_run() {
    let config = load(
        "entryPoints: { web: { address: \"127.0.0.1:8080\", forwardedHeaders: { trustedIPs: 10.0.0.0/8 } }, tls: { address: :8443, tls: { selfSigned: true } } }
routes: [{ host: a.example.com, service: app, jails: [web] }, { service: whoami@internal }]
services: { app: { servers: [{ url: \"http://127.0.0.1:3000\" }, { url: \"unix:/run/app\" }] } }
forwardAuth: { address: :4181, trustedIPs: 10.0.0.1 }
accessLogs: [{ path: /var/log/a.log, jails: web, format: clf }]
jails:
  web: { rules: { statuscode: \"400,403-499\", maxretry: 4, findtime: 10m, bantime: 3h }, allowlist: { ip: [10.0.0.0/8, 1.1.1.1] }, bantimeIncrement: {} }
  all: { simulate: true, window: sliding }
  off: { rules: { enabled: false } }
state: { path: \"\" }
",
    );
    insta::assert_snapshot!(config.unwrap().summary(), @r"
    configuration: fine
      entry points  web  127.0.0.1:8080 (plain, 1 trusted network)
                    tls  [::]:8443 (TLS, self-signed, 0 trusted networks)
      forwardAuth   [::]:4181 (plain, 1 network may ask)
      admin         127.0.0.1:9180 (no token)
      routes        a.example.com/  → app  [web]
                    */  → whoami@internal  [no jail]
      services      app  http://127.0.0.1:3000, unix:/run/app
      access logs   /var/log/a.log (clf)  [web]
      jails         web  4 times 400,403-499 in 10m → banned for 3h, doubling up to 28days, answer 403, 2 networks allowed
                    all  (simulated) 5 requests in 2m (sliding) → banned for 5m, answer 403
                    off  off
      state         memory only
      limits        1000000 tracked clients, 1000000 bans
      log           info, text, no access log
    1 warning
    ");
}
