//! Who is counted: one canonical key for every spelling of an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// `::ffff:a.b.c.d` becomes `a.b.c.d`; everything else stays.
pub fn canonical(addr: IpAddr) -> IpAddr {
    addr.to_canonical()
}

/// The network a client is counted and banned as: the address itself for v4, the prefix of
/// `ipv6_prefix` bits for v6 (more than 128 means 128).
pub fn fold(addr: IpAddr, ipv6_prefix: u8) -> IpNet {
    match canonical(addr) {
        IpAddr::V4(v4) => IpNet::from(IpAddr::V4(v4)),
        IpAddr::V6(v6) => {
            IpNet::V6(Ipv6Net::new(v6, ipv6_prefix).map_or(Ipv6Net::from(v6), |net| net.trunc()))
        }
    }
}

/// Host bits masked, v4-mapped networks as v4: the form everything is keyed by.
pub fn canonical_net(net: IpNet) -> IpNet {
    match net.trunc() {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(v4) => Ipv4Net::new(v4, v6.prefix_len() - 96).map_or(net, IpNet::V4),
            None => IpNet::V6(v6),
        },
        other => other,
    }
}

/// A network as people write it: a single address without its prefix length.
pub fn spelled(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

/// Parses the address spellings that proxies write: plain, `[v6]`, `[v6]:port`, `v4:port`, zone
/// ids, v4-mapped, blanks around. Refuses leading zeros in v4, names and everything else. The
/// result is canonical.
pub fn parse(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches([' ', '\t']);
    if let Ok(plain) = text.parse::<IpAddr>() {
        return Some(canonical(plain));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest.split_once(']')?;
        if !after.is_empty() && !after.strip_prefix(':').is_some_and(is_port) {
            return None;
        }
        return zoned(inside).map(|v6| canonical(v6.into()));
    }
    if let Some((host, port)) = text.split_once(':')
        && is_port(port)
    {
        return host.parse().ok().map(IpAddr::V4);
    }
    zoned(text).map(|v6| canonical(v6.into()))
}

/// [`parse`] of bytes as they were received. The spellings nearly all have, four plain numbers
/// with or without a port, take a tenth of the time, and so does a list of them, which is none.
#[inline]
pub fn read(text: &[u8]) -> Option<IpAddr> {
    let port = |rest: &[u8]| match rest {
        [] => true,
        [b':', port @ ..] if port.len() <= 5 && port.iter().all(u8::is_ascii_digit) => {
            let value = |sum: u32, digit: &u8| sum * 10 + u32::from(digit - b'0');
            !port.is_empty() && port.iter().fold(0, value) <= u16::MAX.into()
        }
        _ => false,
    };
    match dotted(text) {
        Some((v4, rest)) if port(rest) => Some(v4.into()),
        Some((_, [b',', ..])) => None,
        _ => parse(std::str::from_utf8(text).ok()?),
    }
}

/// Four decimal numbers without leading zeros, and what follows them.
#[inline]
fn dotted(text: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let (mut bits, mut octet, mut digits, mut dots) = (0u32, 0u32, 0, 0);
    let mut end = text.len();
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                octet = octet * 10 + u32::from(byte - b'0');
                digits += 1;
                if digits > 3 || octet > 255 || (digits > 1 && octet < 10) {
                    return None;
                }
            }
            b'.' if digits > 0 && dots < 3 => {
                bits = (bits << 8) | octet;
                (octet, digits) = (0, 0);
                dots += 1;
            }
            _ => {
                end = at;
                break;
            }
        }
    }
    let whole = dots == 3 && digits > 0;
    whole.then(|| (Ipv4Addr::from_bits((bits << 8) | octet), &text[end..]))
}

/// A v6 address whose zone, if any, is dropped: it names an interface of the machine that wrote
/// it and says nothing here.
fn zoned(text: &str) -> Option<Ipv6Addr> {
    let (addr, zone) = text.split_once('%').unwrap_or((text, "-"));
    if zone.is_empty() || zone.bytes().any(|b| b"/%[]:, ".contains(&b)) {
        return None;
    }
    addr.parse().ok()
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn reads(text: &str, expected: &str) {
        assert_eq!(parse(text), Some(expected.parse().unwrap()), "{text:?}");
        assert_eq!(read(text.as_bytes()), parse(text), "{text:?}");
    }

    #[test]
    fn every_spelling_of_an_address_is_one_client() {
        for text in [
            "192.0.2.1",
            " 192.0.2.1\t",
            "192.0.2.1:443",
            "192.0.2.1:0",
            "::ffff:192.0.2.1",
            "::FFFF:c000:0201",
            "[::ffff:192.0.2.1]",
            "[::ffff:192.0.2.1]:65535",
            "::ffff:192.0.2.1%eth0",
        ] {
            reads(text, "192.0.2.1");
        }
        for text in [
            "2001:db8::9",
            "2001:DB8::9",
            "2001:0db8:0:0:0:0:0:0009",
            "[2001:db8::9]",
            "[2001:db8::9]:8080",
            "2001:db8::9%eth0",
            "[2001:db8::9%eth0]:1",
        ] {
            reads(text, "2001:db8::9");
        }
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        for text in [
            "",
            " ",
            "unknown",
            "localhost",
            "_hidden",
            "192.0.2.01",
            "0300.0.2.1",
            "1.2.3",
            "3221225985",
            "0x7f.0.0.1",
            "1.2.3.4.5",
            "1.2.3.256",
            "1.2.3.4:",
            "1.2.3.4:65536",
            "1.2.3.4:+80",
            "1.2.3.4:80:80",
            "[1.2.3.4]",
            "[1.2.3.4]:80",
            "1.2.3.4%eth0",
            "1.2.3.4/32",
            "[::1",
            "::1]",
            "[::1]80",
            "[::1]:",
            "[::1]:x",
            "::1%",
            "::1%a/64",
            "::1%a%b",
            "1::2::3",
            ":::",
            "[]",
            "[]:80",
            "1.2.3.4, 5.6.7.8",
            "\"1.2.3.4\"",
            "::ffff:1.2.3.04",
            "１.2.3.4",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
            assert_eq!(read(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn clients_fold_to_their_prefix() {
        #[track_caller]
        fn check(addr: &str, prefix: u8, expected: &str) {
            assert_eq!(fold(addr.parse().unwrap(), prefix).to_string(), expected);
        }
        check("192.0.2.1", 64, "192.0.2.1/32");
        check("::ffff:192.0.2.1", 64, "192.0.2.1/32");
        check("2001:db8:1:2:3:4:5:6", 64, "2001:db8:1:2::/64");
        check("2001:db8:1:2:3:4:5:6", 48, "2001:db8:1::/48");
        check("2001:db8:1:2:3:4:5:6", 128, "2001:db8:1:2:3:4:5:6/128");
        check("2001:db8:1:2:3:4:5:6", 129, "2001:db8:1:2:3:4:5:6/128");
    }
}
