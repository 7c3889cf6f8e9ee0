//! Writes: asks which pages can be written without waiting (`cachestat(2)`), faults them in, copies in.

use super::{Mapping, Part, WritablePart};
use crate::buffer::Data;
use crate::error::Error;
use crate::fault::guard;
use crate::platform::{self, page_cache};
use crate::range::Range;
use crate::residency::Stamp;
use std::sync::atomic::Ordering;

impl WritablePart<'_> {
    /// Whether the pages of the part were written lately, so that writing them again waits for nothing.
    #[inline]
    pub fn is_ready_to_write(self) -> bool {
        self.0.mapping.is_ready_to_write(self.0.range)
    }

    /// Makes the pages of the part writable, which may wait for the file system. A page that is gone does not matter yet: a
    /// resize may have taken it, so the write itself finds out.
    pub fn fault_in_writeable(self) {
        let Part { mapping, range } = self.0;
        mapping.mark_private(range);
        let at = self.0.address().cast_mut();
        // SAFETY: the part is mapped to be written to as long as the mapping lives.
        let _ = unsafe { guard::fault_in_writeable(at, range.length()) };
    }

    /// Copies data to the part, which is as long. The caller sees to it that nobody else reads or writes through the handle
    /// meanwhile.
    #[inline]
    pub fn copy_in(self, data: Data) -> Result<(), Error> {
        let Part { mapping, range } = self.0;
        assert!(data.length() <= range.length(), "a range too short");
        mapping.check_not_faulted()?;
        mapping.mark_private(range);
        if !mapping.written.load(Ordering::Relaxed) {
            mapping.written.store(true, Ordering::Relaxed);
        }
        // SAFETY: the part is mapped to be written to as long as the mapping lives, and is long enough.
        unsafe { guard::gather(self.0.address().cast_mut(), data)? };
        mapping.check_not_faulted()
    }

    /// The stamp of a write that begins now.
    pub fn write_stamp(self) -> Stamp {
        self.0.mapping.write_stamp()
    }

    /// The part was written, in a write that began at `stamp`.
    pub fn insert_written(self, stamp: Stamp) {
        self.0.mapping.insert_written(self.0.range, stamp);
    }
}

impl Mapping {
    #[inline]
    pub(super) fn is_ready_to_write(&self, range: Range) -> bool {
        range.length() == 0 || self.writes.contains(range) || self.is_still_ready_to_write(range)
    }

    /// Asks whether writing the range waits for nothing, though it was not written just now: a page in memory is all that
    /// is needed where the file is nowhere else; and elsewhere, that pages which this mapping wrote before are still dirty, and
    /// so may be written. (A private mapping must know first which pages it writes.)
    #[cold]
    fn is_still_ready_to_write(&self, range: Range) -> bool {
        if self.is_private() || self.writebacks.load(Ordering::Acquire) != 0 {
            return false;
        }
        if self.file.system().in_memory {
            let stamp = self.writes.stamp();
            let ready = self.is_ready_to_read(range);
            if ready {
                let pages = range.widened(platform::page_size());
                self.writes.insert(pages, stamp);
            }
            return ready;
        }
        let fd = self.file.fd();
        self.writes.renew(range, |run| {
            page_cache::is_dirty(fd, run.offset() as u64, run.length())
        })
    }

    pub(super) fn insert_written(&self, range: Range, stamp: Stamp) {
        // A write to a file whose server may hang is never taken for one that waits for nothing.
        if self.writebacks.load(Ordering::Acquire) == 0 && !self.file.system().remote {
            self.writes
                .insert(range.widened(platform::page_size()), stamp);
        }
    }

    pub(super) fn write_stamp(&self) -> Stamp {
        self.writes.stamp()
    }
}
