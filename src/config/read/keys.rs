//! The structure under a value: blocks of known keys, blocks of names, lists.

use std::sync::Arc;

use super::{
    super::{
        Pos, Problem,
        problem::Kind,
        raw::{Entry, Node, Value},
        shape::{DEPRECATED, IGNORED, Shape, suggest},
    },
    Block, Cx, Field, short,
};

impl<'a> Field<'a> {
    /// Notes an error at the value.
    pub fn error(&self, message: impl Into<String>) {
        self.cx.error(self.place(), message);
    }

    /// Notes an error at a value that is a secret: its line is not shown.
    pub fn error_unseen(&self, message: impl Into<String>) {
        let problem = Problem::new(&self.cx.file, self.place(), "", message);
        self.cx.problems.borrow_mut().push(problem);
    }

    /// Notes an oddity at the value.
    pub fn warn(&self, message: impl Into<String>) {
        self.warn_of(Kind::Other, message);
    }

    /// Notes an oddity of a kind at the value.
    pub(super) fn warn_of(&self, kind: Kind, message: impl Into<String>) {
        self.cx.warn_of(kind, self.place(), message);
    }

    /// The same value read as the plugin reads: weak types, keys in any case.
    pub fn lenient(mut self) -> Self {
        self.lenient = true;
        self
    }

    /// The keys of a block, whatever they are.
    pub fn keys(&self) -> Vec<String> {
        match &self.node.value {
            Value::Map(entries) => entries.iter().map(|entry| entry.key.clone()).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether it is a single value.
    pub fn is_scalar(&self) -> bool {
        matches!(self.node.value, Value::Scalar { .. })
    }

    /// Whether it is a list.
    pub fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    /// Its keys as the shape knows them; unknown ones are errors.
    pub fn block(&self, shape: &'static Shape) -> Option<Block<'a>> {
        let Value::Map(entries) = &self.node.value else {
            let blank = matches!(&self.node.value, Value::Scalar { text, .. } if text.is_empty());
            if !(self.lenient && blank) {
                self.wrong_type("a block of keys");
            }
            return None;
        };
        let mut block = Block {
            at: self.at,
            path: self.path.clone(),
            cx: self.cx,
            keys: Vec::with_capacity(entries.len()),
        };
        for entry in entries {
            if let Some(key) = self.known(shape, entry) {
                self.add(&mut block, key, entry);
            }
        }
        Some(block)
    }

    fn add(&self, block: &mut Block<'a>, key: &'static str, entry: &'a Entry) {
        if self.lenient && block.keys.iter().any(|(known, _)| *known == key) {
            self.cx.error(
                entry.at,
                format!("`{}` is the key `{key}` a second time", entry.key),
            );
        } else if !matches!(entry.value.value, Value::Null) {
            block.keys.push((key, self.child(key, entry)));
        }
    }

    fn known(&self, shape: &Shape, entry: &Entry) -> Option<&'static str> {
        let key = entry.key.as_str();
        if let Some(known) = shape.keys.iter().find(|known| **known == key) {
            return Some(known);
        }
        if self.lenient {
            let same = |known: &&&str| known.eq_ignore_ascii_case(key);
            if let Some(known) = shape.keys.iter().find(same) {
                let told = format!("key `{key}` is written `{known}`");
                self.cx.warn_of(Kind::Spelling, entry.at, told);
                return Some(known);
            }
            let old = DEPRECATED
                .iter()
                .find(|(old, new)| old.eq_ignore_ascii_case(key) && shape.keys.contains(new));
            if let Some((old, new)) = old {
                self.cx.warn(
                    entry.at,
                    format!("`{key}` is deprecated, it is called `{new}` now"),
                );
                return Some(old);
            }
            let action = key.to_ascii_lowercase().starts_with("banaction");
            if action || IGNORED.iter().any(|known| known.eq_ignore_ascii_case(key)) {
                self.cx.warn(
                    entry.at,
                    format!("`{key}` has no effect, in the plugin neither"),
                );
                return None;
            }
        }
        let hint = suggest(shape, key);
        let told = format!("unknown key `{}`{hint}", short(key));
        self.cx.error_of(Kind::UnknownKey, entry.at, told);
        None
    }

    fn child(&self, key: &str, entry: &'a Entry) -> Field<'a> {
        let dot = if self.path.is_empty() { "" } else { "." };
        Field {
            at: entry.at,
            path: format!("{}{dot}{key}", self.path),
            name: &entry.key,
            cx: self.cx,
            node: &entry.value,
            lenient: self.lenient,
        }
    }

    /// A block whose keys are names chosen by the author; values that are null stay, as empty.
    pub fn named(&self) -> Vec<Field<'a>> {
        let Value::Map(entries) = &self.node.value else {
            self.wrong_type("a block with a name for each entry");
            return Vec::new();
        };
        let good = |entry: &&Entry| {
            let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            let ok = !entry.key.is_empty() && entry.key.chars().all(fine);
            if !ok {
                let name = short(&entry.key);
                let rule = "letters, digits, `-`, `_` and `.`";
                self.cx.error(
                    entry.at,
                    format!("`{name}` is no name; names are made of {rule}"),
                );
            }
            ok
        };
        entries
            .iter()
            .filter(good)
            .map(|entry| self.child(&entry.key, entry))
            .collect()
    }

    /// Whether the value is null; such fields come out of [`Field::named`] only.
    pub fn is_null(&self) -> bool {
        matches!(self.node.value, Value::Null)
    }

    /// The items of a list; a single value is a list of one.
    pub fn items(&self) -> Vec<Field<'a>> {
        let item = |(i, node): (usize, &'a Arc<Node>)| Field {
            at: node.at,
            path: format!("{}.{i}", self.path),
            name: "",
            cx: self.cx,
            node,
            lenient: self.lenient,
        };
        match &self.node.value {
            Value::List(items) => items.iter().enumerate().map(item).collect(),
            _ => vec![self.clone()],
        }
    }

    /// The items of what must be a list of blocks.
    pub fn blocks(&self, shape: &'static Shape) -> Vec<Block<'a>> {
        if !self.is_list() {
            self.wrong_type("a list");
            return Vec::new();
        }
        self.items()
            .iter()
            .filter_map(|item| item.block(shape))
            .collect()
    }

    /// The value as written, for a message: never what the environment put in.
    pub fn shown(&self) -> String {
        match &self.node.value {
            Value::Scalar { text, .. } => short(text),
            Value::Null => "null".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a block".to_owned(),
        }
    }

    pub(super) fn wrong_type(&self, wanted: &str) {
        let found = match &self.node.value {
            Value::Scalar { text, .. } => format!("`{}`", short(text)),
            Value::Null => "nothing".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a block of keys".to_owned(),
        };
        let path = if self.path.is_empty() {
            "the file"
        } else {
            &self.path
        };
        self.error(format!("`{path}` must be {wanted}, not {found}"));
    }

    fn place(&self) -> Pos {
        if self.node.at.line == 0 || self.is_null() {
            self.at
        } else {
            self.node.at
        }
    }

    /// What the reader shares.
    pub fn cx(&self) -> &'a Cx<'a> {
        self.cx
    }
}
