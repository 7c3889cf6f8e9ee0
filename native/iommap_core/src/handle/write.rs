//! Writes to a range: copies segments in (`pwrite`).

use super::{opened, Handle, Wait, NON_BLOCKING_MAX};
use crate::buffer::Data;
use crate::error::Error;
use crate::fault::guard;
use crate::lock::Lock;
use crate::mapping::Mapping;

impl<V> Handle<V> {
    /// Copies the data in, all of it or none for every error but `Fault`. It may lie in mappings of ours, if the call may wait.
    #[inline]
    pub fn pwrite(&self, wait: Wait, offset: u64, data: Data) -> Result<(), Error> {
        match wait {
            Wait::NonBlocking => self.pwrite_non_blocking(offset, data),
            Wait::Blocking => self.pwrite_blocking(offset, data),
        }
    }

    #[inline]
    fn pwrite_non_blocking(&self, offset: u64, data: Data) -> Result<(), Error> {
        if data.length() > NON_BLOCKING_MAX {
            return Err(Error::TooLong);
        }
        let writing = self.try_writing()?;
        let part = opened(&writing)?
            .mapping
            .writable_part(offset, data.length() as u64)?;
        if !part.is_ready_to_write() {
            return Err(Error::WouldBlock);
        }
        part.copy_in(data)
    }

    /// Checks that a write of so many bytes would be permitted, whatever its data.
    pub fn check_pwrite(&self, wait: Wait, offset: u64, length: usize) -> Result<(), Error> {
        let reading = self.reading(wait)?;
        opened(&reading)?
            .mapping
            .writable_part(offset, length as u64)?;
        Ok(())
    }

    fn pwrite_blocking(&self, offset: u64, data: Data) -> Result<(), Error> {
        let length = data.length() as u64;
        let prepare = |mapping: &Mapping| {
            let part = mapping.writable_part(offset, length)?;
            mapping.check_not_faulted()?;
            guard::fault_in_data(data)?;
            let _ = part.fault_in_writeable();
            part.fault_in_ahead();
            Ok(())
        };
        let write = |mapping: &Mapping, ()| {
            let part = mapping.writable_part(offset, length)?;
            let stamp = part.write_stamp();
            part.copy_in(data)?;
            part.insert_written(stamp);
            Ok(())
        };
        self.two_phase(prepare, Lock::write, write)
    }
}
