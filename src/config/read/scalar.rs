//! Single values: text, switches, numbers, durations, paths; leniently also as the plugin's weak
//! typing takes them.

use std::{path::PathBuf, str::FromStr, time::Duration};

use super::{
    super::{Secret, duration, problem::Kind, raw::Value, shape},
    Field, said,
};

impl Field<'_> {
    /// A single value's text, environment variables put in.
    pub fn text(&self) -> Option<String> {
        match &self.node.value {
            Value::Scalar { text, .. } if text.contains('$') => self.cx.expand(self.node.at, text),
            Value::Scalar { text, .. } => Some(text.clone()),
            _ => {
                self.wrong_type("a single value");
                None
            }
        }
    }

    /// Text that must not be empty.
    pub fn word(&self) -> Option<String> {
        let text = self.text()?;
        if text.is_empty() {
            self.error(format!("`{}` must not be empty", self.path));
            return None;
        }
        Some(text)
    }

    /// One of some words.
    pub fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Option<T> {
        let text = self.text()?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let hint = match shape::nearest(&text, &words) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("it is one of {}", words.join(", ")),
        };
        self.error(format!(
            "`{}` cannot be `{}`; {hint}",
            self.path,
            self.shown()
        ));
        None
    }

    /// `true` or `false`; leniently what Go's `strconv.ParseBool` takes, and the empty text.
    pub fn flag(&self) -> Option<bool> {
        let text = self.text()?;
        let exact = match text.as_str() {
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            _ => None,
        };
        if exact.is_some() && self.is_typed(&text) {
            return exact;
        }
        let weak = match text.as_str() {
            "1" | "t" | "T" => Some(true),
            "0" | "f" | "F" | "" => Some(false),
            _ => exact,
        };
        if let (true, Some(value)) = (self.lenient, weak) {
            let shown = self.shown();
            let told = format!("`{shown}` is read as {value}; write it without quotes");
            self.warn_of(Kind::Spelling, told);
            return Some(value);
        }
        let hint = match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "true" => ", write true",
            "no" | "off" | "false" => ", write false",
            _ => "",
        };
        self.error(format!("`{}` must be true or false{hint}", self.path));
        None
    }

    /// A whole number between `low` and `high`.
    pub fn number(&self, low: i64, high: i64) -> Option<i64> {
        let text = self.text()?;
        let exact = i64::from_str(&text).ok().filter(|_| self.is_typed(&text));
        let number = match exact.or_else(|| self.weak_number(&text)) {
            Some(number) => number,
            None => {
                let shown = self.shown();
                self.error(format!(
                    "`{}` must be a whole number, not `{shown}`",
                    self.path
                ));
                return None;
            }
        };
        if !(low..=high).contains(&number) {
            self.error(format!("`{}` must be between {low} and {high}", self.path));
            return None;
        }
        Some(number)
    }

    /// Go's `strconv.ParseInt` with base 0, as the plugin's loader uses it.
    fn weak_number(&self, text: &str) -> Option<i64> {
        if !self.lenient {
            return None;
        }
        let (sign, digits) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        let lower = digits.to_ascii_lowercase().replace('_', "");
        let number = match lower.as_bytes() {
            [] => Some(0),
            [b'0', b'x', ..] => i64::from_str_radix(&lower[2..], 16).ok(),
            [b'0', b'o', ..] => i64::from_str_radix(&lower[2..], 8).ok(),
            [b'0', b'b', ..] => i64::from_str_radix(&lower[2..], 2).ok(),
            [b'0', _, ..] => i64::from_str_radix(&lower[1..], 8).ok(),
            _ => lower.parse().ok(),
        };
        let number = number.map(|number| sign * number)?;
        let kind = match text == number.to_string() {
            true => Kind::Spelling,
            false => Kind::Other,
        };
        let told = format!("`{}` is read as the number {number}", self.shown());
        self.warn_of(kind, told);
        Some(number)
    }

    /// A duration that is not negative.
    pub fn duration(&self) -> Option<Duration> {
        let signed = self.signed_duration()?;
        if signed.negative && !signed.length.is_zero() {
            self.error(format!("`{}` must not be negative", self.path));
            return None;
        }
        Some(signed.length)
    }

    /// A duration that may be negative, as the plugin's.
    pub fn signed_duration(&self) -> Option<duration::Signed> {
        let parsed = duration::parse(&self.text()?);
        parsed
            .map_err(|hint| {
                let (path, shown) = (&self.path, self.shown());
                self.error(format!("`{path}`: `{shown}` is no duration; {hint}"));
            })
            .ok()
    }

    /// A path, made absolute; it need not exist.
    pub fn path_value(&self) -> Option<PathBuf> {
        Some(self.cx.base.join(self.word()?))
    }

    pub(super) fn secret_file(&self) -> Option<Secret> {
        let path = self.path_value()?;
        match self.cx.read_file(&path) {
            Ok(text) => match text.trim_end_matches(['\r', '\n']) {
                "" => {
                    self.error(format!("`{}` is empty", path.display()));
                    None
                }
                secret => Some(Secret::new(secret)),
            },
            Err(error) => {
                self.error(format!(
                    "cannot read `{}`: {}",
                    path.display(),
                    said(&error)
                ));
                None
            }
        }
    }

    /// Whether a number or switch was written as one: bare, or out of the environment.
    fn is_typed(&self, expanded: &str) -> bool {
        match &self.node.value {
            Value::Scalar { text, plain } => *plain || text != expanded,
            _ => false,
        }
    }
}
