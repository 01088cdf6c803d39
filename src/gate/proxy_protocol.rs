//! The PROXY protocol, versions 1 and 2, strictly as HAProxy's proxy-protocol.txt has it. Pure:
//! who may send it and how long it may take is the server's business.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What the header said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The connection's real source.
    Peer(SocketAddr),
    /// `LOCAL`, `UNKNOWN`, `UNSPEC`, unix: the sender speaks for itself.
    Itself,
}

/// The header is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed PROXY protocol header: {0}")]
pub struct Malformed(pub &'static str);

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest version 1 line, CRLF included.
const V1_MAX: usize = 107;
/// Longest version 2 header taken, TLVs included.
pub const V2_MAX: usize = 16 + 4096;

/// Reads a header from the start of `bytes`: what it says and its length, or `None` when more is
/// needed.
pub fn parse(bytes: &[u8]) -> Result<Option<(Source, usize)>, Malformed> {
    let signature = bytes.len().min(SIGNATURE.len());
    if bytes[..signature] == SIGNATURE[..signature] {
        return match bytes.len() {
            0..16 => Ok(None),
            _ => v2(bytes),
        };
    }
    let v1 = bytes.len().min(6);
    if bytes[..v1] != b"PROXY "[..v1] {
        return Err(Malformed("no signature"));
    }
    let window = &bytes[..bytes.len().min(V1_MAX)];
    match memchr::memchr(b'\n', window) {
        Some(end) => v1_line(&bytes[..end]).map(|source| Some((source, end + 1))),
        None if bytes.len() >= V1_MAX => Err(Malformed("version 1 line too long")),
        None => Ok(None),
    }
}

fn v1_line(line: &[u8]) -> Result<Source, Malformed> {
    let line = line
        .strip_suffix(b"\r")
        .and_then(|line| std::str::from_utf8(line).ok())
        .ok_or(Malformed("version 1 line does not end in CRLF"))?;
    let mut words = line.split(' ').skip(1);
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(Source::Itself);
    }
    let words: [&str; 4] = words
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| Malformed("version 1 line needs two addresses and two ports"))?;
    let [source, destination, port, _] = words;
    let addresses = match family {
        "TCP4" => source
            .parse::<Ipv4Addr>()
            .and_then(|source| destination.parse::<Ipv4Addr>().map(|_| IpAddr::V4(source))),
        "TCP6" => source
            .parse::<Ipv6Addr>()
            .and_then(|source| destination.parse::<Ipv6Addr>().map(|_| IpAddr::V6(source))),
        _ => return Err(Malformed("unknown family")),
    };
    let source = addresses.map_err(|_| Malformed("bad address"))?;
    let port = v1_port(port)?;
    v1_port(words[3])?;
    Ok(Source::Peer(SocketAddr::new(source.to_canonical(), port)))
}

fn v1_port(text: &str) -> Result<u16, Malformed> {
    let plain =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    match text.parse() {
        Ok(port) if plain => Ok(port),
        _ => Err(Malformed("bad port")),
    }
}

fn v2(bytes: &[u8]) -> Result<Option<(Source, usize)>, Malformed> {
    let (command, family) = (bytes[12], bytes[13]);
    let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let whole = 16 + length;
    if whole > V2_MAX {
        return Err(Malformed("version 2 header too long"));
    }
    let local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed("unknown version or command")),
    };
    let Some(payload) = bytes.get(16..whole) else {
        return Ok(None);
    };
    let source = match family {
        _ if local => Source::Itself,
        // AF_UNSPEC, and AF_UNIX with either transport.
        0x00 | 0x31 | 0x32 => Source::Itself,
        0x11 | 0x12 => {
            let block: &[u8; 12] = payload
                .first_chunk()
                .ok_or(Malformed("addresses cut off"))?;
            let ip = Ipv4Addr::new(block[0], block[1], block[2], block[3]);
            peer(ip.into(), [block[8], block[9]])
        }
        0x21 | 0x22 => {
            let block: &[u8; 36] = payload
                .first_chunk()
                .ok_or(Malformed("addresses cut off"))?;
            let ip: [u8; 16] = block[..16].try_into().unwrap_or_default();
            peer(Ipv6Addr::from(ip).into(), [block[32], block[33]])
        }
        _ => return Err(Malformed("unknown family")),
    };
    Ok(Some((source, whole)))
}

fn peer(ip: IpAddr, port: [u8; 2]) -> Source {
    Source::Peer(SocketAddr::new(ip.to_canonical(), u16::from_be_bytes(port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2_header(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = SIGNATURE.to_vec();
        out.extend([command, family]);
        out.extend((payload.len() as u16).to_be_bytes());
        out.extend(payload);
        out
    }

    /// The same answer with request bytes behind it, and "more" for every shorter part.
    #[track_caller]
    fn check(header: &[u8], expected: Source) {
        let mut followed = header.to_vec();
        followed.extend(b"GET / HTTP/1.1\r\n");
        assert_eq!(parse(&followed), Ok(Some((expected, header.len()))));
        for cut in 0..header.len() {
            assert_eq!(parse(&header[..cut]), Ok(None), "cut at {cut}");
        }
    }

    #[track_caller]
    fn refused(header: &[u8]) {
        assert!(parse(header).is_err(), "{header:?}: {:?}", parse(header));
    }

    fn from(text: &str) -> Source {
        Source::Peer(text.parse().unwrap())
    }

    #[test]
    fn version_1() {
        check(
            b"PROXY TCP4 192.0.2.1 192.0.2.2 65535 80\r\n",
            from("192.0.2.1:65535"),
        );
        check(
            b"PROXY TCP6 2001:db8::1 ::1 1 443\r\n",
            from("[2001:db8::1]:1"),
        );
        check(
            b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 443\r\n",
            from("192.0.2.1:1"),
        );
        check(b"PROXY UNKNOWN\r\n", Source::Itself);
        check(b"PROXY UNKNOWN ffff::1 ::1 1 2\r\n", Source::Itself);
        for bad in [
            "PROXY TCP4 192.0.2.1 192.0.2.2 65535 80\n",
            "PROXY TCP4 192.0.2.01 192.0.2.2 1 80\r\n",
            "PROXY TCP4 2001:db8::1 192.0.2.2 1 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 65536 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +1 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 01 80\r\n",
            "PROXY TCP4 192.0.2.1  192.0.2.2 1 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 80 x\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.2 1 80\r\n",
            "proxy TCP4 192.0.2.1 192.0.2.2 1 80\r\n",
            "GET / HTTP/1.1\r\n",
        ] {
            refused(bad.as_bytes());
        }
        refused(&[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 100]].concat());
    }

    #[test]
    fn version_2() {
        let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 0x1F, 0x90, 0, 80];
        check(&v2_header(0x21, 0x11, &v4), from("192.0.2.1:8080"));
        let with_tlv = [v4.as_slice(), &[4, 0, 2, 1, 2]].concat();
        check(&v2_header(0x21, 0x11, &with_tlv), from("192.0.2.1:8080"));
        let mut v6 = [0; 36];
        v6[..2].copy_from_slice(&[0x20, 0x01]);
        v6[15] = 9;
        v6[33] = 7;
        check(&v2_header(0x21, 0x21, &v6), from("[2001::9]:7"));
        check(&v2_header(0x20, 0x00, &[]), Source::Itself);
        check(&v2_header(0x20, 0x11, &v4), Source::Itself);
        check(&v2_header(0x21, 0x31, &[0; 216]), Source::Itself);
        refused(&v2_header(0x21, 0x11, &v4[..11]));
        refused(&v2_header(0x21, 0x51, &v4));
        refused(&v2_header(0x22, 0x11, &v4));
        refused(&v2_header(0x11, 0x11, &v4));
        refused(&v2_header(0x21, 0x11, &[0; 5000]));
    }
}
