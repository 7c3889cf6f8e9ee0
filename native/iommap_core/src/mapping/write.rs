//! Writes: asks which pages can be written without waiting (`cachestat(2)`, `mincore(2)`), faults them in, copies in.

use super::{Mapping, Part, WritablePart};
use crate::buffer::Data;
use crate::error::Error;
use crate::fault::guard;
use crate::platform::{self, page_cache};
use crate::range::Range;
use crate::residency::Stamp;
use std::sync::atomic::Ordering;

impl WritablePart<'_> {
    /// Whether writing the pages of the part waits for nothing, as they were written lately, or are found to be ready still.
    #[inline]
    pub fn is_ready_to_write(self) -> bool {
        self.is_known_ready_to_write() || self.is_still_ready_to_write()
    }

    /// The same without a question.
    #[inline]
    pub fn is_known_ready_to_write(self) -> bool {
        let Part { mapping, range } = self.0;
        range.length() == 0 || mapping.writes.contains(range)
    }

    /// Asks whether writing the part waits for nothing, though it was not written just now: as pages that this mapping wrote before
    /// still can be; and where the file is nowhere else, also the first time. (A private mapping must know first which pages it
    /// writes.)
    #[cold]
    fn is_still_ready_to_write(self) -> bool {
        let Part { mapping, range } = self.0;
        if mapping.writebacks.load(Ordering::Acquire) != 0 {
            return false;
        }
        let is_still_writable = |run| mapping.is_still_writable(run);
        if mapping.tells_what_is_still_writable() && mapping.writes.renew(range, is_still_writable)
        {
            return true;
        }
        let stamp = mapping.writes.stamp();
        let ready =
            mapping.file.system().in_memory && !mapping.is_private() && self.0.is_ready_to_read();
        if ready {
            let pages = range.widened(platform::page_size());
            mapping.writes.insert(pages, stamp);
        }
        ready
    }

    /// Starts to bring the part into memory, if it is not there, and does not wait for it.
    pub fn start_fetch(self) {
        if !self.0.is_ready_to_read() {
            self.0.start_fetch();
        }
    }

    /// Makes the pages of the part writable, which may wait for the file system. For a write a page that is gone does not matter
    /// yet: a resize may have taken it, so the write itself finds out.
    pub fn fault_in_writeable(self) -> Result<(), Error> {
        let Part { mapping, range } = self.0;
        mapping.mark_private(range);
        let at = self.0.address().cast_mut();
        // SAFETY: the part is mapped to be written to as long as the mapping lives.
        unsafe { guard::fault_in_writeable(at, range.length()) }
    }

    /// Makes pages behind the part writable, too, for a sequential writer: see `WriteAhead`. Not where a page is a copy, nor
    /// where a server may be asked for it.
    pub fn fault_in_ahead(self) {
        let Part { mapping, range } = self.0;
        if mapping.is_private() || mapping.file.system().remote {
            return;
        }
        let stamp = self.write_stamp();
        let pages = range.widened(platform::page_size());
        let ahead = mapping.write_ahead.advance(pages, mapping.whole().end());
        if ahead.length() > 0 {
            let part = WritablePart(Part {
                mapping,
                range: ahead,
            });
            if part.fault_in_writeable().is_ok() {
                part.insert_written(stamp);
            }
        }
    }

    /// Copies data to the part, which is as long. The caller sees to it that nobody else reads or writes through the handle
    /// meanwhile.
    #[inline]
    pub fn copy_in(self, data: Data) -> Result<(), Error> {
        let Part { mapping, range } = self.0;
        // Never: parts to write to are made of the length of the data. It is what makes this function safe.
        assert!(data.length() <= range.length(), "a range too short");
        mapping.check_takes_stores(range)?;
        mapping.mark_private(range);
        if !mapping.written.load(Ordering::Relaxed) {
            mapping.written.store(true, Ordering::Relaxed);
        }
        // SAFETY: the part is mapped to be written to as long as the mapping lives, and is long enough.
        unsafe { guard::gather(self.0.address().cast_mut(), data)? };
        mapping.check_stored(range)
    }

    /// The stamp of a write that begins now.
    pub fn write_stamp(self) -> Stamp {
        self.0.mapping.writes.stamp()
    }

    /// The part was written, in a write that began at `stamp`.
    pub fn insert_written(self, stamp: Stamp) {
        let Part { mapping, range } = self.0;
        // A write to a file whose server may hang is never taken for one that waits for nothing.
        if mapping.writebacks.load(Ordering::Acquire) != 0 || mapping.file.system().remote {
            return;
        }
        let pages = range.widened(platform::page_size());
        if mapping.tells_what_is_still_writable() {
            // Or a writer that comes to a region seldom would have nothing to renew but the page it wrote last.
            let is_still_writable = |run| mapping.is_still_writable(run);
            mapping
                .writes
                .insert_and_renew(pages, stamp, is_still_writable);
        } else {
            mapping.writes.insert(pages, stamp);
        }
    }
}

impl Mapping {
    /// Whether pages that were written through this mapping before are written again without waiting, as far as the system tells:
    /// in memory, where nothing is written back to a file; and elsewhere waiting to be written back, and not being so.
    fn is_still_writable(&self, range: Range) -> bool {
        if self.is_written_in_memory() {
            self.is_resident(range)
        } else {
            page_cache::is_dirty(self.file.fd(), self.file_offset(range), range.length())
        }
    }

    /// Whether what `is_still_writable` says is true.
    fn tells_what_is_still_writable(&self) -> bool {
        !self.is_written_in_memory() || self.file.mincore_is_reliable()
    }

    fn is_written_in_memory(&self) -> bool {
        self.file.system().in_memory || self.is_private()
    }
}
