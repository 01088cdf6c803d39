//! Middlewares of Traefik's Fail2Ban plugin, out of Traefik's own files: the file provider's YAML
//! and TOML, labels wherever they stand (compose, swarm, annotations), Kubernetes objects. It finds
//! them and says what is wrong; what they become is `draft`'s, what is a label `labels`'s.

mod draft;
mod labels;
mod table;

use std::{path::PathBuf, sync::Arc};

use super::{
    Pos, Problems,
    raw::{self, Entry, Node, Value},
    read::Cx,
};

/// One file as it was read.
#[derive(Clone, Debug)]
pub struct File {
    /// As the user named it; `.toml` is TOML, everything else YAML (or JSON, which is YAML).
    pub name: String,
    /// What it says.
    pub text: String,
}

/// Everything found.
#[derive(Debug, Default)]
pub struct Imported {
    /// In the order of the files.
    pub jails: Vec<Draft>,
    /// Values the plugin would not have started with either, and files that could not be read.
    pub problems: Problems,
    /// Plugins that are others than Fail2Ban, as `name (file:line)`.
    pub others: Vec<String>,
}

/// One middleware and the jail it becomes.
#[derive(Debug)]
pub struct Draft {
    /// The jail's name: the middleware's, in the letters a jail may have, and unlike the others'.
    pub jail: String,
    /// The middleware's name.
    pub middleware: String,
    /// Who told Traefik of it.
    pub provider: Provider,
    /// `file:line`.
    pub place: String,
    /// The jail's block, indented below its name, with comments on what changed.
    pub yaml: String,
    /// Whether it counts statuses, which beside Traefik come from the access log.
    pub counts: bool,
    /// `sourceCriterion.requestHeaderName`.
    pub header: Option<String>,
}

/// Who told Traefik of a middleware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provider {
    /// A file of dynamic configuration.
    File,
    /// Labels of a container.
    Labels,
    /// A Middleware object.
    Kubernetes {
        /// `metadata.namespace`; `default` where there is none.
        namespace: String,
    },
}

/// A plugin's middleware, of whatever plugin.
struct Found {
    name: String,
    plugin: String,
    provider: Provider,
    at: Pos,
    options: Arc<Node>,
}

/// Module of the plugin, in any case.
const MODULE: &str = "github.com/tommoulard/fail2ban";

/// Reads all files at once: a plugin's name may be given in another one than its middlewares.
pub fn traefik(files: &[File]) -> Imported {
    let mut imported = Imported::default();
    let (mut all, mut modules, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for file in files {
        let cx = context(file);
        for tree in trees(&cx, file) {
            let mut walk = Walk::default();
            walk.node(&cx, &tree, Way::default());
            modules.append(&mut walk.modules);
            all.extend(walk.found.into_iter().map(|found| (file, found)));
        }
        problems.append(&mut cx.problems.take());
    }
    for (file, found) in all {
        let place = format!("{}:{}", file.name, found.at.line);
        if !is_fail2ban(&found, &modules) {
            let other = format!("`{}` of plugin `{}` ({place})", found.name, found.plugin);
            imported.others.push(other);
            continue;
        }
        let cx = context(file);
        let mut draft = draft::draft(&cx, &found, place);
        problems.append(&mut cx.problems.take());
        let same = |known: &Draft| known.middleware == draft.middleware && known.yaml == draft.yaml;
        // Containers of one service repeat each other's labels.
        if found.provider == Provider::Labels && imported.jails.iter().any(same) {
            continue;
        }
        draft.jail = unlike(&draft.jail, &imported.jails);
        imported.jails.push(draft);
    }
    imported.problems = Problems::new("", problems);
    imported
}

fn context(file: &File) -> Cx<'_> {
    const ENVIRONMENT: super::read::Environment<'static> = &|name| std::env::var(name).ok();
    Cx::new(file.name.clone(), PathBuf::new(), &file.text, ENVIRONMENT)
}

fn trees(cx: &Cx<'_>, file: &File) -> Vec<Arc<Node>> {
    let is_toml = file.name.to_ascii_lowercase().ends_with(".toml");
    let templated = file.text.contains("{{");
    let mut problem = |at, message: String| {
        let hint = match templated {
            true => "; Traefik's templates (`{{ }}`) are not filled in here, import what they give",
            false => "",
        };
        cx.error(at, format!("{message}{hint}"));
    };
    if is_toml {
        return table::parse(&file.text, &mut problem).into_iter().collect();
    }
    let text = file.text.strip_prefix('\u{feff}').unwrap_or(&file.text);
    raw::parse_all(text, &mut problem).unwrap_or_default()
}

fn unlike(name: &str, known: &[Draft]) -> String {
    let taken = |name: &str| known.iter().any(|draft| draft.jail == name);
    let numbered = |n| format!("{name}-{n}");
    match taken(name) {
        false => name.to_owned(),
        true => (2..)
            .map(numbered)
            .find(|name| !taken(name))
            .unwrap_or_default(),
    }
}

/// The static configuration says which plugin is meant by a name; without it, what the options say.
fn is_fail2ban(found: &Found, modules: &[(String, String)]) -> bool {
    let known = modules
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(&found.plugin));
    if let Some((_, module)) = known {
        return module.eq_ignore_ascii_case(MODULE);
    }
    let name = found.plugin.to_ascii_lowercase();
    let keys = ["rules", "denylist", "allowlist", "blacklist", "whitelist"];
    let named = name.contains("fail2ban") || name.contains("f2b");
    named || keys.iter().any(|key| value(&found.options, key).is_some())
}

/// The last two keys that lead to a node.
#[derive(Clone, Copy, Default)]
struct Way<'a> {
    parent: &'a str,
    key: &'a str,
    /// Where `key` stands.
    at: Pos,
}

/// The way through one document.
#[derive(Default)]
struct Walk {
    found: Vec<Found>,
    /// Plugins by name, and their modules.
    modules: Vec<(String, String)>,
}

impl Walk {
    fn node(&mut self, cx: &Cx<'_>, node: &Arc<Node>, way: Way<'_>) {
        match &node.value {
            Value::Map(entries) => {
                self.block(node, way);
                let pairs = entries
                    .iter()
                    .filter_map(|entry| Some((entry.key.as_str(), text(&entry.value)?, entry.at)));
                self.labels(cx, pairs);
                for entry in entries {
                    let below = Way {
                        parent: way.key,
                        key: &entry.key,
                        at: entry.at,
                    };
                    self.node(cx, &entry.value, below);
                }
            }
            Value::List(items) => {
                let lines = items.iter().filter_map(|item| Some((text(item)?, item.at)));
                for (line, _) in lines.clone() {
                    self.flag(line);
                }
                let pairs = lines.filter_map(|(line, at)| {
                    let (key, value) = line.split_once('=')?;
                    Some((key, value, at))
                });
                self.labels(cx, pairs);
                for item in items {
                    self.node(cx, item, way);
                }
            }
            Value::Scalar { text, .. } => self.flag(text),
            Value::Null => {}
        }
    }

    fn block(&mut self, node: &Arc<Node>, way: Way<'_>) {
        let is = |parent: &str| way.parent.eq_ignore_ascii_case(parent);
        if is("middlewares") {
            self.plugin(way.key, Provider::File, way.at, value(node, "plugin"));
        } else if is("plugins") || is("localPlugins") {
            let module = value(node, "moduleName").and_then(|module| text(module));
            self.modules
                .extend(module.map(|module| (way.key.to_owned(), module.to_owned())));
        }
        let kind = value(node, "kind").and_then(|kind| text(kind));
        if kind == Some("Middleware") {
            let meta = |key| value(value(node, "metadata")?, key).and_then(|v| text(v));
            let namespace = meta("namespace").unwrap_or("default").to_owned();
            let name = meta("name").unwrap_or("middleware").to_owned();
            let plugin = value(node, "spec").and_then(|spec| value(spec, "plugin"));
            self.plugin(&name, Provider::Kubernetes { namespace }, node.at, plugin);
        }
    }

    fn plugin(&mut self, name: &str, provider: Provider, at: Pos, plugin: Option<&Arc<Node>>) {
        let Some(Value::Map(plugins)) = plugin.map(|plugin| &plugin.value) else {
            return;
        };
        self.found.extend(plugins.iter().map(|plugin| Found {
            name: name.to_owned(),
            plugin: plugin.key.clone(),
            provider: provider.clone(),
            at,
            options: draft::literal(&plugin.value),
        }));
    }

    fn labels<'a>(&mut self, cx: &Cx<'_>, pairs: impl Iterator<Item = (&'a str, &'a str, Pos)>) {
        match labels::middlewares(pairs) {
            Ok(found) => self.found.extend(found),
            Err((at, message)) => cx.error(at, message),
        }
    }

    /// `--experimental.plugins.NAME.moduleName=MODULE`, as one argument or among others.
    fn flag(&mut self, line: &str) {
        for word in line.split_whitespace() {
            let Some((key, module)) = word.trim_start_matches('-').split_once('=') else {
                continue;
            };
            let lower = key.to_ascii_lowercase();
            let name = lower
                .strip_prefix("experimental.plugins.")
                .or_else(|| lower.strip_prefix("experimental.localplugins."))
                .and_then(|rest| rest.strip_suffix(".modulename"));
            self.modules
                .extend(name.map(|name| (name.to_owned(), module.to_owned())));
        }
    }
}

/// The value of a key in any case.
fn value<'a>(node: &'a Node, key: &str) -> Option<&'a Arc<Node>> {
    let Value::Map(entries) = &node.value else {
        return None;
    };
    let same = |entry: &&Entry| entry.key.eq_ignore_ascii_case(key);
    Some(&entries.iter().find(same)?.value)
}

fn text(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar { text, .. } => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
