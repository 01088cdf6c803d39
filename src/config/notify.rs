//! Whom jailgate tells: the targets of `notify`, and the JSON template of a webhook. How a message
//! is made and sent is the notifier's.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};
use lettre::message::Mailbox;
use serde_json::Value;

use super::Secret;

/// Somebody who is told, and of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifyTarget {
    /// What logs and the API call it: `slack`, or `slack 2` when there are several.
    pub name: Arc<str>,
    /// By which way.
    pub channel: Channel,
    /// Of what; never empty.
    pub on: Vec<NotifyOn>,
    /// Only bans of these jails; empty is all.
    pub jails: Vec<Arc<str>>,
    /// Only bans of these origins: `jailgate`, `manual`, `crowdsec/CAPI`, or `crowdsec` for all its.
    pub origins: Vec<Arc<str>>,
    /// At most one message in this time. 1 min.
    pub interval: Duration,
    /// Link-local and metadata addresses may be spoken to.
    pub allow_local: bool,
}

/// What is worth a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyOn {
    /// A ban begins.
    Ban,
    /// An operator or its origin lifts one.
    Unban,
    /// One ends by its time, or for want of room.
    Expiry,
    /// A background job begins to fail, or works again.
    Failing,
}

/// The way of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// POST of JSON.
    Webhook {
        /// Where to; it may hold a secret.
        url: Secret,
        /// Headers to send with it, all of them secret.
        headers: Vec<(HeaderName, HeaderValue)>,
        /// The body.
        template: Template,
    },
    /// ntfy.sh, or one's own.
    Ntfy {
        /// The server, without a topic.
        url: String,
        /// Whoever knows it can read and write it.
        topic: Secret,
        /// Access token.
        token: Option<Secret>,
    },
    /// Slack's incoming webhooks and what imitates them.
    Slack {
        /// The whole URL is the secret.
        url: Secret,
    },
    /// E-mail.
    Email(Email),
}

/// E-mail by SMTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    /// Name or address of the server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: EmailTls,
    /// Sender.
    pub from: Mailbox,
    /// Receivers; never empty.
    pub to: Vec<Mailbox>,
    /// User and password, when the server asks for them.
    pub login: Option<(String, Secret)>,
}

/// Protection of an SMTP connection. There is no "if possible": who could strip it would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmailTls {
    /// From the first byte (port 465).
    Wrapped,
    /// By STARTTLS, mandatory (port 587).
    Starttls,
    /// None.
    Plain,
}

/// What may stand between `{{` and `}}` in a template.
pub const PLACEHOLDERS: &[&str] = &["title", "text", "host", "count", "counts", "events", "jobs"];

/// A JSON document with placeholders in its strings. A string that is nothing but a placeholder
/// becomes the value itself, be it a number or a list. What is put in can never end the string that
/// it stands in: the document is parsed before and written after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Value);

impl Template {
    /// Reads a template; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let document: Value =
            serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
        checked(&document)?;
        Ok(Self(document))
    }

    /// The document with every placeholder replaced.
    pub fn fill(&self, value_of: &dyn Fn(&str) -> Value) -> Value {
        fill(&self.0, value_of)
    }
}

impl Default for Template {
    fn default() -> Self {
        let all = PLACEHOLDERS
            .iter()
            .map(|name| ((*name).to_owned(), Value::from(format!("{{{{{name}}}}}"))));
        Self(Value::Object(all.collect()))
    }
}

fn checked(value: &Value) -> Result<(), String> {
    match value {
        Value::String(text) => {
            for part in parts(text) {
                let Part::Name(name) = part else { continue };
                if !PLACEHOLDERS.contains(&name) {
                    let known = PLACEHOLDERS.join(", ");
                    return Err(format!(
                        "nothing is called `{{{{{name}}}}}`; known: {known}"
                    ));
                }
            }
            Ok(())
        }
        Value::Array(items) => items.iter().try_for_each(checked),
        Value::Object(entries) => entries.values().try_for_each(checked),
        _ => Ok(()),
    }
}

fn fill(value: &Value, value_of: &dyn Fn(&str) -> Value) -> Value {
    match value {
        Value::String(text) => {
            let parts: Vec<_> = parts(text).collect();
            if let [Part::Name(name)] = parts[..] {
                return value_of(name);
            }
            let put = |part: Part<'_>| match part {
                Part::Text(text) => text.to_owned(),
                Part::Name(name) => match value_of(name) {
                    Value::String(text) => text,
                    other => other.to_string(),
                },
            };
            Value::String(parts.into_iter().map(put).collect())
        }
        Value::Array(items) => items.iter().map(|item| fill(item, value_of)).collect(),
        Value::Object(entries) => {
            let filled = entries
                .iter()
                .map(|(key, value)| (key.clone(), fill(value, value_of)));
            Value::Object(filled.collect())
        }
        other => other.clone(),
    }
}

enum Part<'a> {
    Text(&'a str),
    Name(&'a str),
}

/// The text between placeholders and the names of these; an unclosed `{{` is text.
fn parts(text: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let found = rest.find("{{").and_then(|start| {
            let end = start + 2 + rest[start + 2..].find("}}")?;
            Some((start, end))
        });
        let part = match found {
            Some((0, end)) => {
                let name = rest[2..end].trim();
                rest = &rest[end + 2..];
                Part::Name(name)
            }
            Some((start, _)) => {
                let (text, after) = rest.split_at(start);
                rest = after;
                Part::Text(text)
            }
            None => Part::Text(std::mem::take(&mut rest)),
        };
        Some(part)
    })
}

impl NotifyOn {
    /// As the configuration names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ban => "ban",
            Self::Unban => "unban",
            Self::Expiry => "expiry",
            Self::Failing => "failing",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value_of(name: &str) -> Value {
        match name {
            "text" => "/x\",\"admin\":true,\"{{count}}\n<!channel>".into(),
            "count" => 3.into(),
            "events" => json!([{ "path": "\"}" }]),
            _ => Value::Null,
        }
    }

    #[test]
    fn what_is_put_in_never_leaves_its_string() {
        let template =
            Template::parse(r#"{ "msg": "{{ count }} news: {{text}}", "n": "{{count}}", "e": ["{{events}}", "{{"] }"#)
                .unwrap();
        let expected = json!({
            "msg": "3 news: /x\",\"admin\":true,\"{{count}}\n<!channel>",
            "n": 3,
            "e": [[{ "path": "\"}" }], "{{"],
        });
        assert_eq!(template.fill(&value_of), expected);
    }

    #[test]
    fn a_template_that_cannot_work_says_why() {
        let error = Template::parse("{ \"a\": }").unwrap_err();
        assert!(
            error.starts_with("no JSON: expected value at line 1 column 8"),
            "{error}"
        );
        let error = Template::parse(r#"["{{txt}}"]"#).unwrap_err();
        assert!(
            error.starts_with("nothing is called `{{txt}}`; known: title, text"),
            "{error}"
        );
    }
}
