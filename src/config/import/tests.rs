//! What is found where, what becomes of it, and what is said about it.

use super::{labels::dollars, *};
use crate::config::{Config, compile::compile};

fn file(name: &str, text: &str) -> File {
    File {
        name: name.to_owned(),
        text: text.to_owned(),
    }
}

fn import(name: &str, text: &str) -> Imported {
    traefik(&[file(name, text)])
}

/// The jails as jailgate reads them.
#[track_caller]
fn loaded(imported: &Imported) -> Config {
    let mut text = "entryPoints: { web: { address: \":0\" } }\njails:\n".to_owned();
    for draft in &imported.jails {
        text.push_str(&format!("  {}:\n{}", draft.jail, draft.yaml));
    }
    let config = compile(&text, "made", PathBuf::new(), &|_| None);
    config.unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

/// The one jail of a file-provider YAML whose plugin has these options, indented by eight.
#[track_caller]
fn made(options: &str) -> String {
    let text =
        format!("http:\n  middlewares:\n    a:\n      plugin:\n        fail2ban:\n{options}");
    let imported = import("t.yml", &text);
    assert!(imported.problems.is_empty(), "{}", imported.problems);
    loaded(&imported);
    imported.jails[0].yaml.clone()
}

const YAML: &str = "
HTTP:
  middlewares:
    login:
      plugin:
        guard:
          rules:
            bantime: 3h
            findtime: 10m
            maxretry: '4'
            statuscode: 401,403
            urlregexps: [{ regexp: '^/x$', mode: block }]
          whitelist: { ip: '10.0.0.0/8,::1' }
";

const TOML: &str = "
[http.middlewares.login.plugin.guard]
allowlist.ip = [\"10.0.0.0/8\", \"::1\"]
[http.middlewares.login.plugin.guard.rules]
bantime = \"3h\"
findtime = \"10m\"
maxretry = 4
statuscode = \"401,403\"
[[http.middlewares.login.plugin.guard.rules.urlregexps]]
regexp = \"^/x$\"
mode = \"block\"
";

const COMPOSE: &str = "
services:
  app:
    labels:
      - traefik.enable=true
      - Traefik.HTTP.Middlewares.login.Plugin.guard.Rules.BanTime=3h
      - traefik.http.middlewares.login.plugin.guard.rules.findtime=${FIND:-10m}
      - traefik.http.middlewares.login.plugin.guard.rules.maxretry=4
      - traefik.http.middlewares.login.plugin.guard.rules.statuscode=401,403
      - traefik.http.middlewares.login.plugin.guard.rules.urlregexps[0].regexp=^/x$$
      - traefik.http.middlewares.login.plugin.guard.rules.urlregexps[0].mode=block
      - traefik.http.middlewares.login.plugin.guard.allowlist.ip=10.0.0.0/8,::1
";

const KUBERNETES: &str = "
kind: Namespace
metadata: { name: web }
---
apiVersion: traefik.io/v1alpha1
kind: Middleware
metadata: { name: login, namespace: web }
spec:
  plugin:
    guard:
      rules: { bantime: 3h, findtime: 10m, maxretry: 4, statuscode: '401,403',
        urlregexps: [{ regexp: '^/x$', mode: block }] }
      allowlist: { ip: [10.0.0.0/8, '::1'] }
";

#[test]
fn one_middleware_is_the_same_jail_wherever_it_stands() {
    let kubernetes = Provider::Kubernetes {
        namespace: "web".to_owned(),
    };
    for (name, text, provider, line) in [
        ("a.yml", YAML, Provider::File, 4),
        ("a.toml", TOML, Provider::File, 2),
        ("compose.yml", COMPOSE, Provider::Labels, 6),
        ("k8s.yaml", KUBERNETES, kubernetes, 5),
    ] {
        let imported = import(name, text);
        assert!(imported.problems.is_empty(), "{}", imported.problems);
        let [draft] = &imported.jails[..] else {
            panic!("{name}: {:?}", imported.jails);
        };
        let found = (&*draft.jail, &draft.provider, &*draft.place, draft.counts);
        let place = format!("{name}:{line}");
        assert_eq!(found, ("login", &provider, &*place, true));
        let spec = &loaded(&imported).jails[0].spec;
        let lengths = [spec.bantime, spec.findtime].map(|length| length.as_secs());
        assert_eq!((lengths, spec.maxretry), ([10_800, 600], 4), "{name}");
        assert_eq!(spec.statuses, [401..=401, 403..=403], "{name}");
        let allowed =
            ["10.1.2.3", "::1", "11.0.0.1"].map(|ip| spec.allowlist.contains(ip.parse().unwrap()));
        assert_eq!(allowed, [true, true, false], "{name}");
        assert!(
            draft.yaml.contains("{ regexp: '^/x$"),
            "{name}:\n{}",
            draft.yaml
        );
    }
}

#[test]
fn what_was_unsaid_is_made_explicit_and_what_changed_has_a_comment() {
    for (options, expected) in [
        (
            "          rules: { statuscode: 404 }\n",
            "maxretry: 1 # not set: the plugin bans",
        ),
        (
            "          rules: { statuscode: 404, maxretry: -3 }\n",
            "maxretry: 1 # the first failure",
        ),
        (
            "          rules: { statuscode: 404, maxretry: \"0x10\" }\n",
            "maxretry: 16\n",
        ),
        (
            "          rules: { maxretry: 4 }\n",
            "statuscode: \"400,401,403-499\"\n",
        ),
        (
            "          rules: { maxretry: 1 }\n",
            "# maxretry is left at 5",
        ),
        (
            "          denylist: { ip: 192.0.2.1 }\n",
            "statuscode: \"999\" # nothing is counted",
        ),
        ("          rules: { enabled: \"0\" }\n", "enabled: false\n"),
        (
            "          enableBlockLogs: \"f\"\n",
            "enableBlockLogs: false\n",
        ),
        ("          rules: {}\n", "response: { status: 429 }"),
        (
            "          logLevel: DEBUG\n",
            "# t.yml:6: `logLevel` has no effect, in the plugin neither",
        ),
        (
            "          Blacklist: { ip: 192.0.2.1 }\n",
            "# t.yml:6: `Blacklist` is deprecated",
        ),
        (
            "          rules:\n            maxRetries: 4\n",
            "# t.yml:7: unknown key `maxRetries`, did you mean",
        ),
        (
            "          rules:\n            urlregexps: [{ regexp: /it's, mode: Block }]\n",
            "# - { regexp: '/it''s', mode: Block } # the plugin drops it",
        ),
        (
            "          rules:\n            urlregexps: { regexp: /x, mode: allow }\n",
            "- { regexp: '/x', mode: allow }\n",
        ),
        (
            "          sourceCriterion: { requestHeaderName: X-Real-Ip }\n",
            "requestHeaderName: X-Real-Ip }",
        ),
        (
            "          sourceCriterion: { requestHeaderName: X-Forwarded-For }\n",
            "# X-Forwarded-For is what",
        ),
    ] {
        let made = made(options);
        assert!(made.contains(expected), "{options}gives\n{made}");
    }
}

#[test]
fn what_is_only_written_otherwise_is_not_told() {
    let spelled = "          Rules: { StatusCode: 404, MaxRetry: '4', Enabled: '1' }\n";
    let told = |made: &str| made.contains("# t.yml");
    let made_of = made(spelled);
    assert!(
        !told(&made_of) && made_of.contains("maxretry: 4\n"),
        "{made_of}"
    );
    for (was, other, expected) in [
        ("'4'", "'0x4'", "`0x4` is read as the number 4"),
        ("MaxRetry", "MaxRetries", "unknown key `MaxRetries`"),
        ("Enabled", "Ports", "`Ports` has no effect"),
    ] {
        let made = made(&spelled.replace(was, other));
        assert!(told(&made) && made.contains(expected), "{made}");
    }
}

#[test]
fn list_files_stay_and_need_not_be_here() {
    let text = "http: { middlewares: { a: { plugin: { f2b: { denylist: { files: /nowhere/bad.txt } } } } } }";
    let imported = import("t.yml", text);
    assert!(imported.problems.is_empty(), "{}", imported.problems);
    let yaml = &imported.jails[0].yaml;
    assert!(
        yaml.contains("files: ['/nowhere/bad.txt'] # to be found here too"),
        "{yaml}"
    );
}

#[test]
fn dollar_signs_mean_afterwards_what_they_meant() {
    let made = made(
        "          rules:\n            urlregexps: [{ regexp: '^/a$$b${c}$', mode: block }]\n",
    );
    assert!(made.contains("'^/a$$$b$${c}$'"), "{made}");
    for (label, expected) in [
        ("^/x$$", "^/x$$"),
        ("^/x$", "^/x$"),
        ("$TIME", "${TIME}"),
        ("${TIME}", "${TIME}"),
        ("${TIME:-3h}", "3h"),
        ("${TIME-3h} $5", "3h $5"),
    ] {
        assert_eq!(dollars(label), expected);
    }
}

#[test]
fn the_static_configuration_says_which_plugin_is_meant() {
    let middlewares = "http: { middlewares: { a: { plugin: { one: { rules: {} } } }, b: { plugin: { two: { x: 1 } } } } }";
    for known in [
        "experimental: { plugins: { one: { moduleName: github.com/x/geo }, TWO: { moduleName: github.com/tomMoulard/fail2ban } } }",
        "services: { t: { command: [ --experimental.plugins.one.modulename=github.com/x/geo, --experimental.localPlugins.two.moduleName=github.com/tommoulard/Fail2ban ] } }",
    ] {
        let imported = traefik(&[file("a.yml", middlewares), file("b.yml", known)]);
        let names: Vec<_> = imported.jails.iter().map(|draft| &*draft.jail).collect();
        assert_eq!((names, imported.others.len()), (vec!["b"], 1), "{known}");
    }
    let imported = import("a.yml", middlewares);
    let names: Vec<_> = imported.jails.iter().map(|draft| &*draft.jail).collect();
    assert_eq!(names, ["a"], "told by its keys");
}

#[test]
fn names_are_unlike_and_repeated_labels_are_one() {
    let twice = format!("{COMPOSE}---{}", COMPOSE);
    assert_eq!(import("compose.yml", &twice).jails.len(), 1);
    let both = traefik(&[file("a.yml", YAML), file("compose.yml", COMPOSE)]);
    let names: Vec<_> = both.jails.iter().map(|draft| &*draft.jail).collect();
    assert_eq!(names, ["login", "login-2"]);
    assert_eq!(loaded(&both).jails.len(), 2);
    let odd = YAML.replace("    login:", "    \"log in/é\":");
    assert_eq!(import("a.yml", &odd).jails[0].jail, "log-in--");
}

#[test]
fn what_the_plugin_would_not_start_with_is_named_at_its_place() {
    for (name, text, expected) in [
        ("a.yml", YAML.replace("3h", "3d"), None),
        (
            "a.yml",
            YAML.replace("3h", "soon"),
            Some("a.yml:8:22: `rules.bantime`: `soon`"),
        ),
        (
            "a.yml",
            YAML.replace("::1", "::1%x/64"),
            Some("a.yml:13:28: "),
        ),
        (
            "a.yml",
            YAML.replace("'^/x$'", "'(?!x)'"),
            Some("a.yml:12:36: "),
        ),
        (
            "a.toml",
            TOML.replace("maxretry = 4", "maxretry = 4.7"),
            Some("a.toml:7:12: "),
        ),
        ("a.toml", TOML.replace("= \"3h\"", "="), Some("a.toml:5:")),
        (
            "c.yml",
            COMPOSE.replace("401,403", "4xx"),
            Some("c.yml:9:9: "),
        ),
        (
            "a.yml",
            "a: {{ env `X` }}: [".to_owned(),
            Some("templates (`{{ }}`) are not filled in"),
        ),
    ] {
        let said = import(name, &text).problems.to_string();
        match expected {
            Some(expected) => assert!(said.contains(expected), "{text}\nsays {said}"),
            None => assert_eq!(said, "", "days are fine here"),
        }
    }
}
