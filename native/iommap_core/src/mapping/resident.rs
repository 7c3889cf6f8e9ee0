//! Asks how much of a range is in memory (`mincore(2)`).

use super::{Mapping, Part};
use crate::error::Error;
use crate::platform::{self, page_cache};
use crate::range::Range;

/// How many pages are asked about in one system call: as many as the kernel looks at under its lock at once.
const PAGES_AT_ONCE: usize = 4096;

impl Part<'_> {
    /// How many bytes of the part are in memory; those that the file lost do not count. `EPERM` if the system would say so of
    /// all, as it does to a user who may not write to the file.
    pub fn resident(self) -> Result<usize, Error> {
        let Part { mapping, range } = self;
        if range.length() == 0 {
            return Ok(0);
        }
        if !mapping.file.mincore_tells_this_user() {
            return Err(Error::System(libc::EPERM));
        }
        let page_size = platform::page_size();
        let range = mapping
            .file
            .known_size()
            .map_or(range, |size| range.before(mapping.up_to(size)));
        let mut resident = 0;
        let mut offset = range.offset();
        while offset < range.end() {
            // From one multiple of the step to the next.
            let next = (offset / page_size + PAGES_AT_ONCE) / PAGES_AT_ONCE * PAGES_AT_ONCE;
            let part = Range::between(offset, range.end().min(next * page_size));
            resident += mapping.resident_in(part)?;
            offset = part.end();
        }
        Ok(resident)
    }
}

impl Mapping {
    /// How many bytes of a part of at most `PAGES_AT_ONCE` pages are in memory.
    fn resident_in(&self, part: Range) -> Result<usize, Error> {
        let mut pages = [0u8; PAGES_AT_ONCE];
        let whole = part.widened(platform::page_size());
        // SAFETY: whole pages of the mapping, as it consists of such; no more than there is room for.
        let told = unsafe {
            let address = self.address().wrapping_add(whole.offset());
            page_cache::resident(address, whole.length(), &mut pages)
        };
        if !told {
            return Err(Error::System(libc::ENOTSUP));
        }
        // Zero pages in the place of lost ones are in memory. What is lost is recorded before they are.
        let is_the_files = |page: &Range| !self.slot.lost(page.offset(), page.end());
        Ok(part
            .pages()
            .zip(pages)
            .filter(|(page, told)| told & 1 == 1 && is_the_files(page))
            .map(|(page, _)| page.length())
            .sum())
    }
}
