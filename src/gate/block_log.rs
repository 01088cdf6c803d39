//! `enableBlockLogs`: a line for a denied request, but not for each: at most one per client in
//! ten seconds and a hundred lines a second. It holds a fixed number of clients, however many
//! there are.

use std::net::IpAddr;

use parking_lot::Mutex;

use crate::time::Millis;

const CLIENTS: usize = 1024;
const PER_CLIENT: Millis = 10_000;
const PER_SECOND: u32 = 100;

/// Who was logged when.
#[derive(Debug, Default)]
pub struct BlockLog(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    clients: Vec<Option<(IpAddr, Millis)>>,
    hash: foldhash::fast::RandomState,
    second: u64,
    lines: u32,
    unsaid: u64,
}

impl BlockLog {
    /// Whether this denial is to be logged; if so, how many were not since the last one that was.
    pub fn admit(&self, client: IpAddr, now: Millis) -> Option<u64> {
        use std::hash::BuildHasher;
        let seen = &mut *self.0.lock();
        seen.clients.resize(CLIENTS, None);
        let slot = seen.hash.hash_one(client) as usize % CLIENTS;
        let recently = matches!(
            seen.clients[slot],
            Some((known, at)) if known == client && now < at + PER_CLIENT
        );
        if seen.second != now / 1000 {
            seen.second = now / 1000;
            seen.lines = 0;
        }
        if recently || seen.lines >= PER_SECOND {
            seen.unsaid += 1;
            return None;
        }
        seen.lines += 1;
        seen.clients[slot] = Some((client, now));
        Some(std::mem::take(&mut seen.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_client_in_ten_seconds() {
        let log = BlockLog::default();
        let (a, b) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        assert_eq!(log.admit(a, 1_000), Some(0));
        assert_eq!(log.admit(a, 10_999), None);
        assert_eq!(log.admit(b, 10_999), Some(1));
        assert_eq!(log.admit(a, 11_000), Some(0));
    }

    #[test]
    fn a_crowd_gets_a_hundred_lines_a_second() {
        let log = BlockLog::default();
        let said =
            (0..5_000_u32).filter(|n| log.admit(IpAddr::from(n.to_be_bytes()), 1_500).is_some());
        assert_eq!(said.count(), 100);
        assert!(log.admit(IpAddr::from([9, 9, 9, 9]), 2_000).is_some());
    }
}
