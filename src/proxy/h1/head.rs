//! HTTP/1.1 heads: a request's written, a response's read. A response that two readers could
//! frame differently is refused (RFC 9112 §6.3, §11.2).

use std::io::Write as _;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use crate::proxy::{
    headers::{Outgoing, is_hop_by_hop, list, strip_listed},
    spare,
};

/// Bytes of a response head; more is refused. Offsets into it fit 16 bits.
const MAX_HEAD: usize = u16::MAX as usize;
/// Header lines of a response.
const MAX_LINES: usize = 128;

/// How a request's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Sends {
    /// No body and nothing said about it.
    Nothing,
    /// `Content-Length`; it may be 0.
    Exactly(u64),
    /// Chunked.
    Chunks,
}

/// How a response's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
    /// Until the server closes.
    Close,
}

/// A response's head without its hop-by-hop lines.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) framing: Framing,
    /// The server leaves the connection open.
    pub(super) keep_alive: bool,
    /// What a 101 switches to.
    pub(super) upgrade: Option<HeaderValue>,
}

/// Where a request goes, next to what [`Outgoing`] says.
pub(in crate::proxy) struct Line<'a> {
    pub(in crate::proxy) base_path: &'a str,
    pub(in crate::proxy) host: &'a [u8],
    pub(in crate::proxy) sends: Sends,
    pub(in crate::proxy) expect: bool,
}

/// Appends the request's head to `out`.
pub(super) fn encode(out: &mut Vec<u8>, line: &Line<'_>, outgoing: &Outgoing<'_>) {
    let uri = &outgoing.parts.uri;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    out.extend_from_slice(outgoing.parts.method.as_str().as_bytes());
    out.push(b' ');
    if target != "*" {
        out.extend_from_slice(line.base_path.as_bytes());
        if !target.starts_with('/') {
            out.push(b'/');
        }
    }
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut emit = |name: &str, value: &[u8]| {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    };
    emit("host", line.host);
    outgoing.each(&mut emit);
    if line.expect {
        emit("expect", b"100-continue");
    }
    match line.sends {
        Sends::Nothing => {}
        Sends::Chunks => emit("transfer-encoding", b"chunked"),
        // Writing into a Vec cannot fail.
        Sends::Exactly(length) => _ = write!(out, "content-length: {length}\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

/// Takes a whole response head off `buffer`; `None` asks for more bytes.
pub(super) fn parse(buffer: &mut BytesMut, method: &Method) -> Result<Option<Head>, &'static str> {
    let mut spans = [[0_u16; 4]; MAX_LINES];
    let mut lines = [const { std::mem::MaybeUninit::uninit() }; MAX_LINES];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut response, buffer, &mut lines);
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if buffer.len() <= MAX_HEAD => return Ok(None),
        Ok(_) => return Err("head too long"),
        Err(httparse::Error::TooManyHeaders) => return Err("too many header lines"),
        Err(_) => return Err("not an HTTP/1.1 head"),
    };
    let status = response
        .code
        .and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or("bad status")?;
    let http10 = response.version == Some(0);
    let start = buffer.as_ptr() as usize;
    let count = response.headers.len();
    for (span, line) in spans.iter_mut().zip(response.headers.iter()) {
        let name = line.name.as_ptr() as usize - start;
        let value = line.value.as_ptr() as usize - start;
        let ends = [name + line.name.len(), value + line.value.len()];
        // An empty value may point anywhere.
        let value = if line.value.is_empty() {
            [0, 0]
        } else {
            [value, ends[1]]
        };
        *span = [name, ends[0], value[0], value[1]].map(|offset| offset as u16);
    }
    let head = buffer.split_to(length).freeze();
    fields(&head, &spans[..count], status, http10, method).map(Some)
}

fn fields(
    head: &Bytes,
    spans: &[[u16; 4]],
    status: StatusCode,
    http10: bool,
    method: &Method,
) -> Result<Head, &'static str> {
    let mut headers = spare::fields();
    headers.reserve(spans.len());
    let mut about = Framed::default();
    for span in spans {
        let [name, name_end, value, value_end] = span.map(usize::from);
        let name = &head[name..name_end];
        let name = usual(name).map_or_else(|| HeaderName::from_bytes(name), Ok);
        let name = name.map_err(|_| "bad header name")?;
        let value = match usual_value(&head[value..value_end]) {
            Some(usual) => usual,
            None => HeaderValue::from_maybe_shared(head.slice(value..value_end))
                .map_err(|_| "bad header value")?,
        };
        if name == header::CONTENT_LENGTH {
            if !about.content_length(&value)? {
                continue;
            }
        } else if is_hop_by_hop(name.as_str()) {
            about.hop_by_hop(&name, value)?;
            continue;
        }
        headers.append(name, value);
    }
    strip_listed(&mut headers, &about.listing);
    let framing = about.framing(status, http10, method)?;
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        headers.remove(header::CONTENT_LENGTH);
    }
    Ok(Head {
        status,
        headers,
        framing,
        keep_alive: !about.close && (about.keep || !http10) && framing != Framing::Close,
        upgrade: about.upgrade,
    })
}

/// The names that most responses have. Looking one up by its length spares the general way, which
/// maps and hashes every byte and costs three times as much.
fn usual(name: &[u8]) -> Option<HeaderName> {
    let known: &[HeaderName] = match name.len() {
        4 => &[header::DATE, header::ETAG, header::VARY],
        6 => &[header::SERVER],
        7 => &[header::EXPIRES],
        8 => &[header::LOCATION],
        10 => &[header::CONNECTION, header::SET_COOKIE],
        12 => &[header::CONTENT_TYPE],
        13 => &[
            header::CACHE_CONTROL,
            header::LAST_MODIFIED,
            header::ACCEPT_RANGES,
        ],
        14 => &[header::CONTENT_LENGTH],
        16 => &[header::CONTENT_ENCODING],
        17 => &[header::TRANSFER_ENCODING],
        _ => &[],
    };
    let same = |known: &&HeaderName| known.as_str().as_bytes().eq_ignore_ascii_case(name);
    known.iter().find(same).cloned()
}

/// Values that most responses have. These need no share of the head, which costs two locked
/// instructions, and are known to be well-formed.
fn usual_value(value: &[u8]) -> Option<HeaderValue> {
    let known: &[&'static str] = match value.len() {
        2 => &["br"],
        4 => &["gzip"],
        5 => &["bytes", "close"],
        7 => &["chunked"],
        8 => &["no-cache", "no-store"],
        9 => &["text/html"],
        10 => &["keep-alive", "text/plain"],
        15 => &["Accept-Encoding"],
        16 => &["application/json"],
        24 => &["text/html; charset=utf-8", "application/octet-stream"],
        _ => &[],
    };
    let same = |known: &&&str| known.as_bytes() == value;
    (known.iter().find(same)).map(|known| HeaderValue::from_static(known))
}

/// What the lines that end here say about the message.
#[derive(Default)]
struct Framed {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep: bool,
    upgrade: Option<HeaderValue>,
    /// `Connection` lines that name other lines.
    listing: Vec<HeaderValue>,
}

impl Framed {
    /// Answers whether the line is the first of its kind and stays.
    fn content_length(&mut self, value: &HeaderValue) -> Result<bool, &'static str> {
        let digits = value.as_bytes();
        let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        let text = value.to_str().ok().filter(|_| all_digits);
        let length = text.and_then(|text| text.parse().ok());
        let length: u64 = length.ok_or("bad Content-Length")?;
        match self.length.replace(length) {
            None => Ok(true),
            Some(before) if before == length => Ok(false),
            Some(_) => Err("differing Content-Length"),
        }
    }

    fn hop_by_hop(&mut self, name: &HeaderName, value: HeaderValue) -> Result<(), &'static str> {
        match *name {
            header::TRANSFER_ENCODING => {
                if self.chunked || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                    return Err("unknown Transfer-Encoding");
                }
                self.chunked = true;
            }
            header::CONNECTION => self.connection(value),
            header::UPGRADE => self.upgrade = Some(value),
            _ => {}
        }
        Ok(())
    }

    fn connection(&mut self, value: HeaderValue) {
        let is = |token: &[u8], name: &str| token.eq_ignore_ascii_case(name.as_bytes());
        let mut lists = false;
        for token in list(value.as_bytes()) {
            self.close |= is(token, "close");
            self.keep |= is(token, "keep-alive");
            lists |= !["close", "keep-alive", "upgrade", "te"]
                .iter()
                .any(|name| is(token, name));
        }
        if lists {
            self.listing.push(value);
        }
    }

    fn framing(
        &mut self,
        status: StatusCode,
        http10: bool,
        method: &Method,
    ) -> Result<Framing, &'static str> {
        if self.chunked && self.length.is_some() {
            return Err("Content-Length beside Transfer-Encoding");
        }
        if self.chunked && http10 {
            return Err("Transfer-Encoding in HTTP/1.0");
        }
        if status.is_informational() || status == StatusCode::NO_CONTENT {
            // A body that must not be there may still follow.
            self.close |= self.chunked || self.length.is_some_and(|length| length > 0);
            return Ok(Framing::Length(0));
        }
        if status == StatusCode::NOT_MODIFIED || method == Method::HEAD {
            return Ok(Framing::Length(0));
        }
        Ok(match (self.chunked, self.length) {
            (true, _) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::Close,
        })
    }
}
