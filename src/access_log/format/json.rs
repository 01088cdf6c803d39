//! One pass over the top-level keys of a JSON object, values left as written.
//!
//! Quick because nothing is built: keys that are not wanted are stepped over. It checks the
//! structure of the whole line, so text inside a string can never pass for a key. Besides JSON's
//! escapes it reads `\xNN`, which nginx writes when `escape=json` was forgotten.

use std::borrow::Cow;

use super::{Text, Unparsed};

/// One value as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// The inside of a string, and whether a backslash occurs in it.
    Text(&'a [u8], bool),
    /// A number, `true`, `false` or `null`.
    Bare(&'a [u8]),
    /// An object or array, brackets included.
    Nested(&'a [u8]),
}

/// Steps through the members of one object.
#[derive(Debug)]
pub struct Members<'a> {
    line: &'a [u8],
    at: usize,
    first: bool,
}

impl<'a> Value<'a> {
    /// The text of a string; numbers count as their digits, everything else as empty.
    pub fn text(self) -> Result<Text<'a>, Unparsed> {
        match self {
            Self::Text(text, false) => Ok(Cow::Borrowed(text)),
            Self::Text(text, true) => unescape(text).map(Cow::Owned).ok_or(Unparsed::Syntax),
            Self::Bare(digits) if digits[0] != b'n' => Ok(Cow::Borrowed(digits)),
            Self::Bare(_) | Self::Nested(_) => Ok(Cow::Borrowed(b"")),
        }
    }

    /// The digits of a number, also when quoted.
    pub fn digits(self) -> &'a [u8] {
        match self {
            Self::Text(text, _) | Self::Bare(text) => text,
            Self::Nested(_) => b"",
        }
    }
}

impl<'a> Members<'a> {
    /// Starts at the `{` of one object.
    pub fn of(line: &'a [u8]) -> Result<Self, Unparsed> {
        let at = space(line, 0);
        match line.get(at) {
            Some(b'{') => Ok(Self {
                line,
                at: at + 1,
                first: true,
            }),
            _ => Err(Unparsed::Syntax),
        }
    }

    /// The next member; `None` once the object and the line have ended together.
    // Through memory instead of registers this answer costs more than the whole rest.
    #[inline(always)]
    pub fn next(&mut self) -> Result<Option<(&'a [u8], Value<'a>)>, Unparsed> {
        let line = self.line;
        let mut at = space(line, self.at);
        match line.get(at) {
            Some(b',') if !self.first => at = space(line, at + 1),
            Some(b'}') => return ended(line, at),
            Some(_) if self.first => {}
            _ => return Err(Unparsed::Syntax),
        }
        self.first = false;
        if line.get(at) != Some(&b'"') {
            return Err(Unparsed::Syntax);
        }
        // No writer escapes its own field names, so an escaped key is somebody's trick.
        let (key, false, after) = string(line, at + 1)? else {
            return Err(Unparsed::Syntax);
        };
        at = space(line, after);
        if line.get(at) != Some(&b':') {
            return Err(Unparsed::Syntax);
        }
        let (value, after) = value(line, space(line, at + 1))?;
        self.at = after;
        Ok(Some((key, value)))
    }
}

/// The object has ended; nothing may follow it.
fn ended<T>(line: &[u8], at: usize) -> Result<Option<T>, Unparsed> {
    match line[at + 1..].trim_ascii() {
        [] => Ok(None),
        _ => Err(Unparsed::Syntax),
    }
}

/// Keeps the first value of a key and refuses a second one.
pub fn once<T>(slot: &mut Option<T>, value: T, key: &'static str) -> Result<(), Unparsed> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Unparsed::Ambiguous(key)),
    }
}

/// The first value of a list, given its inside.
pub fn first(inside: &[u8]) -> Result<Value<'_>, Unparsed> {
    value(inside, space(inside, 0)).map(|(value, _)| value)
}

/// Where the blanks from `at` on end. Writers put none, so the first look is all there is.
#[inline(always)]
fn space(line: &[u8], at: usize) -> usize {
    match line.get(at) {
        Some(b) if *b <= b' ' => blanks(line, at),
        _ => at,
    }
}

#[cold]
fn blanks(line: &[u8], at: usize) -> usize {
    let blank = |b: &&u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n');
    at + line[at..].iter().take_while(blank).count()
}

/// The string whose first byte is at `from`: its inside, whether it has escapes, what follows.
#[inline(always)]
fn string(line: &[u8], from: usize) -> Result<(&[u8], bool, usize), Unparsed> {
    let mut at = from;
    let mut escaped = false;
    loop {
        let rest = line.get(at..).ok_or(Unparsed::Syntax)?;
        at += quote_or_backslash(rest).ok_or(Unparsed::Syntax)?;
        if line[at] == b'"' {
            return Ok((&line[from..at], escaped, at + 1));
        }
        escaped = true;
        at += 2;
    }
}

/// Most strings of a log are shorter than what makes a call of memchr worth it: its search by
/// sixteen bytes is part of every x86-64 and needs none.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn quote_or_backslash(text: &[u8]) -> Option<usize> {
    use memchr::arch::x86_64::sse2::memchr::Two;
    Two::new(b'"', b'\\')?.find(text)
}

#[cfg(not(target_arch = "x86_64"))]
fn quote_or_backslash(text: &[u8]) -> Option<usize> {
    memchr::memchr2(b'"', b'\\', text)
}

#[inline(always)]
fn value(line: &[u8], at: usize) -> Result<(Value<'_>, usize), Unparsed> {
    match line.get(at) {
        Some(b'"') => {
            let (text, escaped, after) = string(line, at + 1)?;
            Ok((Value::Text(text, escaped), after))
        }
        Some(b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
            let mut end = at + 1;
            while line.get(end).is_some_and(|b| BARE[usize::from(*b)]) {
                end += 1;
            }
            Ok((Value::Bare(&line[at..end]), end))
        }
        Some(b'{' | b'[') => {
            let after = nested(line, at)?;
            Ok((Value::Nested(&line[at..after]), after))
        }
        _ => Err(Unparsed::Syntax),
    }
}

/// Bytes of numbers, `true`, `false` and `null`.
const BARE: [bool; 256] = {
    let (mut bare, mut byte) = ([false; 256], 0);
    while byte < 256 {
        let b = byte as u8;
        bare[byte] = b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+');
        byte += 1;
    }
    bare
};

/// Where the object or array that opens at `at` ends.
fn nested(line: &[u8], mut at: usize) -> Result<usize, Unparsed> {
    let mut open: Vec<u8> = Vec::new();
    loop {
        match line.get(at).ok_or(Unparsed::Syntax)? {
            b'"' => {
                at = string(line, at + 1)?.2;
                continue;
            }
            b'{' => open.push(b'}'),
            b'[' => open.push(b']'),
            close @ (b'}' | b']') => {
                if open.pop() != Some(*close) {
                    return Err(Unparsed::Syntax);
                }
                if open.is_empty() {
                    return Ok(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// Undoes JSON's escapes and `\xNN`; half a surrogate pair becomes U+FFFD.
fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let escape = *rest.get(at + 1)?;
        rest = &rest[at + 2..];
        match escape {
            b'"' | b'\\' | b'/' => out.push(escape),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'x' => {
                out.push(u8::try_from(hex(rest.get(..2)?)?).ok()?);
                rest = &rest[2..];
            }
            b'u' => {
                let (letter, used) = utf16(rest)?;
                out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[used..];
            }
            _ => return None,
        }
    }
    out.extend_from_slice(rest);
    Some(out)
}

fn utf16(rest: &[u8]) -> Option<(char, usize)> {
    let first = hex(rest.get(..4)?)?;
    if let (0xD800..0xDC00, Some([b'\\', b'u', low @ ..])) = (first, rest.get(4..10)) {
        let low = hex(low)?;
        if (0xDC00..0xE000).contains(&low) {
            let both = 0x10000 + ((first - 0xD800) << 10) + (low - 0xDC00);
            return Some((char::from_u32(both)?, 10));
        }
    }
    Some((
        char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER),
        4,
    ))
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |n, b| {
        char::from(*b).to_digit(16).map(|digit| n * 16 + digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(line: &str) -> Result<Vec<(String, String)>, Unparsed> {
        let mut members = Members::of(line.as_bytes())?;
        let mut all = Vec::new();
        while let Some((key, value)) = members.next()? {
            let text = match value {
                Value::Nested(raw) => raw.into(),
                _ => value.text()?,
            };
            all.push((
                String::from_utf8_lossy(key).into_owned(),
                String::from_utf8_lossy(&text).into_owned(),
            ));
        }
        Ok(all)
    }

    #[test]
    fn reads_what_serde_json_reads() {
        for line in [
            r#"{}"#,
            r#" { "a" : "b" , "c":1.5e-3,"d":[1,{"x":"]}"}],"e":true } "#,
            r#"{"a":"q\"q\\","u":"\u00e4\ud83d\ude00\n\/"}"#,
            r#"{"long":"0123456789012345678901234567890123456789\"x","z":""}"#,
        ] {
            let ours = members(line).unwrap();
            let theirs: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(line).unwrap();
            assert_eq!(ours.len(), theirs.len(), "{line}");
            for (key, value) in ours {
                if let serde_json::Value::String(text) = &theirs[&key] {
                    assert_eq!(&value, text, "{line}");
                }
            }
        }
    }

    #[test]
    fn refuses_what_is_no_single_object() {
        for line in [
            "",
            "{",
            "[]",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":"b"#,
            r#"{"a":"b"} x"#,
            r#"{"a":"b""c":"d"}"#,
            r#"{,"a":"b"}"#,
            r#"{"a":"b"}{"a":"b"}"#,
            r#"{"a":[}]}"#,
            r#"{"\u0061":"b"}"#,
            r#"{"a":"\"#,
            r#"{"a":"\q"}"#,
            r#"{"a":"\u12"}"#,
        ] {
            assert!(members(line).is_err(), "{line}");
        }
    }

    #[test]
    fn nginx_without_escape_json_is_read_too() {
        let all = members(r#"{"uri":"/\x22,\x22status\x22:200,\x22"}"#).unwrap();
        assert_eq!(all[0].1, r#"/","status":200,""#);
        assert_eq!(members(r#"{"a":"\ud83dx"}"#).unwrap()[0].1, "\u{FFFD}x");
    }
}
