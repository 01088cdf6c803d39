//! Reads along with the HTTP/1.1 parser and notes what the parser hides: bare LF in a head,
//! several or combined framing headers, a `#` in the target. It owns no decision; the parser
//! refuses what is malformed, and [`super::strict`] acts on what is noted here.

use memchr::memchr;

/// Longest part of an unfinished line that is kept; the parser gives up far earlier.
const MAX_CARRY: usize = 512 * 1024;

/// The scanner of one connection. Requests are numbered from 0 in the order of their heads.
#[derive(Debug, Default)]
pub struct Scan {
    state: State,
    /// Start of a line whose end has not been read yet.
    carry: Vec<u8>,
    head: Head,
    /// Number of the request whose head is read next or now.
    request: u32,
    found: Found,
    last: Option<u32>,
}

/// What was noted, as numbers of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// First request after which the connection must be closed.
    pub close: Option<u32>,
    /// First request that must be refused.
    pub refuse: Option<u32>,
}

/// Where the client is in what it sends, for timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between requests.
    Idle,
    /// A head has begun.
    Head,
    /// A body is on its way.
    Body,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    Length(u64),
    ChunkSize {
        value: u64,
        digits: bool,
    },
    /// Bytes left of a chunk, its CRLF included.
    ChunkData(u64),
    Trailers {
        empty: bool,
    },
    Off,
}

/// Framing facts of the head that is being read.
#[derive(Debug, Default)]
struct Head {
    started: bool,
    lengths: u32,
    length: u64,
    encoded: bool,
    bare_lf: bool,
    fragment: bool,
    closes: bool,
}

impl Scan {
    /// Stops reading along: the connection became a tunnel or speaks HTTP/2.
    pub fn switch_off(&mut self) {
        self.state = State::Off;
        self.carry = Vec::new();
    }

    /// Everything noted so far.
    pub fn found(&self) -> Found {
        self.found
    }

    /// How many requests are answered, once one said `Connection: close`.
    pub fn last(&self) -> Option<u32> {
        self.last
    }

    /// Where the client is now.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Head if self.head.started || !self.carry.is_empty() => Phase::Head,
            State::Head | State::Off => Phase::Idle,
            _ => Phase::Body,
        }
    }

    /// Takes in the next bytes read from the client.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Head => self.head_bytes(bytes),
                State::Length(left) => self.length_bytes(left, bytes),
                State::ChunkSize { value, digits } => self.size_bytes(value, digits, bytes),
                State::ChunkData(left) => self.chunk_bytes(left, bytes),
                State::Trailers { empty } => self.trailer_bytes(empty, bytes),
                State::Off => return,
            };
        }
    }

    /// Whole lines of a head, up to its end.
    fn head_bytes<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while let Some(end) = memchr(b'\n', bytes) {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            let done = if self.carry.is_empty() {
                self.line(line)
            } else {
                let mut whole = std::mem::take(&mut self.carry);
                whole.extend_from_slice(line);
                self.line(&whole)
            };
            if done {
                self.end_of_head();
                return rest;
            }
            bytes = rest;
        }
        if self.carry.len() < MAX_CARRY {
            self.carry.extend_from_slice(bytes);
        }
        &[]
    }

    /// One line without its LF; answers whether it ended the head.
    fn line(&mut self, line: &[u8]) -> bool {
        let head = &mut self.head;
        let (line, crlf) = match line {
            [text @ .., b'\r'] => (text, true),
            text => (text, false),
        };
        if !head.started {
            // Empty lines before a request are skipped, as the parser does.
            if !line.is_empty() {
                head.started = true;
                head.bare_lf |= !crlf;
                head.fragment = memchr(b'#', line).is_some();
            }
            return false;
        }
        head.bare_lf |= !crlf;
        match line.first().map(|first| first | 0x20) {
            None => return true,
            Some(b'c') => {
                if let Some(value) = value_of(line, b"content-length") {
                    head.lengths += 1;
                    head.length = decimal(value);
                } else if let Some(value) = value_of(line, b"connection") {
                    head.closes |= value.trim_ascii().eq_ignore_ascii_case(b"close");
                }
            }
            Some(b't') => head.encoded |= value_of(line, b"transfer-encoding").is_some(),
            Some(_) => {}
        }
        false
    }

    fn end_of_head(&mut self) {
        let head = std::mem::take(&mut self.head);
        let number = self.request;
        self.request = number.wrapping_add(1);
        if head.bare_lf || head.lengths > 1 || (head.encoded && head.lengths > 0) {
            self.found.close.get_or_insert(number);
        }
        if head.fragment {
            self.found.refuse.get_or_insert(number);
        }
        if head.closes {
            self.last.get_or_insert(self.request);
        }
        self.state = if head.encoded {
            State::ChunkSize {
                value: 0,
                digits: true,
            }
        } else if head.length > 0 {
            State::Length(head.length)
        } else {
            State::Head
        };
    }

    fn length_bytes<'a>(&mut self, left: u64, bytes: &'a [u8]) -> &'a [u8] {
        let taken = left.min(bytes.len() as u64);
        self.state = if taken == left {
            State::Head
        } else {
            State::Length(left - taken)
        };
        &bytes[taken as usize..]
    }

    fn size_bytes<'a>(&mut self, mut value: u64, mut digits: bool, bytes: &'a [u8]) -> &'a [u8] {
        for (at, &byte) in bytes.iter().enumerate() {
            match (byte as char).to_digit(16) {
                _ if byte == b'\n' => {
                    self.state = if value == 0 {
                        State::Trailers { empty: true }
                    } else {
                        State::ChunkData(value.saturating_add(2))
                    };
                    return &bytes[at + 1..];
                }
                Some(digit) if digits => {
                    value = value.saturating_mul(16).saturating_add(digit.into())
                }
                _ => digits = false,
            }
        }
        self.state = State::ChunkSize { value, digits };
        &[]
    }

    fn chunk_bytes<'a>(&mut self, left: u64, bytes: &'a [u8]) -> &'a [u8] {
        let taken = left.min(bytes.len() as u64);
        self.state = if taken == left {
            State::ChunkSize {
                value: 0,
                digits: true,
            }
        } else {
            State::ChunkData(left - taken)
        };
        &bytes[taken as usize..]
    }

    fn trailer_bytes<'a>(&mut self, mut empty: bool, bytes: &'a [u8]) -> &'a [u8] {
        for (at, &byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' if empty => {
                    self.state = State::Head;
                    return &bytes[at + 1..];
                }
                b'\n' => empty = true,
                b'\r' => {}
                _ => empty = false,
            }
        }
        self.state = State::Trailers { empty };
        &[]
    }
}

fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (head, value) = line.split_at_checked(name.len())?;
    match value {
        [b':', value @ ..] if head.eq_ignore_ascii_case(name) => Some(value),
        _ => None,
    }
}

/// The number in a `Content-Length`; what is none is refused by the parser anyway.
fn decimal(value: &[u8]) -> u64 {
    value
        .iter()
        .filter(|byte| byte.is_ascii_digit())
        .fold(0, |sum: u64, byte| {
            sum.saturating_mul(10)
                .saturating_add(u64::from(byte - b'0'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    /// Fed whole, in two parts at every place, and byte by byte, the result is the same.
    #[track_caller]
    fn check(input: &str, close: Option<u32>, refuse: Option<u32>, phase: Phase) {
        let input = input.as_bytes();
        let expected = (Found { close, refuse }, phase);
        for cut in 0..=input.len() {
            let mut scan = Scan::default();
            scan.feed(&input[..cut]);
            scan.feed(&input[cut..]);
            assert_eq!((scan.found(), scan.phase()), expected, "cut at {cut}");
        }
        let mut scan = Scan::default();
        input.iter().for_each(|byte| scan.feed(&[*byte]));
        assert_eq!((scan.found(), scan.phase()), expected, "byte by byte");
    }

    #[test]
    fn clean_requests_note_nothing() {
        check(GET, None, None, Phase::Idle);
        check(&format!("\r\n\r\n{GET}{GET}"), None, None, Phase::Idle);
        check("GET / HT", None, None, Phase::Head);
        check("GET / HTTP/1.1\r\nHost: a\r\n", None, None, Phase::Head);
    }

    #[test]
    fn what_the_parser_folds_is_noted_with_the_number_of_its_request() {
        let post = |headers: &str, body: &str| {
            format!("{GET}POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n{body}{GET}")
        };
        let cases = [
            ("Content-Length: 3\r\n", "a\n\n", None),
            ("Content-Length: 3\r\ncontent-length: 3\r\n", "abc", Some(1)),
            (
                "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
                "0\r\n\r\n",
                Some(1),
            ),
            (
                "transfer-encoding: chunked\r\nCONTENT-LENGTH:3\r\n",
                "0\r\n\r\n",
                Some(1),
            ),
            ("X: y\nContent-Length: 0\r\n", "", Some(1)),
            (
                "Transfer-Encoding: chunked\r\n",
                "5;a=b\r\nGET /\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
                None,
            ),
            ("Content-Lengthy: 7\r\nTrailer: a\r\n", "", None),
        ];
        for (headers, body, close) in cases {
            check(&post(headers, body), close, None, Phase::Idle);
        }
        check("GET / HTTP/1.1\nHost: a\n\n", Some(0), None, Phase::Idle);
    }

    #[test]
    fn a_fragment_in_the_target_is_refused_but_not_one_in_a_header() {
        check(
            "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
            None,
            Some(0),
            Phase::Idle,
        );
        check(
            "GET / HTTP/1.1\r\nHost: a\r\nX: #\r\n\r\n",
            None,
            None,
            Phase::Idle,
        );
    }

    #[test]
    fn the_first_request_that_says_close_is_the_last() {
        let get = |more: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{more}\r\n");
        for (more, last) in [
            ("", None),
            ("Connection: keep-alive\r\n", None),
            ("Connection: closed\r\n", None),
            ("connection:close\r\n", Some(2)),
            ("Connection: Close \r\n", Some(2)),
        ] {
            let mut scan = Scan::default();
            scan.feed(get("").as_bytes());
            scan.feed(get(more).as_bytes());
            scan.feed(get(more).as_bytes());
            assert_eq!(scan.last(), last, "{more}");
        }
    }

    #[test]
    fn unfinished_bodies_are_bodies() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\n";
        check(
            &format!("{head}Content-Length: 9\r\n\r\nabc"),
            None,
            None,
            Phase::Body,
        );
        let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
        for body in ["", "5", "5\r\nab", "0\r\n", "0\r\nX: y\r\n"] {
            check(&format!("{chunked}{body}"), None, None, Phase::Body);
        }
    }
}
