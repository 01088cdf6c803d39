//! Which addresses a notification may go to: what only the machine itself or its cloud can reach is
//! refused, after the name was resolved, and the connection goes to an address that was looked at.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use ipnet::{Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::Error;

/// Link-local addresses, and where clouds keep what a machine may do: AWS, GCP and most others at
/// 169.254.169.254, Azure's wire server, Alibaba, Oracle.
const V4: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(100, 100, 100, 200), 32),
    (Ipv4Addr::new(192, 0, 0, 192), 32),
];

/// Link-local addresses, AWS (`fd00:ec2::/32`) and GCP.
const V6: [(Ipv6Addr, u8); 3] = [
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128),
];

/// Resolves names and drops the addresses that are refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guard {
    pub(super) allow_local: bool,
}

impl Guard {
    /// Addresses of a host (a name or an address) that may be connected to; never none.
    pub(super) async fn addresses(self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
        let found: Vec<_> = match IpAddr::from_str(bare(host)) {
            Ok(address) => vec![(address, port).into()],
            Err(_) => tokio::net::lookup_host((host, port))
                .await
                .map_err(Error::Resolve)?
                .collect(),
        };
        let refused = found.iter().find(|address| !self.allows(address.ip()));
        let refused = refused.map(SocketAddr::ip);
        let allowed: Vec<_> = found
            .into_iter()
            .filter(|address| self.allows(address.ip()))
            .collect();
        match (allowed.is_empty(), refused) {
            (false, _) => Ok(allowed),
            (true, Some(address)) => Err(Error::Refused(address)),
            (true, None) => Err(Error::Resolve(io::ErrorKind::NotFound.into())),
        }
    }

    /// Looks at a host that is an address, which no resolver gets to see.
    pub(super) fn literal(self, host: &str) -> Result<(), Error> {
        match IpAddr::from_str(bare(host)) {
            Ok(address) if !self.allows(address) => Err(Error::Refused(address)),
            _ => Ok(()),
        }
    }

    fn allows(self, address: IpAddr) -> bool {
        self.allow_local || !is_private_ground(address)
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = *self;
        Box::pin(async move {
            let found = guard.addresses(name.as_str(), 0).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// An address without the brackets that URLs put around IPv6.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

fn is_private_ground(address: IpAddr) -> bool {
    let v4 = |address: Ipv4Addr| {
        V4.iter()
            .any(|(net, length)| Ipv4Net::new_assert(*net, *length).contains(&address))
    };
    match address {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) => {
            embedded(address).is_some_and(v4)
                || V6
                    .iter()
                    .any(|(net, length)| Ipv6Net::new_assert(*net, *length).contains(&address))
        }
    }
}

/// The IPv4 address that an IPv6 one stands for: `::ffff:a.b.c.d`, `::a.b.c.d`, NAT64, 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => Some(v4(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, allowed: bool) {
        let guard = Guard { allow_local: false };
        assert_eq!(guard.allows(address.parse().unwrap()), allowed, "{address}");
        assert!(Guard { allow_local: true }.allows(address.parse().unwrap()));
    }

    #[test]
    fn metadata_and_link_local_addresses_are_refused_in_every_spelling() {
        for address in [
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
        ] {
            check(address, false);
        }
        for address in [
            "127.0.0.1",
            "10.0.0.1",
            "192.168.1.2",
            "::1",
            "fd00::1",
            "2001:db8::1",
            "198.51.100.7",
            "fec0::1",
            "169.253.255.255",
            "169.255.0.0",
        ] {
            check(address, true);
        }
    }

    #[tokio::test]
    async fn addresses_in_place_of_names_are_looked_at_too() {
        let guard = Guard { allow_local: false };
        for host in ["169.254.169.254", "[fe80::1]", "fd00:ec2::254"] {
            for error in [
                guard.addresses(host, 80).await.map(drop).unwrap_err(),
                guard.literal(host).unwrap_err(),
            ] {
                assert!(matches!(error, Error::Refused(_)), "{host}: {error}");
            }
        }
        // The resolver, not the URL, reads this as 169.254.169.254.
        let error = guard.resolve("0xa9fea9fe".parse().unwrap()).await;
        let error = error.map(drop).unwrap_err().to_string();
        assert!(
            error.starts_with("169.254.169.254 is link-local"),
            "{error}"
        );
        let local = guard.addresses("localhost", 80).await.unwrap();
        assert!(local.iter().all(|address| address.ip().is_loopback()));
    }
}
