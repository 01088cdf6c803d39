//! A plugin's options as a jail of jailgate.yaml: the same rules in today's words, what the plugin
//! left unsaid made explicit where jailgate's default differs, and a comment on each change.

use std::{fmt::Write as _, sync::Arc};

use super::{
    super::{
        compile::jails,
        problem::Kind,
        raw::{Entry, Node, Value},
        read::Cx,
    },
    Draft, Found, text, value,
};

/// More addresses than this stand one a line.
const IN_A_ROW: usize = 4;
const STATUSES: &str = "400,401,403-499";

/// Reads the options as the plugin does; what is wrong goes to `cx`, what is odd into comments.
pub(super) fn draft(cx: &Cx<'_>, found: &Found, place: String) -> Draft {
    // Files of lists are where Traefik runs, not here.
    let judged = without_files(&found.options);
    let jail = jails::plugin(cx.root(&judged));
    // The plugin passes over keys it does not know.
    let (unknown, wrong): (Vec<_>, Vec<_>) =
        (cx.problems.take().into_iter()).partition(|problem| problem.kind() == Kind::UnknownKey);
    let mut page = Page::default();
    let mut notes = [unknown, cx.warnings.take()].concat();
    notes.sort_by_key(|note| note.at());
    for note in notes.iter().filter(|note| note.kind() != Kind::Spelling) {
        let (place, told) = (at(&place, note.at().line), note.message());
        page.line(1, format_args!("# {place}: {told}"));
    }
    let options = Options {
        node: &found.options,
        retries: (jail.as_ref().filter(|_| wrong.is_empty())).map(|jail| jail.spec.maxretry),
        enabled: jail.as_ref().is_none_or(|jail| jail.spec.enabled),
        block_logs: jail.is_none_or(|jail| jail.block_logs),
    };
    cx.problems.replace(wrong);
    let counts = options.write(&mut page);
    let header = options.header();
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    Draft {
        jail: found.name.replace(|c: char| !fine(c), "-"),
        middleware: found.name.clone(),
        provider: found.provider.clone(),
        place,
        yaml: page.0,
        counts,
        header,
    }
}

/// The same tree with dollar signs that stay dollar signs in jailgate.yaml.
pub(super) fn literal(node: &Arc<Node>) -> Arc<Node> {
    map(node, &|_| true, &|text| {
        let mut out = String::with_capacity(text.len());
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            out.push(c);
            if c == '$' && matches!(chars.peek(), Some('$' | '{')) {
                out.push('$');
            }
        }
        out
    })
}

fn without_files(node: &Arc<Node>) -> Arc<Node> {
    map(
        node,
        &|key| !key.eq_ignore_ascii_case("files"),
        &str::to_owned,
    )
}

/// A tree with some keys left out and its texts changed.
fn map(
    node: &Arc<Node>,
    keep: &dyn Fn(&str) -> bool,
    change: &dyn Fn(&str) -> String,
) -> Arc<Node> {
    let value = match &node.value {
        Value::Null => Value::Null,
        Value::Scalar { text, plain } => Value::Scalar {
            text: change(text),
            plain: *plain,
        },
        Value::List(items) => {
            Value::List(items.iter().map(|item| map(item, keep, change)).collect())
        }
        Value::Map(entries) => Value::Map(
            (entries.iter().filter(|entry| keep(&entry.key)))
                .map(|entry| {
                    Entry::new(entry.key.clone(), entry.at, map(&entry.value, keep, change))
                })
                .collect(),
        ),
    };
    Node::branch(node.at, value).unwrap_or_else(|_| node.clone())
}

/// `file:line` with another line.
fn at(place: &str, line: u32) -> String {
    let file = place.rsplit_once(':').map_or(place, |(file, _)| file);
    format!("{file}:{line}")
}

struct Options<'a> {
    node: &'a Node,
    /// `maxretry` as it was understood, 0 for everything below 1.
    retries: Option<u32>,
    enabled: bool,
    block_logs: bool,
}

impl Options<'_> {
    /// Answers whether the jail counts statuses.
    fn write(&self, page: &mut Page) -> bool {
        self.list(page, "allowlist", "whitelist");
        self.list(page, "denylist", "blacklist");
        self.source(page);
        page.line(1, "rules:");
        let before = page.0.len();
        let counts = self.rules(page);
        if page.0.len() == before {
            page.0.truncate(before - "    rules:\n".len());
        }
        if !self.block_logs {
            page.line(1, "enableBlockLogs: false");
        }
        page.line(
            1,
            "response: { status: 429 } # the plugin's; jailgate's own is 403",
        );
        counts
    }

    fn list(&self, page: &mut Page, key: &str, old: &str) {
        let all = |part: &str| {
            let lists = [key, old]
                .into_iter()
                .filter_map(|key| value(self.node, key));
            let parts = lists.filter_map(|list| value(list, part));
            parts.flat_map(|part| several(part)).collect::<Vec<_>>()
        };
        let (ip, files) = (all("ip"), all("files"));
        if ip.is_empty() && files.is_empty() {
            return;
        }
        page.line(1, format_args!("{key}:"));
        match ip.len() {
            0 => {}
            1..=IN_A_ROW => page.line(2, format_args!("ip: [{}]", row(&ip))),
            _ => {
                page.line(2, "ip:");
                for one in &ip {
                    page.line(3, format_args!("- {}", quoted(one)));
                }
            }
        }
        if !files.is_empty() {
            let files = row(&files);
            page.line(
                2,
                format_args!("files: [{files}] # to be found here too; relative to this file"),
            );
        }
    }

    fn header(&self) -> Option<String> {
        let name = value(value(self.node, "sourceCriterion")?, "requestHeaderName")?;
        let name = text(name).filter(|name| !name.is_empty())?;
        (!name.eq_ignore_ascii_case("X-Forwarded-For")).then(|| name.to_owned())
    }

    fn source(&self, page: &mut Page) {
        let Some(source) = value(self.node, "sourceCriterion") else {
            return;
        };
        match self.header() {
            Some(name) => {
                let name = quoted(&name);
                page.line(1, "# believed from forwardAuth.trustedIPs only, and only as good as what");
                page.line(1, "# stands before Traefik: clients may send it themselves");
                page.line(
                    1,
                    format_args!("sourceCriterion: {{ requestHeaderName: {name} }}"),
                );
            }
            None if value(source, "requestHeaderName").is_some() => page.line(
                1,
                "# X-Forwarded-For is what jailgate reads anyway: from right to left, past trusted proxies",
            ),
            None => {}
        }
    }

    fn rules(&self, page: &mut Page) -> bool {
        let rules = value(self.node, "rules");
        let given = |key: &str| {
            let text = text(value(rules?, key)?)?;
            (!text.is_empty()).then_some(text)
        };
        if !self.enabled {
            page.line(2, "enabled: false");
        }
        for key in ["findtime", "bantime"] {
            if let Some(length) = given(key) {
                page.line(2, format_args!("{key}: {}", quoted(length)));
            }
        }
        let counting = given("statuscode").is_some() || given("maxretry").is_some();
        match (given("maxretry"), self.retries) {
            (Some(_), Some(0 | 1)) if given("statuscode").is_none() => {
                page.line(
                    2,
                    "# maxretry is left at 5: it had no effect without statuscode",
                );
            }
            (Some(_), Some(0)) => {
                page.line(2, "maxretry: 1 # the first failure bans, as before");
            }
            (Some(_), Some(retries)) => page.line(2, format_args!("maxretry: {retries}")),
            (Some(written), None) => page.line(2, format_args!("maxretry: {}", quoted(written))),
            (None, _) if given("statuscode").is_some() => page.line(
                2,
                "maxretry: 1 # not set: the plugin bans at the first failure; jailgate's own is 5",
            ),
            (None, _) => {}
        }
        match given("statuscode") {
            Some(codes) => page.line(2, format_args!("statuscode: \"{codes}\"")),
            None if counting => {
                page.line(
                    2,
                    "# not set: the plugin counts nothing then, jailgate every request; these",
                );
                page.line(2, "# are what is usually meant by a failure");
                page.line(2, format_args!("statuscode: \"{STATUSES}\""));
            }
            None => page.line(
                2,
                "statuscode: \"999\" # nothing is counted, as the plugin does without one",
            ),
        }
        self.urls(page, rules.and_then(|rules| value(rules, "urlregexps")));
        counting
    }

    fn urls(&self, page: &mut Page, urls: Option<&Arc<Node>>) {
        let items = match urls.map(|urls| &urls.value) {
            Some(Value::List(items)) => items.iter().collect(),
            Some(Value::Map(_)) => urls.into_iter().collect(),
            _ => Vec::new(),
        };
        if items.is_empty() {
            return;
        }
        page.line(2, "urlregexps:");
        for item in items {
            let part = |key| value(item, key).and_then(|part| text(part));
            let (regexp, mode) = (quoted(part("regexp").unwrap_or("")), part("mode"));
            match mode.unwrap_or_default() {
                mode @ ("block" | "allow") => {
                    page.line(3, format_args!("- {{ regexp: {regexp}, mode: {mode} }}"));
                }
                mode => {
                    let mode = quoted(mode);
                    page.line(
                        3,
                        format_args!(
                            "# - {{ regexp: {regexp}, mode: {mode} }} # the plugin drops it for its mode"
                        ),
                    );
                }
            }
        }
    }
}

/// Lines of a jail; one step inwards is two blanks.
#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, steps: usize, text: impl std::fmt::Display) {
        let blanks = 2 + 2 * steps;
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{:blanks$}{text}", "");
    }
}

/// The plugin splits a single text at commas, an element of a list never.
fn several(node: &Node) -> Vec<String> {
    match &node.value {
        Value::Scalar { text, .. } => text
            .split(',')
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect(),
        Value::List(items) => {
            let texts = items.iter().filter_map(|item| text(item));
            texts.map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

fn row(texts: &[String]) -> String {
    let quoted: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
    quoted.join(", ")
}

/// A text as YAML has it: bare where nobody can take it for anything else.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let words = ["true", "false", "yes", "no", "on", "off", "null"];
    let bare = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.contains(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(plain)
        && !words.iter().any(|word| word.eq_ignore_ascii_case(text));
    if bare {
        text.to_owned()
    } else if text.contains(char::is_control) {
        serde_json::Value::from(text).to_string()
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}
