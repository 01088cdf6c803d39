//! Who is counted: one canonical key for every spelling of an address.

use std::net::IpAddr;

use ipnet::IpNet;

/// `::ffff:a.b.c.d` becomes `a.b.c.d`; everything else stays.
pub fn canonical(addr: IpAddr) -> IpAddr {
    addr.to_canonical()
}

/// The network a client is counted and banned as: the address itself for v4, the prefix of
/// `ipv6_prefix` bits for v6.
pub fn fold(_addr: IpAddr, _ipv6_prefix: u8) -> IpNet {
    todo!()
}

/// Parses the address spellings that proxies write: plain, `[v6]`, `[v6]:port`, `v4:port`, zone
/// ids, v4-mapped. Refuses leading zeros, names and everything else.
pub fn parse(_text: &str) -> Option<IpAddr> {
    todo!()
}
