//! The misconfiguration everybody has: every question seems to come from one private or CDN
//! address, because the proxy in between names itself. Said once; a ban would hit everyone.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use parking_lot::Mutex;

use crate::telemetry::privacy;

/// Questions from one address alone before it is said.
const ENOUGH: u32 = 100;

/// Cloudflare's published ranges (cloudflare.com/ips), the CDN most asked about.
const CLOUDFLARE: [&str; 22] = [
    "173.245.48.0/20",
    "103.21.244.0/22",
    "103.22.200.0/22",
    "103.31.4.0/22",
    "141.101.64.0/18",
    "108.162.192.0/18",
    "190.93.240.0/20",
    "188.114.96.0/20",
    "197.234.240.0/22",
    "198.41.128.0/17",
    "162.158.0.0/15",
    "104.16.0.0/13",
    "104.24.0.0/14",
    "172.64.0.0/13",
    "131.0.72.0/22",
    "2400:cb00::/32",
    "2606:4700::/32",
    "2803:f800::/32",
    "2405:b500::/32",
    "2405:8100::/32",
    "2a06:98c0::/29",
    "2c0f:f248::/32",
];

/// Watches who the questions are about, until there are two of them.
#[derive(Debug, Default)]
pub struct Suspicion {
    settled: AtomicBool,
    seen: Mutex<Option<(IpAddr, u32)>>,
}

impl Suspicion {
    /// Takes note of one client. Costs one load once it is settled.
    pub fn see(&self, client: IpAddr) {
        if !self.settled.load(Relaxed) && self.raises(client) {
            tracing::warn!(
                client = %privacy::logged(client),
                "all of the first {ENOUGH} questions seem to come from one private or CDN address: \
                 is X-Forwarded-For passed on? (Traefik: trustForwardHeader and \
                 entryPoints.forwardedHeaders.trustedIPs; Cloudflare: its ranges in excludedIPs)"
            );
        }
    }

    /// Whether this one confirms it.
    fn raises(&self, client: IpAddr) -> bool {
        let mut seen = self.seen.lock();
        let count = match &mut *seen {
            Some((known, count)) if *known == client => {
                *count += 1;
                *count
            }
            Some(_) => {
                self.settled.store(true, Relaxed);
                return false;
            }
            None => {
                *seen = Some((client, 1));
                1
            }
        };
        let enough = count >= ENOUGH;
        self.settled.fetch_or(enough, Relaxed);
        enough && shared(client)
    }
}

/// Addresses that stand for many clients: private, carrier NAT, loopback, a CDN.
fn shared(client: IpAddr) -> bool {
    let private = match client {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || (first == 100 && second & 0xC0 == 64)
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    };
    private
        || CLOUDFLARE
            .iter()
            .filter_map(|range| range.parse::<ipnet::IpNet>().ok())
            .any(|range| range.contains(&client))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(clients: &[&str], expected: bool) {
        let suspicion = Suspicion::default();
        let raised = clients
            .iter()
            .cycle()
            .take(3 * ENOUGH as usize)
            .filter(|client| {
                !suspicion.settled.load(Relaxed) && suspicion.raises(client.parse().unwrap())
            })
            .count();
        assert_eq!(raised, usize::from(expected), "{clients:?}");
    }

    #[test]
    fn one_shared_address_alone_is_suspicious_and_said_once() {
        check(&["172.18.0.1"], true);
        check(&["100.64.0.9"], true);
        check(&["162.158.1.1"], true);
        check(&["2606:4700::9"], true);
        check(&["203.0.113.9"], false);
        check(&["172.18.0.1", "203.0.113.9"], false);
    }

    #[test]
    fn every_range_is_one() {
        assert!(
            CLOUDFLARE
                .iter()
                .all(|range| range.parse::<ipnet::IpNet>().is_ok())
        );
    }
}
