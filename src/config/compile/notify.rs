//! Whom jailgate tells of bans: `notify`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};
use lettre::message::Mailbox;

use super::{
    super::{
        Channel, Email, EmailTls, NotifyOn, NotifyTarget, Secret, Template,
        read::{Block, Field},
        shape,
    },
    checks::Listed,
    http_url,
};

/// The keys that say by which way.
const WAYS: [&str; 4] = ["webhook", "ntfy", "slack", "email"];

pub(super) fn targets(field: &Field<'_>, listed: &Listed<'_>) -> Vec<NotifyTarget> {
    let blocks = field.blocks(shape::NOTIFY);
    let found = blocks.iter().filter_map(|block| target(block, listed));
    numbered(found.collect())
}

/// Tells targets of one way apart by a number.
fn numbered(mut targets: Vec<NotifyTarget>) -> Vec<NotifyTarget> {
    let mut seen: HashMap<Arc<str>, usize> = HashMap::new();
    for target in &mut targets {
        let number = seen.entry(target.name.clone()).or_default();
        *number += 1;
        if *number > 1 {
            target.name = format!("{} {number}", target.name).into();
        }
    }
    targets
}

fn target(block: &Block<'_>, listed: &Listed<'_>) -> Option<NotifyTarget> {
    let given: Vec<&str> = WAYS
        .into_iter()
        .filter(|way| block.get(way).is_some())
        .collect();
    let [way] = given[..] else {
        block.error(match given[..] {
            [] => format!("`{}` needs one of {}", block.path(), WAYS.join(", ")),
            _ => format!(
                "`{}` has {}; give each a list item of its own",
                block.path(),
                given.join(" and ")
            ),
        });
        return None;
    };
    let channel = match way {
        "webhook" => webhook(&block.block("webhook", shape::WEBHOOK)?),
        "ntfy" => ntfy(&block.block("ntfy", shape::NTFY)?),
        "slack" => {
            let block = block.block("slack", shape::SLACK)?;
            secret_url(&block).map(|url| Channel::Slack { url })
        }
        _ => email(&block.block("email", shape::EMAIL)?).map(Channel::Email),
    };
    let jails = block.get("jails").filter(|field| !field.items().is_empty());
    let origins = block.get("origins").map(|field| words(&field));
    Some(NotifyTarget {
        name: way.into(),
        on: on(block),
        jails: jails.map_or_else(Vec::new, |_| listed.jails_or_default(block)),
        origins: origins.unwrap_or_else(|| vec!["jailgate".into(), "manual".into()]),
        interval: block.period("interval", Duration::from_secs(60)),
        allow_local: block.flag("allowLocal", false),
        channel: channel?,
    })
}

fn on(block: &Block<'_>) -> Vec<NotifyOn> {
    const ALL: [NotifyOn; 4] = [
        NotifyOn::Ban,
        NotifyOn::Unban,
        NotifyOn::Expiry,
        NotifyOn::Failing,
    ];
    let choices = ALL.map(|on| (on.as_str(), on));
    let Some(field) = block.get("on") else {
        return vec![NotifyOn::Ban, NotifyOn::Unban, NotifyOn::Failing];
    };
    let items = field.items();
    if items.is_empty() {
        field.error(format!("`{}` must not be empty", field.path));
    }
    items
        .iter()
        .filter_map(|item| item.choice(&choices))
        .collect()
}

fn words(field: &Field<'_>) -> Vec<Arc<str>> {
    let items = field.items();
    let words = items.iter().filter_map(Field::word);
    words.map(Into::into).collect()
}

fn webhook(block: &Block<'_>) -> Option<Channel> {
    let headers = block.get("headers");
    let headers = headers.iter().flat_map(Field::named);
    let headers = headers.filter_map(|field| header(&field)).collect();
    let template = match block.get("template") {
        Some(field) => template(&field),
        None => Some(Template::default()),
    };
    Some(Channel::Webhook {
        url: secret_url(block)?,
        headers,
        template: template?,
    })
}

fn header(field: &Field<'_>) -> Option<(HeaderName, HeaderValue)> {
    let text = field.text()?;
    let name = HeaderName::from_bytes(field.name.as_bytes());
    let (Ok(name), Ok(mut value)) = (name, HeaderValue::from_str(&text)) else {
        field.error(format!("`{}` is no HTTP header", field.path));
        return None;
    };
    value.set_sensitive(true);
    Some((name, value))
}

fn template(field: &Field<'_>) -> Option<Template> {
    Template::parse(&field.text()?)
        .map_err(|error| field.error(format!("`{}`: {error}", field.path)))
        .ok()
}

/// A URL that is a secret as a whole, so that no message may show it.
fn secret_url(block: &Block<'_>) -> Option<Secret> {
    let filled = |key| {
        let field: Option<Field<'_>> = block.get(key);
        field.filter(|field| field.text().is_none_or(|text| !text.is_empty()))
    };
    let Some(field) = filled("url").or_else(|| filled("urlFile")) else {
        block.error(format!("`{}` needs `urlFile` (or `url`)", block.path()));
        return None;
    };
    let url = block.secret("url", "urlFile")?;
    let good = reqwest::Url::parse(url.expose())
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if !good {
        field.error_unseen(format!(
            "`{}` holds no URL like `https://host/path`",
            field.path
        ));
        return None;
    }
    Some(url)
}

fn ntfy(block: &Block<'_>) -> Option<Channel> {
    let url = match block.get("url") {
        Some(field) => http_url(&field),
        None => Some("https://ntfy.sh".to_owned()),
    };
    let Some(topic) = block.get("topic") else {
        block.error(format!("`{}` needs `topic`", block.path()));
        return None;
    };
    Some(Channel::Ntfy {
        token: block.secret("token", "tokenFile"),
        topic: Secret::new(topic.word()?),
        url: url?,
    })
}

fn email(block: &Block<'_>) -> Option<Email> {
    let needed = |key: &'static str, what: &str| {
        let field = block.get(key);
        if field.is_none() {
            block.error(format!("`{}` needs `{key}`, {what}", block.path()));
        }
        field
    };
    let from = needed("from", "the sender's address").and_then(|field| mailbox(&field));
    let receivers = needed("to", "who receives it").map(|field| field.items());
    let receivers = receivers.unwrap_or_default();
    if receivers.is_empty() && block.get("to").is_some() {
        block.error(format!("`{}.to` must not be empty", block.path()));
    }
    let to: Vec<_> = receivers.iter().filter_map(mailbox).collect();
    let server = needed("smtp", "the server as `host:port`");
    let (host, port) = server.and_then(|field| host_port(&field))?;
    let choices = [
        ("tls", EmailTls::Wrapped),
        ("starttls", EmailTls::Starttls),
        ("none", EmailTls::Plain),
    ];
    let tls = block.get("tls").and_then(|field| field.choice(&choices));
    let tls = tls.unwrap_or(match port {
        465 => EmailTls::Wrapped,
        _ => EmailTls::Starttls,
    });
    let login = login(block);
    let near = host == "localhost"
        || host
            .parse()
            .is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    if tls == EmailTls::Plain && login.is_some() && !near {
        block.error(format!(
            "`{}.tls: none` would send the password readable over the network",
            block.path()
        ));
    }
    (!to.is_empty()).then_some(Email {
        host,
        port,
        tls,
        from: from?,
        to,
        login,
    })
}

fn login(block: &Block<'_>) -> Option<(String, Secret)> {
    let user = block.text("username").filter(|text| !text.is_empty());
    let password = block.secret("password", "passwordFile");
    let asked = |key| block.text(key).is_some_and(|text| !text.is_empty());
    if user.is_some() != (asked("password") || asked("passwordFile")) {
        let path = block.path();
        block.error(format!(
            "`{path}`: `username` and `passwordFile` belong together"
        ));
    }
    Some((user?, password?))
}

fn host_port(field: &Field<'_>) -> Option<(String, u16)> {
    let text = field.word()?;
    let parts = text.rsplit_once(':').and_then(|(host, port)| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = port.parse().ok().filter(|port| *port > 0)?;
        (!host.is_empty() && !host.contains('/')).then(|| (host.to_owned(), port))
    });
    if parts.is_none() {
        let (path, shown) = (&field.path, field.shown());
        field.error(format!(
            "`{path}`: `{shown}` is no server like `mail.example.com:587`"
        ));
    }
    parts
}

fn mailbox(field: &Field<'_>) -> Option<Mailbox> {
    let mailbox = field.word()?.parse();
    if mailbox.is_err() {
        let (path, shown) = (&field.path, field.shown());
        field.error(format!(
            "`{path}`: `{shown}` is no address like `name@example.com` or `Name <name@example.com>`"
        ));
    }
    mailbox.ok()
}
