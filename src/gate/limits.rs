//! How many connections one entry point holds, in all and per client.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;

use crate::config::ClientLimits;

/// Counts the connections of one entry point, over all workers.
#[derive(Debug, Default)]
pub struct Crowd {
    all: AtomicUsize,
    clients: Mutex<HashMap<IpAddr, usize>>,
}

/// A place in the crowd, given back when dropped.
#[derive(Debug)]
pub struct Place {
    crowd: Arc<Crowd>,
    client: Option<IpAddr>,
}

impl Crowd {
    /// A place among all; `None` when full.
    pub fn enter(self: &Arc<Self>, limits: &ClientLimits) -> Option<Place> {
        let place = Place {
            crowd: self.clone(),
            client: None,
        };
        let before = self.all.fetch_add(1, Relaxed);
        (limits.connections == 0 || before < limits.connections).then_some(place)
    }
}

impl Place {
    /// A place among the connections of one client, an IPv6 /64 being one; `false` when full.
    pub fn of(&mut self, client: IpAddr, limits: &ClientLimits) -> bool {
        if limits.connections_per_client == 0 {
            return true;
        }
        let client = fold(client);
        let mut clients = self.crowd.clients.lock();
        let count = clients.entry(client).or_default();
        if *count >= limits.connections_per_client {
            return false;
        }
        *count += 1;
        self.client = Some(client);
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.all.fetch_sub(1, Relaxed);
        if let Some(client) = self.client {
            let mut clients = self.crowd.clients.lock();
            if let Some(count) = clients.get_mut(&client) {
                *count -= 1;
                if *count == 0 {
                    clients.remove(&client);
                }
            }
        }
    }
}

fn fold(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(connections: usize, connections_per_client: usize) -> ClientLimits {
        ClientLimits {
            connections,
            connections_per_client,
            header_bytes: 0,
            headers: 0,
            uri_bytes: 0,
            body_bytes: 0,
            concurrent_streams: 0,
        }
    }

    #[test]
    fn a_place_that_is_left_can_be_taken() {
        let crowd = Arc::new(Crowd::default());
        let limits = limits(2, 0);
        let first = crowd.enter(&limits).unwrap();
        let _second = crowd.enter(&limits).unwrap();
        assert!(crowd.enter(&limits).is_none());
        assert!(
            crowd.enter(&limits).is_none(),
            "who was refused holds no place"
        );
        drop(first);
        assert!(crowd.enter(&limits).is_some());
    }

    #[test]
    fn one_ipv6_network_is_one_client() {
        let crowd = Arc::new(Crowd::default());
        let limits = limits(0, 1);
        let mut first = crowd.enter(&limits).unwrap();
        assert!(first.of("2001:db8::1".parse().unwrap(), &limits));
        let mut second = crowd.enter(&limits).unwrap();
        assert!(!second.of("2001:db8::2".parse().unwrap(), &limits));
        assert!(second.of("2001:db8:0:1::2".parse().unwrap(), &limits));
        drop(first);
        assert!(
            crowd
                .enter(&limits)
                .unwrap()
                .of("2001:db8::3".parse().unwrap(), &limits)
        );
    }
}
