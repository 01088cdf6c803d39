//! Which of many literals occur in a subject? Four bytes of each literal are looked for at every
//! position in a table of bits that fits the nearest cache; what is found there is compared. What
//! an occurrence means is the matcher's.

use std::{collections::HashMap, ops::Range};

/// Bytes of a gram: shorter literals cannot be held here.
pub(super) const GRAM: usize = 4;
/// Positions looked at before anybody asks what was found.
const AT_ONCE: usize = 4;
/// Anchored literals are looked for by a gram near their beginning.
const NEAR: usize = 12;

/// Literals without regard to ASCII case, numbered as they were given.
#[derive(Debug)]
pub(super) struct Grams {
    /// One word of bits per bucket: which hashes lead anywhere.
    words: Box<[u64]>,
    /// Where each bucket's keys begin, and one end.
    starts: Box<[u32]>,
    keys: Box<[Key]>,
    literals: Box<[Box<[u8]>]>,
    /// So many of the first occur at the very beginning only.
    anchored: usize,
    /// How many positions a gram may begin at, when all are anchored.
    positions: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Key {
    gram: u32,
    /// Where in its literal the gram stands.
    offset: u32,
    literal: u32,
}

impl Grams {
    /// Literals of at least [`GRAM`] bytes, in lower case, that occur at the very beginning, and
    /// behind them those that occur anywhere; nothing for none.
    pub(super) fn build(beginning: Vec<Vec<u8>>, anywhere: Vec<Vec<u8>>) -> Option<Self> {
        let (anchored, all_anchored) = (beginning.len(), anywhere.is_empty());
        let literals = [beginning, anywhere].concat();
        if literals.is_empty() {
            return None;
        }
        let mut users: HashMap<u32, u32> = HashMap::new();
        let mut keys: Vec<Key> = (0..)
            .zip(&literals)
            .map(|(literal, text)| {
                let near = if all_anchored { NEAR } else { usize::MAX };
                let grams = text.windows(GRAM).map(fold).zip(0..).take(near);
                // the gram that the fewest share
                let rarest = grams.min_by_key(|(gram, _)| users.get(gram).copied().unwrap_or(0));
                let (gram, offset) = rarest.unwrap_or_default();
                *users.entry(gram).or_default() += 1;
                Key {
                    gram,
                    offset,
                    literal,
                }
            })
            .collect();
        let buckets = literals.len().max(64).next_power_of_two();
        let mut words = vec![0; buckets];
        let mut starts = vec![0; buckets + 1];
        for key in &keys {
            let (bucket, bit) = place(key.gram, buckets);
            words[bucket] |= 1 << bit;
            starts[bucket + 1] += 1;
        }
        for bucket in 0..buckets {
            starts[bucket + 1] += starts[bucket];
        }
        keys.sort_by_key(|key| place(key.gram, buckets).0);
        let last = keys.iter().map(|key| key.offset as usize).max();
        Some(Self {
            words: words.into(),
            starts: starts.into(),
            anchored,
            positions: all_anchored.then(|| last.map_or(0, |last| last + 1)),
            keys: keys.into(),
            literals: literals.into_iter().map(Vec::into_boxed_slice).collect(),
        })
    }

    /// The literals as they were given.
    pub(super) fn literals(&self) -> impl Iterator<Item = &[u8]> {
        self.literals.iter().map(|literal| &**literal)
    }

    /// Calls `found` with every literal that occurs and where, until it answers true; answers
    /// whether it did.
    #[inline]
    pub(super) fn any(
        &self,
        subject: &[u8],
        mut found: impl FnMut(usize, Range<usize>) -> bool,
    ) -> bool {
        let end = match self.positions {
            Some(positions) => subject.len().min(positions + GRAM - 1),
            None => subject.len(),
        };
        let text = &subject[..end];
        // Nearly every subject has nothing: several positions are looked at, then asked about.
        let mut at = 0;
        while let Some(several) = text.get(at..at + AT_ONCE + GRAM - 1) {
            let hits = (0..AT_ONCE).fold(0, |hits, n| hits | self.bit(fold(&several[n..n + GRAM])));
            if hits & 1 == 1 && self.occurs(subject, at..at + AT_ONCE, &mut found) {
                return true;
            }
            at += AT_ONCE;
        }
        let last = (text.len() + 1).saturating_sub(GRAM);
        self.occurs(subject, at..last, &mut found)
    }

    /// The lowest bit says whether anything is known of this gram.
    #[inline]
    fn bit(&self, gram: u32) -> u64 {
        let (bucket, bit) = place(gram, self.words.len());
        self.words[bucket] >> bit
    }

    /// As [`Grams::any`], of grams that begin within `positions`, which the subject has.
    #[inline]
    fn occurs(
        &self,
        subject: &[u8],
        mut positions: Range<usize>,
        found: &mut impl FnMut(usize, Range<usize>) -> bool,
    ) -> bool {
        positions.any(|at| {
            let gram = fold(&subject[at..at + GRAM]);
            self.bit(gram) & 1 == 1 && self.compare(subject, at, gram, found)
        })
    }

    #[cold]
    fn compare(
        &self,
        subject: &[u8],
        at: usize,
        gram: u32,
        found: &mut impl FnMut(usize, Range<usize>) -> bool,
    ) -> bool {
        let (bucket, _) = place(gram, self.words.len());
        let keys = self.starts[bucket] as usize..self.starts[bucket + 1] as usize;
        let same = self.keys[keys].iter().filter(|key| key.gram == gram);
        same.into_iter().any(|key| {
            let number = key.literal as usize;
            let literal = &self.literals[number];
            let Some(start) = at.checked_sub(key.offset as usize) else {
                return false;
            };
            let range = start..start + literal.len();
            (start == 0 || number >= self.anchored)
                && (subject.get(range.clone()))
                    .is_some_and(|here| here.eq_ignore_ascii_case(literal))
                && found(number, range)
        })
    }

    /// Heap bytes held.
    pub(super) fn bytes(&self) -> usize {
        let literals = self.literals.iter().map(|text| text.len() + 16);
        size_of_val(&*self.words)
            + size_of_val(&*self.starts)
            + size_of_val(&*self.keys)
            + literals.sum::<usize>()
    }
}

/// A gram without its case; bytes that are no letters may fall together too.
#[inline]
fn fold(gram: &[u8]) -> u32 {
    let bytes: [u8; GRAM] = gram.try_into().unwrap_or_default();
    u32::from_le_bytes(bytes) | 0x2020_2020
}

/// The bucket of a gram and its bit there. `buckets` is a power of two.
#[inline]
fn place(gram: u32, buckets: usize) -> (usize, u32) {
    let hash = u64::from(gram).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (
        (hash >> 32) as usize & (buckets - 1),
        (hash >> 26 & 63) as u32,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(literals: &[&str], anchored: bool, subject: &str, expected: &[(usize, usize)]) {
        let texts = literals.iter().map(|text| text.as_bytes().to_vec());
        let (beginning, anywhere) = match anchored {
            true => (texts.collect(), Vec::new()),
            false => (Vec::new(), texts.collect()),
        };
        let grams = Grams::build(beginning, anywhere).unwrap();
        let mut all = Vec::new();
        let stopped = grams.any(subject.as_bytes(), |number, range| {
            all.push((number, range.start));
            false
        });
        all.sort_unstable();
        assert_eq!((stopped, &*all), (false, expected), "{subject}");
    }

    #[test]
    fn every_occurrence_is_found_whatever_its_case() {
        let literals = ["/wp-admin", "admin", "/wp-", "min.php", "abcdabcd"];
        check(
            &literals,
            false,
            "/WP-Admin.php",
            &[(0, 0), (1, 4), (2, 0), (3, 6)],
        );
        check(
            &literals,
            false,
            "/admin.php?admin",
            &[(1, 1), (1, 11), (3, 3)],
        );
        check(&literals, false, "abcdabcdabcd", &[(4, 0), (4, 4)]);
        for subject in ["", "abc", "/wp", "/wq-", "dmin"] {
            check(&literals, false, subject, &[]);
        }
    }

    #[test]
    fn anchored_ones_are_found_at_the_beginning_only() {
        let literals = ["/old/", "/old/secret-place/of", "/api/v1"];
        check(&literals, true, "/OLD/secret-place/off", &[(0, 0), (1, 0)]);
        check(&literals, true, "/x/old/", &[]);
        check(&literals, true, "/api/v1", &[(2, 0)]);
        check(&literals, true, "/api/v", &[]);
    }

    #[test]
    fn both_kinds_are_found_in_one_pass() {
        let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
        let grams =
            Grams::build(texts(&["/old/secret-place", "/api"]), texts(&["/api/v1"])).unwrap();
        let found = |subject: &[u8]| {
            let mut all = Vec::new();
            grams.any(subject, |number, range| {
                all.push((number, range.start));
                false
            });
            all.sort_unstable();
            all
        };
        assert_eq!(found(b"/api/v1/api"), [(1, 0), (2, 0)]);
        assert_eq!(found(b"/x/api/v1"), [(2, 2)]);
        assert_eq!(found(b"/old/secret-place"), [(0, 0)]);
        assert_eq!(found(b"/x/old/secret-place/api"), []);
    }

    #[test]
    fn many_that_share_grams_are_told_apart() {
        let literals: Vec<String> = (0..3_000).map(|n| format!("/scan{n}/")).collect();
        let texts = literals.iter().map(|text| text.as_bytes().to_vec());
        let grams = Grams::build(Vec::new(), texts.collect()).unwrap();
        for (number, literal) in literals.iter().enumerate() {
            let subject = format!("/a{literal}b");
            assert!(grams.any(subject.as_bytes(), |found, _| found == number));
        }
        assert!(!grams.any(b"/scan3000/", |_, _| true));
    }
}
