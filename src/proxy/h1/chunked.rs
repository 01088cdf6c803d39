//! The chunked transfer coding, strictly by RFC 9112 §7.1: what another reader could take for a
//! different message is an error, never guessed at.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Bytes of chunk extensions in one body. Nobody sends any; a flood of them is an attack.
const MAX_EXTENSIONS: usize = 16 * 1024;
/// Bytes and lines of a trailer section.
const MAX_TRAILERS: usize = 16 * 1024;
const MAX_TRAILER_LINES: usize = 64;

/// Reads one chunked body.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    extensions: usize,
}

/// What came out of the bytes so far.
#[derive(Debug, PartialEq)]
pub(super) enum Decoded {
    /// Never empty.
    Data(Bytes),
    /// The end, with fields that may be none.
    End(HeaderMap),
}

#[derive(Clone, Copy, Debug)]
enum State {
    Size { value: u64, digits: u8 },
    Extension { value: u64 },
    SizeLf { value: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    Trailers,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self {
            state: START,
            extensions: 0,
        }
    }

    /// Takes from `buffer` what is there; `None` asks for more bytes. After `End` the rest of the
    /// buffer is not this body's.
    pub(super) fn decode(
        &mut self,
        buffer: &mut BytesMut,
    ) -> Result<Option<Decoded>, &'static str> {
        loop {
            match self.state {
                State::Data { left } if !buffer.is_empty() => {
                    let take = left.min(buffer.len() as u64) as usize;
                    self.state = match left - take as u64 {
                        0 => State::DataCr,
                        left => State::Data { left },
                    };
                    return Ok(Some(Decoded::Data(buffer.split_to(take).freeze())));
                }
                State::Trailers => return Ok(trailers(buffer)?.map(Decoded::End)),
                state => {
                    let Some(&byte) = buffer.first() else {
                        return Ok(None);
                    };
                    buffer.advance(1);
                    self.state = self.next(state, byte)?;
                }
            }
        }
    }

    /// One byte of the frame around the data.
    fn next(&mut self, state: State, byte: u8) -> Result<State, &'static str> {
        Ok(match (state, byte) {
            (State::Size { value, digits }, byte) if byte.is_ascii_hexdigit() => {
                if digits == 15 {
                    return Err("chunk size too large");
                }
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                State::Size {
                    value: value << 4 | digit,
                    digits: digits + 1,
                }
            }
            (State::Size { digits: 0, .. }, _) => return Err("chunk without a size"),
            (State::Size { value, .. }, b'\r') => State::SizeLf { value },
            (State::Size { value, .. }, b';' | b' ' | b'\t') => State::Extension { value },
            (State::Extension { value }, b'\r') => State::SizeLf { value },
            (State::Extension { value }, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extensions += 1;
                if self.extensions > MAX_EXTENSIONS {
                    return Err("chunk extensions too long");
                }
                State::Extension { value }
            }
            (State::SizeLf { value: 0 }, b'\n') => State::Trailers,
            (State::SizeLf { value }, b'\n') => State::Data { left: value },
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => START,
            _ => return Err("bad chunk"),
        })
    }
}

const START: State = State::Size {
    value: 0,
    digits: 0,
};

/// The trailer section, once it is there whole.
fn trailers(buffer: &mut BytesMut) -> Result<Option<HeaderMap>, &'static str> {
    if buffer.starts_with(b"\r\n") {
        buffer.advance(2);
        return Ok(Some(HeaderMap::new()));
    }
    let Some(end) = memchr::memmem::find(buffer, b"\r\n\r\n") else {
        return match buffer.len() > MAX_TRAILERS {
            true => Err("trailers too long"),
            false => Ok(None),
        };
    };
    let section = buffer.split_to(end + 4).freeze();
    let mut lines = [httparse::EMPTY_HEADER; MAX_TRAILER_LINES];
    let Ok(httparse::Status::Complete((length, lines))) =
        httparse::parse_headers(&section, &mut lines)
    else {
        return Err("bad trailers");
    };
    if length != section.len() {
        return Err("bad trailers");
    }
    let mut fields = HeaderMap::with_capacity(lines.len());
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| "bad trailers")?;
        let value = HeaderValue::from_bytes(line.value).map_err(|_| "bad trailers")?;
        fields.append(name, value);
    }
    Ok(Some(fields))
}

#[cfg(test)]
mod tests;
