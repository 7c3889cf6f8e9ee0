//! Reads: asks which pages are in memory (`mincore(2)`, `preadv2(2)`), fetches them, copies out.

use super::zeros::is_surely_data;
use super::{Mapping, Part};
use crate::buffer::Buffer;
use crate::error::Error;
use crate::fault::guard;
use crate::platform::{self, page_cache};
use crate::range::Range;
use crate::residency::Stamp;
use crate::stats::{self, Counter};

/// How many pages are asked about in one system call.
pub(super) const PAGES_AT_ONCE: usize = 512;

impl Part<'_> {
    /// Whether the pages of the part are in memory, as far as was found out lately, or is now.
    #[inline(always)]
    pub fn is_ready_to_read(self) -> bool {
        self.is_known_ready_to_read() || self.mapping.query(self.range)
    }

    /// The same without a question.
    #[inline(always)]
    pub fn is_known_ready_to_read(self) -> bool {
        self.mapping.reads.contains(self.range)
    }

    /// Copies the part out, to a buffer that is as long.
    #[inline(always)]
    pub fn copy_out(self, buffer: &mut impl Buffer) -> Result<(), Error> {
        let (mapping, range) = (self.mapping, self.range);
        // Never: buffers are made of the length of the part. It is what makes this function safe.
        assert!(range.length() <= buffer.len(), "a buffer too short");
        let to = buffer.as_mut_ptr();
        // SAFETY: the part is mapped as long as the mapping lives; the buffer is long enough, and no part of a mapping.
        unsafe { guard::copy(to, self.address(), range.length())? };
        mapping.check_not_faulted()?;
        // SAFETY: the copy is there.
        if unsafe { is_surely_data(range, to) } {
            Ok(())
        } else {
            // SAFETY: as for the copy.
            unsafe { mapping.recheck_zeros(range, to) }
        }
    }

    /// `Fault` if the file ends before the end of the part. (Any byte that it loses takes the last one along.)
    pub fn check_backed(self) -> Result<(), Error> {
        if self.length() == 0
            || self.ends_in_data()?
            || self.mapping.slot.ends_inside_file(self.range.end())
        {
            Ok(())
        } else {
            Err(Error::Fault)
        }
    }

    /// Whether the last byte of the part, which is not empty, is in memory and not zero. Then it is the file's, as the system zeroes
    /// what is behind the end, or somebody wrote it there after; to read it takes a fiftieth of the time of a question.
    fn ends_in_data(self) -> Result<bool, Error> {
        let end = self.range.end();
        let last = Part {
            range: Range::between(end - 1, end),
            ..self
        };
        if !last.is_ready_to_read() {
            return Ok(false);
        }
        let mut byte = 0;
        // SAFETY: the byte is mapped as long as the mapping lives; the other is on the stack.
        unsafe { guard::copy(&raw mut byte, last.address(), 1)? };
        Ok(byte != 0)
    }

    /// Whether it is known without a question that the file has lost no byte of the part, which is not empty, since it was shown. A
    /// private mapping may have a copy of the last page, of which the system zeroes nothing.
    pub fn is_known_intact(self) -> bool {
        !self.mapping.is_private() && self.ends_in_data() == Ok(true) && !self.mapping.is_faulted()
    }

    /// Starts to bring the part, which is not empty, into memory, and does not wait for it.
    pub fn start_fetch(self) {
        let (fd, offset) = (self.mapping.file.fd(), self.mapping.file_offset(self.range));
        page_cache::start_fetch(fd, offset, self.length());
    }

    /// Brings the part into memory through the descriptor, which does not drag its neighbours along and cannot fault.
    /// What is read on the way is not believed: while a file is cut, the system lets zeros be read that it never held.
    pub fn fetch(self, scratch: &mut impl Buffer) {
        // Never, as above.
        assert!(self.length() <= scratch.len(), "a buffer too short");
        let (fd, offset) = (self.mapping.file.fd(), self.mapping.file_offset(self.range));
        stats::count(Counter::PagesFetched, self.range.pages().count());
        // SAFETY: the buffer is writable for the length.
        unsafe { page_cache::fetch(fd, offset, scratch.as_mut_ptr(), self.length()) }
    }
}

impl Mapping {
    /// Asks the kernel which pages around the range are in memory, and keeps the answer. Of a file whose server may hang nothing
    /// is kept: a page that was dropped meanwhile would be asked of the server.
    #[cold]
    fn query(&self, range: Range) -> bool {
        if range.length() == 0 {
            return true;
        }
        let by_mincore = self.file.mincore_is_reliable();
        if by_mincore
            && self
                .reads
                .renew_full(range, |group| self.is_resident(group))
        {
            return true;
        }
        let stamp = self.reads.stamp();
        let single_pages = self.reads.block_size() == platform::page_size();
        let unit = if self.file.system().remote {
            platform::page_size()
        } else if single_pages && by_mincore {
            self.reads.region_size() // a region of single pages is asked about at once
        } else {
            self.reads.block_size()
        };
        let around = range.widened(unit).before(self.whole().end());
        let step = PAGES_AT_ONCE * platform::page_size();
        let mut all = true;
        let mut offset = around.offset();
        while offset < around.end() && all {
            let part = Range::between(offset, around.end().min(offset + step));
            all = if by_mincore {
                self.query_mincore(part, range, stamp)
            } else {
                self.query_nowait(part, stamp)
            };
            offset += step;
        }
        all
    }

    /// Whether all pages of `part`, which begins at a page, are in memory, found out by a read that does not wait.
    fn query_nowait(&self, part: Range, stamp: Stamp) -> bool {
        let cached = page_cache::is_cached(self.file.fd(), self.file_offset(part), part.length());
        if cached {
            self.insert_resident(part.widened(platform::page_size()), stamp);
        }
        cached
    }

    /// Whether those pages of `part` that `wanted` needs are in memory. `part` begins at a page.
    fn query_mincore(&self, part: Range, wanted: Range, stamp: Stamp) -> bool {
        let page_size = platform::page_size();
        let mut pages = [0u8; PAGES_AT_ONCE];
        let Some(pages) = self.ask_mincore(part, &mut pages) else {
            return false;
        };
        let mut page = 0;
        let mut all = true;
        for run in pages.chunk_by(|one, next| one & 1 == next & 1) {
            let start = part.offset() + page * page_size;
            let run_range = Range::between(start, start + run.len() * page_size);
            if run[0] & 1 == 1 {
                self.insert_resident(run_range, stamp);
            } else if run_range.overlaps(wanted) {
                all = false;
            }
            page += run.len();
        }
        all
    }

    /// Whether all pages of `part`, which begins at a page, are in memory: of at most as many as are asked about at once. Only
    /// where `mincore(2)` is reliable.
    pub(super) fn is_resident(&self, part: Range) -> bool {
        self.ask_mincore(part, &mut [0u8; PAGES_AT_ONCE])
            .is_some_and(|pages| pages.iter().all(|page| page & 1 == 1))
    }

    fn ask_mincore<'a>(&self, part: Range, pages: &'a mut [u8; PAGES_AT_ONCE]) -> Option<&'a [u8]> {
        let pages = pages.get_mut(..part.length().div_ceil(platform::page_size()))?;
        // SAFETY: the part lies inside the mapping and begins at a page; there is a byte for each of its pages.
        let told = unsafe {
            page_cache::resident(self.address().add(part.offset()), part.length(), pages)
        };
        told.then_some(&*pages)
    }

    fn insert_resident(&self, range: Range, stamp: Stamp) {
        if !self.file.system().remote {
            self.reads.insert(range, stamp);
        }
    }
}
