//! A number that threads count up without meeting: each adds to a line of its own, and a scrape
//! sums them. Names and labels are `metrics`'.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use crossbeam_utils::CachePadded;
use prometheus_client::metrics::counter::Atomic;

/// More threads than these share lines, as all would without.
const STRIPES: usize = 8;

/// What a counter of requests counts in.
#[derive(Debug, Default)]
pub struct Striped([CachePadded<AtomicU64>; STRIPES]);

thread_local! {
    static MINE: Cell<usize> = Cell::new({
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Relaxed) % STRIPES
    });
}

impl Atomic<u64> for Striped {
    #[inline]
    fn inc(&self) -> u64 {
        self.inc_by(1)
    }

    /// Answers this thread's part alone: nobody asks for more.
    #[inline]
    fn inc_by(&self, more: u64) -> u64 {
        self.0[MINE.get()].fetch_add(more, Relaxed)
    }

    fn get(&self) -> u64 {
        self.0.iter().map(|part| part.load(Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_s_part_counts() {
        let number = Striped::default();
        std::thread::scope(|scope| {
            for _ in 0..STRIPES + 3 {
                scope.spawn(|| (0..1000).for_each(|_| _ = number.inc()));
            }
        });
        assert_eq!(number.get(), 1000 * (STRIPES as u64 + 3));
    }
}
