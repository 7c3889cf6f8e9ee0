//! Rechecks zeros that were copied: the file's, or of a page that it lost?

use super::Mapping;
use crate::error::Error;
use crate::fault::guard;
use crate::platform;
use crate::range::Range;

/// How many pages are asked about at once.
const PAGES_AT_ONCE: usize = 64;

impl Mapping {
    /// Asks about pages of which nothing but zeros was copied, and copies them again. While a file is cut, a system that keeps
    /// files in memory in pieces larger than a page may show zeros in pages that are no longer the file's, instead of a fault.
    /// The file is shorter by then; but it may have grown back before we ask, so zeros are believed the second time. (A page
    /// that was zeroed while it was copied has zeros anywhere, as other pages do.)
    ///
    /// # Safety
    ///
    /// `to` holds a copy of the range, which lies inside, and is writable.
    #[inline(never)]
    pub(super) unsafe fn recheck_zeros(&self, range: Range, to: *mut u8) -> Result<(), Error> {
        for pages in range.pieces(PAGES_AT_ONCE * platform::page_size()) {
            // SAFETY: the piece lies in the range.
            unsafe { self.recheck_pages(pages, to.add(pages.offset() - range.offset()))? };
        }
        Ok(())
    }

    /// The same of at most `PAGES_AT_ONCE` pages.
    ///
    /// # Safety
    ///
    /// As for `recheck_zeros`.
    #[inline]
    unsafe fn recheck_pages(&self, range: Range, to: *mut u8) -> Result<(), Error> {
        // SAFETY: the copy is there.
        let zeros = unsafe { ZeroPages::of(range, to) };
        if zeros.is_empty() {
            return Ok(());
        }
        self.check_zeros(&zeros)?;
        for part in zeros.parts() {
            let at = part.offset() - range.offset();
            // SAFETY: the part lies in the range.
            unsafe { guard::copy(to.add(at), self.address().add(part.offset()), part.length())? };
        }
        self.check_not_faulted()?;
        // SAFETY: the copy is there.
        self.check_zeros(&unsafe { zeros.still(to) })
    }

    /// `Fault` if one of them is zeros of a page that is no longer the file's.
    fn check_zeros(&self, zeros: &ZeroPages) -> Result<(), Error> {
        if zeros.parts().any(|part| self.lies_in_zeros(part))
            && !self.file_covers(zeros.range.end())
        {
            return Err(Error::Fault);
        }
        Ok(())
    }

    /// Whether the lines of the cache that hold the part are nothing but zeros, as they are in pages that were zeroed. They
    /// were read just now, so to look at them takes less than to ask where the file ends.
    pub(super) fn lies_in_zeros(&self, part: Range) -> bool {
        const LINE: usize = 64;
        let lines = part.widened(LINE);
        let is_zero = |start: usize, end: usize| {
            if start == end {
                return true;
            }
            let mut bytes = [0u8; LINE];
            // SAFETY: a line lies in a page, and the mapping is of whole pages.
            let seen =
                unsafe { guard::copy(bytes.as_mut_ptr(), self.address().add(start), end - start) };
            seen.is_err() || bytes == [0; LINE]
        };
        is_zero(lines.offset(), part.offset()) && is_zero(part.end(), lines.end())
    }
}

/// Whether it is plain at first sight that no page of the range was copied as nothing but zeros: it lies in one, and begins with
/// something else.
///
/// # Safety
///
/// `copy` is readable for the length of the range, and nobody writes to it.
#[inline(always)]
pub(super) unsafe fn is_surely_data(range: Range, copy: *const u8) -> bool {
    const WORD: usize = size_of::<u64>();
    let (first, last) = (range.offset(), range.end().wrapping_sub(1));
    range.length() >= WORD
        && (first ^ last) < platform::page_size()
        // SAFETY: inside the copy.
        && unsafe { copy.cast::<u64>().read_unaligned() } != 0
}

/// Pages of a range, of at most `PAGES_AT_ONCE` pages, of which nothing but zeros was copied.
struct ZeroPages {
    range: Range,
    /// A bit for each page.
    pages: u64,
}

impl ZeroPages {
    /// Finds them in a copy of the range.
    ///
    /// # Safety
    ///
    /// `copy` is readable for the length of the range, and nobody writes to it meanwhile.
    #[inline]
    unsafe fn of(range: Range, copy: *const u8) -> ZeroPages {
        debug_assert!(range.pages().count() <= PAGES_AT_ONCE);
        let all = ZeroPages {
            range,
            pages: u64::MAX,
        };
        // SAFETY: the caller's promise.
        unsafe { all.still(copy) }
    }

    /// Those of them that are zeros in another copy of the range.
    ///
    /// # Safety
    ///
    /// As for `of`.
    #[inline]
    unsafe fn still(&self, copy: *const u8) -> ZeroPages {
        let zero = self.bits_and_parts().filter(|(_, part)| {
            let at = part.offset() - self.range.offset();
            // SAFETY: inside the copy, which is not of the mapping.
            is_zero(unsafe { std::slice::from_raw_parts(copy.add(at), part.length()) })
        });
        ZeroPages {
            pages: zero.fold(0, |pages, (bit, _)| pages | bit),
            range: self.range,
        }
    }

    fn is_empty(&self) -> bool {
        self.pages == 0
    }

    /// The parts of the range that lie in them, one in each.
    #[inline]
    fn parts(&self) -> impl Iterator<Item = Range> + use<> {
        self.bits_and_parts().map(|(_, part)| part)
    }

    #[inline]
    fn bits_and_parts(&self) -> impl Iterator<Item = (u64, Range)> + use<> {
        let pages = self.pages;
        let parts = self.range.pages().enumerate();
        parts
            .map(|(page, part)| (1 << page, part))
            .filter(move |(bit, _)| pages & bit != 0)
    }
}

#[inline]
fn is_zero(bytes: &[u8]) -> bool {
    match bytes.split_first_chunk() {
        // All are like the first.
        Some((first, rest)) => {
            u64::from_ne_bytes(*first) == 0
                && bytes[bytes.len() - rest.len()..] == bytes[..rest.len()]
        }
        None => bytes.iter().all(|byte| *byte == 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where each page of the range lies in a copy of it.
    fn parts(range: Range) -> Vec<Range> {
        let (page, mut offset, mut parts) = (platform::page_size(), range.offset(), Vec::new());
        while offset < range.end() {
            let end = range.end().min((offset / page + 1) * page);
            parts.push(Range::between(offset, end));
            offset = end;
        }
        parts
    }

    #[test]
    fn pages_of_zeros_are_those_that_have_no_other_byte() {
        let page = platform::page_size();
        for (start, length) in [
            (0, 1),
            (5, 7),
            (page - 3, 5),
            (0, page),
            (1, page),
            (page - 8, 3 * page),
            (0, PAGES_AT_ONCE * page),
            (page - 1, (PAGES_AT_ONCE - 2) * page + 2),
        ] {
            let range = Range::between(start, start + length);
            let all = parts(range);
            // Nothing but zeros; one byte set, at either edge of each page; every other page set.
            let mut sets: Vec<Vec<usize>> = vec![Vec::new()];
            sets.extend(
                all.iter()
                    .flat_map(|part| [vec![part.offset()], vec![part.end() - 1]]),
            );
            sets.push(
                all.iter()
                    .step_by(2)
                    .map(|part| part.offset() + part.length() / 2)
                    .collect(),
            );
            for set in sets {
                let mut copy = vec![0u8; length];
                set.iter().for_each(|at| copy[at - start] = 1);
                let is_set = |part: &Range| {
                    set.iter()
                        .any(|at| (part.offset()..part.end()).contains(at))
                };
                let wanted: Vec<Range> = all.iter().copied().filter(|part| !is_set(part)).collect();
                // SAFETY: the copy is as long as the range.
                let (found, surely) = unsafe {
                    let found = ZeroPages::of(range, copy.as_ptr());
                    (found, is_surely_data(range, copy.as_ptr()))
                };
                assert_eq!(
                    found.parts().collect::<Vec<_>>(),
                    wanted,
                    "{range:?} {set:?}"
                );
                assert_eq!(found.is_empty(), wanted.is_empty());
                assert!(!surely || wanted.is_empty(), "{range:?} {set:?}");
                // What is not zero any more is not among them any more, and nothing is added.
                let ones = vec![1u8; length];
                // SAFETY: as above.
                assert!(unsafe { found.still(ones.as_ptr()) }.is_empty());
                // SAFETY: as above.
                let still = unsafe { found.still(vec![0u8; length].as_ptr()) };
                assert_eq!(still.parts().collect::<Vec<_>>(), wanted);
            }
        }
    }

    #[test]
    fn what_begins_with_another_byte_than_zero_in_one_page_is_surely_data() {
        let page = platform::page_size();
        for (offset, length, byte, expected) in [
            (0, 8, 0, true),
            (0, 8, 7, true),
            (0, 8, 8, false),
            (3, page - 3, 5, true),
            (3, page - 2, 5, false), // of two pages
            (0, 7, 0, false),        // too short to be looked at
            (page - 8, 8, 3, true),
        ] {
            let mut copy = vec![0u8; length + 16];
            copy[byte] = 1;
            let range = Range::between(offset, offset + length);
            // SAFETY: the copy is longer than the range.
            let surely = unsafe { is_surely_data(range, copy.as_ptr()) };
            assert_eq!(surely, expected, "{offset} {length} {byte}");
        }
    }
}
