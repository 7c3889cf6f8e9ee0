//! Reads a range: copies it (`pread`), or shows it (`region`).

use super::{opened, Handle, Wait, NON_BLOCKING_MAX};
use crate::buffer::Buffer;
use crate::error::Error;
use crate::lock::Lock;
use crate::mapping::view::View;
use crate::mapping::{Mapping, Part};

impl<V> Handle<V> {
    /// Copies a range out, to a buffer that `make` makes, or `None` if there is no memory. `make` is called once at most,
    /// with the length, when the range is known to be good.
    #[inline]
    pub fn pread<B: Buffer>(
        &self,
        wait: Wait,
        offset: u64,
        length: u64,
        make: impl FnOnce(usize) -> Option<B>,
    ) -> Result<B, Error> {
        match wait {
            Wait::NonBlocking => self.pread_non_blocking(offset, length, make),
            Wait::Blocking => self.pread_blocking(offset, length, make),
        }
    }

    #[inline]
    fn pread_non_blocking<B: Buffer>(
        &self,
        offset: u64,
        length: u64,
        make: impl FnOnce(usize) -> Option<B>,
    ) -> Result<B, Error> {
        if length > NON_BLOCKING_MAX as u64 {
            return Err(Error::WouldBlock);
        }
        let reading = self.reading(Wait::NonBlocking)?;
        let part = self.readable_part(&opened(&reading)?.mapping, offset, length)?;
        if !part.is_ready_to_read() {
            return Err(Error::WouldBlock);
        }
        let mut buffer = make(part.length()).ok_or(Error::NO_MEMORY)?;
        part.copy_out(&mut buffer)?;
        Ok(buffer)
    }

    fn pread_blocking<B: Buffer>(
        &self,
        offset: u64,
        length: u64,
        make: impl FnOnce(usize) -> Option<B>,
    ) -> Result<B, Error> {
        let prepare = |mapping: &Mapping| {
            let part = self.readable_part(mapping, offset, length)?;
            let mut buffer = make(part.length()).ok_or(Error::NO_MEMORY)?;
            if !part.is_ready_to_read() {
                part.fetch(&mut buffer);
            }
            Ok(buffer)
        };
        let read = |mapping: &Mapping, mut buffer: B| {
            let part = self.readable_part(mapping, offset, length)?;
            part.copy_out(&mut buffer)?;
            Ok(buffer)
        };
        self.two_phase(prepare, Lock::read, read)
    }

    /// Copies out what the mapping has of a range: less than `length` bytes where it ends before; `OutOfBounds` if nothing. `make`
    /// is as for `pread`.
    #[inline]
    pub fn pread_available<B: Buffer>(
        &self,
        wait: Wait,
        offset: u64,
        length: u64,
        make: impl FnOnce(usize) -> Option<B>,
    ) -> Result<B, Error> {
        if wait == Wait::NonBlocking {
            let reading = self.reading(wait)?;
            let part = self.available_part(&opened(&reading)?.mapping, offset, length)?;
            if part.length() > NON_BLOCKING_MAX || !part.is_ready_to_read() {
                return Err(Error::WouldBlock);
            }
            let mut buffer = make(part.length()).ok_or(Error::NO_MEMORY)?;
            part.copy_out(&mut buffer)?;
            return Ok(buffer);
        }
        let mapping = self.mapping()?;
        let length = self.available_part(&mapping, offset, length)?.length() as u64;
        drop(mapping);
        self.pread_blocking(offset, length, make)
    }

    #[inline]
    fn available_part<'a>(
        &self,
        mapping: &'a Mapping,
        offset: u64,
        length: u64,
    ) -> Result<Part<'a>, Error> {
        let left = (mapping.size() as u64).saturating_sub(offset);
        if left == 0 {
            return Err(Error::OutOfBounds);
        }
        self.readable_part(mapping, offset, length.min(left))
    }

    /// Shows a range: `show` gets what keeps it alive (made by `make` for the first view), where it is, and how long.
    pub fn region<R>(
        &self,
        wait: Wait,
        offset: u64,
        length: u64,
        make: impl FnOnce(View) -> V,
        show: impl FnOnce(&V, *const u8, usize) -> R,
    ) -> Result<R, Error> {
        let reading = self.reading(wait)?;
        let open = opened(&reading)?;
        let part = self.readable_part(&open.mapping, offset, length)?;
        open.mapping.check_not_faulted()?;
        let view = open
            .view
            .get_or_init(|| make(View::new(open.mapping.clone())));
        Ok(show(view, part.address(), part.length()))
    }

    #[inline]
    fn readable_part<'a>(
        &self,
        mapping: &'a Mapping,
        offset: u64,
        length: u64,
    ) -> Result<Part<'a>, Error> {
        self.permit(self.options.access.reads())?;
        mapping.part(offset, length)
    }
}
