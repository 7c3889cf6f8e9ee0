//! A cache of which pages could be accessed without waiting a short time ago.
//!
//! Asking the kernel costs more than a short copy does, so what it said is remembered for a bounded time: fixed size,
//! lock-free, one load on a hit. An entry is one word, so it can never be half of one answer and half of another:
//!
//! ```text
//! | 32 blocks, a bit each | stamp of the answer: 18 bits | tag of the region: 14 bits |
//! ```
//!
//! A block is a page (of a mapping too big for the table: several, if it may), a region is 32 blocks; an entry is found by the region's low bits
//! and holds the high bits as its tag. A stamp is the time in ticks plus an offset that `invalidate` moves forward,
//! so invalidating everything is the same as everything being too old, and a question that was put before an `invalidate` and
//! whose answer is inserted after it is born too old.
//!
//! What is promised: a hit means that the pages were in memory at most `lifetime` ticks ago. The kernel may have dropped
//! one since; the access then takes a page fault on the spot, and nothing else is lost. (Stamps wrap after four
//! hours of an entry lying untouched, of which each `invalidate` takes half a minute: it looks fresh again for one part in fifty
//! thousand of that time.)
//! `test/loom` tries this source under the interleavings with few preemptions, and `tests/residency_model.rs` what comes of another order of steps.

use crate::range::Range;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::{clock, platform};

const BLOCKS: usize = 32;
const TAG_BITS: u32 = 14;
const MOST_ENTRIES: usize = 4096;

/// When a question was put. Taken before the kernel is asked. Only its low bits are kept.
#[derive(Debug, Clone, Copy)]
pub struct Stamp(u32);

/// The cache of one mapping. At most 32 KiB, less for a mapping of less than 512 MiB.
pub struct Residency {
    entries: Box<[AtomicU64]>,
    /// The logarithm of a block's size in bytes.
    block: u32,
    lifetime: u32,
    /// For how many ticks an entry can be renewed.
    renewable: u32,
    /// Of how many regions at once: a power of two, or 0.
    group: usize,
    invalidated: AtomicU32,
}

impl Residency {
    /// For a mapping of `size` bytes; entries are good for `lifetime` ticks. A block has `most_pages`, a power of two, at the
    /// most; more only in a mapping so huge that tags would not tell its regions apart.
    pub fn new(size: usize, lifetime: u32, most_pages: usize) -> Residency {
        let page = platform::page_size().trailing_zeros();
        let mut block = page;
        while block < page + most_pages.trailing_zeros()
            && size.div_ceil(BLOCKS << block) > MOST_ENTRIES
        {
            block += 1;
        }
        while size.div_ceil(BLOCKS << block) > MOST_ENTRIES << TAG_BITS {
            block += 1;
        }
        let regions = size.div_ceil(BLOCKS << block).max(1);
        let entries = regions.next_power_of_two().min(MOST_ENTRIES);
        Residency {
            entries: (0..entries).map(|_| AtomicU64::new(0)).collect(),
            block,
            lifetime,
            renewable: lifetime,
            group: 0,
            invalidated: AtomicU32::new(0),
        }
    }

    /// The same, but what was inserted at most so many ticks ago can be renewed; in full regions, up to so many pages at once,
    /// as to ask about all of them costs less than to ask about each.
    pub fn renewable(self, ticks: u32, most_pages: usize) -> Residency {
        let most = most_pages * platform::page_size() / self.region_size();
        Residency {
            renewable: ticks,
            group: most.checked_ilog2().map_or(0, |log| 1 << log),
            ..self
        }
    }

    /// The stamp of a question that is put now.
    #[inline(always)]
    pub fn stamp(&self) -> Stamp {
        Stamp(clock::ticks().wrapping_add(self.invalidated.load(Ordering::Acquire)))
    }

    /// Whether every byte of the range was inserted lately.
    #[inline(always)]
    pub fn contains(&self, range: Range) -> bool {
        let now = self.stamp();
        let first = range.offset() >> self.block;
        let last = range.end().saturating_sub(1) >> self.block;
        if first / BLOCKS == last / BLOCKS {
            // Nearly always: one region, one entry.
            let wanted = (2u32 << (last % BLOCKS)).wrapping_sub(1 << (first % BLOCKS));
            return self.holds(first / BLOCKS, wanted, now);
        }
        self.contains_regions(range, now)
    }

    fn contains_regions(&self, range: Range, now: Stamp) -> bool {
        self.regions(range)
            .all(|(region, wanted)| self.holds(region, wanted, now))
    }

    #[inline(always)]
    fn holds(&self, region: usize, wanted: u32, now: Stamp) -> bool {
        let (entry, tag) = self.entry(region);
        let word = entry.load(Ordering::Relaxed);
        fresh(word, tag, now, self.lifetime) && blocks(word) & wanted == wanted
    }

    /// Inserts the whole blocks of the range, in answer to a question that was put at `stamp`.
    pub fn insert(&self, range: Range, stamp: Stamp) {
        self.insert_with(range, stamp, |_, _| 0);
    }

    /// The same, and inserts anew what `holds` of the blocks that share an entry with those, if the entry has ended and can be renewed.
    pub fn insert_and_renew(&self, range: Range, stamp: Stamp, holds: impl Fn(Range) -> bool) {
        self.insert_with(range, stamp, |region, others| {
            held_blocks(others, u32::MAX, &|run| holds(self.range_of(region, run)))
        });
    }

    /// `renewed` tells which other blocks of a region are inserted anew.
    fn insert_with(&self, range: Range, stamp: Stamp, renewed: impl Fn(usize, u32) -> u32) {
        let start = range.offset().next_multiple_of(1 << self.block);
        let end = range.end() & !((1 << self.block) - 1);
        if start >= end {
            return;
        }
        let range = Range::between(start, end);
        for (region, inserted) in self.regions(range) {
            let (entry, tag) = self.entry(region);
            let word = entry.load(Ordering::Relaxed);
            // Blocks of one entry share its stamp, so what is added to a fresh one gets the older stamp. Of two
            // threads that add at once one may be lost: it will be asked again.
            let joined = if fresh(word, tag, stamp, self.lifetime) {
                word | pack(inserted, 0, Stamp(0))
            } else if fresh(word, tag, stamp, self.renewable) {
                let others = renewed(region, blocks(word) & !inserted);
                pack(others | inserted, tag, stamp)
            } else {
                pack(inserted, tag, stamp)
            };
            entry.store(joined, Ordering::Relaxed);
        }
    }

    /// Inserts anew what `holds` of the blocks that share an entry with those of the range, if they were inserted not too long
    /// ago; whether all of the range is fresh then. Ends at the first region that is not.
    pub fn renew(&self, range: Range, holds: impl Fn(Range) -> bool) -> bool {
        let stamp = self.stamp();
        let mut asked = None;
        self.regions(range).all(|(region, wanted)| {
            self.holds(region, wanted, stamp)
                || asked.replace(self.group_of(region)) != Some(self.group_of(region))
                    && self.renew_group(region, stamp, &holds)
                || self.renew_region(region, wanted, stamp, &holds)
        })
    }

    fn renew_region(
        &self,
        region: usize,
        wanted: u32,
        stamp: Stamp,
        holds: &impl Fn(Range) -> bool,
    ) -> bool {
        let (entry, tag) = self.entry(region);
        let word = entry.load(Ordering::Relaxed);
        if !fresh(word, tag, stamp, self.renewable) || blocks(word) & wanted != wanted {
            return false;
        }
        let held = |run| holds(self.range_of(region, run));
        let renewed = held_blocks(blocks(word), u32::MAX, &held);
        entry.store(pack(renewed, tag, stamp), Ordering::Relaxed);
        renewed & wanted == wanted
    }

    /// Renews the regions of the group in which the range lies, if all of it was inserted not too long ago, and holds: what is used
    /// now and then mostly is so in long stretches.
    pub fn renew_full(&self, range: Range, holds: impl Fn(Range) -> bool) -> bool {
        let mut regions = self.regions(range);
        match (regions.next(), regions.next()) {
            (Some((region, _)), None) => self.renew_group(region, self.stamp(), &holds),
            _ => false,
        }
    }

    fn group_of(&self, region: usize) -> usize {
        region / self.group.max(1)
    }

    fn renew_group(&self, region: usize, stamp: Stamp, holds: &impl Fn(Range) -> bool) -> bool {
        if self.group == 0 {
            return false;
        }
        let whole = self
            .range_of(region, u32::MAX)
            .widened(self.group * self.region_size());
        let is_full = |(region, _)| {
            let (entry, tag) = self.entry(region);
            let word = entry.load(Ordering::Relaxed);
            fresh(word, tag, stamp, self.renewable) && blocks(word) == u32::MAX
        };
        let renewed = self.regions(whole).all(is_full) && holds(whole);
        if renewed {
            for (region, all) in self.regions(whole) {
                let (entry, tag) = self.entry(region);
                entry.store(pack(all, tag, stamp), Ordering::Relaxed);
            }
        }
        renewed
    }

    /// The range from the first to the last of some blocks of a region.
    fn range_of(&self, region: usize, some: u32) -> Range {
        let first = region * BLOCKS + some.trailing_zeros() as usize;
        let end = (region + 1) * BLOCKS - some.leading_zeros() as usize;
        Range::between(first << self.block, end << self.block)
    }

    /// Invalidates all entries: none can be renewed either.
    pub fn invalidate(&self) {
        self.invalidated
            .fetch_add(self.renewable + 1, Ordering::AcqRel);
    }

    /// The size of a block in bytes: the unit of the cache.
    pub fn block_size(&self) -> usize {
        1 << self.block
    }

    /// The size of a region in bytes: what one entry holds, and so what is worth asking about at once.
    pub fn region_size(&self) -> usize {
        BLOCKS << self.block
    }

    /// The regions a range touches, each with the blocks it touches there.
    fn regions(&self, range: Range) -> impl Iterator<Item = (usize, u32)> {
        let first = range.offset() >> self.block;
        let end = (range.end() + (1 << self.block) - 1) >> self.block;
        (first / BLOCKS..end.div_ceil(BLOCKS)).map(move |region| {
            let start = first.max(region * BLOCKS) % BLOCKS;
            let count = end.min((region + 1) * BLOCKS) - region * BLOCKS - start;
            let mask = ((1u64 << count) - 1) << start;
            (region, mask as u32)
        })
    }

    #[inline(always)]
    fn entry(&self, region: usize) -> (&AtomicU64, u32) {
        let mask = self.entries.len() - 1;
        let tag = (region >> self.entries.len().trailing_zeros()) & ((1 << TAG_BITS) - 1);
        (&self.entries[region & mask], tag as u32)
    }
}

/// Those of the blocks in a window that hold, asked about as few times as may be: all from the first to the last of them,
/// and if that does not hold, each half of the window.
fn held_blocks(blocks: u32, window: u32, holds: &impl Fn(u32) -> bool) -> u32 {
    let some = blocks & window;
    if some == 0 {
        return 0;
    }
    let run = (u32::MAX << some.trailing_zeros()) & (u32::MAX >> some.leading_zeros());
    if some == run && holds(some) {
        return some;
    }
    if some.is_power_of_two() {
        return 0;
    }
    let half = window.count_ones() / 2;
    let lower = window & (window >> half);
    held_blocks(some, lower, holds) | held_blocks(some, window & !lower, holds)
}

fn pack(blocks: u32, tag: u32, stamp: Stamp) -> u64 {
    u64::from(blocks) << 32 | u64::from(stamp.0 << TAG_BITS | tag)
}

#[inline]
fn blocks(word: u64) -> u32 {
    (word >> 32) as u32
}

/// Whether the word has the tag and is at most `lifetime` old: the difference of tags, in the high bits, must be 0, and the
/// difference of stamps, in the low ones, small.
#[inline]
fn fresh(word: u64, tag: u32, now: Stamp, lifetime: u32) -> bool {
    let expected = now.0 << TAG_BITS | tag;
    expected.wrapping_sub(word as u32).rotate_right(TAG_BITS) <= lifetime
}

#[cfg(test)]
#[path = "residency/tests.rs"] // also where this file is taken by its path
mod tests;
