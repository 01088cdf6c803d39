//! What a client connection and the requests on it tell each other, and the one ticking task per
//! worker that ends connections whose deadline passed. No I/O happens here.
//!
//! A deadline costs one relaxed store; no timer is armed, moved or polled per request. All of a
//! link changes on its worker's thread alone, so a load and a store do where two threads would need
//! a locked instruction.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
};

use bytes::BytesMut;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;

use super::scan::Found;
use crate::{
    config::ClientTimeouts,
    proxy::{Forwarded, Splice},
    time::Millis,
};

const ENDED: u32 = 1;
const DRAINING: u32 = 2;
const TUNNEL: u32 = 4;
/// hyper has written all it holds: a 1xx head may be put in.
const BOUNDARY: u32 = 8;
/// One waits.
const EARLY: u32 = 16;
/// HTTP/2 is spoken.
const H2: u32 = 32;
/// The client takes nothing more for now.
const BLOCKED: u32 = 64;

/// How long an idle HTTP/2 client may take to say that it was told, in milliseconds.
const FAREWELL: Millis = 5_000;

/// A request, begun and being worked on.
const ONE_MORE: u64 = 1 << 32 | 1;

/// No request number.
const NEVER: u32 = u32::MAX;

/// One client connection.
pub struct Link {
    /// Who is connected, after a PROXY header; `None` on a unix socket.
    pub peer: Option<SocketAddr>,
    timeouts: Timeouts,
    ticker: Arc<Ticker>,
    /// `X-Forwarded-*` as written for a peer that is not believed, and for one that is.
    forwarded: [Forwarded; 2],
    /// Coarse milliseconds; 0 is none.
    deadline: AtomicU64,
    flags: AtomicU32,
    /// Requests so far, in the upper half, and those whose response has not been handed over whole.
    requests: AtomicU64,
    cancelled: AtomicU32,
    close_from: AtomicU32,
    refuse_from: AtomicU32,
    /// 1xx heads waiting to be written.
    early: Mutex<BytesMut>,
    waker: Mutex<Option<Waker>>,
    /// The socket is TCP without TLS.
    plain: bool,
    splice: OnceLock<Arc<Splice>>,
}

/// [`ClientTimeouts`] in milliseconds, 0 for none.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// A head.
    pub header: Millis,
    /// Two reads of a body or writes of a response.
    pub body: Millis,
    /// No request.
    pub idle: Millis,
}

/// The worker's coarse clock and its open connections.
#[derive(Debug, Default)]
pub struct Ticker {
    now: AtomicU64,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    links: Vec<Option<Arc<Link>>>,
    free: Vec<usize>,
}

/// Keeps a connection among the open ones; dropped with its socket.
#[derive(Debug)]
pub struct Registered {
    link: Arc<Link>,
    slot: usize,
}

impl From<&ClientTimeouts> for Timeouts {
    fn from(timeouts: &ClientTimeouts) -> Self {
        Self {
            header: timeouts.header.as_millis() as Millis,
            body: timeouts.body.as_millis() as Millis,
            idle: timeouts.idle.as_millis() as Millis,
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Link {
    /// A connection that has just been accepted.
    pub fn new(
        ticker: Arc<Ticker>,
        peer: Option<SocketAddr>,
        tls: bool,
        timeouts: Timeouts,
    ) -> Arc<Self> {
        let forwarded = Forwarded::new(peer.map(|peer| peer.ip()), false, tls);
        Arc::new(Self {
            peer,
            timeouts,
            ticker,
            forwarded: [forwarded.clone(), forwarded.believed()],
            deadline: AtomicU64::new(0),
            flags: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            cancelled: AtomicU32::new(0),
            close_from: AtomicU32::new(NEVER),
            refuse_from: AtomicU32::new(NEVER),
            early: Mutex::default(),
            waker: Mutex::new(None),
            plain: peer.is_some() && !tls,
            splice: OnceLock::new(),
        })
    }

    /// What `X-Forwarded-*` are written from.
    pub fn forwarded(&self, trusted: bool) -> &Forwarded {
        &self.forwarded[usize::from(trusted)]
    }

    /// The way for long bodies past this process, if the client can be reached by one.
    pub fn splice(&self) -> Option<Arc<Splice>> {
        (self.plain && !self.h2()).then(|| self.splice.get_or_init(Arc::default).clone())
    }

    /// The same, if a body may have taken it.
    pub fn spliced(&self) -> Option<&Splice> {
        self.splice.get().map(Arc::as_ref)
    }

    /// From the first request on.
    pub fn speak_h2(&self) {
        self.set(H2);
    }

    /// Whether it speaks HTTP/2.
    pub fn h2(&self) -> bool {
        self.flags.load(Relaxed) & H2 != 0
    }

    /// The peer's address, canonical.
    pub fn peer_ip(&self) -> Option<IpAddr> {
        self.peer.map(|peer| peer.ip().to_canonical())
    }

    /// The limits it was accepted under.
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// A request began.
    pub fn begin(&self) {
        let before = self.requests.load(Relaxed);
        self.requests.store(before.wrapping_add(ONE_MORE), Relaxed);
        if !self.blocked() {
            self.deadline.store(0, Relaxed);
        }
    }

    /// Its response was handed over, or nobody wants it any more.
    pub fn finish(&self) {
        let left = self.requests.load(Relaxed) - 1;
        self.requests.store(left, Relaxed);
        if left as u32 == 0 && !self.tunnelled() && !self.blocked() {
            // hyper may wait for the next request without looking at the socket again.
            self.allow(self.timeouts.idle);
        }
    }

    /// Whether a request is being worked on.
    pub fn busy(&self) -> bool {
        self.requests.load(Relaxed) as u32 > 0
    }

    /// Whether there were so many requests, and their responses were handed over whole.
    pub fn answered(&self, requests: u32) -> bool {
        self.requests.load(Relaxed) == u64::from(requests) << 32
    }

    /// A request was given up by the client before its response; answers how many more were than
    /// had one.
    pub fn cancel(&self) -> u32 {
        let cancelled = self.cancelled.load(Relaxed) + 1;
        self.cancelled.store(cancelled, Relaxed);
        cancelled
    }

    /// A request had its response.
    pub fn respond(&self) {
        let cancelled = self.cancelled.load(Relaxed);
        if cancelled > 0 {
            self.cancelled.store(cancelled - 1, Relaxed);
        }
    }

    /// Lets at most `millis` pass from now on; 0 is no limit. Tick-accurate.
    pub fn allow(&self, millis: Millis) {
        let deadline = match millis {
            0 => 0,
            _ => self.ticker.now.load(Relaxed) + millis,
        };
        self.deadline.store(deadline, Relaxed);
    }

    /// Lets time pass.
    pub fn allow_all(&self) {
        self.deadline.store(0, Relaxed);
    }

    /// The client takes nothing more for now, and is timed like one that does not send. It does
    /// not make up for that by sending, and not by what is ready for it.
    pub fn block(&self) {
        if !self.blocked() && !self.tunnelled() {
            self.set(BLOCKED);
            self.allow(self.timeouts.body);
        }
    }

    /// The client took some; answers whether it was blocked.
    pub fn unblock(&self) -> bool {
        let blocked = self.blocked();
        if blocked {
            self.clear(BLOCKED);
            self.allow_all();
        }
        blocked
    }

    /// Whether the client takes nothing.
    pub fn blocked(&self) -> bool {
        self.flags.load(Relaxed) & BLOCKED != 0
    }

    /// Whether a deadline runs.
    pub fn limited(&self) -> bool {
        self.deadline.load(Relaxed) != 0
    }

    /// Ends the connection where it stands.
    pub fn end(&self) {
        self.raise(ENDED);
    }

    /// Its deadline passed. HTTP/2 is told before it is closed for idleness (GOAWAY): a request
    /// may be on its way.
    fn expire(&self) {
        if self.h2() && !self.busy() && !self.blocked() && !self.draining() {
            self.allow(FAREWELL);
            self.drain();
        } else {
            self.end();
        }
    }

    /// Whether it was ended.
    pub fn ended(&self) -> bool {
        self.flags.load(Relaxed) & ENDED != 0
    }

    /// Asks it to finish what it has begun and close.
    pub fn drain(&self) {
        self.raise(DRAINING);
    }

    /// Whether it was asked to.
    pub fn draining(&self) -> bool {
        self.flags.load(Relaxed) & DRAINING != 0
    }

    /// From now on bytes pass unread: the connection was upgraded.
    pub fn tunnel(&self) {
        self.set(TUNNEL);
        self.allow_all();
    }

    /// Whether it was upgraded.
    pub fn tunnelled(&self) -> bool {
        self.flags.load(Relaxed) & TUNNEL != 0
    }

    /// Takes over what the scanner noted.
    pub fn note(&self, found: Found) {
        self.close_from.store(found.close.unwrap_or(NEVER), Relaxed);
        self.refuse_from
            .store(found.refuse.unwrap_or(NEVER), Relaxed);
    }

    /// Whether the connection must close after this request.
    pub fn must_close(&self, request: u32) -> bool {
        request >= self.close_from.load(Relaxed) || self.must_refuse(request)
    }

    /// Whether this request must be refused.
    pub fn must_refuse(&self, request: u32) -> bool {
        request >= self.refuse_from.load(Relaxed)
    }

    /// Whether everything before this was written, so that a 1xx head may follow.
    pub fn at_boundary(&self, yes: bool) {
        match yes {
            true => self.set(BOUNDARY),
            false => self.clear(BOUNDARY),
        }
    }

    /// Passes a 1xx response on as it stands on the wire. Not to HTTP/2 clients: hyper has no way
    /// to send them.
    pub fn inform(&self, status: StatusCode, headers: &HeaderMap) {
        if self.h2() {
            return;
        }
        let reason = status.canonical_reason().unwrap_or_default();
        let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
        for (name, value) in headers {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        self.early(&head);
    }

    /// Puts a 1xx head before the response's; drops it where it would land inside another.
    fn early(&self, head: &[u8]) {
        if self.flags.load(Relaxed) & BOUNDARY != 0 {
            self.early.lock().extend_from_slice(head);
            self.set(EARLY);
        }
    }

    /// The 1xx heads to write now.
    pub fn take_early(&self) -> Option<BytesMut> {
        if self.flags.load(Relaxed) & EARLY == 0 {
            return None;
        }
        self.clear(EARLY);
        Some(std::mem::take(&mut *self.early.lock()))
    }

    /// Who is to be woken when the connection is ended or drained.
    pub fn watched_by(&self, waker: &Waker) {
        *self.waker.lock() = Some(waker.clone());
    }

    fn set(&self, flag: u32) {
        self.flags.store(self.flags.load(Relaxed) | flag, Relaxed);
    }

    fn clear(&self, flag: u32) {
        self.flags.store(self.flags.load(Relaxed) & !flag, Relaxed);
    }

    fn raise(&self, flag: u32) {
        self.set(flag);
        if let Some(waker) = self.waker.lock().as_ref() {
            waker.wake_by_ref();
        }
    }
}

impl Ticker {
    /// Puts a connection among the open ones.
    pub fn register(&self, link: Arc<Link>) -> Registered {
        let mut open = self.open.lock();
        let slot = open.free.pop().unwrap_or_else(|| {
            open.links.push(None);
            open.links.len() - 1
        });
        open.links[slot] = Some(link.clone());
        Registered { link, slot }
    }

    /// Moves the coarse clock and ends every connection whose deadline passed.
    pub fn tick(&self, now: Millis) {
        self.now.store(now, Relaxed);
        self.each(|link| {
            let deadline = link.deadline.load(Relaxed);
            if deadline != 0 && deadline <= now {
                link.expire();
            }
        });
    }

    /// Calls `visit` for every open connection.
    pub fn each(&self, visit: impl Fn(&Link)) {
        self.open
            .lock()
            .links
            .iter()
            .flatten()
            .for_each(|link| visit(link));
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        let open = self.open.lock();
        open.links.len() - open.free.len()
    }
}

impl Registered {
    /// The connection.
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut open = self.link.ticker.open.lock();
        let gone = open.links[self.slot].take();
        open.free.push(self.slot);
        drop(open);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(ticker: &Arc<Ticker>) -> Arc<Link> {
        let timeouts = Timeouts {
            header: 30_000,
            body: 60_000,
            idle: 180_000,
        };
        Link::new(ticker.clone(), None, false, timeouts)
    }

    #[test]
    fn a_connection_ends_when_its_deadline_passed_and_not_before() {
        let ticker = Arc::new(Ticker::default());
        ticker.tick(1_000);
        let (a, b) = (link(&ticker), link(&ticker));
        let _held = (ticker.register(a.clone()), ticker.register(b.clone()));
        a.allow(500);
        ticker.tick(1_499);
        assert!(!a.ended());
        ticker.tick(1_500);
        assert!(a.ended() && !b.ended());
        b.allow(500);
        b.begin();
        ticker.tick(9_000);
        assert!(
            !b.ended(),
            "a request that is being worked on has no client deadline"
        );
    }

    #[test]
    fn who_takes_nothing_is_given_up_whatever_else_happens() {
        let ticker = Arc::new(Ticker::default());
        let links = [(); 4].map(|()| link(&ticker));
        let _held = links.each_ref().map(|link| ticker.register(link.clone()));
        let [asks, answered, reads, tunnel] = &links;
        tunnel.tunnel();
        for link in &links {
            link.begin();
            link.block();
        }
        ticker.tick(30_000);
        asks.begin();
        answered.finish();
        assert!(reads.unblock());
        for link in &links {
            link.block();
        }
        ticker.tick(60_000);
        let ended = links.each_ref().map(|link| link.ended());
        assert_eq!(ended, [true, true, false, false]);
        ticker.tick(90_000);
        assert!(reads.ended() && !tunnel.ended());
    }

    #[test]
    fn who_gives_up_more_than_it_lets_be_answered_is_noticed() {
        let link = link(&Arc::new(Ticker::default()));
        for _ in 0..50 {
            link.respond();
            link.respond();
            assert_eq!(link.cancel(), 1);
        }
        link.cancel();
        assert_eq!(link.cancel(), 3);
    }

    #[test]
    fn closed_connections_leave_their_place_to_new_ones() {
        let ticker = Arc::new(Ticker::default());
        let first = ticker.register(link(&ticker));
        let second = ticker.register(link(&ticker));
        assert_eq!(ticker.open(), 2);
        drop(first);
        let third = ticker.register(link(&ticker));
        assert_eq!((ticker.open(), third.slot), (2, 0));
        drop((second, third));
        assert_eq!(ticker.open(), 0);
    }

    #[test]
    fn early_hints_are_dropped_where_they_would_land_inside_a_response() {
        let ticker = Arc::new(Ticker::default());
        let link = link(&ticker);
        link.early(b"lost");
        assert_eq!(link.take_early(), None);
        link.at_boundary(true);
        link.early(b"kept");
        assert_eq!(link.take_early().as_deref(), Some(&b"kept"[..]));
        link.at_boundary(false);
        link.early(b"lost");
        assert_eq!(link.take_early(), None);
    }
}
