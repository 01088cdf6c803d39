//! Lists of the plugin's own tests, and random sets against a linear scan.

use proptest::prelude::*;

use super::*;

fn set(nets: &[&str]) -> NetSet {
    nets.iter()
        .map(|net| {
            net.parse::<IpNet>()
                .or_else(|_| net.parse::<IpAddr>().map(IpNet::from))
                .unwrap()
        })
        .collect()
}

#[track_caller]
fn check(nets: &[&str], addr: &str, expected: bool) {
    assert_eq!(
        set(nets).contains(addr.parse().unwrap()),
        expected,
        "{addr} in {nets:?}"
    );
}

#[test]
fn the_plugins_rows() {
    check(&["127.0.0.1"], "127.0.0.1", true);
    check(&["127.0.0.2"], "127.0.0.1", false);
    check(&["127.0.1.1/24"], "127.0.0.1", false);
    check(&["127.0.0.1/24"], "127.0.0.1", true);
    check(&["::1"], "::1", true);
    check(&["::2"], "::1", false);
    check(&["::1:1/124"], "::1", false);
    check(&["::1/124"], "::1", true);
    let mixed = ["127.0.0.1", "10.0.0.0/24", "::1", "2001:db8::/32"];
    for (addr, expected) in [
        ("127.0.0.1", true),
        ("10.0.0.1", true),
        ("10.0.0.42", true),
        ("127.0.0.2", false),
        ("11.0.0.1", false),
        ("::1", true),
        ("2001:db8:beba:cafe::1:2", true),
        ("64:ff9b::127.0.0.1", false),
    ] {
        check(&mixed, addr, expected);
    }
}

#[test]
fn mapped_spellings_meet() {
    check(&["::ffff:1.2.3.4"], "1.2.3.4", true);
    check(&["::ffff:1.2.3.0/120"], "1.2.3.99", true);
    check(&["1.2.3.0/24"], "::ffff:1.2.3.99", true);
    check(&["::/0"], "1.2.3.4", false);
    check(&["0.0.0.0/0"], "::1", false);
}

#[test]
fn the_edges_of_the_address_space() {
    check(&[], "0.0.0.0", false);
    check(&[], "::", false);
    check(&["0.0.0.0/0"], "255.255.255.255", true);
    check(&["255.255.255.255"], "255.255.255.255", true);
    check(&["255.255.255.255"], "255.255.255.254", false);
    check(&["0.0.0.0"], "0.0.0.0", true);
    check(&["::/0"], "ffff::1", true);
    check(
        &["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        true,
    );
    check(&["8000::/1"], "7fff::", false);
}

#[test]
fn neighbours_and_nested_networks_merge() {
    assert_eq!(set(&["10.0.0.0/9", "10.128.0.0/9", "10.1.1.1"]).len(), 1);
    assert_eq!(
        set(&["2001:db8::/32", "2001:db8:1::/48", "2001:db8::"]).len(),
        1
    );
    assert!(set(&[]).is_empty());
}

#[test]
fn covering_explains_by_the_widest_network() {
    let nets = set(&[
        "10.0.0.0/9",
        "10.128.0.0/9",
        "192.0.2.3",
        "192.0.2.4",
        "2001:db8::/32",
        "2001:db8:1::/48",
    ]);
    for (addr, expected) in [
        ("10.1.2.3", Some("10.0.0.0/8")),
        ("192.0.2.3", Some("192.0.2.3/32")),
        ("192.0.2.5", None),
        ("2001:db8:1::7", Some("2001:db8::/32")),
    ] {
        let covering = nets
            .covering(addr.parse().unwrap())
            .map(|net| net.to_string());
        assert_eq!(covering.as_deref(), expected, "{addr}");
    }
}

#[test]
fn small_sets_stay_small() {
    assert!(set(&["10.0.0.0/8", "192.168.0.0/16", "fd00::/8"]).bytes() < 200);
}

/// Few leading bits and few lengths, so that prefixes nest, touch and repeat.
fn prefixes() -> impl Strategy<Value = Vec<IpNet>> {
    let v4 = (any::<u8>(), any::<u8>(), 0..=32u8).prop_map(|(a, b, len)| {
        IpNet::V4(Ipv4Net::new(Ipv4Addr::new(a & 3, 0, b & 1, b), len).unwrap())
    });
    let v6 = (
        any::<u8>(),
        any::<u16>(),
        prop::sample::select(vec![0, 7, 16, 63, 64, 65, 127, 128]),
    )
        .prop_map(|(a, b, len)| {
            let addr = Ipv6Addr::new(u16::from(a) << 14, 0, 0, b & 1, b & 0x8000, 0, 0, b & 7);
            IpNet::V6(Ipv6Net::new(addr, len).unwrap())
        });
    prop::collection::vec(prop_oneof![v4, v6], 0..60)
}

proptest! {
    #[test]
    fn sets_agree_with_a_linear_scan(nets in prefixes(), more in any::<[u8; 4]>()) {
        let set = NetSet::build(nets.iter().copied());
        let ends = nets.iter().flat_map(|net| [net.network(), net.broadcast()]);
        let beside = ends.clone().map(|addr| match addr {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits().wrapping_add(1))),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits().wrapping_sub(1))),
        });
        for addr in ends.clone().chain(beside).chain([IpAddr::from(more)]) {
            // Only ::ffff:0:0/96 means v4, and no generated network touches it from outside.
            if matches!(addr, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
                continue;
            }
            let expected = nets.iter().any(|net| net.contains(&addr));
            prop_assert_eq!(set.contains(addr), expected, "{}", addr);
            prop_assert_eq!(set.covering(addr).is_some_and(|net| net.contains(&addr)), expected);
        }
    }
}

#[test]
fn a_set_knows_what_it_shares_an_address_with() {
    #[track_caller]
    fn check(net: &str, expected: bool) {
        let held = set(&["10.0.0.0/25", "192.0.2.7", "2001:db8::/32", "2001:db9::1"]);
        let net: IpNet = net.parse().unwrap();
        assert_eq!(held.overlaps(&net), expected, "{net}");
    }
    check("10.0.0.0/8", true);
    check("10.0.0.127/32", true);
    check("10.0.0.128/32", false);
    check("::ffff:10.0.0.1/128", true);
    check("192.0.2.0/24", true);
    check("192.0.2.8/29", false);
    check("0.0.0.0/0", true);
    check("2001:db8:1::/48", true);
    check("2001:db8::1/128", true);
    check("2001::/16", true);
    check("2001:db9::/64", true);
    check("2001:db9::2/128", false);
    check("2001:dba::/32", false);
    check("::/0", true);
}

#[test]
fn a_set_gives_back_its_networks() {
    let mut nets: Vec<String> = set(&[
        "10.0.0.0/25",
        "10.0.0.128/25",
        "192.0.2.1",
        "192.0.2.2",
        "2001:db8::/32",
        "2001:db8:1::/48",
        "::1",
        "::/0",
    ])
    .iter()
    .map(|net| net.to_string())
    .collect();
    nets.sort();
    assert_eq!(
        nets,
        ["10.0.0.0/24", "192.0.2.1/32", "192.0.2.2/32", "::/0"]
    );
    let v6 = set(&["2001:db8::/32", "::1"]);
    let nets: Vec<_> = v6.iter().map(|net| net.to_string()).collect();
    assert_eq!(nets, ["2001:db8::/32", "::1/128"]);
}

/// However many there are and however they cluster, nobody may notice how they are held: in words
/// or half words, in their slot's block or in a run.
#[test]
fn a_large_set_answers_as_a_small_one() {
    // scattered, and so near to each other that a slot has hundreds
    for (count, apart) in [
        (100_000, 0x9E37_79B1),
        (300_000, 0x9E37_79B1),
        (20_000, 21),
        (300_000, 21),
        (400_000, 5),
    ] {
        large(count, apart);
    }
}

fn large(count: u32, apart: u32) {
    let wide = ["64.0.0.0/9", "192.0.2.128/25", "192.0.3.0/24"];
    let wide = || wide.iter().map(|net| net.parse::<IpNet>().unwrap());
    let small = NetSet::build(wide());
    let single = |n: u32| Ipv4Addr::from_bits(n.wrapping_mul(apart).wrapping_add(0x0A00_0000));
    let singles: Vec<_> = (0..count)
        .map(single)
        .filter(|addr| !small.overlaps(&IpNet::from(IpAddr::from(*addr))))
        .collect();
    let nets = singles.iter().map(|addr| IpNet::from(IpAddr::from(*addr)));
    let large = NetSet::build(nets.chain(wide()));
    assert_eq!(large.len(), singles.len() + 2);
    assert_eq!(large.iter().count(), singles.len() + 3);
    let limit = large.len() * 24;
    assert!(large.bytes() < limit, "{} bytes", large.bytes());
    for addr in &singles {
        for near in [
            addr.to_bits().wrapping_sub(1),
            addr.to_bits().wrapping_add(1),
        ] {
            let near = Ipv4Addr::from_bits(near);
            assert!(large.contains((*addr).into()), "{addr}");
            assert_eq!(large.contains(near.into()), small.contains(near.into()));
        }
    }
    for addr in singles.iter().take(10_000) {
        let bits = addr.to_bits().wrapping_add(2);
        let net = Ipv4Net::new(Ipv4Addr::from_bits(bits), 30).unwrap().trunc();
        let expected = net.hosts().chain([net.network(), net.broadcast()]);
        let expected = expected.into_iter().any(|addr| large.contains(addr.into()));
        assert_eq!(large.overlaps(&net.into()), expected, "{net}");
    }
    for addr in [
        "63.255.255.255",
        "64.0.0.0",
        "64.65.66.67",
        "64.127.255.255",
    ] {
        let addr = addr.parse().unwrap();
        assert_eq!(large.covering(addr), small.covering(addr), "{addr}");
    }
    for net in ["64.1.2.0/24", "0.0.0.0/3", "240.0.0.0/4", "192.0.2.0/24"] {
        let net = net.parse().unwrap();
        let expected = small.overlaps(&net)
            || singles
                .iter()
                .any(|addr| net.contains(&IpAddr::from(*addr)));
        assert_eq!(large.overlaps(&net), expected, "{net}");
    }
}
