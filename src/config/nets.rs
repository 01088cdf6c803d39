//! Addresses and CIDRs as they are written, in keys and in list files. Building sets of them is
//! the engine's.

use std::net::IpAddr;

use ipnet::IpNet;

/// Reads one address or CIDR as the plugin does (facts of the plugin, §1.2 and §8.3): host bits
/// are masked, nothing is trimmed. The error says what would be right.
pub fn parse(text: &str) -> Result<IpNet, String> {
    let wrong = |hint: &str| Err(format!("`{text}` is no IP address or CIDR{hint}"));
    if text.is_empty() {
        return Err("an empty entry; write an IP address or CIDR".to_owned());
    }
    if text.trim() != text {
        return wrong(&format!("; write `{}` without the spaces", text.trim()));
    }
    if text.contains(',') {
        return wrong("; make it separate entries");
    }
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (
            text.split_once('%').map_or(text, |(address, _)| address),
            None,
        ),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return wrong(hint(address, prefix));
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = match prefix {
        None => most,
        Some(digits) => match prefix_length(digits).filter(|bits| *bits <= most) {
            Some(bits) => bits,
            None => return wrong(&format!("; after the slash goes a number from 0 to {most}")),
        },
    };
    match IpNet::new(address, bits) {
        Ok(net) => Ok(net.trunc()),
        Err(_) => wrong(""),
    }
}

/// One entry of a list file and its column, 1-based, in characters.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Line, 1-based.
    pub line: u32,
    /// Column of the entry.
    pub col: u32,
    /// The entry without spaces and comment.
    pub text: &'a str,
}

/// The entries of a list file: one a line; `#` comments, blank lines, CRLF, a BOM and a missing
/// last newline are fine.
pub fn entries(text: &str) -> impl Iterator<Item = Entry<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines().zip(1..).filter_map(|(line, number)| {
        let code = line.split('#').next().unwrap_or_default();
        let entry = code.trim();
        let col = code.chars().take_while(|c| c.is_whitespace()).count() as u32 + 1;
        (!entry.is_empty()).then_some(Entry {
            line: number,
            col,
            text: entry,
        })
    })
}

fn prefix_length(digits: &str) -> Option<u8> {
    let padded = digits.len() > 1 && digits.starts_with('0');
    let number = !padded && digits.bytes().all(|b| b.is_ascii_digit());
    number.then(|| digits.parse().ok()).flatten()
}

fn hint(address: &str, prefix: Option<&str>) -> &'static str {
    let octets: Vec<&str> = address.split('.').collect();
    if address == "localhost" {
        "; write `127.0.0.1` and `::1`"
    } else if prefix.is_some() && address.contains('%') {
        "; a zone cannot have a prefix"
    } else if address.contains('-') {
        "; write the range as CIDRs"
    } else if octets.len() == 4
        && octets.iter().all(|o| o.bytes().all(|b| b.is_ascii_digit()))
        && octets.iter().any(|o| o.len() > 1 && o.starts_with('0'))
    {
        "; leading zeros are not allowed"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugins_ok_table() {
        for (text, net) in [
            ("127.0.0.1", "127.0.0.1/32"),
            ("127.0.0.1/23", "127.0.0.0/23"),
            ("10.0.0.1/8", "10.0.0.0/8"),
            ("::1", "::1/128"),
            ("::1/53", "::/53"),
            ("127.0.0.1/32", "127.0.0.1/32"),
            ("::1/128", "::1/128"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("255.255.255.255", "255.255.255.255/32"),
            ("fe80::1%eth0", "fe80::1/128"),
            ("::ffff:1.2.3.4", "::ffff:1.2.3.4/128"),
            ("::ffff:1.2.3.0/120", "::ffff:1.2.3.0/120"),
        ] {
            assert_eq!(
                parse(text).map(|net| net.to_string()),
                Ok(net.to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn the_plugins_error_table() {
        for text in [
            "25666.0.0.1",
            "127.4444.0.1",
            "127.0.4440.1",
            "127.0.0.1233",
            "127.0.0.1/22/34",
            "127.0.0.1/55",
            "127.0.0.1/",
            "2566634::1",
            "127:444234564:0::1",
            "1::4440345::1",
            "::34561233",
            "::1/22/34",
            "::1/234",
            "::1/",
            "127.0.0.1.1",
            "::2::42:",
            "10.0.0.0/08",
            "1.1.1.01",
            "13.38.70.00",
            "localhost",
            "10.0.0.1-10.0.0.9",
            "",
            " 1.1.1.1",
            "fe80::1%eth0/64",
            "1.1.1.1,2.2.2.2",
            "::1/+4",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn list_files_may_be_untidy() {
        let text = "\u{feff}# head\r\n1.1.1.1\r\n\r\n  2.2.2.0/24 # why\n\t::1\n3.3.3.3";
        let found: Vec<_> = entries(text).map(|e| (e.line, e.col, e.text)).collect();
        assert_eq!(
            found,
            [
                (2, 1, "1.1.1.1"),
                (4, 3, "2.2.2.0/24"),
                (5, 2, "::1"),
                (6, 1, "3.3.3.3")
            ]
        );
        assert_eq!(entries("").count() + entries("\n").count(), 0);
    }
}
