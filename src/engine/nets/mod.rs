//! Frozen sets of networks: answers "is this address covered".
//! Built off the hot path and swapped whole; nothing here is ever changed in place.

mod levels;
mod spans;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net};

use levels::Levels;
use spans::Spans;

/// A frozen set of networks, v4 and v6 apart. Build off the hot path, swap whole.
#[derive(Clone, Debug, Default)]
pub struct NetSet {
    v4: Spans,
    v6: Levels,
}

/// One network as the bits of its first address and its prefix length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix<B> {
    first: B,
    len: u8,
}

impl NetSet {
    /// Builds from any order, duplicates and overlaps allowed; host bits are masked and v4-mapped
    /// v6 networks become v4.
    pub fn build(nets: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for net in nets {
            match unmapped(net) {
                IpNet::V4(net) => v4.push(Prefix {
                    first: net.network().to_bits(),
                    len: net.prefix_len(),
                }),
                IpNet::V6(net) => v6.push(Prefix {
                    first: net.network().to_bits(),
                    len: net.prefix_len(),
                }),
            }
        }
        Self {
            v4: Spans::build(v4),
            v6: Levels::build(v6),
        }
    }

    /// Whether any network covers `addr` (v4-mapped v6 is looked up as v4).
    #[inline]
    pub fn contains(&self, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(v4) => self.v4.contains(v4.to_bits()),
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => self.v4.contains(v4.to_bits()),
                None => self.v6.contains(v6.to_bits()),
            },
        }
    }

    /// The widest network covering `addr` after merging, for explaining.
    pub fn covering(&self, addr: IpAddr) -> Option<IpNet> {
        match addr.to_canonical() {
            IpAddr::V4(v4) => {
                let (first, last) = self.v4.span(v4.to_bits())?;
                widest_within(v4, first, last)
            }
            IpAddr::V6(v6) => {
                let len = self.v6.shortest(v6.to_bits())?;
                Ipv6Net::new(v6, len).ok().map(|net| net.trunc().into())
            }
        }
    }

    /// Whether any network shares an address with this one. Not for the hot path: IPv6 networks
    /// inside `net` are looked for one by one.
    pub fn overlaps(&self, net: &IpNet) -> bool {
        match unmapped(net.trunc()) {
            IpNet::V4(net) => {
                let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                self.v4.overlaps(first, last)
            }
            IpNet::V6(net) => self.v6.overlaps(net.network().to_bits(), net.prefix_len()),
        }
    }

    /// Every network, after merging: ranges are given as the fewest networks that make them up.
    pub fn iter(&self) -> impl Iterator<Item = IpNet> + '_ {
        let v4 = self.v4.ranges().flat_map(|(first, last)| {
            Ipv4Subnets::new(Ipv4Addr::from_bits(first), Ipv4Addr::from_bits(last), 0)
        });
        let v6 = self
            .v6
            .prefixes()
            .filter_map(|(first, len)| Ipv6Net::new(Ipv6Addr::from_bits(first), len).ok());
        v4.map(IpNet::V4).chain(v6.map(IpNet::V6))
    }

    /// No network at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ranges held after merging.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Heap bytes held.
    pub fn bytes(&self) -> usize {
        self.v4.bytes() + self.v6.bytes()
    }
}

impl FromIterator<IpNet> for NetSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(nets: I) -> Self {
        Self::build(nets)
    }
}

fn unmapped(net: IpNet) -> IpNet {
    match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => {
            match Ipv6Addr::to_ipv4_mapped(&v6.addr())
                .map(|v4| Ipv4Net::new(v4, v6.prefix_len() - 96))
            {
                Some(Ok(v4)) => v4.into(),
                _ => net,
            }
        }
        _ => net,
    }
}

/// A merged range need not be one network; this is the widest one inside it around `addr`.
fn widest_within(addr: Ipv4Addr, first: u32, last: u32) -> Option<IpNet> {
    (0..=32)
        .filter_map(|len| Ipv4Net::new(addr, len).ok())
        .find(|net| net.network().to_bits() >= first && net.broadcast().to_bits() <= last)
        .map(|net| net.trunc().into())
}

#[cfg(test)]
mod tests;
