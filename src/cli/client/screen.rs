//! What a terminal shows: tables that fit it, colour where it is wanted, and text of strangers
//! that cannot play with it.

use std::io::{IsTerminal, Write, stdout};

use comfy_table::{Cell, ContentArrangement, Table, presets};
use jiff::Timestamp;
use serde_json::Value;

use crate::time::Millis;

/// Colours by what they mean.
#[derive(Clone, Copy, Debug)]
pub enum Tone {
    /// Passes, is well.
    Good,
    /// Is denied, fails.
    Bad,
    /// Matters less.
    Faint,
}

/// Prints a line; whoever reads may have gone.
pub fn line(text: &str) {
    let _ = writeln!(stdout(), "{text}");
}

/// Text without control characters: a path or an agent is whatever a client sent.
pub fn inert(text: &str) -> String {
    let each = text.chars().map(|c| match c {
        c if c.is_control()
            || ('\u{202A}'..='\u{202E}').contains(&c)
            || ('\u{2066}'..='\u{2069}').contains(&c) =>
        {
            c.escape_unicode().to_string()
        }
        c => c.to_string(),
    });
    each.collect()
}

/// Coloured on a terminal, unless NO_COLOR says no.
pub fn toned(text: &str, tone: Tone) -> String {
    let off = std::env::var_os("NO_COLOR").is_some_and(|no| !no.is_empty());
    if off || !stdout().is_terminal() {
        return text.to_owned();
    }
    let code = match tone {
        Tone::Good => 32,
        Tone::Bad => 31,
        Tone::Faint => 2,
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// Rows under a heading, as wide as the terminal and no wider.
pub fn table(heading: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(heading.iter().map(Cell::new));
    if let Some(width) = width() {
        table.set_width(width);
    }
    table.add_rows(rows);
    for row in table.lines() {
        line(row.trim_end());
    }
}

/// Columns of the terminal; `None` when the output goes elsewhere.
fn width() -> Option<u16> {
    if !stdout().is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(stdout()).ok()?;
    Some(size.ws_col).filter(|columns| *columns >= 40)
}

/// A member as text; empty when there is none.
pub fn text(value: &Value, key: &str) -> String {
    match &value[key] {
        Value::String(text) => inert(text),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The members of a list.
pub fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// A time to the second: `2026-01-31 12:00:00Z`.
pub fn moment(value: &Value, key: &str) -> String {
    let at = value[key].as_str().unwrap_or_default();
    match at.parse::<Timestamp>() {
        Ok(at) => at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        Err(_) => inert(at),
    }
}

/// How long until a time; null is `for ever`.
pub fn left(value: &Value, key: &str, now: Millis) -> String {
    let Some(at) = value[key].as_str() else {
        return "for ever".to_owned();
    };
    let Ok(at) = at.parse::<Timestamp>() else {
        return inert(at);
    };
    let until = Millis::try_from(at.as_millisecond()).unwrap_or(0);
    length(until.saturating_sub(now).div_ceil(1000))
}

/// The two greatest units of a length: `3h 12m`.
pub fn length(seconds: u64) -> String {
    let units = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (unit, size) in units {
        let many = rest / size;
        rest %= size;
        if many > 0 {
            parts.push(format!("{many}{unit}"));
        }
    }
    parts.truncate(2);
    if parts.is_empty() {
        "0s".to_owned()
    } else {
        parts.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_cannot_play_with_the_terminal() {
        assert_eq!(
            inert("/a\u{1b}[2J\r\n\u{202e}b ä"),
            "/a\\u{1b}[2J\\u{d}\\u{a}\\u{202e}b ä"
        );
    }

    #[test]
    fn lengths_have_two_units_at_most() {
        for (seconds, expected) in [
            (0, "0s"),
            (59, "59s"),
            (600, "10m"),
            (11_530, "3h 12m"),
            (90_061, "1d 1h"),
        ] {
            assert_eq!(length(seconds), expected);
        }
    }
}
