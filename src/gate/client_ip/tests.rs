//! Whose address it is, header by header.

use std::sync::Arc;

use http::HeaderValue;

use super::*;

const TRUSTED: &[&str] = &["10.0.0.0/8", "fd00::/8"];
const CDN: &[&str] = &["198.51.100.0/24"];

fn nets(list: &[&str]) -> NetSet {
    list.iter()
        .map(|net| net.parse::<ipnet::IpNet>().unwrap())
        .collect()
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        headers.append(name.parse::<HeaderName>().unwrap(), value);
    }
    headers
}

struct Case {
    peer: Option<&'static str>,
    lines: Vec<(&'static str, &'static str)>,
    source: SourceCriterion,
    appended: bool,
}

/// A request by a trusted peer with these lines of `X-Forwarded-For`.
fn via(lines: &[&'static str]) -> Case {
    let lines = lines
        .iter()
        .map(|line| ("x-forwarded-for", *line))
        .collect();
    Case {
        peer: Some("10.0.0.1"),
        lines,
        source: SourceCriterion::default(),
        appended: false,
    }
}

impl Case {
    fn peer(mut self, peer: Option<&'static str>) -> Self {
        self.peer = peer;
        self
    }

    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.lines.push((name, value));
        self
    }

    fn depth(mut self, depth: usize) -> Self {
        self.source.depth = depth;
        self
    }

    fn excluded(mut self, list: &[&str]) -> Self {
        self.source.excluded = Some(Arc::new(nets(list)));
        self
    }

    fn header(mut self, name: &'static str) -> Self {
        self.source.request_header_name = Some(HeaderName::from_static(name));
        self
    }

    fn appended(mut self) -> Self {
        self.appended = true;
        self
    }

    fn establish(&self) -> Result<Client, NoClient> {
        let headers = headers(&self.lines);
        let peer = self.peer.map(|peer| peer.parse().unwrap());
        let trusted = nets(TRUSTED);
        let asked = Asked {
            peer,
            believed: peer.is_none_or(|peer| trusted.contains(peer)),
            headers: &headers,
            trusted: &trusted,
            appended: self.appended,
        };
        establish(&asked, &self.source)
    }

    #[track_caller]
    fn is(&self, addr: &str, rule: Rule) {
        let expected = Client {
            addr: addr.parse().unwrap(),
            rule,
        };
        assert_eq!(self.establish(), Ok(expected), "{:?}", self.lines);
    }
}

fn forwarded(position: usize) -> Rule {
    Rule::ForwardedFor { position }
}

#[test]
fn an_untrusted_peer_speaks_for_nobody() {
    let peer = Some("203.0.113.9");
    via(&[]).peer(peer).is("203.0.113.9", Rule::Peer);
    via(&["1.1.1.1"]).peer(peer).is("203.0.113.9", Rule::Peer);
    via(&["1.1.1.1"])
        .peer(peer)
        .depth(1)
        .is("203.0.113.9", Rule::Peer);
    via(&["1.1.1.1"])
        .peer(peer)
        .excluded(&["203.0.113.0/24"])
        .is("203.0.113.9", Rule::Peer);
    let named = via(&[])
        .with("cf-connecting-ip", "1.1.1.1")
        .header("cf-connecting-ip");
    named.peer(peer).is("203.0.113.9", Rule::Peer);
    via(&["1.1.1.1"])
        .peer(Some("::ffff:203.0.113.9"))
        .is("203.0.113.9", Rule::Peer);
}

#[test]
fn from_the_right_the_first_that_is_not_trusted() {
    via(&["1.1.1.1"]).is("1.1.1.1", forwarded(1));
    via(&["1.1.1.1"])
        .peer(Some("::ffff:10.0.0.1"))
        .is("1.1.1.1", forwarded(1));
    via(&["6.6.6.6, 1.1.1.1"]).is("1.1.1.1", forwarded(1));
    via(&["6.6.6.6, 1.1.1.1, 10.2.3.4"]).is("1.1.1.1", forwarded(2));
    via(&["6.6.6.6", "1.1.1.1", "10.2.3.4,fd00::1"]).is("1.1.1.1", forwarded(3));
    via(&["6.6.6.6 ,\t1.1.1.1 , "]).is("1.1.1.1", forwarded(1));
    via(&["6.6.6.6,,1.1.1.1,, ,10.0.0.2,"]).is("1.1.1.1", forwarded(2));
    via(&["10.0.0.7, 10.0.0.8"]).is("10.0.0.7", forwarded(2));
    via(&[]).is("10.0.0.1", Rule::Peer);
    via(&["", " , "]).is("10.0.0.1", Rule::Peer);
}

#[test]
fn other_spellings_are_the_same_client() {
    via(&["::ffff:1.1.1.1"]).is("1.1.1.1", forwarded(1));
    via(&["1.1.1.1:555, [::ffff:10.0.0.2]:80"]).is("1.1.1.1", forwarded(2));
    via(&["[2001:DB8::0:9%eth0]:443"]).is("2001:db8::9", forwarded(1));
}

#[test]
fn what_is_no_address_ends_the_walk() {
    via(&["1.1.1.1, unknown, 10.0.0.2"]).is("10.0.0.2", forwarded(1));
    via(&["1.1.1.1, 01.2.3.4"]).is("10.0.0.1", Rule::Peer);
    via(&["1.1.1.1, \u{e9}"]).is("10.0.0.1", Rule::Peer);
    via(&["1.1.1.1", "garbage"]).is("10.0.0.1", Rule::Peer);
    via(&["1.1.1.1 10.0.0.2"]).is("10.0.0.1", Rule::Peer);
}

#[test]
fn a_unix_socket_must_name_the_client() {
    via(&["6.6.6.6, 1.1.1.1"])
        .peer(None)
        .is("1.1.1.1", forwarded(1));
    via(&["1.1.1.1, 10.0.0.2"])
        .peer(None)
        .is("1.1.1.1", forwarded(2));
    for lines in [&[][..], &[""], &["unknown"], &["1.1.1.1, unknown"]] {
        assert_eq!(
            via(lines).peer(None).establish(),
            Err(NoClient),
            "{lines:?}"
        );
    }
    let named = via(&[])
        .with("x-real-ip", "1.1.1.1")
        .header("x-real-ip")
        .peer(None);
    assert_eq!(named.establish(), Err(NoClient));
}

#[test]
fn depth_counts_within_the_chain_as_in_traefik() {
    let chain = &["4.4.4.4, 3.3.3.3", "2.2.2.2, 1.1.1.1"];
    via(chain).depth(1).is("1.1.1.1", Rule::Depth(1));
    via(chain).depth(3).is("3.3.3.3", Rule::Depth(3));
    via(chain).depth(4).is("4.4.4.4", Rule::Depth(4));
    via(chain).depth(5).is("1.1.1.1", forwarded(1));
    via(chain).depth(usize::MAX).is("1.1.1.1", forwarded(1));
    via(chain).depth(3).appended().is("4.4.4.4", Rule::Depth(3));
    via(chain).depth(4).appended().is("1.1.1.1", forwarded(1));
    via(chain)
        .depth(usize::MAX)
        .appended()
        .is("1.1.1.1", forwarded(1));
    via(&["x, 1.1.1.1, 10.0.0.2"])
        .depth(3)
        .is("1.1.1.1", forwarded(2));
    via(&[]).depth(1).is("10.0.0.1", Rule::Peer);
    via(chain)
        .depth(2)
        .excluded(&["1.1.1.1/32"])
        .is("2.2.2.2", Rule::Depth(2));
}

#[test]
fn excluded_addresses_are_passed_over() {
    let past = |position| Rule::ExcludedIps { position };
    via(&["1.1.1.1, 198.51.100.7"])
        .excluded(CDN)
        .is("1.1.1.1", past(2));
    via(&["1.1.1.1, 198.51.100.7, 10.0.0.2"])
        .excluded(CDN)
        .is("1.1.1.1", past(3));
    via(&["1.1.1.1, 10.0.0.2"])
        .excluded(CDN)
        .is("1.1.1.1", forwarded(2));
    via(&["198.51.100.8, 198.51.100.7"])
        .excluded(CDN)
        .is("198.51.100.8", past(2));
    via(&["1.1.1.1"]).excluded(CDN).is("1.1.1.1", forwarded(1));
}

#[test]
fn a_named_header_is_believed_when_it_is_one_address() {
    let by = || Rule::Header(HeaderName::from_static("cf-connecting-ip"));
    let case = || via(&["2.2.2.2"]).header("cf-connecting-ip");
    case()
        .with("cf-connecting-ip", "1.1.1.1")
        .is("1.1.1.1", by());
    case()
        .with("cf-connecting-ip", " [2001:db8::9]:1 ")
        .is("2001:db8::9", by());
    case()
        .with("cf-connecting-ip", "1.1.1.1")
        .depth(1)
        .is("1.1.1.1", by());
    case().is("2.2.2.2", forwarded(1));
    case()
        .with("cf-connecting-ip", "")
        .is("2.2.2.2", forwarded(1));
    case()
        .with("cf-connecting-ip", "unknown")
        .is("2.2.2.2", forwarded(1));
    case()
        .with("cf-connecting-ip", "1.1.1.1, 3.3.3.3")
        .is("2.2.2.2", forwarded(1));
    let twice = case()
        .with("cf-connecting-ip", "1.1.1.1")
        .with("cf-connecting-ip", "1.1.1.1");
    twice.is("2.2.2.2", forwarded(1));
    via(&["6.6.6.6, 1.1.1.1"])
        .header("x-forwarded-for")
        .is("1.1.1.1", forwarded(1));
}

#[test]
fn other_names_and_connection_have_no_say() {
    for (name, value) in [
        ("connection", "x-forwarded-for"),
        ("connection", "close, X-Forwarded-For"),
        ("x_forwarded_for", "6.6.6.6"),
        ("x.forwarded.for", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
        ("x-real-ip", "6.6.6.6"),
        ("true-client-ip", "6.6.6.6"),
    ] {
        via(&["1.1.1.1"])
            .with(name, value)
            .is("1.1.1.1", forwarded(1));
    }
}

#[test]
fn long_chains_are_read_to_a_bound() {
    let hops = |n: usize| vec!["10.0.0.9"; n].join(", ").leak() as &'static str;
    via(&["1.1.1.1", hops(MOST_HOPS - 1)]).is("1.1.1.1", forwarded(MOST_HOPS));
    via(&["1.1.1.1", hops(MOST_HOPS)]).is("10.0.0.9", forwarded(MOST_HOPS));
    via(&["1.1.1.1", hops(100_000)]).is("10.0.0.9", forwarded(MOST_HOPS));
    let blank = |n: usize| " ".repeat(n).leak() as &'static str;
    via(&["1.1.1.1,", blank(MOST_BYTES - 20)]).is("1.1.1.1", forwarded(1));
    via(&["1.1.1.1,", blank(MOST_BYTES)]).is("10.0.0.1", Rule::Peer);
    let junk = "x".repeat(64 << 10).leak() as &'static str;
    via(&[junk, "1.1.1.1"]).is("1.1.1.1", forwarded(1));
    via(&["1.1.1.1", junk]).is("10.0.0.1", Rule::Peer);
    via(&["1.1.1.1", ",".repeat(64 << 10).leak()]).is("10.0.0.1", Rule::Peer);
}
