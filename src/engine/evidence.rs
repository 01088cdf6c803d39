//! The last counted requests, for people who ask why: one bounded ring of bytes outside the
//! tables. It explains bans and decides nothing; what falls out of it is forgotten.

use std::{
    collections::VecDeque,
    hash::BuildHasher,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use crossbeam_utils::CachePadded;
use http::{
    HeaderValue,
    header::{HOST, USER_AGENT},
};
use ipnet::IpNet;
use parking_lot::Mutex;

use super::{
    Engine, JailId, Request, Told,
    client::{self, canonical_net},
    table::Keyed,
};
use crate::time::Millis;

/// Bytes of the whole ring.
const BYTES: usize = 16 << 20;
/// Rings behind locks of their own: a client fills the one it falls into, never the others.
const SHARDS: usize = 16;
/// Clients of one IPv6 site share a shard, whatever prefix a jail counts them by.
const SITE: u8 = 48;
/// Longest texts kept, in bytes.
const MAX_METHOD: usize = 16;
const MAX_HOST: usize = 128;
const MAX_TEXT: usize = 256;
/// Bytes of a record before its texts.
const HEAD: usize = 37;
/// Most records one client is answered with, the newest.
const ANSWERED: usize = 1000;

/// One counted request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// When it came, Unix milliseconds.
    pub at: Millis,
    /// The address that asked, not the prefix it is counted by.
    pub client: IpNet,
    /// The jail that counted it.
    pub jail: Arc<str>,
    /// Method as sent.
    pub method: Box<str>,
    /// Host as sent, at most 128 bytes.
    pub host: Box<str>,
    /// Path without its query, at most 256 bytes.
    pub path: Box<str>,
    /// `User-Agent`, at most 256 bytes.
    pub agent: Box<str>,
    /// What was answered; 0 when the request itself counted.
    pub status: u16,
}

/// One counted request as it lies in the ring. Texts are as sent, possibly no UTF-8.
#[derive(Clone, Copy, Debug)]
pub struct Trace<'a> {
    /// When it came, Unix milliseconds.
    pub at: Millis,
    /// The address that asked.
    pub client: IpAddr,
    /// The jail that counted it.
    pub jail: JailId,
    /// What was answered; 0 when the request itself counted.
    pub status: u16,
    /// Method as sent.
    pub method: &'a [u8],
    /// Host as sent.
    pub host: &'a [u8],
    /// Path without its query.
    pub path: &'a [u8],
    /// `User-Agent`.
    pub agent: &'a [u8],
}

#[derive(Debug)]
pub(super) struct Ring {
    shards: [CachePadded<Mutex<VecDeque<u8>>>; SHARDS],
    hash: Keyed,
}

impl Engine {
    /// The last counted requests of an address or a range, oldest first, at most 1000.
    pub fn evidence(&self, client: IpNet) -> Vec<Evidence> {
        let client = canonical_net(client);
        let mut found = Vec::new();
        self.evidence.read(Some(client), |trace| {
            if client.contains(&IpNet::from(trace.client)) {
                found.push(self.told(&trace));
            }
        });
        found.sort_by_key(|evidence| evidence.at);
        found.split_off(found.len().saturating_sub(ANSWERED))
    }

    /// Every counted request that is still known, in no order, for statistics.
    pub fn traces(&self, each: impl FnMut(Trace<'_>)) {
        self.evidence.read(None, each);
    }

    /// Keeps one counted request.
    pub(super) fn witness(
        &self,
        jail: JailId,
        addr: IpAddr,
        request: &Request<'_>,
        status: u16,
        at: Millis,
    ) {
        let target = request.target;
        let path = memchr::memchr2(b'?', b'#', target).map_or(target, |end| &target[..end]);
        let (host, agent) = request.told.host_and_agent();
        self.evidence.push(&Trace {
            at,
            client: addr,
            jail,
            status,
            method: request.method,
            host,
            path,
            agent,
        });
    }

    fn told(&self, trace: &Trace<'_>) -> Evidence {
        let text = |bytes| String::from_utf8_lossy(bytes).into();
        Evidence {
            at: trace.at,
            client: trace.client.into(),
            jail: self.names.get(trace.jail),
            method: text(trace.method),
            host: text(trace.host),
            path: text(trace.path),
            agent: text(trace.agent),
            status: trace.status,
        }
    }
}

impl<'a> Told<'a> {
    /// Host without port, and `User-Agent`.
    fn host_and_agent(self) -> (&'a [u8], &'a [u8]) {
        match self {
            Self::These { host, agent } => (host, agent),
            Self::In(headers) => {
                let value = |name| headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
                (host_name(value(HOST)), value(USER_AGENT))
            }
        }
    }
}

/// A `Host` without its port: `a.example:80` → `a.example`, `[::1]:80` → `[::1]`. An IPv6 address
/// without brackets has none.
pub fn host_name(host: &[u8]) -> &[u8] {
    let Some(at) = memchr::memrchr(b':', host) else {
        return host;
    };
    let (name, port) = (&host[..at], &host[at + 1..]);
    let whole = name.ends_with(b"]") || !name.contains(&b':');
    match whole && port.iter().all(u8::is_ascii_digit) {
        true => name,
        false => host,
    }
}

impl Ring {
    pub(super) fn new(hash: Keyed) -> Self {
        Self {
            shards: std::array::from_fn(|_| CachePadded::default()),
            hash,
        }
    }

    /// Inlined where a failure is counted; left to the compiler it depends on the rest of the crate.
    #[inline]
    fn push(&self, trace: &Trace<'_>) {
        let mut record = [0; HEAD + MAX_METHOD + MAX_HOST + 2 * MAX_TEXT];
        let len = trace.write(&mut record);
        let mut shard = self.shard(trace.client).lock();
        while shard.len() + len > BYTES / SHARDS {
            let oldest = usize::from(u16::from_le_bytes([shard[0], shard[1]]));
            shard.drain(..oldest);
        }
        shard.extend(&record[..len]);
    }

    /// Reads what may concern `client`, or everything. A shard is copied under its lock and read
    /// without it.
    fn read(&self, client: Option<IpNet>, mut each: impl FnMut(Trace<'_>)) {
        let site = client.filter(|net| match net {
            IpNet::V4(v4) => v4.prefix_len() == 32,
            IpNet::V6(v6) => v6.prefix_len() >= SITE,
        });
        let only = site.map(|net| self.index(net.addr()));
        for (_, shard) in (0..)
            .zip(&self.shards)
            .filter(|(at, _)| only.is_none_or(|only| only == *at))
        {
            let bytes = {
                let shard = shard.lock();
                let (front, back) = shard.as_slices();
                [front, back].concat()
            };
            records(&bytes).for_each(|(_, trace)| each(trace));
        }
    }

    /// Forgets every request of these addresses.
    pub(super) fn forget(&self, client: IpNet) {
        let client = canonical_net(client);
        for shard in &self.shards {
            let mut shard = shard.lock();
            let mut kept = VecDeque::with_capacity(shard.len());
            for (record, trace) in records(shard.make_contiguous()) {
                if !client.contains(&IpNet::from(trace.client)) {
                    kept.extend(record);
                }
            }
            if kept.len() < shard.len() {
                *shard = kept;
            }
        }
    }

    fn shard(&self, client: IpAddr) -> &Mutex<VecDeque<u8>> {
        &self.shards[self.index(client)]
    }

    fn index(&self, client: IpAddr) -> usize {
        let site = match client::canonical(client) {
            IpAddr::V4(v4) => u128::from(v4.to_bits()),
            IpAddr::V6(v6) => v6.to_bits() >> (128 - SITE),
        };
        self.hash.hash_one(site) as usize % SHARDS
    }
}

impl<'a> Trace<'a> {
    /// Length of record u16, time u64, jail u16, status u16, v6? u8, address 16, lengths of texts
    /// u8 u8 u16 u16, texts. Answers the length.
    #[inline]
    fn write(&self, out: &mut [u8]) -> usize {
        let (six, address) = match self.client {
            IpAddr::V4(v4) => (0, u128::from(v4.to_bits())),
            IpAddr::V6(v6) => (1, v6.to_bits()),
        };
        let cut = |text: &'a [u8], max: usize| &text[..text.len().min(max)];
        let texts = [
            cut(self.method, MAX_METHOD),
            cut(self.host, MAX_HOST),
            cut(self.path, MAX_TEXT),
            cut(self.agent, MAX_TEXT),
        ];
        let len = HEAD + texts.iter().map(|text| text.len()).sum::<usize>();
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&(len as u16).to_le_bytes());
        put(&self.at.to_le_bytes());
        put(&self.jail.0.to_le_bytes());
        put(&self.status.to_le_bytes());
        put(&[six]);
        put(&address.to_le_bytes());
        put(&[texts[0].len() as u8, texts[1].len() as u8]);
        put(&(texts[2].len() as u16).to_le_bytes());
        put(&(texts[3].len() as u16).to_le_bytes());
        texts.iter().for_each(|text| put(text));
        len
    }

    /// Reads back what [`Trace::write`] wrote.
    fn read(record: &'a [u8]) -> Self {
        let u16_at = |at: usize| u16::from_le_bytes([record[at], record[at + 1]]);
        let mut wide = [0; 16];
        wide.copy_from_slice(&record[15..31]);
        let address = u128::from_le_bytes(wide);
        let mut time = [0; 8];
        time.copy_from_slice(&record[2..10]);
        let (method, rest) = record[HEAD..].split_at(record[31].into());
        let (host, rest) = rest.split_at(record[32].into());
        let (path, agent) = rest.split_at(u16_at(33).into());
        Self {
            at: u64::from_le_bytes(time),
            client: match record[14] {
                0 => Ipv4Addr::from_bits(address as u32).into(),
                _ => Ipv6Addr::from_bits(address).into(),
            },
            jail: JailId(u16_at(10)),
            status: u16_at(12),
            method,
            host,
            path,
            agent,
        }
    }
}

/// The records of one shard, oldest first, each with its bytes.
fn records(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8], Trace<'_>)> {
    std::iter::from_fn(move || {
        let len = u16::from_le_bytes([*bytes.first()?, *bytes.get(1)?]);
        let (record, rest) = bytes.split_at_checked(len.into())?;
        bytes = rest;
        Some((record, Trace::read(record)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_no_part_of_the_host() {
        for (host, name) in [
            ("a.example:8080", "a.example"),
            ("a.example", "a.example"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("2001:db8::1", "2001:db8::1"),
            ("a.example:", "a.example"),
            ("a.example:x", "a.example:x"),
            ("", ""),
        ] {
            assert_eq!(host_name(host.as_bytes()), name.as_bytes(), "{host}");
        }
    }

    fn trace<'a>(client: &str, at: Millis, path: &'a [u8], agent: &'a [u8]) -> Trace<'a> {
        Trace {
            at,
            client: client.parse().unwrap(),
            jail: JailId(7),
            status: 401,
            method: b"GET",
            host: b"app.example.com",
            path,
            agent,
        }
    }

    fn paths(ring: &Ring, client: &str) -> Vec<String> {
        let (mut found, net) = (Vec::new(), client.parse::<IpNet>().unwrap());
        ring.read(Some(net), |trace| {
            if net.contains(&trace.client) {
                found.push(String::from_utf8_lossy(trace.path).into_owned());
            }
        });
        found.sort();
        found
    }

    #[test]
    fn what_goes_in_comes_out_cut_to_its_bounds() {
        let ring = Ring::new(Keyed(1));
        let long = [b'x'; 5000];
        let one = Trace {
            method: &long,
            host: &long,
            ..trace("2001:db8::1", u64::MAX, &long, &long)
        };
        ring.push(&one);
        ring.push(&trace("192.0.2.1", 5, b"/a", b""));
        let mut seen = 0;
        ring.read(None, |back| {
            seen += 1;
            let wide = back.client.is_ipv6();
            assert_eq!((back.jail, back.status), (JailId(7), 401));
            assert_eq!(back.at, if wide { u64::MAX } else { 5 });
            let lengths = [back.method, back.host, back.path, back.agent].map(<[u8]>::len);
            let expected = if wide {
                [16, 128, 256, 256]
            } else {
                [3, 15, 2, 0]
            };
            assert_eq!(lengths, expected);
        });
        assert_eq!(seen, 2);
    }

    #[test]
    fn a_flood_stays_within_the_ring_and_keeps_the_newest() {
        let ring = Ring::new(Keyed(1));
        for n in 0..60_000_u32 {
            let client = format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255);
            ring.push(&trace(&client, n.into(), &[b'p'; 200], &[b'a'; 200]));
        }
        let held: usize = ring.shards.iter().map(|shard| shard.lock().len()).sum();
        assert!(held <= BYTES && held > BYTES * 9 / 10, "{held}");
        let mut newest = 0;
        ring.read(None, |trace| newest = newest.max(trace.at));
        assert_eq!(newest, 59_999);
    }

    #[test]
    fn an_address_and_its_range_are_found_and_forgotten() {
        let ring = Ring::new(Keyed(1));
        for n in 0..200 {
            ring.push(&trace(&format!("198.51.100.{n}"), 1, b"/v4", b""));
            ring.push(&trace(&format!("2001:db8:1:{n:x}::5"), 1, b"/v6", b""));
        }
        assert_eq!(paths(&ring, "198.51.100.9/32"), ["/v4"]);
        assert_eq!(paths(&ring, "2001:db8:1:7::/64"), ["/v6"]);
        assert_eq!(paths(&ring, "2001:db8:1::/48").len(), 200);
        assert_eq!(paths(&ring, "198.51.100.0/25").len(), 128);
        ring.forget("198.51.100.0/25".parse().unwrap());
        assert_eq!(paths(&ring, "198.51.100.0/24").len(), 72);
        assert_eq!(paths(&ring, "2001:db8::/32").len(), 200);
    }
}
