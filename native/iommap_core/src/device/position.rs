//! The position of a device: where `read`, `read_line` and `write` go on.

use super::Device;
use crate::error::Error;
use crate::handle::{Handle, Wait};
use crate::platform::{file as system, io};
use std::ops::Deref;

/// The position, in bytes, under the device's lock.
#[derive(Debug, Default)]
pub struct Cursor {
    pub at: u64,
    /// How long the last line was.
    pub line: usize,
}

/// What an offset of `position` counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whence {
    /// The beginning of the file.
    Start,
    /// The position.
    Current,
    /// The end of the file.
    End,
}

impl<V, H: Deref<Target = Handle<V>>> Device<V, H> {
    /// Moves the position, and gives it.
    pub fn seek(&self, wait: Wait, whence: Whence, offset: i64) -> Result<u64, Error> {
        let file = self.file()?;
        let mut cursor = self.lock_cursor(wait)?;
        let base = match whence {
            Whence::Start => 0,
            Whence::Current => cursor.at,
            Whence::End => self.file_size(wait)?,
        };
        let target = i64::try_from(base)
            .ok()
            .and_then(|base| base.checked_add(offset))
            .filter(|target| *target >= 0)
            .ok_or(Error::INVALID)?;
        if target as u64 > base && !self.is_borrowed() {
            io::seek(file.fd(), target, libc::SEEK_SET)?; // the file system knows how far files go
        }
        cursor.at = target as u64;
        Ok(cursor.at)
    }

    /// Makes the file end at the position; the mapping follows.
    pub fn truncate(&self) -> Result<(), Error> {
        let file = self.file()?;
        let cursor = self.lock_cursor(Wait::Blocking)?;
        if !self.access.writes() {
            return Err(Error::INVALID); // as ftruncate(2) says of a descriptor for reading
        }
        system::check_size_limit(cursor.at)?;
        file.shrink(cursor.at)?;
        if cursor.at > 0 {
            if let Some(handle) = self.mapping(Wait::Blocking)? {
                let _ = self.follow(handle); // or it follows when it is read
            }
        }
        Ok(())
    }
}
