//! The differences between the two dialects, one by one.

use super::*;

#[track_caller]
fn matches(pattern: &str, subjects: &[(&str, bool)]) {
    let translated = from_go(pattern).unwrap();
    let regex = regex::bytes::Regex::new(&translated)
        .unwrap_or_else(|error| panic!("{pattern} became {translated}: {error}"));
    for (subject, expected) in subjects {
        let found = regex.is_match(subject.as_bytes());
        assert_eq!(found, *expected, "{pattern} ({translated}) on {subject:?}");
    }
}

#[track_caller]
fn refuses(pattern: &str, word: &str) {
    let message = from_go(pattern).expect_err(pattern);
    assert!(message.contains(word), "{pattern}: {message}");
}

#[test]
fn perl_classes_and_boundaries_are_ascii() {
    matches(r"^\d$", &[("7", true), ("٣", false), ("a", false)]);
    matches(r"^[\d]$", &[("7", true), ("٣", false)]);
    matches(r"^[^\d]$", &[("7", false), ("a", true)]);
    matches(r"^[\Da]$", &[("7", false), ("a", true)]);
    matches(r"^\w+$", &[("aZ_9", true), ("é", false)]);
    matches(
        r"^\s$",
        &[
            (" ", true),
            ("\t", true),
            ("\u{b}", false),
            ("\u{a0}", false),
        ],
    );
    matches(
        r"\bno\b",
        &[("/no/", true), ("/nope", false), ("éno", true)],
    );
    matches(r"^\w\p{Greek}$", &[("aβ", true), ("éβ", false)]);
}

#[test]
fn quotes_braces_octal_and_brackets_are_literal_where_go_says_so() {
    matches(r"^\Qa.b(\E\.$", &[("a.b(.", true), ("axb(.", false)]);
    matches(r"\Qa+", &[("a+", true), ("aa", false)]);
    matches(r"\Qab\E+$", &[("abb", true)]);
    matches("^a{,5}$", &[("a{,5}", true), ("aaa", false)]);
    matches("^a{$", &[("a{", true)]);
    matches("^a{02}$", &[("a{02}", true)]);
    matches("^a{2}$", &[("aa", true), ("a", false)]);
    matches("^a{2,}$", &[("aaaa", true), ("a", false)]);
    matches("^a{1,2}?$", &[("aa", true), ("aaa", false)]);
    matches("^a}]$", &[("a}]", true)]);
    matches(r"^\101$", &[("A", true)]);
    matches(r"^[\101]$", &[("A", true)]);
    matches(r"^\0$", &[("\0", true)]);
    matches("^[a&&b]+$", &[("a&b", true), ("c", false)]);
    matches("^[[a]]$", &[("[]", true), ("a]", true), ("a", false)]);
    matches("^[]a]$", &[("]", true)]);
    matches("^[^]a]$", &[("b", true), ("]", false)]);
    matches("^[a~~b-]+$", &[("~-", true)]);
    matches("^[+-.-]$", &[("-", true), (",", true)]);
    matches("^[[:alpha:][:^ascii:]]$", &[("a", true), ("1", false)]);
    matches(r"^\<a\>$", &[("<a>", true), ("a", false)]);
    matches(r"^\/\-\_\ \%$", &[("/-_ %", true)]);
    matches(r"^\x41\x{42}$", &[("AB", true)]);
}

#[test]
fn groups_and_flags() {
    matches("(?i)^/NO$", &[("/no", true)]);
    matches("^(?i:a)b$", &[("Ab", true), ("AB", false)]);
    matches("(?s)a.b", &[("a\nb", true)]);
    matches("a.b", &[("a\nb", false)]);
    matches("(?m)^b$", &[("a\nb\nc", true)]);
    matches("^b$", &[("a\nb\nc", false), ("b\n", false)]);
    matches("(?U)a+", &[("a", true)]);
    matches("(?)a", &[("a", true)]);
    matches("(?i-i)a", &[("A", false)]);
    matches("^(?P<y>a)(?<z>b)(c|)$", &[("ab", true), ("abc", true)]);
    matches(r"^(\A^)*\z$", &[("", true), ("a", false)]);
    matches("^*a", &[("a", true)]);
    matches("é", &[("/é", true), ("/e", false)]);
    matches("^/[^é]$", &[("/a", true), ("/é", false)]);
    matches("", &[("", true), ("a", true)]);
}

#[test]
fn a_dot_takes_bytes_that_are_no_utf8() {
    let regex = regex::bytes::Regex::new(&from_go("^/.*/no$").unwrap()).unwrap();
    assert!(regex.is_match(b"/\xff/no"));
}

#[test]
fn what_go_refuses_is_refused_in_words() {
    refuses("(?x)a", "flag `x`");
    refuses("(?!x)", "look-around");
    refuses("(?=x)", "look-around");
    refuses("(?<=x)", "look-around");
    refuses("(?<!x)", "look-around");
    refuses("a++", "nested repetition");
    refuses("a**", "nested repetition");
    refuses(".*+", "nested repetition");
    refuses("a{2}{3}", "nested repetition");
    refuses("*a", "missing argument");
    refuses("(*)", "missing argument");
    refuses("a|*", "missing argument");
    refuses("a{1001}", "repeat count");
    refuses("a{99999999999}", "repeat count");
    refuses("a{2,1}", "repeat count");
    refuses("(a{100}){100}", "repeat count");
    refuses("((a{10}b){10}){11}", "repeat count");
    refuses("/(test", "missing closing `)`");
    refuses("test)", "unexpected `)`");
    refuses("[a", "missing closing `]`");
    refuses("[]", "missing closing `]`");
    refuses("[b-a]", "class range");
    refuses("[[:nope:]]", "class range");
    refuses(r"\1", "back-references");
    refuses(r"\8", "escape");
    refuses(r"\y", "escape");
    refuses(r"\Z", "escape");
    refuses(r"\E", "escape");
    refuses(r"[\b]", "escape");
    refuses(r"\C", "not supported");
    refuses(r"\xZZ", "escape");
    refuses(r"\x{110000}", "escape");
    refuses(r"a\", "backslash");
    refuses(r"\p{gc=Lu}", "class range");
    refuses("(?P=a)", "named group");
    refuses("(?P<a>)(?P<a>)", "named `a`");
    refuses("(?i-)a", "unsupported");
}
