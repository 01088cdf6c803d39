//! `notify`: who is told, and what is wrong with a target.

use std::time::Duration;

use super::*;
use crate::config::{Channel, EmailTls, NotifyOn};

#[test]
fn a_target_needs_little_and_gets_the_rest_by_default() {
    let config = fine(&format!(
        "{FRAME}notify:
  - slack: {{ url: \"https://hooks.example.com/services/T0/B0/${{SECRET}}\" }}
  - slack: {{ url: \"https://hooks.example.com/2\" }}
    on: ban
    interval: 5m
  - ntfy: {{ topic: a-topic }}
    origins: [manual, crowdsec]
  - email: {{ smtp: \"[::1]:465\", from: a@example.com, to: Ops <b@example.com> }}
"
    ));
    let [slack, second, ntfy, email] = &config.notify[..] else {
        panic!("{:?}", config.notify)
    };
    assert_eq!((&*slack.name, &*second.name), ("slack", "slack 2"));
    let usual = [NotifyOn::Ban, NotifyOn::Unban, NotifyOn::Failing];
    assert_eq!((&slack.on[..], &second.on[..]), (&usual[..], &usual[..1]));
    assert_eq!(slack.origins, ["jailgate".into(), "manual".into()]);
    assert_eq!(ntfy.origins, ["manual".into(), "crowdsec".into()]);
    assert!(slack.jails.is_empty() && !slack.allow_local);
    let minute = Duration::from_secs(60);
    assert_eq!((slack.interval, second.interval), (minute, 5 * minute));
    let Channel::Ntfy { url, .. } = &ntfy.channel else {
        panic!("{ntfy:?}")
    };
    assert_eq!(url, "https://ntfy.sh");
    let Channel::Email(mail) = &email.channel else {
        panic!("{email:?}")
    };
    assert_eq!(
        (&*mail.host, mail.port, mail.tls),
        ("::1", 465, EmailTls::Wrapped)
    );
    let shown = format!("{:?}", config.notify);
    assert!(
        !shown.contains("hunter2") && !shown.contains("a-topic"),
        "{shown}"
    );
}

#[test]
fn every_problem_of_a_target_has_its_place() {
    let text = format!(
        "{FRAME}notify:
  - on: [ban]
  - slack: {{ url: \"https://hooks.example.com/services/T0/hunter2\" }}
    ntfy: {{ topic: t }}
  - slack: {{ url: hunter2 }}
    on: bann
  - webhook: {{ url: \"http://a/\", template: '{{\"a\": \"{{{{txt}}}}\"}}' }}
  - webhook: {{ headers: {{ X-A: \"a\\nb\" }} }}
  - ntfy: {{}}
  - email: {{ smtp: mail.example.com, from: nobody, to: [] }}
  - email:
      smtp: mail.example.com:25
      tls: none
      from: a@example.com
      to: [a@example.com]
      username: u
      password: p
    jails: [web]
    interval: 0s
"
    );
    let expected = [
        "4:5 `notify.0` needs one of webhook, ntfy, slack, email",
        "5:5 `notify.1` has ntfy and slack; give each a list item of its own",
        "7:19 `notify.2.slack.url` holds no URL like `https://host/path`",
        "8:9 `notify.2.on` cannot be `bann`; did you mean `ban`?",
        "9:44 `notify.3.webhook.template`: nothing is called `{{txt}}`; known: title, text, host, count, counts, events, jobs",
        "10:5 `notify.4.webhook` needs `urlFile` (or `url`)",
        "10:32 `notify.4.webhook.headers.X-A` is no HTTP header",
        "11:5 `notify.5.ntfy` needs `topic`",
        "12:5 `notify.6.email.to` must not be empty",
        "12:20 `notify.6.email.smtp`: `mail.example.com` is no server like `mail.example.com:587`",
        "12:44 `notify.6.email.from`: `nobody` is no address like `name@example.com` or `Name <name@example.com>`",
        "13:5 `notify.7.email.tls: none` would send the password readable over the network",
        "20:13 no jail `web`; there are none",
        "21:15 must be longer than 0",
    ];
    let Err(problems) = load(&text) else {
        panic!("it loads")
    };
    assert_eq!(told(problems.iter()), expected);
    assert!(!problems.to_string().contains("hunter2"), "{problems}");
}
