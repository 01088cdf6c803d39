//! Jails: the plugin's block with the plugin's habits (facts of the plugin, §1, §5, §8.3).

use std::time::Duration;

use super::*;
use crate::{config::Jail, engine::jail::WindowKind, engine::urls::Mode};

#[track_caller]
fn jail_odd(body: &str, warnings: &[&str]) -> Jail {
    let mut config = odd(&with_jail(body), warnings);
    config.jails.remove(0)
}

#[track_caller]
fn jail(body: &str) -> Jail {
    jail_odd(body, &[])
}

#[track_caller]
fn jail_wrong(body: &str, expected: &[&str]) {
    wrong(&with_jail(body), expected);
}

#[test]
fn a_jail_without_anything_has_the_defaults() {
    for body in [
        "",
        "rules: {}",
        "rules:",
        "rules: ~\nallowlist:\nmatch: null",
        "allowlist: {}",
    ] {
        let jail = jail(body);
        let spec = &jail.spec;
        assert!(
            spec.enabled && spec.ignore_self && jail.block_logs && !spec.simulate,
            "{body}"
        );
        assert_eq!(spec.findtime, Duration::from_secs(120));
        assert_eq!(spec.bantime, Duration::from_secs(300));
        assert_eq!((spec.maxretry, spec.ipv6_prefix), (5, 64));
        assert!(spec.statuses.is_empty() && spec.urls.is_empty() && spec.increment.is_none());
        assert_eq!(spec.window, WindowKind::Fixed);
        assert_eq!(
            (jail.response.status.as_u16(), jail.response.retry_after),
            (403, true)
        );
    }
}

/// The README of the plugin, with values from public configurations.
#[test]
fn the_plugins_block_pastes() {
    let body = "\
logLevel: DEBUG
allowlist:
  ip: ::1,127.0.0.1
denylist:
  ip: [192.168.0.0, 10.0.0.1/8]
rules:
  enabled: \"true\"
  bantime: 3h
  findtime: 10m
  maxretry: \"4\"
  statuscode: 400,401,403-499
  ports: 0:8000
  action: none
  urlregexps:
  - regexp: /no
    mode: block
  - regexp: ^/yes
    mode: allow
";
    let jail = jail_odd(
        body,
        &[
            "5:5 `logLevel` has no effect, in the plugin neither",
            "11:16 `true` is read as true; write it without quotes",
            "14:17 `4` is read as the number 4",
            "16:7 `ports` has no effect, in the plugin neither",
            "17:7 `action` has no effect, in the plugin neither",
        ],
    );
    let spec = &jail.spec;
    assert_eq!(
        (
            spec.maxretry,
            spec.bantime.as_secs(),
            spec.findtime.as_secs()
        ),
        (4, 10_800, 600)
    );
    assert_eq!(spec.statuses, [400..=400, 401..=401, 403..=499]);
    assert!(spec.allowlist.contains("::1".parse().unwrap()));
    assert!(spec.denylist.contains("10.200.0.1".parse().unwrap()));
    assert_eq!(
        spec.urls.judge(b"/no").map(|found| found.mode),
        Some(Mode::Block)
    );
    assert_eq!(
        spec.urls.judge(b"/yes").map(|found| found.mode),
        Some(Mode::Allow)
    );
}

#[test]
fn keys_of_any_case_and_old_names_load_with_a_warning() {
    let jail = jail_odd(
        "ALLOWLIST: { IP: 1.1.1.1 }\nwhitelist: { ip: 2.2.2.2 }\nblackList: { ip: [3.3.3.3] }\nRules: { MaxRetry: 7 }",
        &[
            "5:5 key `ALLOWLIST` is written `allowlist`",
            "5:18 key `IP` is written `ip`",
            "6:5 `whitelist` is deprecated, it is called `allowlist` now",
            "7:5 `blackList` is deprecated, it is called `denylist` now",
            "8:5 key `Rules` is written `rules`",
            "8:14 key `MaxRetry` is written `maxretry`",
        ],
    );
    assert_eq!(jail.spec.maxretry, 7);
    for address in ["1.1.1.1", "2.2.2.2"] {
        assert!(jail.spec.allowlist.contains(address.parse().unwrap()));
    }
    assert!(jail.spec.denylist.contains("3.3.3.3".parse().unwrap()));
}

#[test]
fn a_key_that_is_neither_is_an_error() {
    jail_wrong(
        "rules:\n  maxRetries: 4\nfindtime: 5m\ncolour: red\nrules2: {}",
        &[
            "6:7 unknown key `maxRetries`, did you mean `maxretry`?",
            "7:5 unknown key `findtime`; `findtime` belongs under `jails.*.rules`",
            "8:5 unknown key `colour`; known here: allowlist, denylist, sourceCriterion, rules, \
             enableBlockLogs, match, window, bantimeIncrement, response, simulate, ignoreself",
            "9:5 unknown key `rules2`, did you mean `rules`?",
        ],
    );
    jail_wrong(
        "rules: { maxretry: 1, MaxRetry: 2 }",
        &["5:27 `MaxRetry` is the key `maxretry` a second time"],
    );
}

#[test]
fn weak_types_are_those_of_the_plugin() {
    for (value, expected) in [
        ("\"4\"", 4),
        ("\"0x10\"", 16),
        ("0x10", 16),
        ("\"\"", 0),
        ("-3", 0),
        ("0", 0),
    ] {
        let config = load(&with_jail(&format!("rules: {{ maxretry: {value} }}"))).unwrap();
        assert_eq!(config.jails[0].spec.maxretry, expected, "{value}");
        assert!(!config.warnings.is_empty(), "{value}");
    }
    for (value, expected) in [
        ("\"1\"", true),
        ("t", true),
        ("\"\"", false),
        ("\"false\"", false),
        ("0", false),
    ] {
        let config = load(&with_jail(&format!("enableBlockLogs: {value}"))).unwrap();
        assert_eq!(
            (config.jails[0].block_logs, config.warnings.len()),
            (expected, 1),
            "{value}"
        );
    }
    jail_wrong(
        "rules: { maxretry: 4.7 }",
        &["5:24 `jails.j.rules.maxretry` must be a whole number, not `4.7`"],
    );
    jail_wrong(
        "rules: { maxretry: four }",
        &["5:24 `jails.j.rules.maxretry` must be a whole number, not `four`"],
    );
    jail_wrong(
        "rules: { maxretry: [4] }",
        &["5:24 `jails.j.rules.maxretry` must be a single value, not a list"],
    );
    jail_wrong(
        "rules: { enabled: yes }",
        &["5:23 `jails.j.rules.enabled` must be true or false, write true"],
    );
    jail_wrong(
        "rules: { enabled: 2 }",
        &["5:23 `jails.j.rules.enabled` must be true or false"],
    );
    jail_wrong(
        "rules: 5",
        &["5:12 `jails.j.rules` must be a block of keys, not `5`"],
    );
    jail_wrong(
        "rules: [5]",
        &["5:12 `jails.j.rules` must be a block of keys, not a list"],
    );
}

#[test]
fn durations_as_in_the_plugin_and_beyond() {
    for (text, seconds) in [
        ("300s", 300),
        ("1h30m", 5400),
        ("\"+5m\"", 300),
        ("3d", 259_200),
        ("300", 300),
        ("1day 2h", 93_600),
    ] {
        let jail = jail(&format!("rules: {{ bantime: {text}, findtime: {text} }}"));
        assert_eq!(jail.spec.bantime.as_secs(), seconds, "{text}");
        assert_eq!(jail.spec.findtime.as_secs(), seconds, "{text}");
    }
    let jail = jail_odd(
        "rules: { bantime: -5m, findtime: 0 }",
        &[
            "5:23 `bantime: -5m`: no ban ever holds",
            "5:38 `findtime: 0`: nothing is ever counted together",
        ],
    );
    assert!(jail.spec.bantime.is_zero() && jail.spec.findtime.is_zero());
    for bad in ["\"\"", "3H", "soon", "9999999w"] {
        assert!(
            load(&with_jail(&format!("rules: {{ bantime: {bad} }}"))).is_err(),
            "{bad}"
        );
    }
    jail_wrong(
        "rules: { findtime: 3H }",
        &[
            "5:24 `jails.j.rules.findtime`: `3H` is no duration; write `90s`, `10m`, `1h30m`, `1day 2h` or seconds",
        ],
    );
}

#[test]
fn status_codes_as_text_number_or_list() {
    for (value, count) in [
        ("404", 1),
        ("\"\"", 0),
        ("[400, \"403-499\"]", 2),
        ("400,401", 2),
    ] {
        assert_eq!(
            jail(&format!("rules: {{ statuscode: {value:} }}").replace("400,401", "\"400,401\""))
                .spec
                .statuses
                .len(),
            count,
            "{value}"
        );
    }
    let jail = jail_odd(
        "rules: { statuscode: 499-400 }",
        &["5:26 `499-400` matches nothing, did you mean `400-499`?"],
    );
    assert_eq!(
        jail.spec.statuses.len(),
        1,
        "an empty list would count every request"
    );
    jail_wrong(
        "rules: { statuscode: \"400, 401\" }",
        &["5:26 ` 401` is neither a status nor a range; write `400,401`"],
    );
    jail_wrong(
        "rules: { statuscode: 4xx }",
        &["5:26 `4xx` is neither a status nor a range; write `400-499`"],
    );
}

#[test]
fn url_rules_as_in_the_plugin() {
    let one = jail_odd(
        "rules: { urlregexps: { regexp: ^/a, mode: allow } }",
        &["5:26 `urlregexps` is a list; one rule alone is read as a list of one"],
    );
    assert_eq!(one.spec.urls.len(), 1);
    let dropped = jail_odd(
        "rules:\n  urlregexps:\n  - { regexp: /test, mode: not-an-actual-mode }\n  - { regexp: /b }\n  - { regexp: /c, mode: Block }\n  - { regexp: /yes, mode: allow }",
        &[
            "7:32 the mode is `block` or `allow`, not `not-an-actual-mode`: this rule is dropped, as in the plugin",
            "8:19 the mode is `block` or `allow`, not ``: this rule is dropped, as in the plugin",
            "9:29 the mode is `block` or `allow`, not `Block`: this rule is dropped, as in the plugin",
            "10:19 this `allow` matches anywhere in a path, also in `/login/yes`; begin it with `^`",
        ],
    );
    assert_eq!(dropped.spec.urls.len(), 1);
    let bad = "rules:\n  urlregexps:\n  - { regexp: /(test, mode: allow }\n  - { regexp: (?!x), mode: nonsense }";
    let problems = load(&with_jail(bad)).unwrap_err();
    let places: Vec<_> = problems.iter().map(|p| (p.at().line, p.at().col)).collect();
    assert_eq!(places, [(7, 19), (8, 19)], "{problems}");
}

#[test]
fn address_lists_follow_the_plugins_tables() {
    let jail = jail(
        "allowlist: { ip: \"127.0.0.1,10.0.0.0/24,::1,2001:db8::/32\" }\ndenylist: { ip: \"\" }",
    );
    for (address, inside) in [
        ("127.0.0.1", true),
        ("10.0.0.1", true),
        ("10.0.0.42", true),
        ("127.0.0.2", false),
        ("11.0.0.1", false),
        ("::1", true),
        ("2001:db8:beba:cafe::1:2", true),
        ("64:ff9b::127.0.0.1", false),
    ] {
        assert_eq!(
            jail.spec.allowlist.contains(address.parse().unwrap()),
            inside,
            "{address}"
        );
    }
    assert!(jail.spec.denylist.is_empty());
    jail_wrong(
        "allowlist:\n  ip: [\"\", \" 1.1.1.1\", localhost, \"1.1.1.1,2.2.2.2\", 10.0.0.0/08, 13.38.70.00]",
        &[
            "6:12 an empty entry; write an IP address or CIDR",
            "6:16 ` 1.1.1.1` is no IP address or CIDR; write `1.1.1.1` without the spaces",
            "6:28 `localhost` is no IP address or CIDR; write `127.0.0.1` and `::1`",
            "6:39 `1.1.1.1,2.2.2.2` is no IP address or CIDR; make it separate entries",
            "6:58 `10.0.0.0/08` is no IP address or CIDR; after the slash goes a number from 0 to 32",
            "6:71 `13.38.70.00` is no IP address or CIDR; leading zeros are not allowed",
        ],
    );
    jail_wrong(
        "denylist: { ip: \"::1, 127.0.0.1\" }",
        &["5:21 ` 127.0.0.1` is no IP address or CIDR; write `127.0.0.1` without the spaces"],
    );
}

#[test]
fn list_files_are_read_and_their_mistakes_shown_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.txt");
    std::fs::write(
        dir.path().join("good.txt"),
        "# ours\r\n10.0.0.0/8\r\n\r\n::1",
    )
    .unwrap();
    std::fs::write(dir.path().join("empty.txt"), "").unwrap();
    std::fs::write(&file, "1.1.1.1\n  13.38.70.00 # sample\n").unwrap();
    let good =
        with_jail("allowlist: { files: [good.txt, empty.txt] }\ndenylist: { files: good.txt }");
    let config = load_in(dir.path(), &good).unwrap();
    assert!(
        config.jails[0]
            .spec
            .allowlist
            .contains([10, 9, 8, 7].into())
    );
    assert!(
        config.jails[0]
            .spec
            .denylist
            .contains("::1".parse().unwrap())
    );
    assert_eq!(
        config.watched,
        [dir.path().join("good.txt"), dir.path().join("empty.txt")]
    );

    let bad = with_jail("allowlist: { files: [bad.txt, none.txt] }");
    let problems = load_in(dir.path(), &bad).unwrap_err();
    assert_eq!(
        problems.watched(),
        [file.clone(), dir.path().join("none.txt")]
    );
    let problems = problems.to_string();
    let expected = format!(
        "t.yaml:5:35: cannot read the list `{}`: No such file or directory\n\
         \x20 5 |     allowlist: {{ files: [bad.txt, none.txt] }}\n\
         \x20   |                                   ^^^^^^^^\n\
         {}:2:3: `13.38.70.00` is no IP address or CIDR; leading zeros are not allowed\n\
         \x20 2 |   13.38.70.00 # sample\n\
         \x20   |   ^^^^^^^^^^^\n",
        dir.path().join("none.txt").display(),
        file.display(),
    );
    assert_eq!(problems, expected);
}

#[test]
fn a_disabled_jail_is_not_validated_as_in_the_plugin() {
    let jail = jail_odd(
        "rules: { enabled: false, bantime: never }",
        &[
            "5:39 `jails.j.rules.bantime`: `never` is no duration; write `90s`, `10m`, `1h30m`, `1day 2h` or seconds",
        ],
    );
    assert!(!jail.spec.enabled);
}

#[test]
fn what_jailgate_adds() {
    let jail = jail(
        "match: { methods: [POST, PUT], pathRegexp: ^/login }\nwindow: sliding\nbantimeIncrement: {}\n\
         response: { status: 429, retryAfter: false }\nsimulate: true\nignoreself: false\n\
         sourceCriterion: { requestHeaderName: CF-Connecting-IP, ipStrategy: { excludedIPs: [10.0.0.0/8], ipv6Subnet: 56 } }",
    );
    let spec = &jail.spec;
    assert_eq!(spec.match_methods, [http::Method::POST, http::Method::PUT]);
    assert!(
        spec.match_path
            .as_ref()
            .is_some_and(|path| path.is_match(b"/login/x"))
    );
    assert_eq!(
        (spec.window, spec.simulate, spec.ignore_self),
        (WindowKind::Sliding, true, false)
    );
    let increment = spec.increment.unwrap();
    assert_eq!(
        (increment.factor, increment.maxtime.as_secs()),
        (1.0, 28 * 86_400)
    );
    assert_eq!(
        (increment.rndtime.as_secs(), increment.remember.as_secs()),
        (0, 7 * 86_400)
    );
    assert_eq!(
        (jail.response.status.as_u16(), jail.response.retry_after),
        (429, false)
    );
    assert_eq!(jail.source.request_header_name.unwrap(), "cf-connecting-ip");
    assert!(jail.source.excluded.is_some() && spec.ipv6_prefix == 56);
}

#[test]
fn impossible_values_of_what_jailgate_adds() {
    jail_wrong(
        "window: sidling",
        &["5:13 `jails.j.window` cannot be `sidling`; did you mean `sliding`?"],
    );
    jail_wrong(
        "window: sliding\nrules: { maxretry: 5000 }",
        &["4:3 a sliding window counts to 1000 at most, `maxretry` is more"],
    );
    jail_wrong(
        "response: { status: 200 }",
        &["5:25 `jails.j.response.status` must be between 400 and 599"],
    );
    jail_wrong(
        "match: { methods: [\"GE T\"] }",
        &["5:24 `GE T` is no HTTP method"],
    );
    jail_wrong(
        "bantimeIncrement: { factor: 0 }",
        &["5:33 `jails.j.bantimeIncrement.factor` must be a number above 0, at most 1000"],
    );
    jail_wrong(
        "sourceCriterion: { requestHeaderName: \"X Y\" }",
        &["5:43 `X Y` is no header name"],
    );
    jail_wrong(
        "sourceCriterion: { ipStrategy: { ipv6Subnet: 129 } }",
        &["5:50 `jails.j.sourceCriterion.ipStrategy.ipv6Subnet` must be between 1 and 128"],
    );
}
