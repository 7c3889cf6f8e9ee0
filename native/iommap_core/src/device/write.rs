//! Writes: into the mapping what lies in it, and through the descriptor what makes the file longer.

use super::{must_wait, Device};
use crate::buffer::Data;
use crate::error::Error;
use crate::handle::{Handle, Wait};
use crate::platform::{file as system, io};
use std::ops::Deref;

impl<V, H: Deref<Target = Handle<V>>> Device<V, H> {
    /// Writes the data at an offset; at the end if the device appends, as the system has it.
    pub fn pwrite(&self, wait: Wait, offset: u64, data: Data) -> Result<(), Error> {
        self.check_open()?;
        if data.length() == 0 {
            return Ok(());
        }
        self.permit(self.access.writes())?;
        self.write_at(wait, offset, data, &mut 0)
    }

    /// Writes the data at the position, and moves it behind what was written, also if that is only a part; or at the end.
    pub fn write(&self, wait: Wait, data: Data) -> Result<(), Error> {
        self.check_open()?;
        if data.length() == 0 {
            return Ok(());
        }
        self.permit(self.access.writes())?;
        let mut cursor = self.lock_cursor(wait)?;
        if self.append {
            must_wait(wait)?;
            let file = self.file()?;
            system::check_size_limit(self.file_size(wait)?.saturating_add(data.length() as u64))?;
            let done = io::write(file.fd(), None, data, &mut 0);
            cursor.at = io::seek(file.fd(), 0, libc::SEEK_CUR)?;
            return done;
        }
        let mut written = 0;
        let done = self.write_at(wait, cursor.at, data, &mut written);
        cursor.at += written;
        done
    }

    fn write_at(
        &self,
        wait: Wait,
        offset: u64,
        data: Data,
        written: &mut u64,
    ) -> Result<(), Error> {
        let length = data.length() as u64;
        let end = offset
            .checked_add(length)
            .filter(|end| i64::try_from(*end).is_ok())
            .ok_or(Error::INVALID)?;
        let mut is_stale = false;
        if !self.writes_by_descriptor {
            if let Some(handle) = self.mapping(wait)? {
                if self.file()?.system().remote {
                    must_wait(wait)?; // a server is asked after the write, which must not be made twice
                }
                let mut done = handle.pwrite(wait, offset, data);
                if done == Err(Error::OutOfBounds) && self.file_size(wait)? >= end {
                    must_wait(wait)?;
                    if self.follow(handle).is_ok() {
                        done = handle.pwrite(wait, offset, data);
                    }
                }
                match done {
                    // The page that holds the end of the file takes more than the file has.
                    Ok(()) if handle.is_private() || self.file_size(wait)? >= end => {
                        *written += length;
                        return Ok(());
                    }
                    Ok(()) | Err(Error::Fault) => is_stale = !self.is_borrowed(),
                    Err(Error::OutOfBounds) => {}
                    Err(error) => return Err(error),
                }
                must_wait(wait)?;
                if handle.is_private() {
                    return self.write_private(handle, offset, data, written);
                }
            }
        }
        must_wait(wait)?;
        if !self.append {
            system::check_size_limit(end)?;
        }
        let done = io::write(self.file()?.fd(), Some(offset), data, written);
        if is_stale {
            if let Some(handle) = self.mapping(wait)? {
                let _ = handle.remap(); // what the file has lost need not be tried again
            }
        }
        done
    }

    /// Writes data that does not lie in a private mapping: what the mapping has is changed there, the rest in the file.
    fn write_private(
        &self,
        handle: &Handle<V>,
        offset: u64,
        data: Data,
        written: &mut u64,
    ) -> Result<(), Error> {
        if self.file_size(Wait::Blocking)? > handle.position(Wait::Blocking)? as u64 {
            self.follow(handle)?;
        }
        let mapped = handle.position(Wait::Blocking)? as u64;
        let inside = mapped.saturating_sub(offset).min(data.length() as u64) as usize;
        let first = data.first(inside);
        let first = Data::new(&first).ok_or(Error::NO_MEMORY)?;
        if inside > 0 {
            handle.pwrite(Wait::Blocking, offset, first)?;
            *written += inside as u64;
        }
        if inside < data.length() {
            let rest = data.after(inside);
            let rest = Data::new(&rest).ok_or(Error::NO_MEMORY)?;
            system::check_size_limit(offset + data.length() as u64)?;
            io::write(
                self.file()?.fd(),
                Some(offset + inside as u64),
                rest,
                written,
            )?;
            let _ = self.follow(handle); // or it follows when it is read
        }
        Ok(())
    }
}
