//! The one place where an offset and a length become a range that lies inside a mapping.

use crate::error::Error;
use crate::platform;

/// A range of bytes known to lie inside a mapping of the size it was checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    offset: usize,
    length: usize,
}

impl Range {
    /// The range, or `OutOfBounds` if any byte of it, or its offset, lies beyond `size`.
    pub fn checked(offset: u64, length: u64, size: usize) -> Result<Range, Error> {
        let end = offset.checked_add(length).ok_or(Error::OutOfBounds)?;
        if end > size as u64 {
            return Err(Error::OutOfBounds);
        }
        // Both are at most `size`, so they fit.
        Ok(Range {
            offset: offset as usize,
            length: length as usize,
        })
    }

    /// From one offset to before another, which is not smaller.
    pub fn between(offset: usize, end: usize) -> Range {
        debug_assert!(offset <= end);
        Range {
            offset,
            length: end - offset,
        }
    }

    /// The range that begins so many bytes later.
    pub fn moved(self, by: usize) -> Range {
        Range::between(self.offset + by, self.end() + by)
    }

    /// Whether the two have a byte in common.
    pub fn overlaps(self, other: Range) -> bool {
        self.offset < other.end() && other.offset < self.end()
    }

    /// The first byte.
    pub fn offset(self) -> usize {
        self.offset
    }

    /// How many bytes.
    pub fn length(self) -> usize {
        self.length
    }

    /// The byte after the last one.
    pub fn end(self) -> usize {
        self.offset + self.length
    }

    /// The range with both ends moved outwards to multiples of `unit`, a power of two. It may end after the mapping. Of no byte it
    /// makes none: a page of which nothing was touched is no page that was.
    pub fn widened(self, unit: usize) -> Range {
        debug_assert!(unit.is_power_of_two());
        if self.length == 0 {
            return self;
        }
        let offset = self.offset & !(unit - 1);
        let end = self.end().next_multiple_of(unit);
        Range {
            offset,
            length: end - offset,
        }
    }

    /// The parts of it that lie in a page each.
    #[inline]
    pub fn pages(self) -> impl Iterator<Item = Range> {
        self.pieces(platform::page_size())
    }

    /// The parts of it that lie between two multiples of `unit`, a power of two, each.
    #[inline]
    pub fn pieces(self, unit: usize) -> impl Iterator<Item = Range> {
        debug_assert!(unit.is_power_of_two());
        let mut offset = self.offset;
        std::iter::from_fn(move || {
            let next = ((offset | (unit - 1)) + 1).min(self.end());
            let part = Range::between(offset, next);
            offset = next;
            (part.length > 0).then_some(part)
        })
    }

    /// The part that ends at `size`, or nothing.
    pub fn before(self, size: usize) -> Range {
        let offset = self.offset.min(size);
        Range {
            offset,
            length: self.end().min(size) - offset,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;
    const SEEDS: [u64; 12] = [
        0,
        1,
        PAGE - 1,
        PAGE,
        PAGE + 1,
        3 * PAGE - 1,
        3 * PAGE,
        3 * PAGE + 1,
        1 << 32,
        1 << 63,
        u64::MAX - 1,
        u64::MAX,
    ];

    #[test]
    fn checked_agrees_with_arithmetic_that_cannot_overflow() {
        let size = 3 * PAGE;
        for offset in SEEDS {
            for length in SEEDS {
                let inside = offset as u128 + length as u128 <= size as u128;
                let got = Range::checked(offset, length, size as usize);
                assert_eq!(got.is_ok(), inside, "{offset} {length}");
                if let Ok(range) = got {
                    assert_eq!(range.offset() as u64, offset);
                    assert_eq!(range.length() as u64, length);
                }
            }
        }
    }

    #[test]
    fn ranges_overlap_if_they_have_a_byte_in_common() {
        let bytes = |range: Range| range.offset()..range.end();
        for (one, other) in [(0, 4), (4, 8), (3, 5), (0, 8), (5, 6), (8, 9)]
            .into_iter()
            .flat_map(|one| [(0, 4), (4, 8), (2, 6), (7, 9)].map(|other| (one, other)))
        {
            let (one, other) = (
                Range::between(one.0, one.1),
                Range::between(other.0, other.1),
            );
            let common = bytes(one).any(|byte| bytes(other).contains(&byte));
            assert_eq!(one.overlaps(other), common, "{one:?} {other:?}");
        }
    }

    #[test]
    fn pages_are_the_range_cut_where_pages_end() {
        let page = platform::page_size();
        for (start, end) in [
            (0, 0),
            (5, 5),
            (0, 1),
            (0, page),
            (1, page + 1),
            (page - 1, 3 * page),
            (page, 4 * page - 1),
        ] {
            let parts: Vec<_> = Range::between(start, end).pages().collect();
            assert!(parts
                .iter()
                .all(|part| part.length() > 0 && part.offset() / page == (part.end() - 1) / page));
            let ends: Vec<_> = parts
                .iter()
                .flat_map(|part| [part.offset(), part.end()])
                .collect();
            let wanted: Vec<_> = (start + 1..end)
                .filter(|at| at % page == 0)
                .flat_map(|at| [at, at])
                .collect();
            let bounds = if start < end {
                [vec![start], wanted, vec![end]].concat()
            } else {
                vec![]
            };
            assert_eq!(ends, bounds);
        }
    }

    #[test]
    fn widened_covers_the_range_and_is_aligned() {
        for offset in SEEDS.iter().filter(|seed| **seed <= 3 * PAGE) {
            for length in SEEDS.iter().filter(|seed| **seed <= 3 * PAGE) {
                let Ok(range) = Range::checked(*offset, *length, 3 * PAGE as usize) else {
                    continue;
                };
                let wide = range.widened(PAGE as usize);
                if range.length() == 0 {
                    assert_eq!(wide, range);
                    continue;
                }
                assert!(wide.offset() <= range.offset() && wide.end() >= range.end());
                assert_eq!(wide.offset() % PAGE as usize, 0);
                assert_eq!(wide.length() % PAGE as usize, 0);
                assert!(range.offset() - wide.offset() < PAGE as usize);
                assert!(wide.end() - range.end() < PAGE as usize);
            }
        }
    }
}
