//! Who `ignoreself` spares: loopback, the machine's own addresses, its default gateways, and the
//! proxies that are trusted to speak for others. Nothing else.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::Config;

/// Every network that is never counted or banned, sorted and merged.
pub fn networks(config: &Config) -> Vec<IpNet> {
    let mut nets = vec![
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
    ];
    nets.extend(interfaces().into_iter().map(IpNet::from));
    nets.extend(gateways().into_iter().map(IpNet::from));
    nets.extend(trusted(config));
    IpNet::aggregate(&nets)
}

fn trusted(config: &Config) -> Vec<IpNet> {
    let entry_points = config
        .entry_points
        .iter()
        .flat_map(|entry| [&entry.forwarded_trusted, &entry.proxy_trusted]);
    let forward_auth = config.forward_auth.iter().map(|auth| &auth.trusted);
    let logs = config.access_logs.iter().map(|log| &log.trusted);
    let otlp = config.otlp.iter().map(|otlp| &otlp.trusted);
    entry_points
        .chain(forward_auth)
        .chain(logs)
        .chain(otlp)
        .flat_map(|set| set.iter())
        .collect()
}

fn interfaces() -> Vec<IpAddr> {
    match if_addrs::get_if_addrs() {
        Ok(found) => found.into_iter().map(|interface| interface.ip()).collect(),
        Err(error) => {
            tracing::warn!(%error, "own addresses cannot be listed; only loopback is spared");
            Vec::new()
        }
    }
}

/// Default gateways from the kernel's routing tables; none where `/proc` is hidden.
fn gateways() -> Vec<IpAddr> {
    let v4 = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    gateways_v4(&v4)
        .map(IpAddr::V4)
        .chain(gateways_v6(&v6).map(IpAddr::V6))
        .collect()
}

/// Columns: interface, destination, gateway, flags …; numbers in hex, host byte order.
fn gateways_v4(table: &str) -> impl Iterator<Item = Ipv4Addr> {
    table.lines().skip(1).filter_map(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let (destination, gateway) = (columns.next()?, columns.next()?);
        let address = u32::from_str_radix(gateway, 16).ok()?;
        (destination == "00000000" && address != 0).then(|| Ipv4Addr::from(address.to_ne_bytes()))
    })
}

/// Columns: destination, its prefix length, source, its length, next hop …; hex, network order.
fn gateways_v6(table: &str) -> impl Iterator<Item = Ipv6Addr> {
    table.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (length, hop) = (columns.get(1)?, columns.get(4)?);
        let address = u128::from_str_radix(hop, 16).ok()?;
        (*length == "00" && address != 0).then(|| Ipv6Addr::from(address))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_gateways_are_read_from_the_kernels_tables() {
        let v4 = "Iface\tDestination\tGateway \tFlags\n\
                  eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\n\
                  eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\n";
        let expected = if cfg!(target_endian = "little") {
            Ipv4Addr::new(192, 168, 1, 1)
        } else {
            Ipv4Addr::new(1, 1, 168, 192)
        };
        assert_eq!(gateways_v4(v4).collect::<Vec<_>>(), [expected]);

        let v6 = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                  fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth0\n\
                  fe800000000000000000000000000000 40 00000000000000000000000000000000 00 \
                  00000000000000000000000000000000 00000100 00000001 00000000 00000001 eth0\n";
        let expected: Ipv6Addr = "fe80::1".parse().unwrap();
        assert_eq!(gateways_v6(v6).collect::<Vec<_>>(), [expected]);
    }
}
