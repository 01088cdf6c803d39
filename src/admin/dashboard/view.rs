//! The dashboard's page as a browser gets it: what stands on it before (or without) JavaScript, in
//! words. The template escapes every text; what is shown and who may see it is decided elsewhere.

use std::{
    fmt::{self, Display},
    sync::{Arc, LazyLock},
};

use askama::Template;
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{admin::api::clients::Explained, time::Millis};

const STYLE: &str = include_str!("style.css");
/// One script in the order the parts need each other.
const SCRIPT: &str = concat!(
    "\"use strict\";\n",
    include_str!("dom.js"),
    include_str!("api.js"),
    include_str!("bans.js"),
    include_str!("overview.js"),
    include_str!("dialogs.js"),
    include_str!("explain.js"),
    include_str!("main.js"),
);

/// What a browser may do on this page: run this script and no other, and talk to where it came
/// from. With trusted types no string becomes markup either.
pub static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        source(SCRIPT),
        source(STYLE)
    )
});

/// Everything the page says. Texts may come from anybody.
#[derive(Debug, Default, Template)]
#[template(path = "page.html")]
pub struct Page {
    pub version: &'static str,
    pub now: String,
    pub started: String,
    /// A token is set: somebody is logged in and may log out.
    pub guarded: bool,
    /// Why the last reload failed, else empty.
    pub reload: String,
    /// What was wrong with the question in the address.
    pub problem: Option<String>,
    pub filter: Filter,
    /// The address asked about.
    pub asked: String,
    pub explained: Option<Explained>,
    /// Active bans, whatever the filter.
    pub total: usize,
    pub tracked: usize,
    pub jails: Vec<Arc<str>>,
    pub origins: Vec<Arc<str>>,
    pub jobs: Vec<Job>,
    pub rows: Vec<Row>,
    /// Cursor of the next page.
    pub next: Option<u64>,
    pub allowed: Vec<Entry>,
    /// As `jailgate check` tells it.
    pub config: String,
}

/// Which bans are shown; empty is any.
#[derive(Debug, Default)]
pub struct Filter {
    pub text: String,
    pub jail: String,
    pub origin: String,
}

/// A ban.
#[derive(Debug)]
pub struct Row {
    pub client: String,
    pub reason: String,
    /// The counted requests behind it.
    pub proof: String,
    pub jail: Option<Arc<str>>,
    pub origin: Arc<str>,
    /// RFC 3339.
    pub since: String,
    pub left: Left,
}

/// A background job.
#[derive(Debug)]
pub struct Job {
    pub name: Arc<str>,
    pub state: &'static str,
    pub said: String,
    pub fault: String,
}

/// An entry of the allow list.
#[derive(Debug)]
pub struct Entry {
    pub subject: Arc<str>,
    pub addresses: String,
    pub note: Box<str>,
    pub left: Left,
}

/// Milliseconds until something ends, as people say it; `None` never.
#[derive(Clone, Copy, Debug)]
pub struct Left(pub Option<Millis>);

impl Page {
    /// The style, which the policy knows by its hash.
    fn style(&self) -> &'static str {
        STYLE
    }

    /// The script, likewise.
    fn script(&self) -> &'static str {
        SCRIPT
    }
}

impl Row {
    /// When it began, to the second.
    fn began(&self) -> String {
        clock(&self.since)
    }
}

impl Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(left) = self.0 else {
            return f.write_str("never ends");
        };
        let seconds = left / 1000;
        let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
        let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
        match (days, hours, minutes) {
            (0, 0, 0) => write!(f, "{seconds} s"),
            (0, 0, _) => write!(f, "{minutes} min"),
            (0, ..) => write!(f, "{hours} h {minutes} min"),
            _ => write!(f, "{days} d {hours} h"),
        }
    }
}

/// `2026-11-22 00:30:00 UTC` of RFC 3339; other texts as they are.
pub fn clock(rfc3339: &str) -> String {
    match (rfc3339.get(..10), rfc3339.get(11..19)) {
        (Some(day), Some(time)) => format!("{day} {time} UTC"),
        _ => rfc3339.to_owned(),
    }
}

/// A text of ours as a source expression of a Content-Security-Policy.
pub fn source(text: &str) -> String {
    let hash = STANDARD.encode(digest(&SHA256, text.as_bytes()));
    format!("'sha256-{hash}'")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::{
        Evidence,
        clients::{InJail, Step},
    };

    const HOSTILE: &str = "</td></script><img src=x onerror=alert(1)>\"'><svg/onload=alert(1)>{{";

    fn hostile() -> Page {
        let text = || HOSTILE.to_owned();
        Page {
            reload: text(),
            problem: Some(text()),
            asked: text(),
            filter: Filter {
                text: text(),
                jail: text(),
                origin: text(),
            },
            origins: vec![HOSTILE.into()],
            explained: Some(Explained {
                client: text(),
                verdict: "deny",
                summary: text(),
                jails: vec![InJail {
                    jail: HOSTILE.into(),
                    address: text(),
                    address_from: text(),
                    counted_as: text(),
                    verdict: "deny",
                    reason: None,
                    until: None,
                    simulated: false,
                    count: 1,
                    maxretry: 4,
                    next: text(),
                    steps: vec![Step {
                        step: "bans",
                        decides: true,
                        text: text(),
                    }],
                }],
                bans: Vec::new(),
                evidence: vec![Evidence {
                    at: text(),
                    client: text(),
                    jail: HOSTILE.into(),
                    method: HOSTILE.into(),
                    host: HOSTILE.into(),
                    path: HOSTILE.into(),
                    agent: HOSTILE.into(),
                    status: 404,
                }],
                allowed: Vec::new(),
            }),
            jobs: vec![Job {
                name: HOSTILE.into(),
                state: "failing",
                said: text(),
                fault: text(),
            }],
            rows: vec![Row {
                client: text(),
                reason: text(),
                proof: text(),
                jail: Some(HOSTILE.into()),
                origin: HOSTILE.into(),
                since: text(),
                left: Left(None),
            }],
            next: Some(7),
            allowed: vec![Entry {
                subject: HOSTILE.into(),
                addresses: text(),
                note: HOSTILE.into(),
                left: Left(Some(1)),
            }],
            config: text(),
            ..Page::default()
        }
    }

    #[test]
    fn no_text_becomes_markup() {
        let page = hostile().render().unwrap();
        assert!(page.contains("&#60;img src=x"), "the texts are there");
        assert_eq!(page.matches("<script").count(), 1);
        assert_eq!(page.matches("</script").count(), 1);
        for markup in ["<img", "onload=alert(1)>\"", "\"'>", "<svg/"] {
            assert!(!page.contains(markup), "{markup}");
        }
    }

    #[test]
    fn the_script_ends_where_the_page_says() {
        for part in [STYLE, SCRIPT] {
            assert!(!part.contains("</"), "would end the element early");
        }
        assert!(!SCRIPT.contains("innerHTML"));
    }

    #[track_caller]
    fn check(left: Option<Millis>, expected: &str) {
        assert_eq!(Left(left).to_string(), expected);
    }

    #[test]
    fn time_left_in_words() {
        check(None, "never ends");
        check(Some(900), "0 s");
        check(Some(59_000), "59 s");
        check(Some(10 * 60_000), "10 min");
        check(Some(3 * 3_600_000 - 60_000), "2 h 59 min");
        check(Some(50 * 3_600_000), "2 d 2 h");
    }

    #[test]
    fn a_time_is_shown_to_the_second() {
        assert_eq!(clock("2026-11-22T00:30:00.123Z"), "2026-11-22 00:30:00 UTC");
        assert_eq!(clock(""), "");
    }
}
