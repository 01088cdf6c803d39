//! Finds literals of which at least one must occur wherever a pattern matches, so that one
//! Aho-Corasick pass tells which patterns are worth running.

use regex_syntax::hir::{Class, Hir, HirKind};

/// More alternatives than this make a filter that keeps little out.
const MOST: usize = 16;

/// Shorter ones occur in too many targets.
const SHORTEST: usize = 3;

/// Literals, in lower case, of which at least one occurs (in any case) in everything the pattern
/// matches. `None` when there are none worth looking for.
pub(super) fn required(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    let found = best(hir)?;
    (shortest(&found) >= SHORTEST).then_some(found)
}

fn best(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    match hir.kind() {
        HirKind::Literal(_) | HirKind::Class(_) => {
            let text = exact(hir)?;
            Some(vec![text])
        }
        HirKind::Repetition(repetition) if repetition.min > 0 => best(&repetition.sub),
        HirKind::Capture(group) => best(&group.sub),
        HirKind::Concat(parts) => best_of_run(parts),
        HirKind::Alternation(branches) => {
            let mut all = Vec::new();
            for branch in branches {
                all.extend(best(branch)?);
            }
            all.sort_unstable();
            all.dedup();
            (all.len() <= MOST).then_some(all)
        }
        HirKind::Empty | HirKind::Look(_) | HirKind::Repetition(_) => None,
    }
}

/// Neighbouring literals join; of all that must occur, the longest says most.
fn best_of_run(parts: &[Hir]) -> Option<Vec<Vec<u8>>> {
    let mut best_yet: Option<Vec<Vec<u8>>> = None;
    let mut offer = |offered: Option<Vec<Vec<u8>>>| {
        let length = |set: &Option<Vec<Vec<u8>>>| set.as_ref().map_or(0, |set| shortest(set));
        if length(&offered) > length(&best_yet) {
            best_yet = offered;
        }
    };
    let mut run = Vec::new();
    for part in parts {
        match (exact(part), part.kind()) {
            (Some(text), _) => run.extend(text),
            // Takes no room, so what stands on either side is adjacent.
            (None, HirKind::Look(_)) => {}
            (None, _) => {
                offer(Some(vec![std::mem::take(&mut run)]));
                offer(best(part));
            }
        }
    }
    offer(Some(vec![run]));
    best_yet
}

/// The one text, up to ASCII case, that this matches.
fn exact(hir: &Hir) -> Option<Vec<u8>> {
    match hir.kind() {
        HirKind::Literal(literal) => Some(literal.0.to_ascii_lowercase()),
        HirKind::Class(class) => either_case(class).map(|b| vec![b]),
        HirKind::Capture(group) => exact(&group.sub),
        HirKind::Concat(parts) => {
            let texts: Option<Vec<_>> = parts.iter().map(exact).collect();
            texts.map(|texts| texts.concat())
        }
        _ => None,
    }
}

/// `[Aa]`, as case-insensitive patterns have it.
fn either_case(class: &Class) -> Option<u8> {
    let ends: Vec<(u32, u32)> = match class {
        Class::Bytes(class) => class
            .ranges()
            .iter()
            .map(|r| (r.start().into(), r.end().into()))
            .collect(),
        Class::Unicode(class) => class
            .ranges()
            .iter()
            .map(|r| (r.start().into(), r.end().into()))
            .collect(),
    };
    match ends[..] {
        [(a, b), (c, d)] if a == b && c == d && c == a + 32 => {
            let lower = u8::try_from(c).ok()?;
            lower.is_ascii_lowercase().then_some(lower)
        }
        _ => None,
    }
}

fn shortest(set: &[Vec<u8>]) -> usize {
    set.iter().map(Vec::len).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, expected: &[&str]) {
        let hir = regex_syntax::ParserBuilder::new()
            .utf8(false)
            .build()
            .parse(pattern)
            .unwrap();
        let found = required(&hir).unwrap_or_default();
        let found: Vec<_> = found
            .iter()
            .map(|text| String::from_utf8_lossy(text))
            .collect();
        assert_eq!(found, expected, "{pattern}");
    }

    #[test]
    fn what_must_occur() {
        check("/no", &["/no"]);
        check("^/wp-admin/.*", &["/wp-admin/"]);
        check(r".*\.php$", &[".php"]);
        check("(?i-u)/Wp-Login", &["/wp-login"]);
        check(r"\.(git|svn)/config", &["/config"]);
        check(r"(select|union)\b.*", &["select", "union"]);
        check("a(bcd)+e?", &["bcd"]);
        check("(?:abc|x)", &[]);
        check("(?:abc)?", &[]);
        check("a.b.c", &[]);
        check("[a-z]+", &[]);
        check("", &[]);
    }
}
