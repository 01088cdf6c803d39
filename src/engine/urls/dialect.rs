//! Patterns in Go's RE2 dialect, rewritten for the `regex` crate so that they match the same.
//! Refuses what Go refuses, in Go's order of reading. Does not compile anything.

use std::iter::Peekable;
use std::str::Chars;

/// Translates one pattern from Go's dialect to the `regex` crate's, for its bytes API.
///
/// Perl classes and `\b` become ASCII, `\Q..\E`, octal escapes, escaped punctuation and braces that
/// count nothing become literals, class brackets nest nowhere, groups lose their names. The error
/// is one line for whoever wrote the pattern.
pub fn from_go(pattern: &str) -> Result<String, String> {
    let mut go = Translator {
        rest: pattern.chars().peekable(),
        out: String::with_capacity(pattern.len() + 8),
        unicode: false,
        last: Last::Nothing,
        groups: vec![1],
        names: Vec::new(),
    };
    go.pattern()?;
    // Bytes are what a target is made of; Unicode only where the pattern asks for it.
    let mode = if go.unicode { "u" } else { "-u" };
    Ok(format!("(?{mode}:{})", go.out))
}

struct Translator<'p> {
    rest: Peekable<Chars<'p>>,
    out: String,
    unicode: bool,
    last: Last,
    /// For each open group, the most times its inside repeats; the first is the whole pattern.
    groups: Vec<u32>,
    names: Vec<String>,
}

/// What a repetition operator would apply to.
#[derive(Clone, Copy)]
enum Last {
    Nothing,
    /// Something that already repeats its inside this often.
    Atom(u32),
    Repeated,
}

/// Go's limit on counted repetition, nested ones multiplied.
const MOST_REPEATS: u32 = 1000;

const POSIX_CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

impl Translator<'_> {
    fn pattern(&mut self) -> Result<(), String> {
        while let Some(c) = self.rest.next() {
            match c {
                '(' => self.open()?,
                ')' => self.close()?,
                '|' => {
                    self.out.push('|');
                    self.last = Last::Nothing;
                }
                '[' => self.class()?,
                '*' | '+' | '?' => self.repeat(&c.to_string(), 1)?,
                '{' => self.brace()?,
                '\\' => self.escape()?,
                '^' | '$' | '.' => self.atom(&c.to_string()),
                _ => self.literal(c),
            }
        }
        if self.groups.len() > 1 {
            return Err("missing closing `)`".into());
        }
        Ok(())
    }

    fn atom(&mut self, text: &str) {
        self.out.push_str(text);
        self.last = Last::Atom(1);
    }

    fn literal(&mut self, c: char) {
        self.push_char(c);
        self.last = Last::Atom(1);
    }

    fn push_char(&mut self, c: char) {
        self.unicode |= !c.is_ascii();
        if c.is_ascii_alphanumeric() || "/_ %=,:;@!\"'<>".contains(c) {
            self.out.push(c);
        } else {
            self.out.push_str(&format!("\\x{{{:X}}}", c as u32));
        }
    }

    fn open(&mut self) -> Result<(), String> {
        if self.rest.next_if_eq(&'?').is_none() {
            return self.group("(?:");
        }
        match self.rest.peek() {
            Some('P') | Some('<') => self.named(),
            Some('=') | Some('!') => Err(LOOK_AROUND.into()),
            _ => self.flags(),
        }
    }

    fn group(&mut self, opening: &str) -> Result<(), String> {
        self.out.push_str(opening);
        self.groups.push(1);
        self.last = Last::Nothing;
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        self.out.push(')');
        match self.groups.pop() {
            Some(inside) if !self.groups.is_empty() => {
                self.repeats(inside);
                self.last = Last::Atom(inside);
                Ok(())
            }
            _ => Err("unexpected `)`".into()),
        }
    }

    fn named(&mut self) -> Result<(), String> {
        if self.rest.next_if_eq(&'P').is_some() && self.rest.peek() != Some(&'<') {
            return Err("`(?P` begins a named group only as `(?P<name>`".into());
        }
        self.rest.next();
        if matches!(self.rest.peek(), Some('=') | Some('!')) {
            return Err(LOOK_AROUND.into());
        }
        let mut name = String::new();
        while let Some(c) = self
            .rest
            .next_if(|c| c.is_ascii_alphanumeric() || *c == '_')
        {
            name.push(c);
        }
        if name.is_empty() || self.rest.next() != Some('>') {
            return Err("invalid named group".into());
        }
        if self.names.contains(&name) {
            return Err(format!("two groups are named `{name}`"));
        }
        self.names.push(name);
        self.group("(?:")
    }

    fn flags(&mut self) -> Result<(), String> {
        let (mut on, mut off) = (String::new(), String::new());
        let (mut negative, mut seen) = (false, false);
        loop {
            match self.rest.next() {
                Some(c @ ('i' | 'm' | 's' | 'U')) => {
                    seen = true;
                    let (to, from) = if negative {
                        (&mut off, &mut on)
                    } else {
                        (&mut on, &mut off)
                    };
                    from.retain(|f| f != c);
                    if !to.contains(c) {
                        to.push(c);
                    }
                }
                Some('-') if !negative => (negative, seen) = (true, false),
                Some(end @ (')' | ':')) if !negative || seen => {
                    let minus = if off.is_empty() { "" } else { "-" };
                    if end == ':' {
                        return self.group(&format!("(?{on}{minus}{off}:"));
                    }
                    if !(on.is_empty() && off.is_empty()) {
                        self.out.push_str(&format!("(?{on}{minus}{off})"));
                    }
                    self.last = Last::Nothing;
                    return Ok(());
                }
                Some('x') => return Err("flag `x` does not exist in Go's dialect".into()),
                Some(c) => return Err(format!("invalid or unsupported syntax: `(?…{c}`")),
                None => return Err("missing closing `)`".into()),
            }
        }
    }

    fn repeat(&mut self, operator: &str, times: u32) -> Result<(), String> {
        let inside = match self.last {
            Last::Nothing => {
                return Err(format!(
                    "missing argument to repetition operator: `{operator}`"
                ));
            }
            Last::Repeated => {
                return Err(format!("invalid nested repetition operator: `{operator}`"));
            }
            Last::Atom(inside) => inside.saturating_mul(times.max(1)),
        };
        if inside > MOST_REPEATS && times > 1 {
            return Err(format!(
                "invalid repeat count: more than {MOST_REPEATS} in all"
            ));
        }
        self.out.push_str(operator);
        if self.rest.next_if_eq(&'?').is_some() {
            self.out.push('?');
        }
        self.repeats(inside);
        self.last = Last::Repeated;
        Ok(())
    }

    fn repeats(&mut self, times: u32) {
        if let Some(group) = self.groups.last_mut() {
            *group = times.max(*group);
        }
    }

    /// `{n}`, `{n,}` and `{n,m}` count; every other brace is itself.
    fn brace(&mut self) -> Result<(), String> {
        // Longer is no count; the bound keeps a pattern of many braces linear.
        let ahead: String = self
            .rest
            .clone()
            .take(32)
            .take_while(|c| *c != '}')
            .collect();
        let closed = self.rest.clone().nth(ahead.chars().count()) == Some('}');
        let (least, most) = ahead.split_once(',').unwrap_or((&ahead, &ahead));
        let open_end = most.is_empty() && ahead.ends_with(',');
        if !closed || !is_count(least) || !(open_end || is_count(most)) {
            self.literal('{');
            return Ok(());
        }
        let number = |text: &str| text.parse().unwrap_or(u32::MAX);
        let low = number(least);
        let high = if open_end { low } else { number(most) };
        if low > MOST_REPEATS || high > MOST_REPEATS || low > high {
            return Err(format!("invalid repeat count: `{{{ahead}}}`"));
        }
        self.rest.nth(ahead.chars().count());
        self.repeat(&format!("{{{ahead}}}"), high)
    }

    fn escape(&mut self) -> Result<(), String> {
        let Some(&c) = self.rest.peek() else {
            return Err("trailing backslash at end of expression".into());
        };
        match c {
            'A' | 'z' => self.atom(&format!("\\{c}")),
            'b' | 'B' => self.atom(&format!("(?-u:\\{c})")),
            'C' => return Err("`\\C` is not supported".into()),
            'Q' => {
                self.rest.next();
                self.quoted();
                return Ok(());
            }
            'p' | 'P' | 'd' | 'D' | 's' | 'S' | 'w' | 'W' => {
                self.named_class()?;
                self.last = Last::Atom(1);
                return Ok(());
            }
            _ => {
                let c = self.escaped_char()?;
                self.literal(c);
                return Ok(());
            }
        }
        self.rest.next();
        Ok(())
    }

    fn quoted(&mut self) {
        while let Some(c) = self.rest.next() {
            if c == '\\' && self.rest.next_if_eq(&'E').is_some() {
                return;
            }
            self.literal(c);
        }
    }

    /// `\d` and its like, and `\p{..}`; the same text serves inside and outside of brackets.
    fn named_class(&mut self) -> Result<(), String> {
        let ascii = match self.rest.next() {
            Some('d') => "[0-9]",
            Some('D') => "[^0-9]",
            Some('s') => r"[\t\n\x0C\r ]",
            Some('S') => r"[^\t\n\x0C\r ]",
            Some('w') => "[0-9A-Za-z_]",
            Some('W') => "[^0-9A-Za-z_]",
            Some(sign) => return self.unicode_class(sign == 'P'),
            None => return Err("trailing backslash at end of expression".into()),
        };
        self.out.push_str(ascii);
        Ok(())
    }

    fn unicode_class(&mut self, negated: bool) -> Result<(), String> {
        let invalid = || "invalid character class range: `\\p`".to_owned();
        let mut name = String::new();
        match self.rest.next().ok_or_else(invalid)? {
            '{' => loop {
                match self.rest.next().ok_or_else(invalid)? {
                    '}' => break,
                    c => name.push(c),
                }
            },
            c => name.push(c),
        }
        let plain = name.strip_prefix('^');
        let sign = if negated != plain.is_some() { 'P' } else { 'p' };
        let name = plain.unwrap_or(&name);
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(invalid());
        }
        self.unicode = true;
        self.out.push_str(&format!("\\{sign}{{{name}}}"));
        Ok(())
    }

    /// What stands behind a backslash, when it means one character.
    fn escaped_char(&mut self) -> Result<char, String> {
        let invalid = |c: char| format!("invalid escape sequence: `\\{c}`");
        let Some(c) = self.rest.next() else {
            return Err("trailing backslash at end of expression".into());
        };
        let octal = |c: &char| matches!(c, '0'..='7');
        match c {
            '1'..='7' if !self.rest.peek().is_some_and(octal) => Err(format!(
                "invalid escape sequence: `\\{c}` (no back-references)"
            )),
            '0'..='7' => {
                let mut value = c as u32 - '0' as u32;
                for _ in 0..2 {
                    if let Some(digit) = self.rest.next_if(octal) {
                        value = value * 8 + (digit as u32 - '0' as u32);
                    }
                }
                char::from_u32(value).ok_or_else(|| invalid(c))
            }
            'x' => self.hexadecimal(),
            'a' => Ok('\x07'),
            'f' => Ok('\x0C'),
            'n' => Ok('\n'),
            'r' => Ok('\r'),
            't' => Ok('\t'),
            'v' => Ok('\x0B'),
            _ if c.is_ascii() && !c.is_ascii_alphanumeric() => Ok(c),
            _ => Err(invalid(c)),
        }
    }

    fn hexadecimal(&mut self) -> Result<char, String> {
        let invalid = || "invalid escape sequence: `\\x` wants two digits or `{…}`".to_owned();
        let mut digits = String::new();
        if self.rest.next_if_eq(&'{').is_some() {
            loop {
                match self.rest.next().ok_or_else(invalid)? {
                    '}' => break,
                    c => digits.push(c),
                }
            }
        } else {
            digits.extend(self.rest.next());
            digits.extend(self.rest.next());
            if digits.len() != 2 {
                return Err(invalid());
            }
        }
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid());
        }
        u32::from_str_radix(&digits, 16)
            .ok()
            .and_then(char::from_u32)
            .ok_or_else(invalid)
    }

    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            match self.rest.peek() {
                None => return Err("missing closing `]`".into()),
                Some(']') if !first => break,
                _ => self.class_item()?,
            }
            first = false;
        }
        self.rest.next();
        self.atom("]");
        Ok(())
    }

    fn class_item(&mut self) -> Result<(), String> {
        let mut ahead = self.rest.clone();
        match (ahead.next(), ahead.next()) {
            (Some('['), Some(':')) => {
                let text: String = ahead.take(32).collect();
                if let Some((name, _)) = text.split_once(":]") {
                    return self.posix_class(name);
                }
            }
            (Some('\\'), Some('p' | 'P' | 'd' | 'D' | 's' | 'S' | 'w' | 'W')) => {
                self.rest.next();
                return self.named_class();
            }
            _ => {}
        }
        let low = self.class_char()?;
        self.push_char(low);
        let mut ahead = self.rest.clone();
        if ahead.next() == Some('-') && ahead.next().is_some_and(|c| c != ']') {
            self.rest.next();
            let high = self.class_char()?;
            if high < low {
                return Err(format!("invalid character class range: `{low}-{high}`"));
            }
            self.out.push('-');
            self.push_char(high);
        }
        Ok(())
    }

    fn posix_class(&mut self, name: &str) -> Result<(), String> {
        if !POSIX_CLASSES.contains(&name.strip_prefix('^').unwrap_or(name)) {
            return Err(format!("invalid character class range: `[:{name}:]`"));
        }
        self.out.push_str(&format!("[:{name}:]"));
        self.rest.nth(name.chars().count() + 3);
        Ok(())
    }

    fn class_char(&mut self) -> Result<char, String> {
        match self.rest.next() {
            Some('\\') => self.escaped_char(),
            Some(c) => Ok(c),
            None => Err("missing closing `]`".into()),
        }
    }
}

const LOOK_AROUND: &str = "look-around is not supported (neither is it in Go)";

/// A decimal number without leading zeros, as Go wants counts.
fn is_count(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'))
}

#[cfg(test)]
mod tests;
