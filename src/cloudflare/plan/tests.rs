//! The plan as tables, and as properties of random lists.

use std::net::Ipv4Addr;

use proptest::{collection::vec, prelude::*};

use super::*;

fn net(text: &str) -> IpNet {
    read(text).unwrap_or_else(|| panic!("{text}"))
}

#[track_caller]
fn goes_as(ban: &str, expected: Option<&str>) {
    let ban = ban
        .parse::<IpNet>()
        .or_else(|_| ban.parse::<IpAddr>().map(IpNet::from));
    assert_eq!(edge(ban.unwrap()).map(spell).as_deref(), expected);
}

#[test]
fn bans_go_in_the_forms_lists_take() {
    goes_as("192.0.2.1", Some("192.0.2.1"));
    goes_as("192.0.2.1/32", Some("192.0.2.1"));
    goes_as("192.0.2.1/24", Some("192.0.2.0/24"));
    goes_as("10.1.2.3/8", Some("10.0.0.0/8"));
    goes_as("10.0.0.0/7", None);
    goes_as("::ffff:192.0.2.1", Some("192.0.2.1"));
    goes_as("::ffff:10.0.0.0/104", Some("10.0.0.0/8"));
    goes_as("::ffff:10.0.0.0/100", None);
    goes_as("2001:DB8:0:1::5", Some("2001:db8:0:1::/64"));
    goes_as("2001:db8::/65", Some("2001:db8::/64"));
    goes_as("2001:db8::/48", Some("2001:db8::/48"));
    goes_as("2000::/12", Some("2000::/12"));
    goes_as("2000::/11", None);
}

#[test]
fn items_are_read_in_any_spelling() {
    for (text, expected) in [
        ("10.0.0.1/32", "10.0.0.1"),
        (" 10.0.0.1", "10.0.0.1"),
        ("2001:DB8:0:0::/64", "2001:db8::/64"),
        ("2001:db8::9/64", "2001:db8::/64"),
        ("2001:db8::9", "2001:db8::9/128"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
    ] {
        assert_eq!(spell(net(text)), expected, "{text}");
    }
    assert_eq!(read("example.com"), None);
}

#[test]
fn a_tag_is_a_whole_word_at_the_beginning() {
    assert!(tagged("jailgate", "jailgate"));
    assert!(tagged("jailgate (web)", "jailgate"));
    assert!(!tagged("jailgate2", "jailgate"));
    assert!(!tagged("by jailgate", "jailgate"));
    assert!(!tagged("", "jailgate"));
}

const FREE: Rules<'_> = Rules {
    whole_list: false,
    retag: false,
    capacity: 10,
    frozen: None,
};

/// `+` before an address: our own ban; `=30`: ends then.
fn wanted(bans: &[&str]) -> Wanted {
    let mut wanted = Wanted::default();
    for ban in bans {
        let (ban, until) = ban.split_once('=').unwrap_or((ban, "100"));
        let ours = ban.starts_with('+');
        let until = until.parse().unwrap();
        wanted.want(net(ban.trim_start_matches('+')), Weight { ours, until });
    }
    wanted
}

/// `*` before an address: ours; `?`: ours, with an id that is not known.
fn listed(items: &[&str]) -> Listed {
    let item = |text: &&str| Item {
        id: format!("id of {text}"),
        ip: text.trim_start_matches(['*', '?']).to_owned(),
        comment: text.starts_with(['*', '?']).then(|| "t".to_owned()),
    };
    let mut listed = Listed::read(items.iter().map(item), "t");
    for text in items.iter().filter(|text| text.starts_with('?')) {
        listed.added(&[net(&text[1..])]);
    }
    listed
}

fn spelled(nets: &[IpNet]) -> String {
    let nets: Vec<String> = nets.iter().map(|net| spell(*net)).collect();
    nets.join(" ")
}

#[track_caller]
fn check(want: &[&str], list: &[&str], rules: Rules<'_>, add: &str, remove: &str) -> Plan {
    let plan = plan(&wanted(want), &listed(list), rules);
    let removed: Vec<IpNet> = plan.remove.iter().map(|(net, _)| *net).collect();
    assert_eq!(spelled(&plan.add), add, "added");
    assert_eq!(spelled(&removed), remove, "removed");
    plan
}

#[test]
fn what_is_missing_is_added_and_what_is_ours_and_over_is_removed() {
    check(
        &["1.1.1.1", "1.1.1.2"],
        &["*1.1.1.2", "*1.1.1.3"],
        FREE,
        "1.1.1.1",
        "1.1.1.3",
    );
    check(&[], &[], FREE, "", "");
    check(&["1.1.1.1"], &["*1.1.1.1/32"], FREE, "", "");
}

#[test]
fn items_of_others_are_never_touched_nor_repeated() {
    let plan = check(&["1.1.1.1"], &["1.1.1.1", "9.9.9.9"], FREE, "", "");
    assert_eq!((plan.chosen, plan.retag.len()), (1, 0));
    let rules = Rules {
        retag: true,
        ..FREE
    };
    assert_eq!(
        check(&["1.1.1.1"], &["1.1.1.1"], rules, "", "").retag.len(),
        0
    );
}

#[test]
fn the_whole_list_is_adopted() {
    let rules = Rules {
        whole_list: true,
        retag: true,
        ..FREE
    };
    let plan = check(
        &["1.1.1.1", "1.1.1.2"],
        &["1.1.1.1", "*1.1.1.2", "9.9.9.9"],
        rules,
        "",
        "9.9.9.9",
    );
    assert_eq!(spelled(&plan.retag), "1.1.1.1");
    let rules = Rules {
        retag: false,
        ..rules
    };
    assert_eq!(
        check(&["1.1.1.1"], &["1.1.1.1"], rules, "", "").retag.len(),
        0
    );
}

#[test]
fn a_prefix_stays_until_its_last_ban_ends() {
    let both = ["2001:db8::1", "2001:db8::2"];
    check(&both, &[], FREE, "2001:db8::/64", "");
    check(&both[..1], &["*2001:db8::/64"], FREE, "", "");
    check(&[], &["*2001:db8::/64"], FREE, "", "2001:db8::/64");
}

#[test]
fn without_room_our_own_stay_in_then_those_that_end_last() {
    let want = [
        "1.1.1.1=10",
        "1.1.1.2=30",
        "1.1.1.3=20",
        "+1.1.1.4=5",
        "1.1.1.5=20",
    ];
    let rules = Rules {
        capacity: 3,
        ..FREE
    };
    let plan = check(&want, &[], rules, "1.1.1.2 1.1.1.3 1.1.1.4", "");
    assert_eq!(spelled(&plan.left_out), "1.1.1.5 1.1.1.1");
    // Items of others take room; what ends sooner makes place, and is taken out first.
    let list = ["9.9.9.9", "*1.1.1.1", "*1.1.1.3"];
    let plan = check(&want, &list, rules, "1.1.1.2 1.1.1.4", "1.1.1.1 1.1.1.3");
    assert_eq!(plan.free, 0);
    assert!(matches!(plan.first(), Some(Step::Remove(items)) if items.len() == 2));
    let none = Rules {
        capacity: 1,
        ..FREE
    };
    check(&want, &["8.8.8.8", "9.9.9.9"], none, "", "");
}

#[test]
fn one_request_holds_a_batch_and_adding_comes_first() {
    let many: Vec<String> = (0..2500_u32)
        .map(|n| Ipv4Addr::from(n + 0x0b00_0000).to_string())
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let rules = Rules {
        capacity: 10_000,
        ..FREE
    };
    let plan = check(&many[..0], &[], rules, "", "");
    assert_eq!(plan.first(), None);
    let plan = super::plan(&wanted(&many), &listed(&["*1.1.1.1"]), rules);
    assert!(matches!(plan.first(), Some(Step::Put(nets)) if nets.len() == BATCH));
    let tight = Rules {
        capacity: 11,
        ..FREE
    };
    let plan = super::plan(&wanted(&many[..11]), &listed(&["*1.1.1.1"]), tight);
    assert!(matches!(plan.first(), Some(Step::Put(nets)) if nets.len() == 10));
}

#[test]
fn what_was_just_added_is_looked_up_before_it_is_removed() {
    let plan = check(&[], &["?1.1.1.1", "*1.1.1.2"], FREE, "", "1.1.1.2");
    assert_eq!(spelled(&plan.find), "1.1.1.1");
    let mut list = listed(&["?1.1.1.1"]);
    let plan = super::plan(&wanted(&[]), &list, FREE);
    assert_eq!(plan.first(), Some(Step::Find(net("1.1.1.1"))));
    let item = Item {
        id: "x".into(),
        ip: "1.1.1.1/32".into(),
        comment: None,
    };
    list.found(net("1.1.1.1"), Some(item));
    let plan = super::plan(&wanted(&[]), &list, FREE);
    assert_eq!(
        plan.first(),
        Some(Step::Remove(vec![(net("1.1.1.1"), "x".into())]))
    );
    list.found(net("1.1.1.1"), None);
    assert_eq!(super::plan(&wanted(&[]), &list, FREE).first(), None);
}

#[test]
fn while_frozen_only_our_own_bans_move() {
    let frozen: BTreeSet<IpNet> = ["1.1.1.1", "1.1.1.9"].map(net).into();
    let rules = Rules {
        frozen: Some(&frozen),
        whole_list: true,
        ..FREE
    };
    // LAPI's: 1.1.1.1 was lifted there, 1.1.1.2 is new; ours: 1.1.1.3 ended, 1.1.1.4 began.
    let list = ["*1.1.1.1", "*1.1.1.3", "9.9.9.9", "*1.1.1.9"];
    check(&["1.1.1.2", "+1.1.1.4"], &list, rules, "1.1.1.4", "1.1.1.3");
    // What is frozen takes room.
    let tight = Rules {
        capacity: 3,
        ..rules
    };
    check(&["+1.1.1.4"], &list, tight, "", "1.1.1.3");
}

#[test]
fn who_is_spared_is_asked_for_the_folded_network() {
    let mut wanted = wanted(&["2001:db8::1", "1.1.1.1"]);
    let own = net("2001:db8::9");
    let spared = wanted.spare(|net| net.contains(&own));
    assert_eq!((spared, wanted.len()), (1, 1));
}

fn any_net() -> impl Strategy<Value = IpNet> {
    let v4 = (0..40_u32, 28..=32_u8).prop_map(|(n, len)| {
        IpNet::V4(Ipv4Net::new(Ipv4Addr::from(0x0a00_0000 + n), len).unwrap())
    });
    let v6 = (0..4_u128, 0..3_u128, 60..=128_u8).prop_map(|(high, low, len)| {
        let bits = (0x2001_0db8_u128 << 96) + (high << 64) + low;
        IpNet::V6(Ipv6Net::new(bits.into(), len).unwrap())
    });
    prop_oneof![v4, v6]
}

proptest! {
    /// Step by step, as the requests would be made: it ends, never beyond the capacity unless
    /// others are, never touching what others put there, and nothing is left to do.
    #[test]
    fn steps_lead_to_the_wanted_list(
        bans in vec((any_net(), any::<bool>(), 0..100_u64), 0..60),
        items in vec((any_net(), any::<bool>()), 0..40),
        capacity in 1..60_usize,
        whole_list: bool,
    ) {
        let mut want = Wanted::default();
        for (client, ours, until) in bans {
            want.want(client, Weight { ours, until });
        }
        let item = |(index, (net, ours)): (usize, &(IpNet, bool))| Item {
            id: index.to_string(),
            ip: spell(*net),
            comment: ours.then(|| "t".to_owned()),
        };
        let mut list = Listed::read(items.iter().enumerate().map(item), "t");
        let others: Vec<IpNet> = list.items.iter().filter(|(_, k)| !k.ours).map(|(n, _)| *n).collect();
        let rules = Rules { whole_list, retag: whole_list, capacity, frozen: None };
        let most = capacity.max(list.len());
        let mut steps = 0;
        while let Some(step) = plan(&want, &list, rules).first() {
            match step {
                Step::Put(nets) => list.added(&nets),
                Step::Remove(gone) => gone.iter().for_each(|(net, _)| list.removed(net)),
                Step::Find(net) => list.found(net, Some(Item { id: "f".into(), ip: spell(net), comment: None })),
            }
            prop_assert!(list.len() <= most);
            steps += 1;
            prop_assert!(steps < 200);
        }
        for other in &others {
            prop_assert!(whole_list || list.items.contains_key(other));
        }
        let end = plan(&want, &list, rules);
        let kept = want.nets().filter(|net| list.items.contains_key(net)).count();
        prop_assert_eq!(kept, end.chosen);
        prop_assert_eq!(kept + end.left_out.len(), want.len());
        prop_assert!(end.left_out.is_empty() || list.len() >= capacity);
        for net in list.items.keys() {
            prop_assert!(want.nets.contains_key(net) || (!whole_list && others.contains(net)));
        }
    }
}
