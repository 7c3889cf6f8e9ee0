//! Writes changes back to the file (`msync(2)`, `sync_file_range(2)`), and remembers an error.

use super::Mapping;
use crate::error::Error;
use crate::platform::{memory, page_cache, thread};
use crate::range::Range;
use std::sync::atomic::Ordering;
use std::sync::Arc;

impl Mapping {
    /// Writes a range back, and waits for it unless it is to be asynchronous. `Fault` if the file no longer has all of it: the
    /// rest cannot reach the device. Of nothing, only tells a fault, and an error that is remembered.
    pub fn sync_range(
        self: &Arc<Self>,
        offset: u64,
        length: u64,
        asynchronously: bool,
    ) -> Result<(), Error> {
        let range = self.part(offset, length)?.range;
        if range.length() == 0 {
            return self.check_synced();
        }
        if asynchronously {
            self.sync_async(range)?;
        } else {
            self.sync(range)?;
        }
        if self.writes_back() && !self.slot.intact(range.offset(), range.end()) {
            return Err(Error::Fault);
        }
        Ok(())
    }

    /// Writes a range back to the file and waits for it.
    pub fn sync(&self, range: Range) -> Result<(), Error> {
        self.while_writing_back(|| {
            memory::flush(self.memory.start() + range.offset(), range.length(), true)
        })
    }

    /// Starts writing a range back to the file.
    pub fn sync_async(self: &Arc<Self>, range: Range) -> Result<(), Error> {
        if self.file.system().is_stacked {
            self.sync_on_a_thread(range)
        } else {
            self.while_writing_back(|| self.start_writeback(range))
        }
    }

    fn start_writeback(&self, range: Range) -> Result<(), Error> {
        let length = range.length();
        if page_cache::start_writeback(self.file.fd(), self.file_offset(range), length as u64)? {
            return Ok(());
        }
        memory::flush(self.memory.start() + range.offset(), length, false)
    }

    /// Writes a range back on a thread of its own, or here if there is none. What fails there is told by the next sync.
    fn sync_on_a_thread(self: &Arc<Self>, range: Range) -> Result<(), Error> {
        self.while_writing_back(|| Ok(()))?; // what can be told now
        let mapping = self.clone();
        let sync = move || {
            let _ = mapping.sync(range);
        };
        match thread::start("iommap_sync", sync) {
            Some(_) => Ok(()),
            None => self.sync(range),
        }
    }

    /// Writeback cleans pages, and the next write to a clean page may wait: what the cache holds of writing is invalid, and
    /// nothing is inserted while it runs. (A write that began before either `invalidate` is inserted too late to be believed.)
    pub(super) fn while_writing_back(
        &self,
        write_back: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.check_synced()?;
        if !self.writes_back() {
            return Ok(());
        }
        self.writebacks.fetch_add(1, Ordering::AcqRel);
        self.writes.invalidate();
        let done = write_back();
        self.touch_file();
        self.writes.invalidate();
        self.write_ahead.reset();
        self.writebacks.fetch_sub(1, Ordering::AcqRel);
        if let Err(Error::System(errno)) = done {
            self.writeback_error.store(errno, Ordering::Release);
        }
        done?;
        self.check_not_faulted()
    }

    /// Whether changes to it are written back to the file.
    fn writes_back(&self) -> bool {
        !self.is_private() && self.kind.writable
    }

    /// The fault, or the error of a write-back, that every sync tells.
    fn check_synced(&self) -> Result<(), Error> {
        self.check_not_faulted()?;
        self.check_writeback_error()
    }

    /// Sets the file's time of modification (`futimens(2)`), if it was written through this mapping.
    pub fn touch_file(&self) {
        if !self.is_private() && self.written.swap(false, Ordering::AcqRel) {
            self.file.touch();
        }
    }

    /// The error of a write-back that failed before. The system tells it once, and takes the pages for clean after.
    fn check_writeback_error(&self) -> Result<(), Error> {
        match self.writeback_error.load(Ordering::Acquire) {
            0 => Ok(()),
            errno => Err(Error::System(errno)),
        }
    }

    /// Makes an error of writing back one mapping's changes the other's, too.
    pub fn share_writeback_error(&mut self, other: &Mapping) {
        self.writeback_error = other.writeback_error.clone();
    }

    /// Clears the error of a failed write-back: a caller that resizes the file, or maps it anew, has been told.
    pub fn clear_writeback_error(&self) {
        self.writeback_error.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::BackingFile;
    use crate::options::{Access, Options};
    use crate::platform;
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;

    fn mapping(pages: usize) -> Mapping {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        let options = Options {
            create: true,
            size: (pages * platform::page_size()) as u64,
            ..Options::new(Access::ReadWrite)
        };
        let map = |file: &Arc<BackingFile>, size| Mapping::new(file.clone(), size, &options);
        crate::file::opening::open((&path).into(), &options, map).unwrap()
    }

    #[test]
    fn an_error_of_writing_back_is_told_of_either_of_two_mappings_that_share_it() {
        // The one that took the other's place tells what failed before and what fails later; clearing it is for both.
        let (before, mut after) = (mapping(1), mapping(1));
        let failing = || Err(Error::System(libc::EIO));
        assert_eq!(before.while_writing_back(failing), failing());
        after.share_writeback_error(&before);
        assert_eq!(after.sync(after.whole()), failing());
        after.clear_writeback_error();
        assert_eq!(before.sync(before.whole()), Ok(()));
        assert_eq!(before.while_writing_back(failing), failing());
        assert_eq!(after.sync(after.whole()), failing());
    }

    #[test]
    fn a_write_is_cached_neither_before_nor_during_nor_by_a_write_begun_during_a_write_back() {
        // Whatever was written before the write-back is over may be clean after it.
        let mapping = mapping(4);
        let part = mapping.writable_part(0, 10).unwrap();
        let insert = |stamp| part.insert_written(stamp);
        let written_back = mapping.while_writing_back(|| {
            let stamp = part.write_stamp();
            insert(stamp);
            assert!(!part.is_ready_to_write(), "inserted during");
            assert!(mapping.while_writing_back(|| Ok(())).is_ok());
            insert(part.write_stamp());
            assert!(!part.is_ready_to_write(), "one of two is over");
            Ok(())
        });
        assert_eq!(written_back, Ok(()));
        let mut stamp = part.write_stamp();
        assert_eq!(
            mapping.while_writing_back(|| {
                stamp = part.write_stamp();
                Ok(())
            }),
            Ok(())
        );
        insert(stamp);
        assert!(!part.is_ready_to_write(), "begun during");
        insert(part.write_stamp());
        assert!(part.is_ready_to_write(), "begun after");
    }
}
