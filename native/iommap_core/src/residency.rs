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
//! hours of an entry lying untouched: it looks fresh again for one part in fifty thousand of that time.)
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
            invalidated: AtomicU32::new(0),
        }
    }

    /// The same, but what was inserted at most so many ticks ago can be renewed.
    pub fn renewable(self, ticks: u32) -> Residency {
        Residency {
            renewable: ticks,
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
        self.insert_and_renew(range, stamp, |_| false);
    }

    /// The same, and inserts anew what `holds` of the blocks that share an entry with those, if the entry has ended and can be renewed.
    pub fn insert_and_renew(&self, range: Range, stamp: Stamp, holds: impl Fn(Range) -> bool) {
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
                let held = |run| holds(self.range_of(region, run));
                let renewed = held_blocks(blocks(word) & !inserted, u32::MAX, &held);
                pack(renewed | inserted, tag, stamp)
            } else {
                pack(inserted, tag, stamp)
            };
            entry.store(joined, Ordering::Relaxed);
        }
    }

    /// Inserts anew what `holds` of the blocks that share an entry with those of the range, if they were inserted not too long
    /// ago; whether all of the range was.
    pub fn renew(&self, range: Range, holds: impl Fn(Range) -> bool) -> bool {
        let stamp = self.stamp();
        let mut all = true;
        for (region, wanted) in self.regions(range) {
            let (entry, tag) = self.entry(region);
            let word = entry.load(Ordering::Relaxed);
            if !fresh(word, tag, stamp, self.renewable) || blocks(word) & wanted != wanted {
                return false;
            }
            let held = |run| holds(self.range_of(region, run));
            let renewed = held_blocks(blocks(word), u32::MAX, &held);
            entry.store(pack(renewed, tag, stamp), Ordering::Relaxed);
            all &= renewed & wanted == wanted;
        }
        all
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
mod tests {
    use super::*;
    use platform::page_size;

    fn range(offset: usize, length: usize) -> Range {
        Range::checked(offset as u64, length as u64, usize::MAX).unwrap()
    }

    #[test]
    fn only_what_was_inserted_is_contained() {
        let cache = Residency::new(1 << 30, 1000, 1);
        let stamp = cache.stamp();
        cache.insert(range(31 * page_size(), 2 * page_size()), stamp);
        assert!(cache.contains(range(31 * page_size(), 2 * page_size())));
        assert!(cache.contains(range(31 * page_size() + 5, page_size())));
        assert!(!cache.contains(range(30 * page_size(), 2 * page_size())));
        assert!(!cache.contains(range(32 * page_size(), page_size() + 1)));
    }

    #[test]
    fn a_block_is_contained_if_all_of_its_pages_were_inserted() {
        let cache = Residency::new(1 << 40, 1000, 16);
        let block = cache.block_size();
        assert_eq!(block, 16 * page_size());
        cache.insert(
            range(page_size(), 2 * block - 2 * page_size()),
            cache.stamp(),
        );
        assert!(!cache.contains(range(page_size(), 1)));
        assert!(!cache.contains(range(block + page_size(), 1)));
        cache.insert(range(page_size(), 2 * block), cache.stamp());
        assert!(cache.contains(range(block, block)));
        assert!(!cache.contains(range(block - 1, 1)) && !cache.contains(range(2 * block, 1)));
    }

    #[test]
    fn a_block_is_as_old_as_it_was_when_its_neighbour_is_inserted() {
        let cache = Residency::new(1 << 20, 1000, 1);
        let now = cache.stamp();
        let later = |ticks: u32| Stamp(now.0.wrapping_add(ticks));
        cache.insert(range(0, page_size()), now);
        cache.insert(range(page_size(), page_size()), later(900));
        assert!(cache.holds(0, 0b11, later(1000)));
        assert!(!cache.holds(0, 0b01, later(1001)));
        // What is too old is not kept by it either.
        cache.insert(range(2 * page_size(), page_size()), later(1001));
        assert!(cache.holds(0, 0b100, later(1001)) && !cache.holds(0, 0b01, later(1001)));
    }

    #[test]
    fn regions_that_share_an_entry_are_told_apart() {
        let cache = Residency::new(1 << 40, 1000, 1);
        let apart = MOST_ENTRIES * cache.region_size();
        cache.insert(range(0, page_size()), cache.stamp());
        assert!(!cache.contains(range(apart, page_size())));
        cache.insert(range(apart, page_size()), cache.stamp());
        assert!(!cache.contains(range(0, page_size())));
    }

    #[test]
    fn an_answer_to_a_question_before_invalidating_is_not_believed_after() {
        let cache = Residency::new(1 << 20, 1000, 1);
        let stamp = cache.stamp();
        cache.invalidate();
        cache.insert(range(0, page_size()), stamp);
        assert!(!cache.contains(range(0, page_size())));
        cache.insert(range(0, page_size()), cache.stamp());
        assert!(cache.contains(range(0, page_size())));
    }

    #[test]
    fn an_entry_ends_after_its_lifetime() {
        let cache = Residency::new(1 << 20, 2, 1);
        cache.insert(range(0, page_size()), cache.stamp());
        let begun = clock::ticks();
        while clock::ticks().wrapping_sub(begun) <= 3 {
            std::thread::yield_now();
        }
        assert!(!cache.contains(range(0, page_size())));
    }

    #[test]
    fn a_renewal_keeps_exactly_the_blocks_that_still_hold() {
        // Asked about in runs; what was never inserted is not renewed, nor what was invalidated.
        let still = |held: u32| {
            move |run: Range| {
                (run.offset() / page_size()..run.end() / page_size())
                    .all(|page| held >> page & 1 == 1)
            }
        };
        for inserted in [u32::MAX, 1, 1 << 31, 0x8000_0001, 0x0ff0_f00f, 0xaaaa_aaaa] {
            for held in [
                u32::MAX,
                0,
                0x0000_ffff,
                0x00ff_0ff0,
                0x5555_5555,
                0x7fff_ffff,
            ] {
                let cache = Residency::new(1 << 20, 0, 1).renewable(1000);
                let bit = |bits: u32, page: usize| bits >> page & 1 == 1;
                for page in (0..32).filter(|page| bit(inserted, *page)) {
                    cache.insert(range(page * page_size(), page_size()), cache.stamp());
                }
                let first = inserted.trailing_zeros() as usize;
                let renewed = cache.renew(range(first * page_size(), 10), still(held));
                assert_eq!(renewed, bit(held, first), "{inserted:x} {held:x}");
                let wanted = inserted & held;
                assert_eq!(blocks(cache.entries[0].load(Ordering::Relaxed)), wanted);
                cache.invalidate();
                assert!(!cache.renew(range(0, page_size()), still(u32::MAX)));
            }
        }
    }

    #[test]
    fn what_is_inserted_in_an_ended_entry_keeps_the_blocks_that_still_hold() {
        // Only those that were there, and are not inserted now; none of an entry that cannot be renewed.
        let cache = Residency::new(1 << 20, 2, 1).renewable(1000);
        let now = cache.stamp();
        let later = |ticks: u32| Stamp(now.0.wrapping_add(ticks));
        let still = |held: u32| {
            move |run: Range| {
                (run.offset() / page_size()..run.end() / page_size())
                    .all(|page| held >> page & 1 == 1)
            }
        };
        let page = |number: usize| range(number * page_size(), page_size());
        for number in [0, 1, 5] {
            cache.insert(page(number), now);
        }
        cache.insert_and_renew(page(7), later(3), still(0b0101_1110));
        assert!(cache.holds(0, 0b1000_0010, later(3)));
        assert!(!cache.holds(0, 0b1, later(3)) && !cache.holds(0, 0b10_0000, later(3)));
        assert!(!cache.holds(0, 0b100, later(3)));
        cache.insert_and_renew(page(8), later(1004), |_| {
            panic!("asked about what is too old")
        });
        assert!(!cache.holds(0, 0b10, later(1004)));
        cache.invalidate();
        let after = Stamp(cache.stamp().0.wrapping_add(1004));
        cache.insert_and_renew(page(9), after, |_| panic!("asked about what is invalid"));
        assert!(cache.holds(0, 1 << 9, after) && !cache.holds(0, 1 << 8, after));
    }

    #[test]
    fn a_huge_mapping_costs_no_more_than_a_big_one() {
        assert_eq!(
            Residency::new(page_size() << 17, 1, 1).entries.len(),
            Residency::new(page_size() << 34, 1, 1).entries.len()
        );
        assert_eq!(Residency::new(1, 1, 1).entries.len(), 1);
    }

    /// The invariant under every order of two threads' steps: one inserts, one invalidates; after the invalidating is
    /// over, nothing that was asked before it is contained.
    #[test]
    fn no_order_of_steps_lets_an_old_answer_outlive_invalidating() {
        for invalidate_after in 0..=2 {
            let cache = Residency::new(1 << 20, 1000, 1);
            let mut stamp = None;
            for step in 0..=2 {
                if step == invalidate_after {
                    cache.invalidate();
                }
                match step {
                    0 => stamp = Some(cache.stamp()),
                    1 => cache.insert(range(0, page_size()), stamp.unwrap()),
                    _ => {}
                }
            }
            let inserted_after_invalidating = invalidate_after == 0;
            assert_eq!(
                cache.contains(range(0, page_size())),
                inserted_after_invalidating
            );
        }
    }
}
