//! What a YAML file says: a tree in which every key and value knows its place. The only file that
//! names the YAML crate; it knows nothing of jails or routes.
//!
//! Aliases share nodes instead of copying them and the expanded size and depth are bounded, so a
//! hostile file costs no more than its own length. Includes and custom tags do not exist here.

use std::{collections::HashMap, sync::Arc};

use serde_saphyr::granit_parser::{Event, Marker, Options, Parser, ScalarStyle, Span, Tag};

use super::Pos;

/// Longest file read.
pub const MAX_BYTES: usize = 16 << 20;

/// Most values after expanding aliases and merges.
const MAX_NODES: u32 = 1_000_000;

/// Most keys copied by merges.
const MAX_MERGED: usize = 100_000;

/// Deepest nesting after expanding aliases. The schema itself needs seven levels.
const MAX_DEPTH: u32 = 32;

/// One value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it is written; for an alias, where it is defined.
    pub at: Pos,
    /// What it says.
    pub value: Value,
    size: u32,
    depth: u32,
}

/// What a value says, uninterpreted: `4` and `"4"` differ only in `plain`.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Text; `plain` when it was not quoted.
    Scalar {
        /// Escapes are resolved.
        text: String,
        /// Not quoted.
        plain: bool,
    },
    /// In order.
    List(Vec<Arc<Node>>),
    /// In order, own keys before merged ones, each key once.
    Map(Vec<Entry>),
}

/// One key of a map.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub at: Pos,
    /// Its value.
    pub value: Arc<Node>,
}

/// Reads one document. What is wrong goes to `problem`; `None` when there is no tree to go on with.
pub fn parse(text: &str, problem: &mut dyn FnMut(Pos, String)) -> Option<Arc<Node>> {
    let nothing = || Node::leaf(Pos::default(), Value::Null);
    let found = read(text, Stream::One, problem)?;
    Some(found.into_iter().next().unwrap_or_else(nothing))
}

/// The same for as many documents as there are; nothing was left out when it is `Some`.
pub fn parse_all(text: &str, problem: &mut dyn FnMut(Pos, String)) -> Option<Vec<Arc<Node>>> {
    read(text, Stream::Many, problem)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    One,
    Many,
}

fn read(
    text: &str,
    stream: Stream,
    problem: &mut dyn FnMut(Pos, String),
) -> Option<Vec<Arc<Node>>> {
    if text.len() > MAX_BYTES {
        problem(Pos::default(), format!("longer than {MAX_BYTES} bytes"));
        return None;
    }
    let mut builder = Builder {
        problem,
        open: Vec::new(),
        anchors: HashMap::new(),
        roots: Vec::new(),
        merged: 0,
    };
    match builder.read(text, stream) {
        Ok(()) => Some(builder.roots),
        Err((at, message)) => {
            (builder.problem)(at, message);
            None
        }
    }
}

impl Node {
    /// A value that holds no others.
    pub fn leaf(at: Pos, value: Value) -> Arc<Self> {
        Arc::new(Self {
            at,
            value,
            size: 1,
            depth: 0,
        })
    }

    /// A list or a map, as read or as put together by hand. An error when it is too large.
    pub fn branch(at: Pos, value: Value) -> Result<Arc<Self>, Fatal> {
        let (mut size, mut depth) = (1u32, 0);
        let mut count = |child: &Arc<Node>| {
            size = size.saturating_add(child.size);
            depth = depth.max(child.depth + 1);
        };
        match &value {
            Value::List(items) => items.iter().for_each(&mut count),
            Value::Map(entries) => entries.iter().for_each(|entry| count(&entry.value)),
            Value::Null | Value::Scalar { .. } => {}
        }
        if size > MAX_NODES {
            return Err(too_many(at));
        }
        if depth > MAX_DEPTH {
            return Err((at, format!("nested more than {MAX_DEPTH} levels deep")));
        }
        Ok(Arc::new(Self {
            at,
            value,
            size,
            depth,
        }))
    }
}

impl Entry {
    /// A key with its value, as read or as put together by hand.
    pub fn new(key: String, at: Pos, value: Arc<Node>) -> Self {
        Self { key, at, value }
    }
}

/// What ends the reading: there is no tree after it.
pub type Fatal = (Pos, String);

struct Builder<'a> {
    problem: &'a mut dyn FnMut(Pos, String),
    open: Vec<Open>,
    anchors: HashMap<usize, Arc<Node>>,
    roots: Vec<Arc<Node>>,
    merged: usize,
}

/// A collection that is not closed yet.
struct Open {
    at: Pos,
    anchor: usize,
    kind: Kind,
}

enum Kind {
    List(Vec<Arc<Node>>),
    Map {
        entries: Vec<Entry>,
        lines: HashMap<String, u32>,
        merges: Vec<Arc<Node>>,
        key: Option<Key>,
    },
}

enum Key {
    Named(String, Pos),
    Merge,
    /// Not usable and reported; its value is dropped.
    Bad,
}

impl Builder<'_> {
    fn read(&mut self, text: &str, stream: Stream) -> Result<(), Fatal> {
        let mut options = Options::default();
        options.set_emit_comments(false);
        options.disallow_directives = true;
        options.flow_nesting_limit = MAX_DEPTH as usize;
        options.block_nesting_limit = MAX_DEPTH as usize;
        let mut documents = 0;
        for event in Parser::new_from_str_with_options(text, options) {
            let (event, span) = event.map_err(|error| {
                (
                    point(error.marker(), 1),
                    format!("no YAML: {}", error.info()),
                )
            })?;
            if let Event::DocumentStart(..) = event {
                documents += 1;
                if documents > 1 && stream == Stream::One {
                    return Err((
                        place(&span),
                        "a second document; one file is one document".to_owned(),
                    ));
                }
            }
            self.event(event, place(&span))?;
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>, at: Pos) -> Result<(), Fatal> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(text.into_owned(), style, tag.as_deref(), at);
                self.finish(Node::leaf(at, value), anchor)
            }
            Event::Alias(id) => match self.anchors.get(&id).cloned() {
                Some(node) => self.finish(node, 0),
                None => Err((at, "an alias inside the value that it names".to_owned())),
            },
            Event::SequenceStart(_, anchor, tag) => {
                self.known_tag(tag.as_deref(), "seq", at);
                self.begin(at, anchor, Kind::List(Vec::new()));
                Ok(())
            }
            Event::MappingStart(_, anchor, tag) => {
                self.known_tag(tag.as_deref(), "map", at);
                let kind = Kind::Map {
                    entries: Vec::new(),
                    lines: HashMap::new(),
                    merges: Vec::new(),
                    key: None,
                };
                self.begin(at, anchor, kind);
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, at: Pos, anchor: usize, kind: Kind) {
        self.open.push(Open { at, anchor, kind });
    }

    fn scalar(&mut self, text: String, style: ScalarStyle, tag: Option<&Tag>, at: Pos) -> Value {
        let plain = match tag {
            None => style == ScalarStyle::Plain,
            Some(tag) if tag.is_yaml_core_schema_tag("str") => false,
            Some(tag) if tag.is_yaml_core_schema() => true,
            Some(_) => {
                (self.problem)(at, "tags such as `!include` are not supported".to_owned());
                style == ScalarStyle::Plain
            }
        };
        match text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" if plain => Value::Null,
            _ => Value::Scalar { text, plain },
        }
    }

    fn known_tag(&mut self, tag: Option<&Tag>, expected: &str, at: Pos) {
        if tag.is_some_and(|tag| !tag.is_yaml_core_schema_tag(expected)) {
            (self.problem)(at, "tags such as `!include` are not supported".to_owned());
        }
    }

    fn close(&mut self) -> Result<(), Fatal> {
        let Some(Open { at, anchor, kind }) = self.open.pop() else {
            return Ok(());
        };
        let node = match kind {
            Kind::List(items) => Node::branch(at, Value::List(items))?,
            Kind::Map {
                mut entries,
                mut lines,
                merges,
                ..
            } => {
                for merged in &merges {
                    self.merge(merged, &mut entries, &mut lines)?;
                }
                Node::branch(at, Value::Map(entries))?
            }
        };
        self.finish(node, anchor)
    }

    /// Adds the keys of `from` that are not there yet: own keys win, earlier merges win.
    fn merge(
        &mut self,
        from: &Arc<Node>,
        entries: &mut Vec<Entry>,
        lines: &mut HashMap<String, u32>,
    ) -> Result<(), Fatal> {
        match &from.value {
            Value::Map(more) => {
                self.merged += more.len();
                if self.merged > MAX_MERGED {
                    return Err(too_many(from.at));
                }
                for entry in more {
                    if !lines.contains_key(&entry.key) {
                        lines.insert(entry.key.clone(), entry.at.line);
                        entries.push(entry.clone());
                    }
                }
            }
            Value::List(items) => {
                for item in items {
                    match item.value {
                        Value::Map(_) => self.merge(item, entries, lines)?,
                        _ => self.not_mergeable(item.at),
                    }
                }
            }
            Value::Null => {}
            Value::Scalar { .. } => self.not_mergeable(from.at),
        }
        Ok(())
    }

    fn not_mergeable(&mut self, at: Pos) {
        (self.problem)(at, "`<<` merges blocks of keys only".to_owned());
    }

    /// A value is complete: remember it under its anchor and hand it to what holds it.
    fn finish(&mut self, node: Arc<Node>, anchor: usize) -> Result<(), Fatal> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.roots.push(node);
            return Ok(());
        };
        let (entries, lines, merges, key) = match &mut open.kind {
            Kind::List(items) => {
                items.push(node);
                return Ok(());
            }
            Kind::Map {
                entries,
                lines,
                merges,
                key,
            } => (entries, lines, merges, key),
        };
        match key.take() {
            None => *key = Some(Key::of(&node, lines, self.problem)),
            Some(Key::Merge) => merges.push(node),
            Some(Key::Named(name, at)) => entries.push(Entry::new(name, at, node)),
            Some(Key::Bad) => {}
        }
        Ok(())
    }
}

impl Key {
    fn of(
        node: &Node,
        lines: &mut HashMap<String, u32>,
        problem: &mut dyn FnMut(Pos, String),
    ) -> Self {
        let name = match &node.value {
            Value::Scalar { text, plain: true } if text == "<<" => return Self::Merge,
            Value::Scalar { text, .. } => text,
            _ => {
                problem(node.at, "a key must be a single word".to_owned());
                return Self::Bad;
            }
        };
        if let Some(line) = lines.get(name) {
            problem(
                node.at,
                format!("duplicate key `{name}`, first on line {line}"),
            );
            return Self::Bad;
        }
        lines.insert(name.clone(), node.at.line);
        Self::Named(name.clone(), node.at)
    }
}

fn too_many(at: Pos) -> Fatal {
    (at, format!("expands to more than {MAX_NODES} values"))
}

fn place(span: &Span) -> Pos {
    let width = if span.start.line() == span.end.line() {
        span.end.col().saturating_sub(span.start.col())
    } else {
        1
    };
    point(&span.start, width)
}

fn point(marker: &Marker, width: usize) -> Pos {
    Pos {
        line: marker.line() as u32,
        col: marker.col() as u32 + 1,
        width: width.max(1) as u32,
    }
}

#[cfg(test)]
mod tests;
