//! IPv4: disjoint ranges in slots by their leading bits, cut where a slot ends. A slot is a block of
//! sixteen words compared at once, so that a lookup waits for memory once; what does not fit into
//! its block stands in a run of further ones.

use std::ops::{Add, Range};

use super::Prefix;

/// Ranges in rising order; no two overlap or touch.
#[derive(Clone, Debug, Default)]
pub(super) struct Spans {
    slots: Slots,
    /// Ranges before they were cut.
    len: usize,
}

#[derive(Clone, Debug)]
enum Slots {
    Few(Blocks<u32>),
    /// In slots of 15 bits or less half a word tells addresses apart.
    Many(Blocks<u16>),
}

/// A block for each slot, and behind them the runs of slots for which one is not enough.
#[derive(Clone, Debug, Default)]
struct Blocks<W> {
    blocks: Box<[Block<W>]>,
    shift: u32,
}

/// Rising words: the lower bits of an address, and in the lowest bit whether all addresses up to
/// the next word's are held. What is free is `END`.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Block<W>([W; WORDS]);

#[derive(Clone, Copy, Debug)]
struct Span {
    first: u32,
    last: u32,
}

trait Word: Copy + Ord + Add<Output = Self> + From<bool> + Into<u32> {
    /// No range begins at a slot's last address and goes on.
    const END: Self;
    fn of(bits: u32) -> Self;
}

/// Comparing with as many words, whether they are the slot's or not, beats searching: no step
/// waits for another, and the processor has nothing to guess.
const WORDS: usize = 16;
/// Words of a sign that tell where its run is, and groups of blocks that the others tell apart.
const SIGN: usize = 4;
const GROUPS: usize = WORDS - SIGN + 1;
/// A block is half full on average: of more slots, fewer would be found in a core's cache.
const SPARE_BITS: u32 = 2;
/// From as many ranges on a slot has 15 bits or less.
const MANY: usize = 1 << 18;
const MANY_BITS: u32 = 17;

impl Word for u16 {
    const END: Self = Self::MAX;

    #[inline]
    fn of(bits: u32) -> Self {
        bits as Self
    }
}

impl Word for u32 {
    const END: Self = Self::MAX;

    #[inline]
    fn of(bits: u32) -> Self {
        bits
    }
}

impl Default for Slots {
    fn default() -> Self {
        Self::Few(Blocks::default())
    }
}

impl Spans {
    pub(super) fn build(prefixes: Vec<Prefix<u32>>) -> Self {
        let ranges = merged(prefixes);
        let bits = ranges.len().checked_ilog2().unwrap_or(0);
        let bits = bits.saturating_sub(SPARE_BITS);
        let slots = if ranges.len() < MANY {
            Slots::Few(Blocks::build(&ranges, bits.max(1)))
        } else {
            Slots::Many(Blocks::build(&ranges, bits.max(MANY_BITS)))
        };
        Self {
            slots,
            len: ranges.len(),
        }
    }

    #[inline]
    pub(super) fn contains(&self, addr: u32) -> bool {
        match &self.slots {
            Slots::Few(blocks) => blocks.contains(addr),
            Slots::Many(blocks) => blocks.contains(addr),
        }
    }

    /// Whether any range shares an address with this one.
    pub(super) fn overlaps(&self, first: u32, last: u32) -> bool {
        self.contains(first)
            || (self.parts(first, last)).any(|part| part.first <= last && part.last >= first)
    }

    /// The range around this address.
    pub(super) fn span(&self, addr: u32) -> Option<(u32, u32)> {
        let ends_behind = |(_, last): &(u32, u32)| *last >= addr;
        (self.contains(addr)).then(|| self.ranges().find(ends_behind))?
    }

    /// First and last address of every range.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let mut parts = self.parts(0, u32::MAX).peekable();
        std::iter::from_fn(move || {
            let Span { first, mut last } = parts.next()?;
            while let Some(part) = parts.next_if(|part| last.checked_add(1) == Some(part.first)) {
                last = part.last;
            }
            Some((first, last))
        })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> usize {
        match &self.slots {
            Slots::Few(blocks) => size_of_val(&*blocks.blocks),
            Slots::Many(blocks) => size_of_val(&*blocks.blocks),
        }
    }

    /// What stands in the slots from one address's to another's.
    fn parts(&self, first: u32, last: u32) -> Box<dyn Iterator<Item = Span> + '_> {
        match &self.slots {
            Slots::Few(blocks) => Box::new(blocks.parts(first, last)),
            Slots::Many(blocks) => Box::new(blocks.parts(first, last)),
        }
    }
}

impl<W: Word> Blocks<W> {
    fn build(ranges: &[Span], bits: u32) -> Self {
        let shift = 32 - bits;
        let slots = if ranges.is_empty() { 0 } else { 1 << bits };
        let mut blocks = vec![Block([W::END; WORDS]); slots as usize];
        let parts = ranges.iter().flat_map(|range| range.cut(shift));
        let (mut parts, mut words) = (parts.peekable(), Vec::new());
        for slot in 0..slots {
            words.clear();
            while let Some(part) = parts.next_if(|part| part.first >> shift == slot) {
                let goes_on = part.last > part.first;
                words.push(W::of(part.first << 1 | u32::from(goes_on)));
                words.extend(goes_on.then(|| W::of(part.last << 1)));
            }
            blocks[slot as usize] = if words.len() <= WORDS {
                Block::of(&words)
            } else {
                let from = blocks.len();
                blocks.extend(words.chunks(WORDS).map(Block::of));
                Block::sign(from, &blocks[from..])
            };
        }
        Self {
            blocks: blocks.into(),
            shift,
        }
    }

    // No branch on the answer: whether an address is listed is what no processor can guess.
    #[inline]
    fn contains(&self, addr: u32) -> bool {
        let Some(block) = self.blocks.get((addr >> self.shift) as usize) else {
            return false;
        };
        match block.run() {
            None => block.contains(addr),
            Some(run) => self.search(block, run, addr),
        }
    }

    #[inline]
    fn search(&self, sign: &Block<W>, run: Range<usize>, addr: u32) -> bool {
        let step = run.len().div_ceil(GROUPS);
        let before = sign.0[SIGN..]
            .iter()
            .filter(|word| **word <= Block::most(addr));
        let group = self.blocks[run].chunks(step).nth(before.count());
        group.is_some_and(|group| {
            let begun = group.partition_point(|block| block.0[0] <= Block::most(addr));
            group[begun.saturating_sub(1)].contains(addr)
        })
    }

    fn parts(&self, first: u32, last: u32) -> impl Iterator<Item = Span> + '_ {
        let slots = (first >> self.shift) as usize..=(last >> self.shift) as usize;
        let slots = slots.take_while(|_| !self.blocks.is_empty());
        slots.flat_map(move |slot| {
            let run = self.blocks[slot].run();
            let run = run.unwrap_or(slot..slot + 1);
            let words = self.blocks[run].iter().flat_map(|block| block.0);
            let mut words = words.filter(|word| *word != W::END).map(W::into);
            let told = W::END.into() >> 1;
            let addr = move |word: u32| (slot << self.shift) as u32 & !told | word >> 1;
            std::iter::from_fn(move || {
                let word = words.next()?;
                let last = if word & 1 == 1 { words.next()? } else { word };
                Some(Span {
                    first: addr(word),
                    last: addr(last),
                })
            })
        })
    }
}

impl<W: Word> Block<W> {
    fn of(words: &[W]) -> Self {
        let mut block = Self([W::END; WORDS]);
        block.0[..words.len()].copy_from_slice(words);
        block
    }

    /// What stands in the place of a slot whose words are a run of blocks: where that is, and the
    /// words with which its groups of blocks begin, but for the first.
    fn sign(from: usize, run: &[Self]) -> Self {
        let mut sign = Self([W::END; WORDS]);
        let told = [from & 0xffff, from >> 16, run.len()];
        for (word, told) in sign.0[1..].iter_mut().zip(told) {
            *word = W::of(told as u32);
        }
        let groups = run.chunks(run.len().div_ceil(GROUPS)).skip(1);
        for (word, group) in sign.0[SIGN..].iter_mut().zip(groups) {
            *word = group[0].0[0];
        }
        sign
    }

    #[inline]
    fn run(&self) -> Option<Range<usize>> {
        let [free, low, high, len, ..] = self.0;
        (free == W::END && len != W::END).then(|| {
            let from = (high.into() << 16 | low.into()) as usize;
            from..from + len.into() as usize
        })
    }

    /// The greatest word that may stand for an address; what is free is greater.
    #[inline]
    fn most(addr: u32) -> W {
        W::of(addr << 1 | 1).min(W::of(W::END.into() - 1))
    }

    #[inline]
    fn contains(&self, addr: u32) -> bool {
        let most = Self::most(addr);
        let begun = up_to(&self.0, most);
        let before: u32 = self.0[begun.wrapping_sub(1) as usize % WORDS].into();
        (begun > 0) & ((before & 1 == 1) | (before == W::of(addr << 1).into()))
    }
}

impl Span {
    /// Its parts in slots of `shift` bits.
    fn cut(self, shift: u32) -> impl Iterator<Item = Self> {
        (self.first >> shift..=self.last >> shift).map(move |slot| Self {
            first: self.first.max(slot << shift),
            last: self.last.min(slot << shift | ((1 << shift) - 1)),
        })
    }
}

/// How many of these words are not greater. No branch, and counted in words of their own size, so
/// that all are compared at once.
#[inline(always)]
fn up_to<W: Word>(words: &[W], most: W) -> u32 {
    let count = |count: W, word: &W| count + W::from(*word <= most);
    words.iter().fold(W::from(false), count).into()
}

/// Networks as ranges, nested and neighbouring ones as one.
fn merged(mut prefixes: Vec<Prefix<u32>>) -> Vec<Span> {
    prefixes.sort_unstable();
    let mut ranges = Vec::<Span>::with_capacity(prefixes.len());
    for Prefix { first, len } in prefixes {
        let last = first | u32::MAX.checked_shr(len.into()).unwrap_or(0);
        match ranges.last_mut() {
            Some(range) if first <= range.last.saturating_add(1) => {
                range.last = range.last.max(last);
            }
            _ => ranges.push(Span { first, last }),
        }
    }
    ranges
}
