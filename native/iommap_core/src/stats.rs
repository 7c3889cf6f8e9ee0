//! Counters of this image since it was loaded. Nothing is counted where a call finishes without waiting: only where it moves, waits
//! for the disk, or met a lost page. Counting is async-signal-safe.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// Calls that may not wait, and found the handle's lock taken.
    MovedLock,
    /// Calls that may not wait, and have long data.
    MovedLength,
    /// Calls that may not wait, and need pages that are not known to be in memory.
    MovedPages,
    /// Pages of ranges that were fetched through the descriptor.
    PagesFetched,
    /// Faults that were met, in calls and in views.
    Faults,
    /// Zero pages that were put under mappings.
    ZeroPages,
}

/// How many counters there are.
pub const COUNTERS: usize = 6;

static COUNTS: [AtomicU64; COUNTERS] = [const { AtomicU64::new(0) }; COUNTERS];

/// Counts so many more.
#[cold]
pub fn count(counter: Counter, more: usize) {
    COUNTS[counter as usize].fetch_add(more as u64, Ordering::Relaxed);
}

/// All counts, in the order of `Counter`.
pub fn counts() -> [u64; COUNTERS] {
    std::array::from_fn(|index| COUNTS[index].load(Ordering::Relaxed))
}
