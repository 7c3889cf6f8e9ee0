//! Values of ranges: the last one that was set for a byte counts. Neighbours with the same value are one entry.

use crate::range::Range;
use std::collections::BTreeMap;

/// See the module's text.
#[derive(Debug, Clone)]
pub struct RangeMap<T> {
    /// From the start of a range to its end and value; no two overlap.
    entries: BTreeMap<usize, (usize, T)>,
}

impl<T> Default for RangeMap<T> {
    fn default() -> RangeMap<T> {
        RangeMap {
            entries: BTreeMap::new(),
        }
    }
}

impl<T: Copy + PartialEq> RangeMap<T> {
    /// Sets the value of a range.
    pub fn set(&mut self, range: Range, value: T) {
        if range.length() == 0 {
            return;
        }
        self.clear(range);
        let (mut start, mut end) = (range.offset(), range.end());
        if let Some((&before, &(until, other))) = self.entries.range(..start).next_back() {
            if until == start && other == value {
                start = before;
            }
        }
        if let Some(&(until, other)) = self.entries.get(&end) {
            if other == value {
                self.entries.remove(&end);
                end = until;
            }
        }
        self.entries.insert(start, (end, value));
    }

    /// Takes the values of a range away.
    pub fn clear(&mut self, range: Range) {
        let whole: Vec<_> = self.touching(range).collect();
        for (entry, value) in whole {
            self.entries.remove(&entry.offset());
            if entry.offset() < range.offset() {
                self.entries.insert(entry.offset(), (range.offset(), value));
            }
            if range.end() < entry.end() {
                self.entries.insert(range.end(), (entry.end(), value));
            }
        }
    }

    /// The parts of a range that have a value, in order.
    pub fn parts(&self, range: Range) -> impl Iterator<Item = (Range, T)> + '_ {
        self.touching(range).map(move |(entry, value)| {
            let start = entry.offset().max(range.offset());
            (Range::between(start, entry.end().min(range.end())), value)
        })
    }

    /// The parts of a range that have none, in order.
    pub fn gaps(&self, range: Range) -> Vec<Range> {
        let mut from = range.offset();
        let mut gaps = vec![];
        for (part, _) in self.parts(range) {
            if from < part.offset() {
                gaps.push(Range::between(from, part.offset()));
            }
            from = part.end();
        }
        if from < range.end() {
            gaps.push(Range::between(from, range.end()));
        }
        gaps
    }

    /// Whether all of a range has a value.
    pub fn covers(&self, range: Range) -> bool {
        self.gaps(range).is_empty()
    }

    /// The entries that have a byte of the range.
    fn touching(&self, range: Range) -> impl Iterator<Item = (Range, T)> + '_ {
        let start = range.offset();
        let before = self.entries.range(..=start).next_back();
        let first = before.map_or(start, |(first, _)| *first);
        self.entries
            .range(first..range.end())
            .map(|(start, (end, value))| (Range::between(*start, *end), *value))
            .filter(move |(entry, _)| range.length() > 0 && entry.overlaps(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_a_value_for_each_byte() {
        // Every order of a few thousand pseudorandom sets and clears of short ranges.
        const BYTES: usize = 24;
        let mut random = 1u64;
        let mut next = move |below: usize| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) as usize % below
        };
        let (mut map, mut plain) = (RangeMap::default(), [None; BYTES]);
        for _ in 0..5000 {
            let start = next(BYTES);
            let range = Range::between(start, start + next(BYTES - start + 1));
            let value = [None, Some('a'), Some('b')][next(3)];
            match value {
                Some(value) => map.set(range, value),
                None => map.clear(range),
            }
            plain[range.offset()..range.end()].fill(value);
            let asked = Range::between(next(8), 8 + next(BYTES - 8));
            let mut told = [None; BYTES];
            for (part, value) in map.parts(asked) {
                assert!(part.length() > 0);
                told[part.offset()..part.end()].fill(Some(value));
            }
            let within = |at: &usize| (asked.offset()..asked.end()).contains(at);
            assert!((0..BYTES).all(|at| told[at] == plain[at].filter(|_| within(&at))));
            let gaps = map.gaps(asked);
            let is_gap = |at: &usize| {
                gaps.iter()
                    .any(|gap| gap.offset() <= *at && *at < gap.end())
            };
            assert!((0..BYTES).all(|at| is_gap(&at) == (within(&at) && plain[at].is_none())));
            assert_eq!(map.covers(asked), gaps.is_empty());
            let entries = plain.chunk_by(|one, other| one == other);
            let entries = entries.filter(|run| run[0].is_some()).count();
            assert_eq!(map.entries.len(), entries, "neighbours are one");
        }
    }

    #[test]
    fn a_range_without_an_end_goes_on_for_ever() {
        let mut map = RangeMap::default();
        map.set(Range::between(10, usize::MAX), ());
        map.clear(Range::between(20, 30));
        assert!(map.covers(Range::between(30, usize::MAX)));
        assert_eq!(
            map.gaps(Range::between(0, 100)),
            [Range::between(0, 10), Range::between(20, 30)]
        );
    }
}
