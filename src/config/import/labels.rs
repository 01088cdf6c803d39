//! Labels: `traefik.http.middlewares.NAME.plugin.PLUGIN.rules.urlregexps[0].regexp`, keys in any
//! case. In compose files `$$` is a dollar sign and `$NAME` a variable, which is nearly what it is
//! in jailgate.yaml too.

use std::sync::Arc;

use super::{
    super::{
        Pos,
        raw::{Entry, Fatal, Node, Value},
    },
    Found, Provider,
};

const PREFIX: &str = "traefik.http.middlewares.";

/// One label below a plugin: the rest of its way, what it says, where.
type Label = (Vec<String>, String, Pos);

/// The plugins' middlewares among the labels of one container, each a key, a value and its place.
pub(super) fn middlewares<'a>(
    pairs: impl Iterator<Item = (&'a str, &'a str, Pos)>,
) -> Result<Vec<Found>, Fatal> {
    let mut grouped: Vec<(String, String, Vec<Label>)> = Vec::new();
    for (key, value, at) in pairs {
        let Some((name, plugin, way)) = split(key.trim()) else {
            continue;
        };
        let label = (way, dollars(value), at);
        let same = |(known, of, _): &&mut (String, String, _)| {
            known.eq_ignore_ascii_case(&name) && of.eq_ignore_ascii_case(&plugin)
        };
        match grouped.iter_mut().find(same) {
            Some((.., labels)) => labels.push(label),
            None => grouped.push((name, plugin, vec![label])),
        }
    }
    let found = grouped.into_iter().map(|(name, plugin, labels)| {
        Ok(Found {
            at: labels[0].2,
            options: tree(labels)?,
            provider: Provider::Labels,
            name,
            plugin,
        })
    });
    found.collect()
}

/// Middleware, plugin, and the way below it; `urlregexps[0]` is two steps.
fn split(key: &str) -> Option<(String, String, Vec<String>)> {
    let rest = key
        .get(..PREFIX.len())
        .filter(|prefix| prefix.eq_ignore_ascii_case(PREFIX))
        .map(|_| &key[PREFIX.len()..])?;
    let mut parts = rest.split('.');
    let name = parts.next()?.to_owned();
    parts
        .next()
        .filter(|part| part.eq_ignore_ascii_case("plugin"))?;
    let plugin = parts.next()?.to_owned();
    let mut way = Vec::new();
    for part in parts {
        let (word, index) = part.split_once('[').unwrap_or((part, ""));
        way.push(word.to_owned());
        way.extend(index.strip_suffix(']').map(|index| format!("[{index}]")));
    }
    Some((name, plugin, way))
}

fn tree(labels: Vec<Label>) -> Result<Arc<Node>, Fatal> {
    let at = labels.first().map(|(.., at)| *at).unwrap_or_default();
    if let Some((_, text, at)) = labels.iter().find(|(way, ..)| way.is_empty()) {
        let text = text.clone();
        let value = Value::Scalar { text, plain: true };
        return Ok(Node::leaf(*at, value));
    }
    let mut groups: Vec<(String, Vec<Label>)> = Vec::new();
    for (mut way, text, at) in labels {
        let step = way.remove(0);
        match groups
            .iter_mut()
            .find(|(known, _)| known.eq_ignore_ascii_case(&step))
        {
            Some((_, labels)) => labels.push((way, text, at)),
            None => groups.push((step, vec![(way, text, at)])),
        }
    }
    let index = |step: &str| {
        step.strip_prefix('[')?
            .strip_suffix(']')?
            .parse::<u32>()
            .ok()
    };
    if groups.iter().all(|(step, _)| index(step).is_some()) {
        groups.sort_by_key(|(step, _)| index(step));
        let items = groups.into_iter().map(|(_, labels)| tree(labels));
        return Node::branch(at, Value::List(items.collect::<Result<_, _>>()?));
    }
    let entries = groups.into_iter().map(|(step, labels)| {
        let at = labels[0].2;
        Ok(Entry::new(step, at, tree(labels)?))
    });
    Node::branch(at, Value::Map(entries.collect::<Result<_, Fatal>>()?))
}

/// Compose's variables as jailgate.yaml has them: `$NAME` in braces, `${NAME:-default}` its default.
pub(super) fn dollars(value: &str) -> String {
    let (mut out, mut rest) = (String::new(), value);
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let name = &after[..after.len() - after.trim_start_matches(word).len()];
        if let Some(after) = after.strip_prefix('$') {
            out.push_str("$$");
            rest = after;
        } else if let Some((inside, after)) = after
            .strip_prefix('{')
            .and_then(|rest| rest.split_once('}'))
        {
            match inside.split_once(":-").or_else(|| inside.split_once('-')) {
                Some((_, default)) => out.push_str(default),
                None => out.push_str(&format!("${{{inside}}}")),
            }
            rest = after;
        } else if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            out.push('$');
            rest = after;
        } else {
            out.push_str(&format!("${{{name}}}"));
            rest = &after[name.len()..];
        }
    }
    out.push_str(rest);
    out
}
