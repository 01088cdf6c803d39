//! Finds literals without which a pattern cannot match, so that one Aho-Corasick pass tells which
//! patterns are worth running, and for which there is nothing left to run.

use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// Literals of which one occurs wherever a pattern matches.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Needed {
    pub(super) texts: Vec<Text>,
    /// Whether an occurrence is all that the pattern asks.
    pub(super) enough: Enough,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Enough {
    /// The pattern has to be run.
    No,
    /// As in `.*/wp-login.*`.
    Anywhere,
    /// As in `\.php$`.
    AtEnd,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) bytes: Vec<u8>,
    /// When false, `bytes` are in lower case.
    pub(super) case_matters: bool,
}

/// More alternatives than this make a filter that keeps little out.
const MOST: usize = 16;

/// Shorter ones occur in too many targets; at the very beginning, shorter ones tell enough.
const SHORTEST: usize = 3;
const SHORTEST_BEGINNING: usize = 2;

/// What a subject must begin with.
pub(super) fn beginning(hir: &Hir) -> Option<Needed> {
    let HirKind::Concat(parts) = hir.kind() else {
        return None;
    };
    let is_start = |part: &&Hir| matches!(part.kind(), HirKind::Look(Look::Start));
    let looks = parts.iter().take_while(is_start).count();
    if looks == 0 {
        return None;
    }
    let parts = &parts[looks..];
    let mut run = Run::default();
    let taken = parts.iter().take_while(|part| run.push(part)).count();
    let (runs, rest) = match parts[taken..].split_first() {
        Some((part, rest)) => match run.fork(part) {
            Some(runs) => (runs, rest),
            None => (vec![run], &parts[taken..]),
        },
        None => (vec![run], &parts[taken..]),
    };
    needed(runs, remainder(rest), SHORTEST_BEGINNING)
}

/// What a subject must contain.
pub(super) fn anywhere(hir: &Hir) -> Option<Needed> {
    let (most, enough) = match hir.kind() {
        HirKind::Concat(parts) => match parts.split_last() {
            Some((last, most)) if is_end(last) => (Hir::concat(most.to_vec()), Enough::AtEnd),
            _ => (hir.clone(), Enough::Anywhere),
        },
        _ => (hir.clone(), Enough::Anywhere),
    };
    if let Some(runs) = whole(&most, enough)
        && let Some(found) = needed(runs, enough, SHORTEST)
        && found.enough != Enough::No
    {
        return Some(found);
    }
    needed(best(hir)?, Enough::No, SHORTEST)
}

/// What is left to ask once the literals before `rest` are found.
fn remainder(rest: &[Hir]) -> Enough {
    match rest {
        [end] if is_end(end) => Enough::AtEnd,
        _ if rest.iter().all(is_optional) => Enough::Anywhere,
        _ => Enough::No,
    }
}

fn is_end(part: &Hir) -> bool {
    matches!(part.kind(), HirKind::Look(Look::End))
}

fn needed(runs: Vec<Run>, enough: Enough, shortest_of_all: usize) -> Option<Needed> {
    if shortest(&runs) < shortest_of_all || runs.len() > MOST {
        return None;
    }
    // Letters whose case matters beside others whose case does not: only the pattern can tell.
    let enough = match runs.iter().any(|run| run.lettered && run.folded) {
        true => Enough::No,
        false => enough,
    };
    let text = |run: Run| match enough != Enough::No && !run.folded {
        true => Text {
            bytes: run.text,
            case_matters: true,
        },
        false => Text {
            bytes: run.text.to_ascii_lowercase(),
            case_matters: false,
        },
    };
    let mut texts: Vec<Text> = runs.into_iter().map(text).collect();
    texts.sort_unstable_by(|a, b| a.bytes.cmp(&b.bytes));
    texts.dedup();
    Some(Needed { texts, enough })
}

/// May be absent, and at the end of a pattern then asks for nothing.
fn is_optional(part: &Hir) -> bool {
    matches!(part.kind(), HirKind::Repetition(repetition) if repetition.min == 0)
}

/// The texts one of which is all that a pattern without anchors asks, or asks before its end.
fn whole(hir: &Hir, enough: Enough) -> Option<Vec<Run>> {
    if let HirKind::Alternation(branches) = hir.kind() {
        let runs: Option<Vec<_>> = branches
            .iter()
            .map(|branch| whole(branch, enough))
            .collect();
        return runs.map(|runs| runs.concat());
    }
    let mut parts = match hir.kind() {
        HirKind::Concat(parts) => parts.as_slice(),
        _ => std::slice::from_ref(hir),
    };
    while let [first, rest @ ..] = parts
        && is_optional(first)
    {
        parts = rest;
    }
    while let [rest @ .., last] = parts
        && is_optional(last)
        && enough == Enough::Anywhere
    {
        parts = rest;
    }
    let mut run = Run::default();
    let taken = parts.iter().take_while(|part| run.push(part)).count();
    match parts.len() - taken {
        0 => Some(vec![run]),
        1 => run.fork(&parts[taken]),
        _ => None,
    }
}

/// The most telling texts one of which must occur.
fn best(hir: &Hir) -> Option<Vec<Run>> {
    match hir.kind() {
        HirKind::Literal(_) | HirKind::Class(_) => Run::default().fork(hir),
        HirKind::Repetition(repetition) if repetition.min > 0 => best(&repetition.sub),
        HirKind::Capture(group) => best(&group.sub),
        HirKind::Concat(parts) => best_of_row(parts),
        HirKind::Alternation(branches) => {
            let runs: Option<Vec<_>> = branches.iter().map(best).collect();
            runs.map(|runs| runs.concat())
        }
        HirKind::Empty | HirKind::Look(_) | HirKind::Repetition(_) => None,
    }
}

/// Neighbouring literals join; of all that must occur, the longest says most.
fn best_of_row(parts: &[Hir]) -> Option<Vec<Run>> {
    let mut best_yet = Vec::new();
    let mut offer = |offered: Vec<Run>| {
        if offered.len() <= MOST && shortest(&offered) > shortest(&best_yet) {
            best_yet = offered;
        }
    };
    let mut run = Run::default();
    for part in parts {
        // A look-around takes no room, so what stands on either side is adjacent.
        if matches!(part.kind(), HirKind::Look(_)) || run.push(part) {
            continue;
        }
        let before = std::mem::take(&mut run);
        offer(before.fork(part).unwrap_or_default());
        offer(vec![before]);
        offer(best(part).unwrap_or_default());
    }
    offer(vec![run]);
    (!best_yet.is_empty()).then_some(best_yet)
}

fn shortest(runs: &[Run]) -> usize {
    runs.iter().map(|run| run.text.len()).min().unwrap_or(0)
}

/// One text, up to the case of some letters.
#[derive(Clone, Default)]
struct Run {
    text: Vec<u8>,
    /// Has letters of one case only.
    lettered: bool,
    /// Has letters of either case.
    folded: bool,
}

impl Run {
    /// Joins what is one text; false, and nothing joined, when it is not.
    fn push(&mut self, hir: &Hir) -> bool {
        match hir.kind() {
            HirKind::Literal(literal) => {
                self.lettered |= literal.0.iter().any(u8::is_ascii_alphabetic);
                self.text.extend(&literal.0);
                true
            }
            HirKind::Class(class) => match either_case(class) {
                Some(lower) => {
                    self.folded = true;
                    self.text.push(lower);
                    true
                }
                None => false,
            },
            HirKind::Capture(group) => self.push(&group.sub),
            HirKind::Concat(parts) => {
                let mut longer = self.clone();
                let joined = parts.iter().all(|part| longer.push(part));
                if joined {
                    *self = longer;
                }
                joined
            }
            _ => false,
        }
    }

    /// This run followed by each branch, when every branch is one text.
    fn fork(&self, hir: &Hir) -> Option<Vec<Self>> {
        let branches = match hir.kind() {
            HirKind::Capture(group) => return self.fork(&group.sub),
            HirKind::Alternation(branches) => branches.as_slice(),
            _ => std::slice::from_ref(hir),
        };
        let followed = |branch| {
            let mut run = self.clone();
            run.push(branch).then_some(run)
        };
        branches.iter().map(followed).collect()
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
            u8::try_from(c).ok().filter(u8::is_ascii_lowercase)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(pattern: &str) -> Hir {
        regex_syntax::ParserBuilder::new()
            .utf8(false)
            .build()
            .parse(pattern)
            .unwrap()
    }

    #[track_caller]
    fn check(pattern: &str, found: Option<Needed>, expected: &str) {
        let Some(found) = found else {
            assert_eq!(expected, "-", "{pattern}");
            return;
        };
        let text = |text: &Text| {
            let case = if text.case_matters { "" } else { "~" };
            format!("{case}{}", String::from_utf8_lossy(&text.bytes))
        };
        let texts: Vec<_> = found.texts.iter().map(text).collect();
        let enough = match found.enough {
            Enough::No => "",
            Enough::Anywhere => "only ",
            Enough::AtEnd => "at end ",
        };
        assert_eq!(
            format!("{enough}{}", texts.join(" ")),
            expected,
            "{pattern}"
        );
    }

    #[test]
    fn what_must_be_contained() {
        for (pattern, expected) in [
            ("/no", "only /no"),
            (".*/Wp-login.*", "only /Wp-login"),
            ("(?i-u).*/wp-Login[0-9]*", "only ~/wp-login"),
            ("/abc.*|/def", "only /abc /def"),
            (r"\.(git|svn)", "only .git .svn"),
            ("/no$", "at end /no"),
            ("(?i-u)/No$", "at end ~/no"),
            (r"/a\.(php|asp)$", "at end /a.asp /a.php"),
            ("/no.*$", "~/no"),
            ("/no$|/yes", "~/no ~/yes"),
            ("/no.+", "~/no"),
            ("/(?i-u:no)tes", "~/notes"),
            ("^/wp-admin/.*", "~/wp-admin/"),
            (r".*\.php$", "at end .php"),
            (r"\.(git|svn)/conf", "~/conf"),
            (r"[0-9](select|union)\b", "~select ~union"),
            ("a(bcd)+e?", "~bcd"),
            ("/abc|^/def", "~/abc ~/def"),
            ("(?:abc|x)", "-"),
            ("(?:abc)?", "-"),
            ("a.b.c", "-"),
            ("[a-z]+", "-"),
            ("/n", "-"),
            ("", "-"),
        ] {
            check(pattern, anywhere(&parsed(pattern)), expected);
        }
    }

    #[test]
    fn what_must_begin() {
        for (pattern, expected) in [
            ("^/no", "only /no"),
            ("^/no.*", "only /no"),
            (r"\A^/a", "only /a"),
            ("^(?i-u:/No)", "only ~/no"),
            ("^/(admin|login)", "only /admin /login"),
            ("^/(admin|login)$", "at end /admin /login"),
            ("^/no$", "at end /no"),
            ("^/no.*$", "~/no"),
            ("^/no[0-9]", "~/no"),
            ("^/x(?i-u:no)", "~/xno"),
            ("^/", "-"),
            ("^/.*no", "-"),
            ("/no", "-"),
            ("(?m)^/no", "-"),
            ("^/no|^/yes", "only /no /yes"),
        ] {
            check(pattern, beginning(&parsed(pattern)), expected);
        }
    }
}
