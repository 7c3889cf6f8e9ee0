//! The pages that a private mapping has of its own.

use super::{Mapping, Part, WritablePart};
use crate::buffer::{Data, Segment};
use crate::fault::guard;
use crate::platform::{self, memory, page_cache};
use crate::range::Range;
use parking_lot::Mutex;
use std::collections::BTreeSet;

impl Mapping {
    /// The pages of the range are about to be written: in a private mapping they become its own.
    #[inline]
    pub(super) fn mark_private(&self, range: Range) {
        if let Some(private_pages) = &self.private_pages {
            self.mark_pages(private_pages, range);
        }
    }

    fn mark_pages(&self, private_pages: &Mutex<BTreeSet<usize>>, range: Range) {
        if self.writes.contains(range) {
            return; // what is in the cache was marked
        }
        let page_size = platform::page_size();
        let pages = range.widened(page_size);
        private_pages
            .lock()
            .extend(pages.offset() / page_size..pages.end() / page_size);
    }

    /// Brings what the file has behind `end` into the page that holds `end`, if a private mapping has that page of its own.
    pub(super) fn complete_last_page(&self, end: usize) {
        let page_size = platform::page_size();
        let rest = Range::between(end, end.next_multiple_of(page_size));
        let is_own = |private_pages: &Mutex<BTreeSet<usize>>| {
            let was_copied = || memory::locking_copies() && self.is_page_locked(end);
            self.kind.writable
                && (private_pages.lock().contains(&(end / page_size)) || was_copied())
        };
        if rest.length() == 0 || !self.private_pages.as_ref().is_some_and(is_own) {
            return;
        }
        let mut bytes = vec![0; rest.length()];
        // SAFETY: the bytes are as many as the rest of the page; that page is mapped, and writable, as it was written.
        unsafe {
            let offset = self.file_offset(rest);
            page_cache::fetch(self.file.fd(), offset, bytes.as_mut_ptr(), bytes.len());
            let to = self.address().add(end);
            let _ = guard::copy(to, bytes.as_ptr(), bytes.len());
        }
    }

    /// Takes over the changes another private mapping of the same file holds, as far as both reach and neither lost them.
    /// Nobody else knows this mapping yet.
    pub fn copy_private_pages(&self, other: &Mapping) {
        let Some(private_pages) = &other.private_pages else {
            return;
        };
        let page_size = platform::page_size();
        let size = self.whole().end().min(other.whole().end());
        for page in private_pages.lock().iter() {
            let start = page * page_size;
            let end = (start + page_size).min(size);
            if start >= end || other.slot.lost(start, end) {
                continue;
            }
            let range = Range::between(start, end);
            // SAFETY: the range lies inside the other mapping, which is alive.
            let page =
                [unsafe { Segment::new(other.address().wrapping_add(start), range.length()) }];
            let part = WritablePart(Part {
                mapping: self,
                range,
            });
            if let Some(data) = Data::new(&page) {
                let _ = part.copy_in(data); // a fault: the page was truncated away
            }
        }
    }
}
