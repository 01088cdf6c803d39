//! Common Log Format, `combined`, and Traefik's `common` and `genericCLF`.
//!
//! nginx and Apache begin a line with their own peer's address and never write a quote of a
//! client's unescaped, so the first token is the client whatever follows. Traefik begins it with
//! all of `X-Forwarded-For` and escapes neither that nor the user: its lines must match from end
//! to end and split in one way only. A line feed in a Basic-auth user still forges whole lines
//! there; that is why Traefik belongs on JSON.

use super::{Chain, Event, Mark, Text, Unparsed, request_line, status, time};

/// Whose text lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Ends after the size, or is Traefik's.
    Clf,
    /// nginx's and Apache's, with referer and agent.
    Combined,
}

/// What stands after the status.
struct Tail<'a> {
    quoted: Vec<&'a [u8]>,
    /// What follows the last quote.
    end: &'a [u8],
}

/// Reads one line.
pub fn parse(line: &[u8], dialect: Dialect) -> Result<Event<'_>, Unparsed> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let open = quote(line, 0).ok_or(Unparsed::Syntax)?;
    let close = quote(line, open + 1).ok_or(Unparsed::Syntax)?;
    let (head, at) = head(&line[..open])?;
    let (code, rest) = status_and_size(&line[close + 1..])?;
    let tail = Tail::of(rest)?;
    let chain = match (dialect, tail.is_traefik()) {
        (Dialect::Combined, false) if tail.quoted.len() >= 2 => Chain {
            forwarded: tail.forwarded(),
            peer: server_head(head)?.into(),
            believed: false,
        },
        (Dialect::Clf, false) if tail.is_empty() => Chain {
            peer: server_head(head)?.into(),
            ..Chain::default()
        },
        (Dialect::Clf, traefik) if traefik || tail.is_generic() => Chain {
            forwarded: traefik_head(head)?.into(),
            ..Chain::default()
        },
        _ => return Err(Unparsed::Syntax),
    };
    let (method, target) = request_line(&line[open + 1..close]).unwrap_or_default();
    Ok(Event {
        time: Some(at),
        chain,
        method: method.into(),
        host: Text::default(),
        target: target.into(),
        status: code,
        agent: tail.quoted.get(1).copied().unwrap_or_default().into(),
        mark: Mark::None,
        server: Text::default(),
    })
}

impl<'a> Tail<'a> {
    fn of(mut rest: &'a [u8]) -> Result<Self, Unparsed> {
        let mut quoted = Vec::with_capacity(4);
        while let Some(open) = quote(rest, 0) {
            // Between two quoted fields stands one space, or Traefik's request count.
            let between = &rest[..open];
            let count = between.trim_ascii().iter().all(u8::is_ascii_digit);
            let close = quote(rest, open + 1).ok_or(Unparsed::Syntax)?;
            if !between.starts_with(b" ") || !between.ends_with(b" ") || !count {
                break;
            }
            quoted.push(&rest[open + 1..close]);
            rest = &rest[close + 1..];
        }
        Ok(Self { quoted, end: rest })
    }

    fn is_empty(&self) -> bool {
        self.quoted.is_empty() && self.end.trim_ascii().is_empty()
    }

    /// `"referer" "agent"` and nothing more.
    fn is_generic(&self) -> bool {
        self.quoted.len() == 2 && self.end.trim_ascii().is_empty()
    }

    /// `"referer" "agent" count "router" "server" 12ms`.
    fn is_traefik(&self) -> bool {
        let millis = self
            .end
            .strip_prefix(b" ")
            .and_then(|end| end.strip_suffix(b"ms"));
        self.quoted.len() == 4
            && millis.is_some_and(|n| !n.is_empty() && n.iter().all(u8::is_ascii_digit))
    }

    /// The `"$http_x_forwarded_for"` that nginx's packaged `main` format adds.
    fn forwarded(&self) -> Text<'a> {
        match self.quoted[..] {
            [_, _, list, ..] if list != b"-" => list.into(),
            _ => Text::default(),
        }
    }
}

/// Where the next quote without a backslash before it stands.
fn quote(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

/// Splits `… [time] ` at its end: a bracket in the user name is further left.
fn head(text: &[u8]) -> Result<(&[u8], u64), Unparsed> {
    let inside = text.strip_suffix(b"] ").ok_or(Unparsed::Syntax)?;
    let from = inside.len().checked_sub(26).ok_or(Unparsed::Bad("time"))?;
    let head = inside[..from].strip_suffix(b" [").ok_or(Unparsed::Syntax)?;
    Ok((
        head,
        time::clf(&inside[from..]).ok_or(Unparsed::Bad("time"))?,
    ))
}

/// `ADDRESS IDENT USER`, the user may be anything.
fn server_head(head: &[u8]) -> Result<&[u8], Unparsed> {
    let mut tokens = head.splitn(3, |b| *b == b' ');
    match (tokens.next(), tokens.next(), tokens.next()) {
        (Some(client), Some(_), Some(_)) if !client.is_empty() => Ok(client),
        _ => Err(Unparsed::Syntax),
    }
}

/// `A, B, C - USER`: one ` - ` only, and no element with a space in it.
fn traefik_head(head: &[u8]) -> Result<&[u8], Unparsed> {
    let mut dashes = memchr::memmem::find_iter(head, b" - ");
    let dash = dashes.next().ok_or(Unparsed::Syntax)?;
    let chain = &head[..dash];
    let spaced = |element: &[u8]| element.trim_ascii().contains(&b' ');
    if dashes.next().is_some() || chain.split(|b| *b == b',').any(spaced) {
        return Err(Unparsed::Ambiguous("ClientHost"));
    }
    Ok(chain)
}

/// ` 401 123` or ` 401 -`, and what follows.
fn status_and_size(text: &[u8]) -> Result<(u16, &[u8]), Unparsed> {
    let rest = text.strip_prefix(b" ").ok_or(Unparsed::Syntax)?;
    let digits = rest
        .iter()
        .position(|b| *b == b' ')
        .ok_or(Unparsed::Syntax)?;
    let code = match &rest[..digits] {
        b"-" => 0,
        digits => status(digits).ok_or(Unparsed::Bad("status"))?,
    };
    let rest = &rest[digits + 1..];
    let size = rest.iter().position(|b| *b == b' ').unwrap_or(rest.len());
    let sound = &rest[..size] == b"-" || rest[..size].iter().all(u8::is_ascii_digit);
    if size == 0 || !sound {
        return Err(Unparsed::Bad("size"));
    }
    Ok((code, &rest[size..]))
}
