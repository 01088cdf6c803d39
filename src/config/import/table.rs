//! TOML as the tree that YAML becomes: the file provider takes either.

use std::sync::Arc;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::super::{
    Pos,
    raw::{Entry, Fatal, Node, Value},
};

/// Reads one file. What is wrong goes to `problem`.
pub(super) fn parse(text: &str, problem: &mut dyn FnMut(Pos, String)) -> Option<Arc<Node>> {
    let places = Places(text);
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            problem(places.at(at), format!("no TOML: {}", error.message()));
            return None;
        }
    };
    let start = table.span().start;
    let tree = places.table(table.get_ref(), places.at(start));
    tree.map_err(|(at, message)| problem(at, message)).ok()
}

/// Where a byte of the text is.
struct Places<'a>(&'a str);

impl Places<'_> {
    fn at(&self, byte: usize) -> Pos {
        let before = self.0.get(..byte).unwrap_or(self.0);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Pos {
            line: before.matches('\n').count() as u32 + 1,
            col: line.chars().count() as u32 + 1,
            width: 1,
        }
    }

    fn table(&self, table: &DeTable<'_>, at: Pos) -> Result<Arc<Node>, Fatal> {
        let entries = table.iter().map(|(key, value)| {
            let at = self.at(key.span().start);
            let name = key.get_ref().clone().into_owned();
            Ok(Entry::new(name, at, self.value(value)?))
        });
        let mut entries = entries.collect::<Result<Vec<_>, Fatal>>()?;
        // The parser has them by name.
        entries.sort_by_key(|entry| entry.at);
        Node::branch(at, Value::Map(entries))
    }

    fn value(&self, value: &Spanned<DeValue<'_>>) -> Result<Arc<Node>, Fatal> {
        let at = self.at(value.span().start);
        let leaf = |text: String, plain| Node::leaf(at, Value::Scalar { text, plain });
        Ok(match value.get_ref() {
            DeValue::String(text) => leaf(text.clone().into_owned(), false),
            DeValue::Integer(number) => leaf(number.as_str().to_owned(), true),
            DeValue::Float(number) => leaf(number.as_str().to_owned(), true),
            DeValue::Boolean(flag) => leaf(flag.to_string(), true),
            DeValue::Datetime(time) => leaf(time.to_string(), true),
            DeValue::Array(items) => {
                let items = items.iter().map(|item| self.value(item));
                let items = items.collect::<Result<Vec<_>, Fatal>>()?;
                Node::branch(at, Value::List(items))?
            }
            DeValue::Table(table) => self.table(table, at)?,
        })
    }
}
