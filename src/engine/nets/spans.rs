//! IPv4: disjoint sorted ranges under an index of the leading bits. Measured against six other
//! structures, this one is the fastest of those that hold a million prefixes in 9 MB.

use super::Prefix;

/// Ranges in rising order, no two overlapping, neighbours with equal values merged.
#[derive(Clone, Debug, Default)]
pub(super) struct Spans<V> {
    /// `index[i]`: the first range starting at or after `i << shift`; one more entry than there
    /// are leading-bit patterns. Empty when there are no ranges.
    index: Box<[u32]>,
    shift: u32,
    ranges: Box<[Range]>,
    values: Box<[V]>,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    first: u32,
    last: u32,
}

/// About this many ranges share one index entry: fewer would pay index memory, more would pay
/// search steps.
const RANGES_PER_ENTRY_BITS: u32 = 3;

/// Comparing with this many ranges, whether they are the slot's or not, beats searching: no step
/// waits for another, and the processor has nothing to guess. Later slots' ranges begin later.
const COUNTED: usize = 16;

impl<V: Copy + Ord> Spans<V> {
    pub(super) fn build(mut prefixes: Vec<Prefix<u32, V>>) -> Self {
        // Wider before narrower at one start, so that parents precede what they contain.
        prefixes.sort_unstable();
        let mut flat = Flat::with_capacity(prefixes.len());
        for prefix in &prefixes {
            flat.push(prefix);
        }
        let (ranges, values) = flat.finish();
        let bits = ranges.len().checked_ilog2().unwrap_or(0);
        let shift = 32 - bits.saturating_sub(RANGES_PER_ENTRY_BITS).max(1);
        Self {
            index: index(&ranges, shift),
            shift,
            ranges,
            values,
        }
    }

    #[inline]
    pub(super) fn get(&self, addr: u32) -> Option<V> {
        self.find(addr).map(|at| self.values[at])
    }

    /// Whether any range shares an address with this one.
    pub(super) fn overlaps(&self, first: u32, last: u32) -> bool {
        let at = self.ranges.partition_point(|range| range.last < first);
        self.ranges.get(at).is_some_and(|range| range.first <= last)
    }

    pub(super) fn span(&self, addr: u32) -> Option<(u32, u32)> {
        let range = self.ranges[self.find(addr)?];
        Some((range.first, range.last))
    }

    /// First and last address of every range.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.ranges.iter().map(|range| (range.first, range.last))
    }

    pub(super) fn len(&self) -> usize {
        self.ranges.len()
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.index) + size_of_val(&*self.ranges) + size_of_val(&*self.values)
    }

    #[inline]
    fn find(&self, addr: u32) -> Option<usize> {
        if self.ranges.is_empty() {
            return None;
        }
        let slot = (addr >> self.shift) as usize;
        let from = self.index[slot] as usize;
        let rest = &self.ranges[from..];
        let begun = |range: &Range| range.first <= addr;
        let mut begins = match rest.first_chunk::<COUNTED>() {
            Some(next) => next
                .iter()
                .map(|range| u32::from(begun(range)))
                .sum::<u32>() as usize,
            None => rest.partition_point(begun),
        };
        if begins == COUNTED {
            begins = self.ranges[from..self.index[slot + 1] as usize].partition_point(begun);
        }
        // The range before the slot's own may reach into the slot.
        let at = (from + begins).checked_sub(1)?;
        (self.ranges[at].last >= addr).then_some(at)
    }
}

fn index(ranges: &[Range], shift: u32) -> Box<[u32]> {
    if ranges.is_empty() {
        return Box::default();
    }
    let slots = 1usize << (32 - shift);
    let mut index = vec![0u32; slots + 1];
    for range in ranges {
        index[(range.first >> shift) as usize + 1] += 1;
    }
    for slot in 0..slots {
        index[slot + 1] += index[slot];
    }
    index.into()
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
