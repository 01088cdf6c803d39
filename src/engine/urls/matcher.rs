//! Many patterns against one subject: which is the first that matches? Chooses, pattern by
//! pattern, the engine that stays fast however many there are and whatever clients send.

use std::{collections::BTreeMap, ops::Range};

use aho_corasick::{
    AhoCorasick, AhoCorasickKind, Anchored, StartKind, automaton::OverlappingState,
};
use regex_automata::{
    Input, MatchKind, PatternSet,
    meta::{Config, Regex},
    nfa::thompson::WhichCaptures,
};
use regex_syntax::hir::Hir;

use super::{
    grams::{GRAM, Grams},
    literals::{self, Enough, Needed, Text},
};

/// The patterns of one mode, in three groups.
///
/// Patterns that need a literal, at the beginning or anywhere, run only when it is there, if there
/// is anything left to run then. One automaton of all patterns, as `RegexSet` builds it, would
/// determinise again and again once its states outgrow its cache: with 1,000 mixed patterns and
/// targets that differ, 50 µs a target instead of 0.1. The rest, hopefully few, share one.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    beginning: Option<Filtered>,
    anywhere: Option<Filtered>,
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
    /// The literals long enough for it, and behind them the rest.
    long: Option<Grams>,
    short: Option<AhoCorasick>,
    anchored: Anchored,
    /// By literal, long ones first.
    behind: Box<[Behind]>,
    longs: usize,
}

/// What a literal's occurrence means.
#[derive(Debug, Default)]
struct Behind {
    /// Patterns that ask for no more.
    sure: Vec<Sure>,
    /// Patterns that need it.
    likely: Option<Many>,
}

#[derive(Debug)]
struct Sure {
    number: u32,
    at_end: bool,
    /// When its case matters.
    text: Option<Box<[u8]>>,
}

/// What the automata of one group of patterns may take, in bytes, before they run.
const NFA_LIMIT: usize = 32 << 20;

/// What one thread's lazily built automaton may take, in bytes. Clients choose the targets, so
/// this is also what they can make it grow to.
const CACHE: usize = 8 << 20;

/// Up to here the literal automaton may be a table, which is faster while it fits the processor's
/// cache; beyond, the compact form is, being a twentieth of the size.
const DENSE_LITERALS: usize = 300;

impl Matcher {
    /// The error's text is a regex engine's; callers know which rules they gave.
    pub(super) fn build(patterns: &[Numbered<'_>]) -> Result<Self, String> {
        let (mut beginning, mut anywhere, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for &(number, hir) in patterns {
            if let Some(needed) = literals::beginning(hir) {
                beginning.push((number, hir, needed));
            } else if let Some(needed) = literals::anywhere(hir) {
                anywhere.push((number, hir, needed));
            } else {
                rest.push((number, hir));
            }
        }
        Ok(Self {
            beginning: Filtered::build(beginning, Anchored::Yes)?,
            anywhere: Filtered::build(anywhere, Anchored::No)?,
            rest: Many::build(&rest)?,
        })
    }

    /// The lowest number among the matching patterns. `named` is false when the subject has none of
    /// [`Matcher::literals`].
    #[inline]
    pub(super) fn first(&self, subject: &[u8], named: bool) -> Option<u32> {
        let first = |group: &Option<Filtered>| group.as_ref()?.first(subject, named);
        let (beginning, anywhere) = (first(&self.beginning), first(&self.anywhere));
        let rest = self.rest.as_ref().and_then(|many| many.first(subject));
        [beginning, anywhere, rest].into_iter().flatten().min()
    }

    /// The literals looked for at the beginning, or else anywhere, before patterns that need them,
    /// in lower case; those too short for [`Grams`] left out.
    pub(super) fn literals(&self, beginning: bool) -> impl Iterator<Item = &[u8]> {
        let group = match beginning {
            true => self.beginning.as_ref(),
            false => self.anywhere.as_ref(),
        };
        let long = group.and_then(|group| group.long.as_ref());
        long.into_iter().flat_map(Grams::literals)
    }

    /// No pattern matches where none of [`Matcher::literals`] is.
    pub(super) fn is_by_literal(&self) -> bool {
        let short = |group: &Option<Filtered>| group.as_ref().is_some_and(|g| g.short.is_some());
        self.rest.is_none() && !short(&self.beginning) && !short(&self.anywhere)
    }

    /// No pattern at all.
    pub(super) fn is_empty(&self) -> bool {
        self.beginning.is_none() && self.anywhere.is_none() && self.rest.is_none()
    }

    /// Heap bytes held, without the caches that grow while matching.
    pub(super) fn bytes(&self) -> usize {
        let filtered = |part: &Option<Filtered>| part.as_ref().map_or(0, Filtered::bytes);
        let rest = self.rest.as_ref().map_or(0, Many::bytes);
        filtered(&self.beginning) + filtered(&self.anywhere) + rest
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
    fn build(
        patterns: Vec<(u32, &Hir, Needed)>,
        anchored: Anchored,
    ) -> Result<Option<Self>, String> {
        if patterns.is_empty() {
            return Ok(None);
        }
        let mut literals: BTreeMap<Vec<u8>, (Behind, Vec<Numbered<'_>>)> = BTreeMap::new();
        for (number, hir, needed) in patterns {
            for Text {
                bytes,
                case_matters,
            } in needed.texts
            {
                let (behind, likely) = literals.entry(bytes.to_ascii_lowercase()).or_default();
                match needed.enough {
                    Enough::No => likely.push((number, hir)),
                    enough => behind.sure.push(Sure {
                        number,
                        at_end: enough == Enough::AtEnd,
                        text: case_matters.then(|| bytes.into()),
                    }),
                }
            }
        }
        let (long, short): (Vec<_>, Vec<_>) = literals
            .into_iter()
            .partition(|(text, _)| text.len() >= GRAM);
        let (long, mut behinds): (Vec<_>, Vec<_>) = long.into_iter().unzip();
        let (short, behinds_short): (Vec<_>, Vec<_>) = short.into_iter().unzip();
        behinds.extend(behinds_short);
        let longs = long.len();
        let behind: Result<Box<[Behind]>, String> = (behinds.into_iter())
            .map(|(behind, likely)| {
                Ok(Behind {
                    likely: Many::build(&likely)?,
                    ..behind
                })
            })
            .collect();
        Ok(Some(Self {
            long: match anchored.is_anchored() {
                true => Grams::build(long, Vec::new()),
                false => Grams::build(Vec::new(), long),
            },
            short: automaton(&short, anchored)?,
            anchored,
            behind: behind?,
            longs,
        }))
    }

    #[inline]
    fn first(&self, subject: &[u8], named: bool) -> Option<u32> {
        let long = |literals: &Grams| literals.any(subject, |_, _| true);
        let short = |literals: &AhoCorasick| literals.is_match(self.input(subject).earliest(true));
        let worth_it = (named && self.long.as_ref().is_some_and(long))
            || self.short.as_ref().is_some_and(short);
        worth_it.then(|| self.first_behind(subject)).flatten()
    }

    fn input<'s>(&self, subject: &'s [u8]) -> aho_corasick::Input<'s> {
        aho_corasick::Input::new(subject).anchored(self.anchored)
    }

    #[cold]
    fn first_behind(&self, subject: &[u8]) -> Option<u32> {
        // A target that repeats a literal a thousand times makes its patterns run once.
        let mut tried = vec![0u64; self.behind.len().div_ceil(64)];
        let mut lowest: Option<u32> = None;
        let mut occurs = |at: usize, range: Range<usize>| {
            let behind = &self.behind[at];
            let here = &subject[range.clone()];
            let last = range.end == subject.len();
            let sure = behind.sure.iter().find(|sure| {
                (last || !sure.at_end) && sure.text.as_deref().is_none_or(|text| text == here)
            });
            let fresh = tried[at / 64] & (1 << (at % 64)) == 0;
            tried[at / 64] |= 1 << (at % 64);
            let likely = behind
                .likely
                .as_ref()
                .filter(|_| fresh)
                .and_then(|m| m.first(subject));
            lowest = [lowest, sure.map(|sure| sure.number), likely]
                .into_iter()
                .flatten()
                .min();
        };
        if let Some(long) = &self.long {
            long.any(subject, |at, range| {
                occurs(at, range);
                false
            });
        }
        if let Some(short) = &self.short {
            let mut state = OverlappingState::start();
            loop {
                short.find_overlapping(self.input(subject), &mut state);
                let Some(found) = state.get_match() else {
                    break;
                };
                occurs(self.longs + found.pattern().as_usize(), found.range());
            }
        }
        lowest
    }

    fn bytes(&self) -> usize {
        let behind = |b: &Behind| size_of::<Behind>() + b.likely.as_ref().map_or(0, Many::bytes);
        self.long.as_ref().map_or(0, Grams::bytes)
            + self.short.as_ref().map_or(0, AhoCorasick::memory_usage)
            + self.behind.iter().map(behind).sum::<usize>()
    }
}

/// Of literals too short for [`Grams`]: few, so a table it is.
fn automaton(literals: &[Vec<u8>], anchored: Anchored) -> Result<Option<AhoCorasick>, String> {
    if literals.is_empty() {
        return Ok(None);
    }
    let start = match anchored.is_anchored() {
        true => StartKind::Anchored,
        false => StartKind::Unanchored,
    };
    let dense = literals.len() <= DENSE_LITERALS;
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .start_kind(start)
        .kind(dense.then_some(AhoCorasickKind::DFA))
        .build(literals)
        .map(Some)
        .map_err(|error| error.to_string())
}

fn config() -> Config {
    Regex::config()
        .match_kind(MatchKind::All)
        .utf8_empty(false)
        .which_captures(WhichCaptures::None)
        // These would cost more memory than time they save: few targets get past the literals.
        .auto_prefilter(false)
        .onepass(false)
        .nfa_size_limit(Some(NFA_LIMIT))
        .hybrid_cache_capacity(CACHE)
}
