//! URL rules: the plugin's rows, the safer allow, the canonical corpus, and many patterns at once
//! against one regex at a time.

use proptest::prelude::*;

use super::*;

fn rules(list: &[(&str, Mode)]) -> UrlRules {
    let list: Vec<_> = list
        .iter()
        .map(|(pattern, mode)| (pattern.to_string(), *mode))
        .collect();
    UrlRules::compile(&list).unwrap()
}

#[track_caller]
fn blocks(pattern: &str, targets: &[(&str, bool)]) {
    let rules = rules(&[(pattern, Mode::Block)]);
    for (target, expected) in targets {
        let found = rules.judge(target.as_bytes());
        assert_eq!(found.is_some(), *expected, "{pattern} on {target}");
    }
}

#[track_caller]
fn allows(pattern: &str, targets: &[(&str, bool)]) {
    let rules = rules(&[(pattern, Mode::Allow)]);
    for (target, expected) in targets {
        let found = rules.judge(target.as_bytes());
        assert_eq!(found.is_some(), *expected, "{pattern} on {target}");
    }
}

/// The plugin's table, for origin-form targets. Where it says "no" and we say "yes" (`/%6eo`,
/// `/n%6f`) the canonical form matches too; Traefik decodes those before the plugin sees them.
#[test]
fn the_plugins_rows() {
    let everywhere = [
        ("/no", true),
        ("/a/no", true),
        ("/nope", true),
        ("//no", true),
    ];
    blocks("/no", &everywhere);
    blocks(
        "/no",
        &[
            ("/x?q=/no", true),
            ("/NO", false),
            ("/x?q=no", false),
            ("/a%2Fno", false),
        ],
    );
    blocks("/no", &[("/%6eo", true), ("/n%6f", true)]);
    blocks(
        "^/no$",
        &[("/no", true), ("/no?q=1", false), ("/nope", false)],
    );
    blocks("%20", &[("/a%20b", true)]);
    blocks(" ", &[("/a%20b", false)]);
    blocks(r"\?q=1$", &[("/no?q=1", true), ("/no?q=12", false)]);
}

#[test]
fn block_sees_through_tricks() {
    let tricks = [
        ("/admin", true),
        ("//admin", true),
        ("/./admin", true),
        ("/x/../admin", true),
        ("/x/%2e%2e/admin", true),
        ("/%61dmin", true),
        ("/%61%64%6D%69%6e", true),
        ("/%2561dmin", false),
        ("/x/admin", false),
        ("/admin%00", false),
    ];
    blocks("^/admin$", &tricks);
    blocks(
        "^/a/b$",
        &[("/a//b", true), ("/a/./b", true), ("/a/c/../b", true)],
    );
    blocks("^//a", &[("//a", true), ("/a", false)]);
    blocks(r"\.\.", &[("/a/../b", true), ("/a/%2e%2e/b", false)]);
    blocks("%2e", &[("/a/%2e%2e/b", true)]);
    blocks(
        "(?i)union.*select",
        &[("/?q=UNION%20SELECT", true), ("/?q=%75nion+select", true)],
    );
    blocks("%2F", &[("/a%2fb", true)]);
    blocks("%00", &[("/a%00", true)]);
    blocks("^/.*/no$", &[("/\u{e9}/no", true)]);
}

#[test]
fn allow_matches_plain_paths_only() {
    allows(
        "/yes",
        &[
            ("/yes", true),
            ("/a/yes", true),
            ("/yes?x=1", true),
            ("/no", false),
        ],
    );
    allows("/yes", &[("/login?x=/yes", false), ("/login?/yes", false)]);
    allows("^/yes$", &[("/yes?x=1", true), ("/yes/", false)]);
    allows(
        "^/yes",
        &[
            ("//yes", false),
            ("/./yes", false),
            ("/yes/../login", false),
            ("/yes/%2e%2e/login", false),
            ("/yes%2F..%2Flogin", false),
            ("/yes%2flogin", false),
            ("/yes%5C..%5Clogin", false),
            ("/yes%00", false),
            ("/yes;/login", false),
            ("/yes/..;/login", false),
            ("/%79es", false),
            ("/yes\\..\\login", false),
            ("/yes%20more", true),
            ("/yes?a;b=%2F..//.", true),
            ("/yes%", true),
            ("yes", false),
        ],
    );
}

#[test]
fn block_comes_before_allow_and_the_first_of_several_is_named() {
    let rules = rules(&[
        ("^/yes", Mode::Allow),
        (r"\d{3}", Mode::Block),
        ("/no/and/never", Mode::Block),
        ("/no", Mode::Block),
        ("^/yes/", Mode::Allow),
        (r"\.php$", Mode::Block),
        ("^/admin/x", Mode::Block),
        ("^/admin", Mode::Block),
    ]);
    for (target, expected) in [
        ("/yes/no", Some((Mode::Block, 3))),
        ("/yes/a", Some((Mode::Allow, 0))),
        ("/no/and/never", Some((Mode::Block, 2))),
        ("/no/123", Some((Mode::Block, 1))),
        ("/a.php", Some((Mode::Block, 5))),
        ("/admin/x.php", Some((Mode::Block, 5))),
        ("/admin/x", Some((Mode::Block, 6))),
        ("/admin", Some((Mode::Block, 7))),
        ("/maybe", None),
    ] {
        let expected = expected.map(|(mode, index)| Match { mode, index });
        assert_eq!(rules.judge(target.as_bytes()), expected, "{target}");
    }
    assert_eq!(&*rules.pattern(3), "/no");
}

#[test]
fn allows_without_anchor_are_listed() {
    let rules = rules(&[
        ("/a", Mode::Allow),
        ("^/a", Mode::Allow),
        ("^/a|/b", Mode::Allow),
        ("(?:^/a|^/b)", Mode::Allow),
        ("/c", Mode::Block),
        (r"\A/d", Mode::Allow),
        ("(?m)^/e", Mode::Allow),
    ]);
    assert_eq!(rules.allow_without_anchor(), [0, 2, 6]);
}

#[test]
fn every_bad_pattern_is_reported_with_its_place() {
    let list = ["/ok", "/(test", "(?!x)", "/fine", "a++"];
    let list: Vec<_> = list.map(|pattern| (pattern.to_owned(), Mode::Block)).into();
    let bad = UrlRules::compile(&list).unwrap_err();
    let places: Vec<_> = bad.iter().map(|bad| bad.index).collect();
    assert_eq!(places, [1, 2, 4]);
    assert_eq!(bad[0].to_string(), "missing closing `)`");
}

#[test]
fn absurd_sizes_are_refused_in_words() {
    #[track_caller]
    fn refuses(list: Vec<String>, words: &str) {
        let list: Vec<_> = list
            .into_iter()
            .map(|pattern| (pattern, Mode::Block))
            .collect();
        let bad = UrlRules::compile(&list).unwrap_err();
        assert!(bad[0].message.contains(words), "{bad:?}");
    }
    refuses(vec!["a".repeat(LONGEST_PATTERN + 1)], "longer than");
    refuses(vec![r"\pL".repeat(90) + "{900}"], "too large");
    refuses(vec!["a".to_owned(); MOST_RULES + 1], "is the most");
    refuses(vec![r"\pL{30}".to_owned(); 500], "up to here");
    refuses(vec!["(".repeat(4000) + &")".repeat(4000)], "nest");
}

#[test]
fn no_rules_say_nothing() {
    assert!(UrlRules::default().is_empty());
    assert_eq!(UrlRules::default().judge(b"/"), None);
}

/// Patterns of every group of the matcher, over a small alphabet so that they match often.
fn pattern() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/",
        "a",
        "b",
        "ab",
        "abc",
        "/ab",
        ".*",
        "[ab]",
        "a+",
        "(?:ab|cb)",
        "b?",
        "%2F",
        r"\b",
        "(?i:ABC)",
        r"\d",
        "^",
        "$",
        "(?:bca|cab)+",
    ]);
    (any::<bool>(), prop::collection::vec(piece, 1..5))
        .prop_map(|(anchor, pieces)| if anchor { "^/" } else { "" }.to_owned() + &pieces.concat())
}

proptest! {
    #[test]
    fn the_matcher_agrees_with_one_regex_at_a_time(
        patterns in prop::collection::vec(pattern(), 1..20),
        target in "/[abcABC1/]{0,12}",
    ) {
        let patterns: Vec<_> = patterns.into_iter().filter(|p| from_go(p).is_ok()).collect();
        prop_assume!(!patterns.is_empty());
        let list: Vec<_> = patterns.iter().map(|p| (p.clone(), Mode::Block)).collect();
        let rules = UrlRules::compile(&list).unwrap();
        let matches = |subject: &[u8]| patterns.iter().position(|pattern| {
            regex::bytes::Regex::new(&from_go(pattern).unwrap()).unwrap().is_match(subject)
        });
        let expected = matches(target.as_bytes()).or_else(|| matches(&canonical(target.as_bytes())));
        prop_assert_eq!(rules.judge(target.as_bytes()).map(|found| found.index), expected);
    }
}
