//! An address as text, made once for a connection.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr},
};

/// An address as text, in its place: one is made for every connection.
#[derive(Clone, Debug)]
pub(super) struct Spelt {
    bytes: [u8; 45],
    length: u8,
}

impl Spelt {
    pub(super) fn new(ip: IpAddr) -> Self {
        let mut bytes = [0; 45];
        let mut rest = &mut bytes[..];
        // The longest address there is fits.
        let _ = match ip {
            // Formatting takes a thousand instructions: a connection of one request would notice.
            IpAddr::V4(v4) => dotted(v4, &mut rest),
            IpAddr::V6(v6) => write!(rest, "{v6}"),
        };
        let length = 45 - rest.len() as u8;
        Self { bytes, length }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// Four decimal numbers.
fn dotted(v4: Ipv4Addr, out: &mut impl Write) -> io::Result<()> {
    for (at, octet) in v4.octets().into_iter().enumerate() {
        if at > 0 {
            out.write_all(b".")?;
        }
        out.write_all(itoa::Buffer::new().format(octet).as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_spelt_as_it_is_shown() {
        for text in [
            "0.0.0.0",
            "9.10.99.100",
            "255.255.255.255",
            "192.0.2.7",
            "::",
            "2001:db8::7",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ] {
            assert_eq!(
                Spelt::new(text.parse().unwrap()).as_bytes(),
                text.as_bytes()
            );
        }
    }
}
