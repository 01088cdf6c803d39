//! URL rules: every pattern in one pass, on the raw and the canonical target, in Go's dialect.
//! Decides which rule speaks; what follows from that is the engine's.

mod canonical;
mod dialect;
mod grams;
mod literals;
mod matcher;

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use regex_syntax::hir::{Class, Hir, HirKind, Look};

pub use canonical::{canonical, is_plain, split};
pub use dialect::from_go;
use grams::Grams;
use matcher::Matcher;

/// Compiled `urlregexps` of one jail.
#[derive(Debug, Default)]
pub struct UrlRules {
    rules: Box<[(Arc<str>, Mode)]>,
    /// Every literal without which some rule does not match, those at the beginning and those
    /// anywhere: most targets have none of them.
    literals: Option<Grams>,
    /// No rule matches without one of them.
    by_literal: bool,
    block: Matcher,
    allow: Matcher,
    loose_allows: Box<[usize]>,
}

/// `mode` of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Ban and deny.
    Block,
    /// Pass, uncounted, open even to the banned.
    Allow,
}

/// The rule that speaks for a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// What the rule says.
    pub mode: Mode,
    /// Its position among the rules given to [`UrlRules::compile`]; of several that match in one
    /// mode, the first.
    pub index: usize,
}

/// Why a pattern cannot be taken; the index says which of the given rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadPattern {
    /// Position in the input.
    pub index: usize,
    /// What is wrong, in words for the configuration's author.
    pub message: String,
}

/// Rules one jail may have.
pub const MOST_RULES: usize = 20_000;

/// Bytes one pattern may have.
pub const LONGEST_PATTERN: usize = 16 << 10;

/// Bytes one pattern may grow to when its counted repetitions are written out.
const PATTERN_LIMIT: usize = 2 << 20;

/// Bytes all patterns of one jail may grow to.
const RULES_LIMIT: usize = 64 << 20;

impl UrlRules {
    /// Compiles rules written in Go's RE2 dialect; every bad one is reported.
    ///
    /// At most [`MOST_RULES`] rules of [`LONGEST_PATTERN`] bytes, none of which may grow beyond
    /// 2 MiB nor all together beyond 64 MiB.
    pub fn compile(rules: &[(String, Mode)]) -> Result<Self, Vec<BadPattern>> {
        if rules.len() > MOST_RULES {
            let message = format!("{} URL rules; {MOST_RULES} is the most", rules.len());
            return Err(vec![BadPattern {
                index: MOST_RULES,
                message,
            }]);
        }
        let hirs = parse_all(rules)?;
        let of = |mode: Mode| {
            let numbered = hirs
                .iter()
                .zip(0u32..)
                .zip(rules)
                .filter(|(_, rule)| rule.1 == mode);
            let patterns: Vec<_> = numbered.map(|((hir, number), _)| (number, hir)).collect();
            let last = patterns.last().map_or(0, |(number, _)| *number as usize);
            Matcher::build(&patterns).map_err(|error| {
                let message = format!("the URL rules together are too large: {error}");
                vec![BadPattern {
                    index: last,
                    message,
                }]
            })
        };
        let loose = |hir: &Hir| !hir.properties().look_set_prefix().contains(Look::Start);
        let (block, allow) = (of(Mode::Block)?, of(Mode::Allow)?);
        let [beginning, anywhere] = [true, false].map(|beginning| {
            let all = (block.literals(beginning)).chain(allow.literals(beginning));
            let each: BTreeSet<&[u8]> = all.collect();
            each.into_iter().map(<[u8]>::to_vec).collect()
        });
        Ok(Self {
            literals: Grams::build(beginning, anywhere),
            by_literal: block.is_by_literal() && allow.is_by_literal(),
            block,
            allow,
            loose_allows: (rules.iter().zip(&hirs).enumerate())
                .filter(|(_, (rule, hir))| rule.1 == Mode::Allow && loose(hir))
                .map(|(index, _)| index)
                .collect(),
            rules: rules
                .iter()
                .map(|(text, mode)| (text.as_str().into(), *mode))
                .collect(),
        })
    }

    /// Which rule speaks for an origin-form target as sent.
    ///
    /// `block` rules come first and match `path?query`, raw or canonical. `allow` rules match the
    /// path only, and only when it was sent in canonical form and has no `%2F`, `%5C`, `%00` or
    /// `;`: otherwise `/login?x=/yes` would pass uncounted.
    #[inline]
    pub fn judge(&self, raw_target: &[u8]) -> Option<Match> {
        self.judge_seen(raw_target, false)
    }

    /// The same of a target that somebody found plain, or did not look at.
    #[inline]
    pub(super) fn judge_seen(&self, raw_target: &[u8], plain: bool) -> Option<Match> {
        debug_assert!(!plain || is_plain(raw_target), "a target that is not plain");
        if self.rules.is_empty() {
            return None;
        }
        let found = |mode: Mode, number: u32| Match {
            mode,
            index: number as usize,
        };
        let (named, plain) = (self.has_literal(raw_target), plain || is_plain(raw_target));
        if self.by_literal && plain && !named {
            return None;
        }
        if !self.block.is_empty()
            && let Some(number) = self.blocked(raw_target, named, plain)
        {
            return Some(found(Mode::Block, number));
        }
        if self.allow.is_empty() {
            return None;
        }
        self.allowed(raw_target, named, plain)
            .map(|number| found(Mode::Allow, number))
    }

    /// The patterns of one mode as they were written.
    pub fn patterns(&self, mode: Mode) -> impl Iterator<Item = &Arc<str>> {
        let of = move |rule: &&(Arc<str>, Mode)| rule.1 == mode;
        self.rules.iter().filter(of).map(|(text, _)| text)
    }

    /// The pattern at `index` as it was written; empty when there is none.
    pub fn pattern(&self, index: usize) -> Arc<str> {
        self.rules
            .get(index)
            .map_or_else(|| "".into(), |(text, _)| text.clone())
    }

    /// No rule at all.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Rules held.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// `allow` rules, by index, that may match anywhere in a path: worth a warning, because a
    /// client can append what they look for.
    pub fn allow_without_anchor(&self) -> &[usize] {
        &self.loose_allows
    }

    /// Heap bytes held, without the caches that grow while matching.
    pub fn bytes(&self) -> usize {
        let literals = self.literals.as_ref().map_or(0, Grams::bytes);
        literals + self.block.bytes() + self.allow.bytes()
    }

    fn blocked(&self, raw_target: &[u8], named: bool, plain: bool) -> Option<u32> {
        let raw = self.block.first(raw_target, named);
        if plain {
            return raw;
        }
        match canonical(raw_target) {
            Cow::Borrowed(_) => raw,
            Cow::Owned(other) => raw.or_else(|| self.block.first(&other, self.has_literal(&other))),
        }
    }

    fn allowed(&self, raw_target: &[u8], named: bool, plain: bool) -> Option<u32> {
        let (path, _) = split(raw_target);
        let one_reading = plain || (canonical::is_canonical_path(path) && !has_other_reading(path));
        one_reading.then(|| self.allow.first(path, named)).flatten()
    }

    /// Whether any rule's literal occurs; without one, only patterns that need none can match.
    fn has_literal(&self, subject: &[u8]) -> bool {
        let literals = self.literals.as_ref();
        literals.is_some_and(|literals| literals.any(subject, |_, _| true))
    }
}

/// Whether an upstream may read this canonical path as another one.
fn has_other_reading(path: &[u8]) -> bool {
    memchr::memchr(b';', path).is_some()
        || memchr::memchr_iter(b'%', path)
            .any(|at| matches!(path.get(at + 1..at + 3), Some(b"2F" | b"5C" | b"00")))
}

fn parse_all(rules: &[(String, Mode)]) -> Result<Vec<Hir>, Vec<BadPattern>> {
    let (mut hirs, mut bad, mut total) = (Vec::with_capacity(rules.len()), Vec::new(), 0);
    for (index, (pattern, _)) in rules.iter().enumerate() {
        match parse(pattern) {
            Ok((hir, size)) => {
                total += size;
                hirs.push(hir);
            }
            Err(message) => bad.push(BadPattern { index, message }),
        }
        if total > RULES_LIMIT {
            let message = format!("the URL rules up to here are larger than {RULES_LIMIT} bytes");
            bad.push(BadPattern { index, message });
            break;
        }
    }
    if bad.is_empty() { Ok(hirs) } else { Err(bad) }
}

/// What a pattern means, and how large it would compile.
fn parse(pattern: &str) -> Result<(Hir, usize), String> {
    if pattern.len() > LONGEST_PATTERN {
        return Err(format!(
            "the pattern is longer than {LONGEST_PATTERN} bytes"
        ));
    }
    let translated = from_go(pattern)?;
    let hir = regex_syntax::ParserBuilder::new()
        .utf8(false)
        .build()
        .parse(&translated)
        .map_err(|error| last_line(&error.to_string()))?;
    let size = size(&hir);
    if size > PATTERN_LIMIT {
        return Err("the pattern is too large: its repetitions multiply".into());
    }
    Ok((hir, size))
}

/// An upper estimate, in bytes, of the automaton a pattern compiles to.
fn size(hir: &Hir) -> usize {
    const STATE: usize = 32;
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => STATE,
        HirKind::Literal(literal) => literal.0.len() * STATE,
        HirKind::Class(Class::Bytes(class)) => STATE + class.ranges().len() * 8,
        HirKind::Class(Class::Unicode(class)) => STATE + class.ranges().len() * 2 * STATE,
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min + 1).max(1) as usize;
            size(&repetition.sub).saturating_mul(times) + STATE
        }
        HirKind::Capture(group) => size(&group.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().map(size).fold(STATE, usize::saturating_add)
        }
    }
}

/// The engine's messages draw the pattern first; the words come last.
fn last_line(message: &str) -> String {
    let words = message.lines().last().unwrap_or(message);
    words.strip_prefix("error: ").unwrap_or(words).to_owned()
}

#[cfg(test)]
mod tests;
