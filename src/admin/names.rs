//! DNS names on the runtime allow list: looked up when they are entered and again every minute,
//! so that somebody whose address changes stays allowed.

use std::{io, time::Duration};

use ipnet::IpNet;

use super::Shared;
use crate::engine::{Allowed, client};

/// How often names are looked up again.
const EVERY: Duration = Duration::from_secs(60);
/// How long one look-up may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Addresses taken of one name.
const MOST: usize = 64;

/// Whether a text could be a DNS name.
pub fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(good)
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let numeric = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    name.len() <= 253 && !numeric && name.split('.').all(label)
}

/// The addresses of a name now.
pub async fn resolve(name: &str) -> io::Result<Vec<IpNet>> {
    let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((name, 0))).await;
    let found = found.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer"))??;
    let mut nets: Vec<IpNet> = found
        .map(|socket| IpNet::from(client::canonical(socket.ip())))
        .collect();
    nets.sort_unstable();
    nets.dedup();
    nets.truncate(MOST);
    if nets.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no addresses"));
    }
    Ok(nets)
}

/// Looks every name up again, for ever. One that cannot be resolved keeps its addresses.
pub async fn follow(shared: Shared) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = every.tick() => {}
        }
        for entry in shared.engine.allowed() {
            if client::parse(&entry.subject).is_some() || entry.subject.parse::<IpNet>().is_ok() {
                continue;
            }
            match resolve(&entry.subject).await {
                Ok(nets) if nets != entry.nets => changed(&shared, &entry, nets),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(name = &*entry.subject, %error, "allowed name not resolved");
                }
            }
        }
    }
}

/// Puts new addresses in, unless the entry was taken out or changed meanwhile.
fn changed(shared: &Shared, entry: &Allowed, nets: Vec<IpNet>) {
    if shared.engine.allowed().contains(entry) {
        tracing::info!(name = &*entry.subject, addresses = ?nets, "allowed name resolves anew");
        shared.engine.allow(Allowed {
            nets,
            ..entry.clone()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_addresses_and_nonsense() {
        for good in [
            "localhost",
            "home.example.org",
            "home.example.org.",
            "a_b.example",
        ] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "",
            "1.2.3",
            "1.2.3.4.5",
            "a b",
            "a..b",
            "http://x",
            "::1",
            "-",
            "x/24",
        ] {
            assert_eq!(is_name(bad), bad == "-", "{bad}");
        }
    }
}
