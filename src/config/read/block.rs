//! A block of known keys and the typed values under them.

use std::{path::PathBuf, time::Duration};

use super::{
    super::{Secret, shape::Shape},
    Block, Field, said,
};

impl<'a> Block<'a> {
    /// The value of a key, unless absent or null.
    pub fn get(&self, key: &'static str) -> Option<Field<'a>> {
        let found = self.keys.iter().find(|(known, _)| *known == key);
        found.map(|(_, field)| field.clone())
    }

    /// A block under a key.
    pub fn block(&self, key: &'static str, shape: &'static Shape) -> Option<Block<'a>> {
        self.get(key)?.block(shape)
    }

    /// Text under a key.
    pub fn text(&self, key: &'static str) -> Option<String> {
        self.get(key)?.text()
    }

    /// A switch under a key, or its default.
    pub fn flag(&self, key: &'static str, default: bool) -> bool {
        self.get(key)
            .and_then(|field| field.flag())
            .unwrap_or(default)
    }

    /// A whole number between `low` and `high`, or its default.
    pub fn number<T>(&self, key: &'static str, low: i64, high: i64, default: T) -> T
    where
        T: TryFrom<i64>,
    {
        self.get(key)
            .and_then(|field| field.number(low, high))
            .and_then(|number| T::try_from(number).ok())
            .unwrap_or(default)
    }

    /// A duration under a key, or its default.
    pub fn duration(&self, key: &'static str, default: Duration) -> Duration {
        self.get(key)
            .and_then(|field| field.duration())
            .unwrap_or(default)
    }

    /// A duration that must not be zero, or its default.
    pub fn period(&self, key: &'static str, default: Duration) -> Duration {
        let Some(field) = self.get(key) else {
            return default;
        };
        match field.duration() {
            Some(Duration::ZERO) => {
                field.error("must be longer than 0");
                default
            }
            length => length.unwrap_or(default),
        }
    }

    /// A file under a key: absolute, watched and there.
    pub fn file(&self, key: &'static str) -> Option<PathBuf> {
        let field = self.get(key)?;
        let path = field.path_value()?;
        self.cx.watch(&path);
        match std::fs::File::open(&path) {
            Ok(_) => Some(path),
            Err(error) => {
                field.error(format!(
                    "cannot read `{}`: {}",
                    path.display(),
                    said(&error)
                ));
                None
            }
        }
    }

    /// A secret, given itself or as the file that holds it.
    pub fn secret(&self, key: &'static str, file_key: &'static str) -> Option<Secret> {
        let given = |key| {
            let field = self.get(key)?;
            let text = field.text().filter(|text| !text.is_empty())?;
            Some((field, text))
        };
        match (given(key), given(file_key)) {
            (Some((_, text)), None) => Some(Secret::new(text)),
            (None, Some((field, _))) => field.secret_file(),
            (Some(_), Some((field, _))) => {
                field.error(format!("both `{key}` and `{file_key}`; keep one"));
                None
            }
            (None, None) => None,
        }
    }

    /// Notes an error at the block's key.
    pub fn error(&self, message: impl Into<String>) {
        self.cx.error(self.at, message);
    }

    /// Notes an oddity at the block's key.
    pub fn warn(&self, message: impl Into<String>) {
        self.cx.warn(self.at, message);
    }

    /// Its way from the top.
    pub fn path(&self) -> &str {
        &self.path
    }
}
