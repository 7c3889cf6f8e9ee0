//! A cache of recent proofs that pages can be accessed without waiting.
//!
//! Asking the kernel costs more than a short copy does, so what it said is remembered for a bounded time: fixed size,
//! lock-free, one load on a hit. An entry is one word, so it can never be half of one proof and half of another:
//!
//! ```text
//! | 32 blocks, a bit each | stamp of the proof: 18 bits | tag of the region: 14 bits |
//! ```
//!
//! A block is a page (of a mapping too big for the table: several, if it may), a region is 32 blocks; an entry is found by the region's low bits
//! and holds the high bits as its tag. A stamp is the time in ticks plus an offset that `forget` moves forward, so
//! forgetting everything is the same as everything being too old, and a proof that began before a `forget` and is
//! remembered after it is born too old.
//!
//! What is promised: a hit means that the pages were in memory at most `life` ticks ago. The kernel may have dropped
//! one since; the access then takes a page fault on the spot, and nothing else is lost. (Stamps wrap after four
//! hours of an entry lying untouched: it looks fresh again for one part in fifty thousand of that time.)

use crate::range::Range;
use crate::{clock, platform};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const BLOCKS: usize = 32;
const TAG_BITS: u32 = 14;
const MOST_ENTRIES: usize = 4096;

/// When a proof began. Taken before the kernel is asked. Only its low bits are kept.
#[derive(Debug, Clone, Copy)]
pub struct Stamp(u32);

/// The proofs of one mapping. At most 32 KiB, less for a mapping of less than 512 MiB.
pub struct Residency {
    entries: Box<[AtomicU64]>,
    /// The logarithm of a block's size in bytes.
    block: u32,
    life: u32,
    /// For how many ticks a proof can be renewed.
    renewable: u32,
    forgotten: AtomicU32,
}

impl Residency {
    /// For a mapping of `size` bytes; proofs are good for `life` ticks. A block has `most_pages`, a power of two, at the
    /// most; more only in a mapping so huge that tags would not tell its regions apart.
    pub fn new(size: usize, life: u32, most_pages: usize) -> Residency {
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
            life,
            renewable: life,
            forgotten: AtomicU32::new(0),
        }
    }

    /// The same, but what was proved at most so many ticks ago can be renewed.
    pub fn renewable(self, ticks: u32) -> Residency {
        Residency {
            renewable: ticks,
            ..self
        }
    }

    /// The stamp of a proof that begins now.
    #[inline(always)]
    pub fn stamp(&self) -> Stamp {
        Stamp(clock::ticks().wrapping_add(self.forgotten.load(Ordering::Acquire)))
    }

    /// Whether every byte of the range was proved lately.
    #[inline(always)]
    pub fn covers(&self, range: Range) -> bool {
        let now = self.stamp();
        let first = range.offset() >> self.block;
        let last = range.end().saturating_sub(1) >> self.block;
        if first / BLOCKS == last / BLOCKS {
            // Nearly always: one region, one entry.
            let wanted = (2u32 << (last % BLOCKS)).wrapping_sub(1 << (first % BLOCKS));
            return self.holds(first / BLOCKS, wanted, now);
        }
        self.covers_regions(range, now)
    }

    fn covers_regions(&self, range: Range, now: Stamp) -> bool {
        self.regions(range)
            .all(|(region, wanted)| self.holds(region, wanted, now))
    }

    #[inline(always)]
    fn holds(&self, region: usize, wanted: u32, now: Stamp) -> bool {
        let (entry, tag) = self.place(region);
        let word = entry.load(Ordering::Relaxed);
        fresh(word, tag, now, self.life) && blocks(word) & wanted == wanted
    }

    /// Remembers that the whole blocks of the range were proved, in a proof that began at `stamp`.
    pub fn prove(&self, range: Range, stamp: Stamp) {
        let start = range.offset().next_multiple_of(1 << self.block);
        let end = range.end() & !((1 << self.block) - 1);
        if start >= end {
            return;
        }
        let range = Range::between(start, end);
        for (region, proved) in self.regions(range) {
            let (entry, tag) = self.place(region);
            let word = entry.load(Ordering::Relaxed);
            // Blocks of one entry share its stamp, so what is added to a fresh one gets the older stamp. Of two
            // threads that add at once one may be lost: it will be proved again.
            let joined = if fresh(word, tag, stamp, self.life) {
                word | pack(proved, 0, Stamp(0))
            } else {
                pack(proved, tag, stamp)
            };
            entry.store(joined, Ordering::Relaxed);
        }
    }

    /// Proves anew what `holds` of the blocks that share an entry with those of the range, if they were proved not too long
    /// ago; whether all of the range was.
    pub fn renew(&self, range: Range, holds: impl Fn(Range) -> bool) -> bool {
        let stamp = self.stamp();
        let mut all = true;
        for (region, wanted) in self.regions(range) {
            let (entry, tag) = self.place(region);
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

    /// From now on nothing is proved, nor can it be renewed.
    pub fn forget(&self) {
        self.forgotten
            .fetch_add(self.renewable + 1, Ordering::AcqRel);
    }

    /// The size of a block in bytes: the unit of proofs.
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
    fn place(&self, region: usize) -> (&AtomicU64, u32) {
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

/// Whether the word has the tag and is at most `life` old: the difference of tags, in the high bits, must be 0, and the
/// difference of stamps, in the low ones, small.
#[inline]
fn fresh(word: u64, tag: u32, now: Stamp, life: u32) -> bool {
    let expected = now.0 << TAG_BITS | tag;
    expected.wrapping_sub(word as u32).rotate_right(TAG_BITS) <= life
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;

    fn range(offset: usize, length: usize) -> Range {
        Range::checked(offset as u64, length as u64, usize::MAX).unwrap()
    }

    #[test]
    fn only_what_was_proved_is_covered() {
        let proofs = Residency::new(1 << 30, 1000, 1);
        let stamp = proofs.stamp();
        proofs.prove(range(31 * PAGE, 2 * PAGE), stamp);
        assert!(proofs.covers(range(31 * PAGE, 2 * PAGE)));
        assert!(proofs.covers(range(31 * PAGE + 5, PAGE)));
        assert!(!proofs.covers(range(30 * PAGE, 2 * PAGE)));
        assert!(!proofs.covers(range(32 * PAGE, PAGE + 1)));
    }

    #[test]
    fn regions_that_share_an_entry_are_told_apart() {
        let proofs = Residency::new(1 << 40, 1000, 1);
        let apart = MOST_ENTRIES * proofs.region_size();
        proofs.prove(range(0, PAGE), proofs.stamp());
        assert!(!proofs.covers(range(apart, PAGE)));
        proofs.prove(range(apart, PAGE), proofs.stamp());
        assert!(!proofs.covers(range(0, PAGE)));
    }

    #[test]
    fn a_proof_begun_before_forgetting_is_not_believed_after() {
        let proofs = Residency::new(1 << 20, 1000, 1);
        let stamp = proofs.stamp();
        proofs.forget();
        proofs.prove(range(0, PAGE), stamp);
        assert!(!proofs.covers(range(0, PAGE)));
        proofs.prove(range(0, PAGE), proofs.stamp());
        assert!(proofs.covers(range(0, PAGE)));
    }

    #[test]
    fn a_proof_ends_after_its_life() {
        let proofs = Residency::new(1 << 20, 2, 1);
        proofs.prove(range(0, PAGE), proofs.stamp());
        let begun = clock::ticks();
        while clock::ticks().wrapping_sub(begun) <= 3 {
            std::thread::yield_now();
        }
        assert!(!proofs.covers(range(0, PAGE)));
    }

    #[test]
    fn a_renewal_keeps_exactly_the_blocks_that_still_hold() {
        // Asked about in runs; what was never proved is not renewed, nor what was forgotten.
        let still = |held: u32| {
            move |run: Range| {
                (run.offset() / PAGE..run.end() / PAGE).all(|page| held >> page & 1 == 1)
            }
        };
        for proved in [u32::MAX, 1, 1 << 31, 0x8000_0001, 0x0ff0_f00f, 0xaaaa_aaaa] {
            for held in [
                u32::MAX,
                0,
                0x0000_ffff,
                0x00ff_0ff0,
                0x5555_5555,
                0x7fff_ffff,
            ] {
                let proofs = Residency::new(1 << 20, 0, 1).renewable(1000);
                let bit = |bits: u32, page: usize| bits >> page & 1 == 1;
                for page in (0..32).filter(|page| bit(proved, *page)) {
                    proofs.prove(range(page * PAGE, PAGE), proofs.stamp());
                }
                let first = proved.trailing_zeros() as usize;
                let renewed = proofs.renew(range(first * PAGE, 10), still(held));
                assert_eq!(renewed, bit(held, first), "{proved:x} {held:x}");
                let wanted = proved & held;
                assert_eq!(blocks(proofs.entries[0].load(Ordering::Relaxed)), wanted);
                proofs.forget();
                assert!(!proofs.renew(range(0, PAGE), still(u32::MAX)));
            }
        }
    }

    #[test]
    fn a_huge_mapping_costs_no_more_than_a_big_one() {
        assert_eq!(
            Residency::new(1 << 29, 1, 1).entries.len(),
            Residency::new(1 << 46, 1, 1).entries.len()
        );
        assert_eq!(Residency::new(1, 1, 1).entries.len(), 1);
    }

    /// The invariant under every order of two threads' steps: one proves, one forgets; after the forgetting is over,
    /// nothing that was proved before it is covered.
    #[test]
    fn no_order_of_steps_lets_an_old_proof_outlive_forgetting() {
        for forget_after in 0..=2 {
            let proofs = Residency::new(1 << 20, 1000, 1);
            let mut stamp = None;
            for step in 0..=2 {
                if step == forget_after {
                    proofs.forget();
                }
                match step {
                    0 => stamp = Some(proofs.stamp()),
                    1 => proofs.prove(range(0, PAGE), stamp.unwrap()),
                    _ => {}
                }
            }
            let proved_after_forgetting = forget_after == 0;
            assert_eq!(proofs.covers(range(0, PAGE)), proved_after_forgetting);
        }
    }
}
