//! Sets of addresses and CIDRs with longest-prefix lookup, frozen after building.

use std::net::IpAddr;

use ipnet::IpNet;

/// A frozen set of networks, v4 and v6 apart. Build off the hot path, swap whole.
#[derive(Clone, Debug, Default)]
pub struct NetSet {}

impl NetSet {
    /// Builds from any order, duplicates and overlaps allowed; host bits are masked and v4-mapped
    /// v6 networks become v4.
    pub fn build(_nets: impl IntoIterator<Item = IpNet>) -> Self {
        todo!()
    }

    /// Whether any network covers `addr` (v4-mapped v6 is looked up as v4).
    pub fn contains(&self, _addr: IpAddr) -> bool {
        todo!()
    }

    /// The widest-merged network covering `addr`, for explaining.
    pub fn covering(&self, _addr: IpAddr) -> Option<IpNet> {
        todo!()
    }

    /// No network at all.
    pub fn is_empty(&self) -> bool {
        todo!()
    }

    /// Ranges held after merging.
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Heap bytes held.
    pub fn bytes(&self) -> usize {
        todo!()
    }
}
