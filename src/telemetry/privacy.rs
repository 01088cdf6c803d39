//! Addresses as logs show them: whole, or cut to a prefix (`log.truncate`). Process-wide, as the log
//! is; bans and the API always have the whole address.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU16, Ordering::Relaxed},
};

use ipnet::IpNet;

use crate::engine::client::spelled;

/// Prefix lengths, IPv4 in the upper byte.
static PREFIXES: AtomicU16 = AtomicU16::new(32 << 8 | 128);

/// Cuts addresses in logs to these prefix lengths from now on.
pub fn truncate(ipv4: u8, ipv6: u8) {
    PREFIXES.store(u16::from(ipv4) << 8 | u16::from(ipv6), Relaxed);
}

/// An address or network as a log line shows it; a single address stands without its length.
pub fn logged(client: impl Into<IpNet>) -> String {
    let [ipv4, ipv6] = PREFIXES.load(Relaxed).to_be_bytes();
    cut(client.into(), ipv4, ipv6)
}

/// The same for an address of an access log, where a network would not parse: cut, without length.
pub fn logged_address(client: IpAddr) -> IpAddr {
    let [ipv4, ipv6] = PREFIXES.load(Relaxed).to_be_bytes();
    shorter(client.into(), ipv4, ipv6).addr()
}

fn cut(client: IpNet, ipv4: u8, ipv6: u8) -> String {
    spelled(shorter(client, ipv4, ipv6))
}

fn shorter(client: IpNet, ipv4: u8, ipv6: u8) -> IpNet {
    let most = match client {
        IpNet::V4(_) => ipv4,
        IpNet::V6(_) => ipv6,
    };
    let length = client.prefix_len().min(most);
    IpNet::new(client.addr(), length).map_or(client, |net| net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_cut_and_networks_never_grow_longer() {
        for (client, ipv4, ipv6, expected) in [
            ("203.0.113.7/32", 32, 128, "203.0.113.7"),
            ("203.0.113.7/32", 24, 48, "203.0.113.0/24"),
            ("203.0.113.7/32", 0, 48, "0.0.0.0/0"),
            ("203.0.0.0/16", 24, 48, "203.0.0.0/16"),
            ("2001:db8:1:2::/64", 24, 48, "2001:db8:1::/48"),
            ("2001:db8:1:2::/64", 24, 128, "2001:db8:1:2::/64"),
        ] {
            assert_eq!(cut(client.parse().unwrap(), ipv4, ipv6), expected);
        }
        let address = shorter("203.0.113.7/32".parse().unwrap(), 24, 48).addr();
        assert_eq!(address.to_string(), "203.0.113.0");
    }
}
