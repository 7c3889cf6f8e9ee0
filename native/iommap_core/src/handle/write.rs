//! Writing.

use super::{opened, Handle, Open, Wait, NON_BLOCKING_MAX};
use crate::buffer::{Data, Segment};
use crate::error::Error;
use crate::fault::guard;
use crate::mapping::WritablePart;
use crate::platform::memory;
use std::sync::atomic::Ordering;

impl<V> Handle<V> {
    /// Tells the processor what will be written, as soon as that is known: the checks that come before the copy then take
    /// place while the cache lines come, up to a page of them. Promises nothing.
    #[inline]
    pub fn prefetch(&self, offset: u64, length: usize) {
        let first = self.start.load(Ordering::Relaxed);
        for line in (0..length.clamp(1, 4096)).step_by(64) {
            memory::prefetch(first.wrapping_add(offset as usize).wrapping_add(line));
        }
    }

    /// Copies the segments in, one after another; all of them or none for every error but `Fault`. They may lie in mappings of
    /// ours, if the call may wait.
    #[inline]
    pub fn pwrite(&self, wait: Wait, offset: u64, segments: &[Segment]) -> Result<(), Error> {
        let data = Data::new(segments).ok_or(Error::OutOfBounds)?;
        match wait {
            Wait::NonBlocking => self.pwrite_non_blocking(offset, data),
            Wait::Blocking => self.pwrite_blocking(offset, data),
        }
    }

    #[inline]
    fn pwrite_non_blocking(&self, offset: u64, data: Data) -> Result<(), Error> {
        if data.length() > NON_BLOCKING_MAX {
            return Err(Error::WouldBlock);
        }
        let writing = self.writing(Wait::NonBlocking)?;
        let part = writable(&writing, offset, data.length())?;
        if !part.is_ready_to_write() {
            return Err(Error::WouldBlock);
        }
        part.copy_in(data)
    }

    /// What a write of so many bytes would be refused for, other than its data.
    pub fn check_pwrite(&self, wait: Wait, offset: u64, length: usize) -> Result<(), Error> {
        let reading = self.reading(wait)?;
        writable(&reading, offset, length)?;
        Ok(())
    }

    fn pwrite_blocking(&self, offset: u64, data: Data) -> Result<(), Error> {
        let length = data.length();
        let mapping = {
            let reading = self.reading(Wait::Blocking)?;
            writable(&reading, offset, length)?;
            opened(&reading)?.mapping.clone()
        };
        mapping.check_not_faulted()?;
        guard::fault_in_data(data)?;
        mapping
            .writable_part(offset, length as u64)?
            .fault_in_writeable();
        drop(mapping);

        let writing = self.writing(Wait::Blocking)?;
        let part = writable(&writing, offset, length)?;
        let stamp = part.write_stamp();
        part.copy_in(data)?;
        part.insert_written(stamp);
        Ok(())
    }
}

#[inline]
fn writable<V>(
    open: &Option<Open<V>>,
    offset: u64,
    length: usize,
) -> Result<WritablePart<'_>, Error> {
    opened(open)?.mapping.writable_part(offset, length as u64)
}
