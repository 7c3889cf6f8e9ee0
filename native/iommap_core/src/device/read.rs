//! Reads: from the mapping what is in it, and through the descriptor what it cannot give.

use super::{must_wait, Device};
use crate::buffer::{fill, last, Buffer};
use crate::error::Error;
use crate::handle::{Handle, Wait};
use crate::platform::io;
use std::ops::Deref;

/// The bytes that are looked through at once for the end of a line: at first, and at most.
const SHORT_LINE: usize = 512;
const LONG_LINE: usize = 1 << 16;

/// How much is read through the descriptor at once.
const PIECE: u64 = 1 << 20;

impl<V, H: Deref<Target = Handle<V>>> Device<V, H> {
    /// Copies out what the file has of a range; nothing if it has none of it. The buffer is made by `make`, of the length that
    /// is there, or not if there is no memory.
    #[inline(always)]
    pub fn pread<B: Buffer>(
        &self,
        wait: Wait,
        offset: u64,
        length: u64,
        make: impl Fn(usize) -> Option<B>,
    ) -> Result<Option<B>, Error> {
        self.check_open()?;
        self.permit(self.access.reads())?;
        if let (Wait::NonBlocking, Some(handle), 1..) = (wait, self.mapped(), length) {
            match handle.pread(wait, offset, length, &make) {
                Ok(mut buffer) => {
                    if is_whole(&mut buffer, length) {
                        return Ok(Some(buffer));
                    }
                    return self.read_at_end(wait, handle, offset, length, &make, Ok(buffer));
                }
                Err(error @ (Error::WouldBlock | Error::Contended)) => return Err(error),
                Err(_) => {} // the file may have a part of it
            }
        }
        self.read_at(wait, offset, length, &make)
    }

    /// As [`Handle::prefetch`].
    #[inline(always)]
    pub fn prefetch(&self, offset: u64) {
        if let Some(handle) = self.mapped() {
            handle.prefetch(offset);
        }
    }

    /// Reads from the position on, and moves it.
    pub fn read<B: Buffer>(
        &self,
        wait: Wait,
        length: u64,
        make: impl Fn(usize) -> Option<B>,
    ) -> Result<Option<B>, Error> {
        self.check_open()?;
        self.permit(self.access.reads())?;
        let mut cursor = self.lock_cursor(wait)?;
        let read = self.read_at(wait, cursor.at, length, &make)?;
        cursor.at += read.as_ref().map_or(0, Buffer::len) as u64;
        Ok(read)
    }

    /// Reads a line from the position on, with its newline if it has one, and moves the position behind it. A carriage return
    /// before the newline is left out.
    pub fn read_line<B: Buffer>(
        &self,
        wait: Wait,
        make: impl Fn(usize) -> Option<B>,
    ) -> Result<Option<B>, Error> {
        self.check_open()?;
        self.permit(self.access.reads())?;
        let mut cursor = self.lock_cursor(wait)?;
        let mut memory = [0; SHORT_LINE];
        let guess = (cursor.line + cursor.line / 2).clamp(128, SHORT_LINE);
        let length = self.read_to_slice(wait, cursor.at, &mut memory[..guess])?;
        let found = io::find(b'\n', &memory[..length]);
        let mut line = Vec::new();
        let bytes = match found {
            Some(newline) => &memory[..=newline],
            None if length == 0 => return Ok(None),
            None => {
                line.extend_from_slice(&memory[..length]);
                self.read_long_line(wait, cursor.at, &mut line)?;
                &line
            }
        };
        cursor.line = bytes.len();
        let result = copy_of_line(bytes, make)?;
        cursor.at += bytes.len() as u64;
        Ok(Some(result))
    }

    /// Completes a line that was begun.
    #[cold]
    fn read_long_line(&self, wait: Wait, start: u64, line: &mut Vec<u8>) -> Result<(), Error> {
        let mut step = SHORT_LINE;
        loop {
            if wait == Wait::NonBlocking && line.len() > LONG_LINE {
                return Err(Error::TooLong);
            }
            let begun = line.len();
            step = (step * 2).min(LONG_LINE);
            line.try_reserve(step).map_err(|_| Error::NO_MEMORY)?;
            line.resize(begun + step, 0);
            let length = self.read_to_slice(wait, start + begun as u64, &mut line[begun..])?;
            let read = &line[begun..begun + length];
            if let Some(newline) = io::find(b'\n', read) {
                line.truncate(begun + newline + 1);
                return Ok(());
            }
            line.truncate(begun + length);
            if length == 0 {
                return Ok(());
            }
        }
    }

    /// Reads into a slice, and tells how many bytes.
    fn read_to_slice(&self, wait: Wait, offset: u64, bytes: &mut [u8]) -> Result<usize, Error> {
        let wanted = bytes.len() as u64;
        if let Some(handle) = self.mapping(wait)? {
            let memory = &mut *bytes;
            let make = move |length| {
                let memory = memory;
                memory.get_mut(..length)
            };
            if let Ok(mut read) = handle.pread_available(wait, offset, wanted, make) {
                if is_whole(&mut read, wanted) {
                    return Ok(wanted as usize);
                }
            }
        }
        let make = |length| Some(vec![0; length]);
        let Some(read) = self.read_at(wait, offset, wanted, &make)? else {
            return Ok(0);
        };
        bytes[..read.len()].copy_from_slice(&read);
        Ok(read.len())
    }

    #[inline]
    fn read_at<B: Buffer>(
        &self,
        wait: Wait,
        offset: u64,
        length: u64,
        make: &impl Fn(usize) -> Option<B>,
    ) -> Result<Option<B>, Error> {
        if length == 0 {
            return Ok(None);
        }
        let Some(handle) = self.mapping(wait)? else {
            return self.read_by_descriptor(wait, offset, length, make);
        };
        match handle.pread_available(wait, offset, length, make) {
            Ok(mut buffer) => {
                if is_whole(&mut buffer, length) {
                    return Ok(Some(buffer));
                }
                self.read_at_end(wait, handle, offset, length, make, Ok(buffer))
            }
            Err(error) if error.would_block() => Err(error),
            error => self.read_at_end(wait, handle, offset, length, make, error),
        }
    }

    /// Reads where the mapping may not have given what the file has: it ends before, and the file may be longer; the file ends
    /// before; or a page was lost.
    #[cold]
    fn read_at_end<B: Buffer>(
        &self,
        wait: Wait,
        handle: &Handle<V>,
        offset: u64,
        length: u64,
        make: &impl Fn(usize) -> Option<B>,
        first: Result<B, Error>,
    ) -> Result<Option<B>, Error> {
        check_end(offset, length)?;
        let size = self.file_size(wait)?;
        let mapped = handle.position(wait)? as u64;
        let mut read = first;
        if size > mapped && !matches!(read, Err(Error::Fault)) {
            must_wait(wait)?;
            if self.follow(handle).is_err() {
                return self.read_by_descriptor(wait, offset, length, make);
            }
            read = handle.pread_available(wait, offset, length, make);
        }
        match read {
            Ok(buffer) if offset + buffer.len() as u64 <= size => Ok(Some(buffer)),
            Err(Error::OutOfBounds) => Ok(None),
            Ok(_) | Err(Error::Fault) if handle.is_private() => self.read_private(
                wait,
                handle,
                offset,
                length.min(size.saturating_sub(offset)),
                make,
            ),
            Ok(_) | Err(Error::Fault) => self.read_by_descriptor(wait, offset, length, make),
            Err(error) => Err(error),
        }
    }

    /// Reads of a private mapping what the file still backs: its changes are nowhere else.
    fn read_private<B: Buffer>(
        &self,
        wait: Wait,
        handle: &Handle<V>,
        offset: u64,
        length: u64,
        make: &impl Fn(usize) -> Option<B>,
    ) -> Result<Option<B>, Error> {
        if length == 0 {
            return Ok(None);
        }
        handle.pread_available(wait, offset, length, make).map(Some)
    }

    /// Reads through the descriptor, in pieces: the file may be as long as it likes, or of an unknown length.
    #[cold]
    fn read_by_descriptor<B: Buffer>(
        &self,
        wait: Wait,
        offset: u64,
        length: u64,
        make: &impl Fn(usize) -> Option<B>,
    ) -> Result<Option<B>, Error> {
        check_end(offset, length)?;
        must_wait(wait)?;
        let file = self.file()?;
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < length {
            let (begun, left) = (bytes.len(), length - bytes.len() as u64);
            let piece = left.min(PIECE) as usize;
            bytes.try_reserve(piece).map_err(|_| Error::NO_MEMORY)?;
            bytes.resize(begun + piece, 0);
            let read = io::read_at(file.fd(), offset + begun as u64, &mut bytes[begun..])?;
            bytes.truncate(begun + read);
            if read < piece {
                break;
            }
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        let mut buffer = make(bytes.len()).ok_or(Error::NO_MEMORY)?;
        fill(&mut buffer, &bytes);
        Ok(Some(buffer))
    }
}

/// Whether a buffer is as long as wanted, and surely bytes of the file: those behind its end are zero.
#[inline]
fn is_whole(buffer: &mut impl Buffer, wanted: u64) -> bool {
    buffer.len() as u64 == wanted && last(buffer) != Some(0)
}

fn copy_of_line<B: Buffer>(line: &[u8], make: impl Fn(usize) -> Option<B>) -> Result<B, Error> {
    let (text, end) = match line.strip_suffix(b"\r\n") {
        Some(text) => (text, &b"\n"[..]),
        None => (line, &b""[..]),
    };
    let mut buffer = make(text.len() + end.len()).ok_or(Error::NO_MEMORY)?;
    if end.is_empty() {
        fill(&mut buffer, text);
    } else {
        fill(&mut buffer, &[text, end].concat());
    }
    Ok(buffer)
}

/// A file has no more than 2^63 - 1 bytes: what reaches behind is refused, as `pread(2)` does.
fn check_end(offset: u64, length: u64) -> Result<(), Error> {
    match offset.checked_add(length).map(i64::try_from) {
        Some(Ok(_)) => Ok(()),
        _ => Err(Error::INVALID),
    }
}
