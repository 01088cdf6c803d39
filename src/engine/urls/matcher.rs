//! Many patterns against one subject: which is the first that matches? Chooses, pattern by
//! pattern, the engine that stays fast however many there are and whatever clients send.

use aho_corasick::{AhoCorasick, AhoCorasickKind, StartKind};
use regex_automata::{
    Input, MatchKind, PatternSet,
    meta::{Config, Regex},
    nfa::thompson::WhichCaptures,
};
use regex_syntax::hir::{Hir, Look, literal};

use super::literals;

/// The patterns of one mode, in three groups.
///
/// Patterns bound to a literal beginning share one automaton: it gives up after a few bytes. Of
/// the others, those that contain a literal run only when it occurs; an automaton of all of them
/// would determinise again and again once its states outgrow the cache (measured with 3,000 of
/// them: 0.5 ms a target instead of 0.2 µs). The rest, hopefully few, share an automaton.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    anchored: Option<Many>,
    literal: Option<Filtered>,
    rest: Option<Many>,
}

/// One pattern: its number among the rules and what it means.
pub(super) type Numbered<'h> = (u32, &'h Hir);

/// Several patterns in one automaton.
#[derive(Debug)]
struct Many {
    regex: Regex,
    /// Rule numbers by pattern, rising.
    numbers: Box<[u32]>,
}

#[derive(Debug)]
struct Filtered {
    literals: AhoCorasick,
    /// For each literal, the patterns that need it.
    behind: Box<[Many]>,
}

/// What the automata of one group of patterns may take, in bytes, before they run.
const NFA_LIMIT: usize = 32 << 20;

/// What one thread's lazily built automaton may take, in bytes. Clients choose the targets, so
/// this is also what they can make it grow to.
const CACHE: usize = 8 << 20;

/// States of the literal automaton are cheap up to here; beyond, the compact form is used.
const DENSE_LITERALS: usize = 5_000;

impl Matcher {
    /// The error's text is a regex engine's; callers know which rules they gave.
    pub(super) fn build(patterns: &[Numbered<'_>]) -> Result<Self, String> {
        let (mut anchored, mut literal, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for &(number, hir) in patterns {
            let required = literals::required(hir);
            match (prefix_len(hir), required) {
                (Some(len), required) if len >= 3 || required.is_none() => {
                    anchored.push((number, hir));
                }
                (_, Some(required)) => literal.push((number, hir, required)),
                (_, None) => rest.push((number, hir)),
            }
        }
        Ok(Self {
            anchored: Many::build(&anchored)?,
            literal: Filtered::build(&literal)?,
            rest: Many::build(&rest)?,
        })
    }

    /// The lowest number among the matching patterns.
    #[inline]
    pub(super) fn first(&self, subject: &[u8]) -> Option<u32> {
        let anchored = self.anchored.as_ref().and_then(|many| many.first(subject));
        let literal = self
            .literal
            .as_ref()
            .and_then(|filtered| filtered.first(subject));
        let rest = self.rest.as_ref().and_then(|many| many.first(subject));
        [anchored, literal, rest].into_iter().flatten().min()
    }

    /// No pattern at all.
    pub(super) fn is_empty(&self) -> bool {
        self.anchored.is_none() && self.literal.is_none() && self.rest.is_none()
    }

    /// Heap bytes held, without the caches that grow while matching.
    pub(super) fn bytes(&self) -> usize {
        let many = |many: &Option<Many>| many.as_ref().map_or(0, Many::bytes);
        let literal = self.literal.as_ref().map_or(0, |filtered| {
            filtered.literals.memory_usage()
                + filtered.behind.iter().map(Many::bytes).sum::<usize>()
        });
        many(&self.anchored) + literal + many(&self.rest)
    }
}

impl Many {
    fn build(patterns: &[Numbered<'_>]) -> Result<Option<Self>, String> {
        if patterns.is_empty() {
            return Ok(None);
        }
        let hirs: Vec<&Hir> = patterns.iter().map(|(_, hir)| *hir).collect();
        let regex = Regex::builder()
            .configure(config())
            .build_many_from_hir(&hirs)
            .map_err(|error| error.to_string())?;
        let numbers = patterns.iter().map(|(number, _)| *number).collect();
        Ok(Some(Self { regex, numbers }))
    }

    #[inline]
    fn first(&self, subject: &[u8]) -> Option<u32> {
        if !self.regex.is_match(subject) {
            return None;
        }
        if let [only] = *self.numbers {
            return Some(only);
        }
        let mut all = PatternSet::new(self.regex.pattern_len());
        self.regex
            .which_overlapping_matches(&Input::new(subject), &mut all);
        let lowest = all.iter().next()?;
        self.numbers.get(lowest.as_usize()).copied()
    }

    fn bytes(&self) -> usize {
        self.regex.memory_usage() + size_of_val(&*self.numbers)
    }
}

impl Filtered {
    fn build(patterns: &[(u32, &Hir, Vec<Vec<u8>>)]) -> Result<Option<Self>, String> {
        if patterns.is_empty() {
            return Ok(None);
        }
        let mut needed: Vec<(&[u8], Numbered<'_>)> = Vec::new();
        for (number, hir, required) in patterns {
            needed.extend(
                required
                    .iter()
                    .map(|text| (text.as_slice(), (*number, *hir))),
            );
        }
        needed.sort_by_key(|(text, (number, _))| (*text, *number));
        let (mut texts, mut behind) = (Vec::new(), Vec::new());
        for same in needed.chunk_by(|a, b| a.0 == b.0) {
            let group: Vec<Numbered<'_>> = same.iter().map(|(_, pattern)| *pattern).collect();
            texts.push(same[0].0);
            behind.extend(Many::build(&group)?);
        }
        let dense = texts.len() <= DENSE_LITERALS;
        let literals = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .start_kind(StartKind::Unanchored)
            .kind(dense.then_some(AhoCorasickKind::DFA))
            .build(&texts)
            .expect("fewer literals than the automaton can number: the rules are capped");
        Ok(Some(Self {
            literals,
            behind: behind.into(),
        }))
    }

    #[inline]
    fn first(&self, subject: &[u8]) -> Option<u32> {
        if !self
            .literals
            .is_match(aho_corasick::Input::new(subject).earliest(true))
        {
            return None;
        }
        self.first_behind(subject)
    }

    #[cold]
    fn first_behind(&self, subject: &[u8]) -> Option<u32> {
        let mut tried = vec![false; self.behind.len()];
        let mut lowest = None;
        for found in self.literals.find_overlapping_iter(subject) {
            let at = found.pattern().as_usize();
            if !std::mem::replace(&mut tried[at], true)
                && let Some(number) = self.behind[at].first(subject)
            {
                lowest = Some(lowest.map_or(number, |lowest: u32| lowest.min(number)));
            }
        }
        lowest
    }
}

fn config() -> Config {
    Regex::config()
        .match_kind(MatchKind::All)
        .utf8_empty(false)
        .which_captures(WhichCaptures::None)
        .nfa_size_limit(Some(NFA_LIMIT))
        .hybrid_cache_capacity(CACHE)
}

/// The shortest literal a pattern must begin with when it can only match at the very beginning.
fn prefix_len(hir: &Hir) -> Option<usize> {
    if !hir.properties().look_set_prefix().contains(Look::Start) {
        return None;
    }
    let prefixes = literal::Extractor::new().extract(hir);
    Some(prefixes.min_literal_len().unwrap_or(0))
}
