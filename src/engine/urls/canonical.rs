//! One spelling for every request target: what URL rules see besides the raw target, and what the
//! upstream gets when the canonical request line is asked for. Nothing is ever decoded twice.

use std::borrow::Cow;

/// The canonical spelling of an origin-form target (`path?query`, escaped as sent).
///
/// Escapes of unreserved characters are decoded once and the digits of all others raised
/// (RFC 3986 §6.2.2); bytes that may not stand in a path or query unescaped are escaped, as Go's
/// `EscapedPath` does; runs of `/` become one; dot segments are resolved. `%2F`, `%5C`, `%00` and
/// `;` stay: what they mean is the upstream's to say. Malformed escapes stay as they are and never
/// become valid ones. A target that does not begin with `/` (such as `*`) is left alone.
pub fn canonical(target: &[u8]) -> Cow<'_, [u8]> {
    if !target.starts_with(b"/") || is_plain(target) {
        return Cow::Borrowed(target);
    }
    let (path, query) = split(target);
    if is_canonical_path(path) && is_canonical_query(query) {
        return Cow::Borrowed(target);
    }
    let mut spelled = Vec::with_capacity(target.len() + 8);
    respell(path, ODD_IN_PATH, &mut spelled);
    let mut out = Vec::with_capacity(spelled.len() + query.len());
    resolve(&spelled, &mut out);
    respell(query, ODD, &mut out);
    Cow::Owned(out)
}

/// The path of a target, and the rest from its `?` on.
pub fn split(target: &[u8]) -> (&[u8], &[u8]) {
    target.split_at(memchr::memchr(b'?', target).unwrap_or(target.len()))
}

/// Whether a target begins with `/` and there is nothing in it to look closer at: no escape, no
/// `;`, no empty or dotted segment, nothing unusual. Most are so, and this tells it of sixteen bytes
/// at once; what is not plain may still be canonical.
pub fn is_plain(target: &[u8]) -> bool {
    let (mut rest, mut odd) = (target, 0);
    // Each byte, and the one behind it for what the two of them are.
    while let Some(several) = rest.first_chunk::<{ AT_ONCE + 1 }>() {
        odd |= oddities(several);
        rest = &rest[AT_ONCE..];
    }
    let mut end = [b'-'; AT_ONCE + 1];
    match target.last_chunk::<AT_ONCE>() {
        Some(last) => end[..AT_ONCE].copy_from_slice(last),
        None => end[..rest.len()].copy_from_slice(rest),
    }
    target.starts_with(b"/") && odd | oddities(&end) == 0
}

/// Bytes looked at together.
const AT_ONCE: usize = 16;

/// Not zero when one of these, but for the last, asks for a closer look. No branch, so that all are
/// looked at together.
#[inline(always)]
fn oddities(several: &[u8; AT_ONCE + 1]) -> u8 {
    let within = |byte: u8, first: u8, last: u8| u8::from(byte.wrapping_sub(first) <= last - first);
    let odd = |byte: u8, behind: u8| {
        let plain = within(byte | 0x20, b'a', b'z')
            | within(byte, b'&', b':')
            | within(byte, b'?', b'@')
            | u8::from(byte == b'=')
            | u8::from(byte == b'_');
        let pair = u8::from(byte == b'/') & within(behind, b'.', b'/');
        (plain ^ 1) | pair
    };
    (0..AT_ONCE).fold(0, |found, at| found | odd(several[at], several[at + 1]))
}

/// Whether [`canonical`] would leave this path (without query) as it is.
pub(super) fn is_canonical_path(path: &[u8]) -> bool {
    // One look at every byte finds nothing odd in nearly every path; only then look closer.
    let (mut seen, mut before) = (0, 0);
    for &b in path {
        let class = CLASS[usize::from(b)];
        seen |= (class & !PAIR) | (class & before & PAIR);
        before = class << 1;
    }
    path.starts_with(b"/")
        && seen & ODD_IN_PATH == 0
        && (seen & PAIR == 0 || !has_odd_segment(path))
        && (seen & PERCENT == 0 || escapes_are_canonical(path))
}

fn is_canonical_query(query: &[u8]) -> bool {
    let seen = query
        .iter()
        .fold(0, |seen, &b| seen | CLASS[usize::from(b)]);
    seen & ODD == 0 && (seen & PERCENT == 0 || escapes_are_canonical(query))
}

/// May not stand anywhere unescaped: controls, blanks, what is not ASCII.
const ODD: u8 = 1;
/// May not stand in a path: what is neither RFC 3986 `pchar`, `/`, `%`, nor Go's `[` and `]`.
const ODD_IN_PATH: u8 = 2;
const PERCENT: u8 = 4;
const SLASH: u8 = 8;
/// `/` or `.`; in what was seen, such a one behind a `/`. The bit above [`SLASH`].
const PAIR: u8 = 16;

const CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut b = 0;
    while b < 256 {
        class[b] = match b as u8 {
            b'%' => PERCENT,
            b'/' => SLASH | PAIR,
            b'.' => PAIR,
            b'"' | b'<' | b'>' | b'#' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => ODD_IN_PATH,
            0..=b' ' | 0x7f.. => ODD | ODD_IN_PATH,
            _ => 0,
        };
        b += 1;
    }
    class
};

fn has_odd_segment(path: &[u8]) -> bool {
    let mut segments = path[1..].split(|&b| b == b'/').peekable();
    while let Some(segment) = segments.next() {
        let empty_inside = segment.is_empty() && segments.peek().is_some();
        if empty_inside || segment == b"." || segment == b".." {
            return true;
        }
    }
    false
}

fn escapes_are_canonical(text: &[u8]) -> bool {
    memchr::memchr_iter(b'%', text).all(|at| match escaped(&text[at..]) {
        Some(byte) => {
            let upper = !text[at + 1..at + 3].iter().any(u8::is_ascii_lowercase);
            upper && (!is_unreserved(byte) || opens_escape(&text[..at]))
        }
        None => true,
    })
}

/// Decodes what is unreserved, raises what stays escaped, escapes what is `odd`.
fn respell(text: &[u8], odd: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let begin = out.len();
    let mut at = 0;
    while at < text.len() {
        let byte = text[at];
        match escaped(&text[at..]) {
            Some(plain) if is_unreserved(plain) && !opens_escape(&out[begin..]) => {
                out.push(plain);
                at += 3;
            }
            Some(_) => {
                out.extend(text[at..at + 3].to_ascii_uppercase());
                at += 3;
            }
            None => {
                if CLASS[usize::from(byte)] & odd == 0 {
                    out.push(byte);
                } else {
                    let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
                    out.extend([b'%', HEX[high], HEX[low]]);
                }
                at += 1;
            }
        }
    }
}

/// Whether `text` ends in the beginning of a malformed escape, which a decoded hex digit would
/// complete: `%6%65` must not become `%6e`.
fn opens_escape(text: &[u8]) -> bool {
    match text {
        [.., b'%'] => true,
        [.., b'%', digit] => digit.is_ascii_hexdigit(),
        _ => false,
    }
}

/// The byte an escape at the start of `text` stands for.
fn escaped(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else {
        return None;
    };
    let digit = |b: &u8| char::from(*b).to_digit(16);
    Some((digit(high)? << 4 | digit(low)?) as u8)
}

fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')
}

/// Merges slashes, then resolves dot segments, in that order, as Go, nginx and Traefik do.
fn resolve(path: &[u8], out: &mut Vec<u8>) {
    let mut open_end = false;
    for segment in path[1..].split(|&b| b == b'/') {
        open_end = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"" | b"." => {}
            b".." => out.truncate(memchr::memrchr(b'/', out).unwrap_or(0)),
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    if open_end {
        out.push(b'/');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(target: &str, expected: &str) {
        let found = canonical(target.as_bytes());
        assert_eq!(String::from_utf8_lossy(&found), expected, "{target}");
        let kept = matches!(found, Cow::Borrowed(_));
        assert_eq!(
            kept,
            target == expected,
            "{target}: copied for nothing, or not copied"
        );
    }

    #[test]
    fn what_browsers_send_is_canonical() {
        for target in [
            "/",
            "/a",
            "/a/",
            "/a/b.c?d=e//f/../g",
            "/.well-known/acme",
            "/..a/...",
            "/a.",
            "*",
            "/a%20b",
            "/caf%C3%A9",
            "/a;b=c/d",
            "/a%2Fb%5Cc%00d%3Be",
            "/~u/-._!$&'()*+,;=:@",
            "/x?",
            "/x?a=%20&b[]=1",
            "/100%",
            "/a%zz",
            "/[1]",
            "/x?q={\"a\"|}",
        ] {
            check(target, target);
        }
    }

    #[test]
    fn tricks_meet_in_one_spelling() {
        for target in [
            "/no",
            "//no",
            "///no",
            "/./no",
            "/a/../no",
            "/a/%2e%2e/no",
            "/a/%2E./no",
            "/%2e/no",
            "/%6eo",
            "/n%6F",
            "/%6E%6f",
            "/../../no",
            "/.//../no",
            "/a/b/..//../no",
        ] {
            assert_eq!(canonical(target.as_bytes()), b"/no".as_slice(), "{target}");
        }
        check("/a/..", "/");
        check("/a/.", "/a/");
        check("/a//", "/a/");
        check("/a/b/../", "/a/");
        check("/..", "/");
        check("/a%2fb%5c%3b", "/a%2Fb%5C%3B");
        check("/a%2F..%2Fb", "/a%2F..%2Fb");
        check("/a/..;/b", "/a/..;/b");
        check("/x?q=%6eo&r=%2f", "/x?q=no&r=%2F");
        check("/x//?a//b", "/x/?a//b");
        check("/a\"<>\\^`{|}#", "/a%22%3C%3E%5C%5E%60%7B%7C%7D%23");
        check("/é?é", "/%C3%A9?%C3%A9");
    }

    #[test]
    fn nothing_is_decoded_twice() {
        check("/%256eo", "/%256eo");
        check("/%25%36%65o", "/%256eo");
        check("/%2%35", "/%2%35");
        check("/%6%65", "/%6%65");
        check("/%%36e", "/%%36e");
        check("/%%36%65", "/%%36e");
        check("/%252e%252e/x", "/%252e%252e/x");
    }

    proptest! {
        #[test]
        fn what_is_plain_is_canonical_and_has_no_other_reading(
            target in "[/a-z.;%?&=_~<A-Z0-9:é-]{0,50}", noise in "[/a]{0,40}"
        ) {
            for target in [target.clone(), format!("/{target}"), format!("{noise}{target}")] {
                let bytes = target.as_bytes();
                if is_plain(bytes) {
                    let (path, query) = split(bytes);
                    prop_assert!(is_canonical_path(path) && is_canonical_query(query), "{target}");
                    prop_assert!(!path.contains(&b';') && !target.contains('%'), "{target}");
                }
            }
        }

        #[test]
        fn usual_targets_are_plain(target in "(/[a-zA-Z0-9_-]{1,20}){1,9}[?]a=[0-9]{0,9}&b=@x:y") {
            prop_assert!(is_plain(target.as_bytes()), "{target}");
        }

        #[test]
        fn a_canonical_target_stays(target in "/[/.%2eEfF0-3a?;\\\\é]{0,24}") {
            let once = canonical(target.as_bytes()).into_owned();
            prop_assert!(matches!(canonical(&once), Cow::Borrowed(_)), "{target}");
            let (path, _) = split(&once);
            prop_assert!(is_canonical_path(path));
            prop_assert!(!path.windows(2).any(|pair| pair == b"//"));
            prop_assert!(!path.split(|&b| b == b'/').any(|s| s == b"." || s == b".."));
        }
    }
}
