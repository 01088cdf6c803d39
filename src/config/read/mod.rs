//! Typed reading of the tree: blocks, lists and values, each complaint with its place. Knows YAML's
//! weak spots and the plugin's weak typing, but no key by name.

mod block;
mod keys;
mod scalar;

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

use super::{Pos, Problem, problem::Kind, raw::Node};

/// Finds the value of an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What every reader of one configuration shares: its text, where relative paths start, and what
/// was found wrong so far.
pub struct Cx<'a> {
    /// Name of the file as the user gave it.
    pub file: String,
    /// Where relative paths start.
    pub base: PathBuf,
    /// The environment of `${…}`.
    pub env: Environment<'a>,
    /// Errors.
    pub problems: RefCell<Vec<Problem>>,
    /// Oddities.
    pub warnings: RefCell<Vec<Problem>>,
    /// Files that were read or will be.
    pub watched: RefCell<Vec<PathBuf>>,
    lines: Vec<&'a str>,
}

/// A block of keys, each known.
#[derive(Clone)]
pub struct Block<'a> {
    /// Place of the key that holds it.
    pub at: Pos,
    path: String,
    cx: &'a Cx<'a>,
    keys: Vec<(&'static str, Field<'a>)>,
}

/// A value that is there and not null, with the key that holds it.
#[derive(Clone)]
pub struct Field<'a> {
    /// Place of the key (of the value, in lists).
    pub at: Pos,
    /// Its way from the top, `jails.web.rules`.
    pub path: String,
    /// The last part of the way, where an author chose it.
    pub name: &'a str,
    cx: &'a Cx<'a>,
    node: &'a Node,
    lenient: bool,
}

impl<'a> Cx<'a> {
    /// For reading `text`, which `file` holds.
    pub fn new(file: String, base: PathBuf, text: &'a str, env: Environment<'a>) -> Self {
        Self {
            file,
            base,
            env,
            problems: RefCell::default(),
            warnings: RefCell::default(),
            watched: RefCell::default(),
            lines: text.lines().collect(),
        }
    }

    /// Notes an error.
    pub fn error(&self, at: Pos, message: impl Into<String>) {
        self.error_of(Kind::Other, at, message);
    }

    /// Notes an error of a kind.
    fn error_of(&self, kind: Kind, at: Pos, message: impl Into<String>) {
        let problem = self.problem(at, message).of(kind);
        self.problems.borrow_mut().push(problem);
    }

    /// Notes an oddity.
    pub fn warn(&self, at: Pos, message: impl Into<String>) {
        self.warn_of(Kind::Other, at, message);
    }

    /// Notes an oddity of a kind.
    fn warn_of(&self, kind: Kind, at: Pos, message: impl Into<String>) {
        let problem = self.problem(at, message).of(kind);
        self.warnings.borrow_mut().push(problem);
    }

    /// The whole document.
    pub fn root(&'a self, node: &'a Node) -> Field<'a> {
        Field {
            at: node.at,
            path: String::new(),
            name: "",
            cx: self,
            node,
            lenient: false,
        }
    }

    /// Reads a file that a key names and remembers to watch it.
    pub fn read_file(&self, path: &Path) -> std::io::Result<String> {
        self.watch(path);
        std::fs::read_to_string(path)
    }

    /// Remembers a file to watch.
    pub fn watch(&self, path: &Path) {
        let mut watched = self.watched.borrow_mut();
        if !watched.iter().any(|known| known == path) {
            watched.push(path.to_owned());
        }
    }

    fn problem(&self, at: Pos, message: impl Into<String>) -> Problem {
        let line = self.lines.get((at.line as usize).wrapping_sub(1));
        Problem::new(&self.file, at, line.unwrap_or(&""), message)
    }

    /// Replaces `${NAME}` by its value and `$$` by `$`; a `$` before anything else is itself.
    fn expand(&self, at: Pos, text: &str) -> Option<String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            rest = after;
            if let Some(after) = rest.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some((name, after)) =
                rest.strip_prefix('{').and_then(|r| r.split_once('}'))
            {
                let Some(value) = (self.env)(name) else {
                    self.error(at, format!("environment variable `{name}` is not set"));
                    return None;
                };
                out.push_str(&value);
                rest = after;
            } else {
                out.push('$');
            }
        }
        out.push_str(rest);
        Some(out)
    }
}

/// An I/O error in words, without the number.
pub fn said(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn short(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
