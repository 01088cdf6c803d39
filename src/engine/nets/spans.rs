//! IPv4: disjoint ranges in slots by their leading bits, cut where a slot ends. A lookup waits for
//! memory twice: for the slot's place, and for the few words that stand there.

use super::Prefix;

/// Ranges in rising order, no two overlapping, neighbours with equal values merged.
#[derive(Clone, Debug, Default)]
pub(super) struct Spans<V> {
    /// `index[i]`: the place of the first range in slot `i`; one more entry than there are slots.
    /// Empty when there are no ranges.
    index: Box<[u32]>,
    shift: u32,
    /// Where ranges begin. In slots of 16 bits or less the upper half of a word is the lower half
    /// of the first address and the lower half that of the last, so that one look finds both. A
    /// word before all slots spares a question, words behind them let any place be read from.
    starts: Box<[u32]>,
    /// The last addresses, where they do not stand in `starts`.
    lasts: Box<[u32]>,
    values: Box<[V]>,
    /// Ranges before they were cut.
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    first: u32,
    last: u32,
}

/// A slot has two to four ranges: with more slots the index leaves a core's cache, with fewer the
/// ranges of one do not lie in a line. Of more slots than this the index would be most.
const MAX_BITS: u32 = 22;
/// Comparing with this many words, whether they are the slot's or not, beats searching: no step
/// waits for another, and the processor has nothing to guess.
const COUNTED: usize = 8;
const LOW: u32 = 0xffff;

impl<V: Copy + Ord + Default> Spans<V> {
    pub(super) fn build(mut prefixes: Vec<Prefix<u32, V>>) -> Self {
        // Wider before narrower at one start, so that parents precede what they contain.
        prefixes.sort_unstable();
        let mut flat = Flat::with_capacity(prefixes.len());
        for prefix in &prefixes {
            flat.push(prefix);
        }
        drop(prefixes);
        let (ranges, values) = flat.finish();
        Self::cut(&ranges, &values)
    }

    fn cut(ranges: &[Range], values: &[V]) -> Self {
        let Some(bits) = ranges.len().checked_ilog2() else {
            return Self::default();
        };
        let bits = bits.saturating_sub(1).clamp(1, MAX_BITS);
        let shift = 32 - bits;
        let room = ranges.len() + (1 << bits) + COUNTED;
        let mut spans = Self {
            index: vec![0; (1 << bits) + 1].into(),
            shift,
            len: ranges.len(),
            ..Self::default()
        };
        let (mut starts, mut lasts, mut held) = (vec![0], vec![0], vec![V::default()]);
        starts.reserve_exact(room);
        for (range, value) in ranges.iter().zip(values) {
            for range in range.cut(shift) {
                spans.index[(range.first >> shift) as usize + 1] += 1;
                if spans.packs() {
                    starts.push(range.first << 16 | range.last & LOW);
                } else {
                    starts.push(range.first);
                    lasts.push(range.last);
                }
                held.push(*value);
            }
        }
        starts.extend([u32::MAX; COUNTED]);
        let mut place = 1;
        for entry in &mut spans.index {
            place += *entry;
            *entry = place;
        }
        (spans.starts, spans.lasts) = (starts.into(), lasts.into());
        spans.values = held.into();
        spans
    }

    #[inline]
    pub(super) fn get(&self, addr: u32) -> Option<V> {
        self.find(addr).map(|at| self.values[at])
    }

    #[inline]
    pub(super) fn contains(&self, addr: u32) -> bool {
        self.find(addr).is_some()
    }

    /// Whether any range shares an address with this one.
    pub(super) fn overlaps(&self, first: u32, last: u32) -> bool {
        let next = || {
            let (start, begun) = self.begun(first);
            let at = start + begun;
            let slot = self.index.partition_point(|place| *place as usize <= at);
            (slot < self.index.len()).then(|| self.range(slot - 1, at))
        };
        !self.index.is_empty()
            && (self.contains(first) || next().is_some_and(|next| next.first <= last))
    }

    /// The range around this address.
    pub(super) fn span(&self, addr: u32) -> Option<(u32, u32)> {
        self.find(addr)?;
        self.ranges().find(|(_, last)| *last >= addr)
    }

    /// First and last address of every range.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let slots = self.index.windows(2).enumerate();
        let places = slots.flat_map(|(slot, ends)| (ends[0]..ends[1]).map(move |at| (slot, at)));
        let all =
            places.map(|(slot, at)| (self.range(slot, at as usize), self.values[at as usize]));
        let mut all = all.peekable();
        std::iter::from_fn(move || {
            let (Range { first, mut last }, value) = all.next()?;
            while let Some((range, _)) = all
                .next_if(|(range, same)| *same == value && last.checked_add(1) == Some(range.first))
            {
                last = range.last;
            }
            Some((first, last))
        })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> usize {
        let words = self.index.len() + self.starts.len() + self.lasts.len();
        words * size_of::<u32>() + size_of_val(&*self.values)
    }

    /// The place of the range that holds this address.
    // No branch but the first: whether an address is listed is what no processor can guess.
    #[inline]
    fn find(&self, addr: u32) -> Option<usize> {
        if self.index.is_empty() {
            return None;
        }
        let (start, begun) = self.begun(addr);
        let at = start + begun - 1;
        let (last, addr) = match self.packs() {
            true => (self.starts[at] & LOW, addr & LOW),
            false => (self.lasts[at], addr),
        };
        ((begun > 0) & (last >= addr)).then_some(at)
    }

    /// Where the slot of an address starts, and how many of its ranges begin there or before.
    #[inline]
    fn begun(&self, addr: u32) -> (usize, usize) {
        let slot = (addr >> self.shift) as usize;
        let (start, end) = (self.index[slot] as usize, self.index[slot + 1] as usize);
        let key = match self.packs() {
            true => addr << 16 | LOW,
            false => addr,
        };
        let (mut from, mut len) = (start, end - start);
        while len > COUNTED {
            let half = len / 2;
            match self.starts[from + half] <= key {
                true => (from, len) = (from + half, len - half),
                false => len = half,
            }
        }
        let mut begun = 0;
        if let Some(near) = self.starts[from..].first_chunk::<COUNTED>() {
            for (at, word) in near.iter().enumerate() {
                begun += u32::from(*word <= key) & u32::from((at as u32) < len as u32);
            }
        }
        (start, from - start + begun as usize)
    }

    fn range(&self, slot: usize, at: usize) -> Range {
        let word = self.starts[at];
        match self.packs() {
            true => {
                let high = (slot as u32) << self.shift & !LOW;
                let (first, last) = (high | word >> 16, high | word & LOW);
                Range { first, last }
            }
            false => Range {
                first: word,
                last: self.lasts[at],
            },
        }
    }

    #[inline]
    fn packs(&self) -> bool {
        self.shift <= 16
    }
}

impl Range {
    /// Its parts in slots of `shift` bits.
    fn cut(self, shift: u32) -> impl Iterator<Item = Self> {
        (self.first >> shift..=self.last >> shift).map(move |slot| Self {
            first: self.first.max(slot << shift),
            last: self.last.min(slot << shift | ((1 << shift) - 1)),
        })
    }
}

/// Flattens nested prefixes, given in order, into disjoint ranges that carry the greatest value
/// of everything around them.
struct Flat<V> {
    ranges: Vec<Range>,
    values: Vec<V>,
    /// Prefixes around the present position, outermost first: last address, effective value.
    open: Vec<(u32, V)>,
    /// First address not yet written out; wider than an address so that the end has a value.
    next: u64,
}

impl<V: Copy + Ord> Flat<V> {
    fn with_capacity(prefixes: usize) -> Self {
        Self {
            ranges: Vec::with_capacity(prefixes),
            values: Vec::with_capacity(prefixes),
            open: Vec::new(),
            next: 0,
        }
    }

    fn push(&mut self, prefix: &Prefix<u32, V>) {
        self.close_before(u64::from(prefix.first));
        let last = prefix.first | u32::MAX.checked_shr(prefix.len.into()).unwrap_or(0);
        let mut value = prefix.value;
        if let Some(&(_, around)) = self.open.last() {
            self.emit_until(u64::from(prefix.first), around);
            value = value.max(around);
        }
        self.next = u64::from(prefix.first);
        self.open.push((last, value));
    }

    fn finish(mut self) -> (Box<[Range]>, Box<[V]>) {
        self.close_before(u64::from(u32::MAX) + 1);
        (self.ranges.into(), self.values.into())
    }

    fn close_before(&mut self, address: u64) {
        while let Some(&(last, value)) = self.open.last() {
            if u64::from(last) >= address {
                break;
            }
            self.emit_until(u64::from(last) + 1, value);
            self.open.pop();
        }
    }

    fn emit_until(&mut self, end: u64, value: V) {
        if end <= self.next {
            return;
        }
        let (first, last) = (self.next as u32, (end - 1) as u32);
        self.next = end;
        if let (Some(range), Some(&before)) = (self.ranges.last_mut(), self.values.last())
            && before == value
            && u64::from(range.last) + 1 == u64::from(first)
        {
            range.last = last;
            return;
        }
        self.ranges.push(Range { first, last });
        self.values.push(value);
    }
}
