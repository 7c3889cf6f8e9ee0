//! Reads a range: copies it (`pread`), or shows it (`region`, `backed_region`).

use super::{opened, Handle, Open, Wait, NON_BLOCKING_MAX};
use crate::buffer::{Buffer, Segment};
use crate::error::Error;
use crate::lock::Lock;
use crate::mapping::view::View;
use crate::mapping::{Mapping, Part};

/// A range of a mapping, and what was made of a `View` of that very mapping. Nobody but `Open::region` makes one.
pub struct Region<'a, V> {
    part: Part<'a>,
    keeper: &'a V,
}

impl<'a, V> Region<'a, V> {
    /// The first byte. The bytes stay mapped as long as the view lives; others may change them.
    #[inline]
    pub fn address(&self) -> *const u8 {
        self.part.address()
    }

    /// How many bytes.
    #[inline]
    pub fn length(&self) -> usize {
        self.part.length()
    }

    /// What was made of the view.
    #[inline]
    pub fn keeper(&self) -> &'a V {
        self.keeper
    }
}

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
            return Err(Error::TooLong);
        }
        let reading = self.reading(Wait::NonBlocking)?;
        let mapping = &opened(&reading)?.mapping;
        self.permit(self.options.access.reads())?;
        let Some(part) = mapping.direct_part(offset, length) else {
            return Err(self.not_direct(mapping));
        };
        if !part.is_ready_to_read() {
            return Err(Error::WouldBlock);
        }
        let mut buffer = make(part.length()).ok_or(Error::NO_MEMORY)?;
        part.copy_out(&mut buffer)?;
        Ok(buffer)
    }

    /// The error of a read that must not wait and is not in the direct part of the mapping: there may be more.
    #[inline(always)]
    fn not_direct(&self, mapping: &Mapping) -> Error {
        if self.options.follow || !mapping.is_direct() {
            Error::WouldBlock
        } else {
            Error::OutOfBounds
        }
    }

    fn pread_blocking<B: Buffer>(
        &self,
        offset: u64,
        length: u64,
        make: impl FnOnce(usize) -> Option<B>,
    ) -> Result<B, Error> {
        self.follow(offset, length)?;
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
            self.prefetch(offset);
            let reading = self.reading(wait)?;
            let part = self.available_part(&opened(&reading)?.mapping, offset, length)?;
            if part.length() > NON_BLOCKING_MAX {
                return Err(Error::TooLong);
            }
            if !part.is_ready_to_read() {
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

    /// Shows a range: `show` gets it together with what keeps it alive, which is made for the first view.
    #[inline(always)]
    pub fn region<R>(
        &self,
        wait: Wait,
        offset: u64,
        length: u64,
        show: impl FnOnce(Region<'_, V>) -> R,
    ) -> Result<R, Error>
    where
        V: From<View>,
    {
        if wait == Wait::Blocking {
            self.follow(offset, length)?;
        }
        let reading = self.reading(wait)?;
        let open = opened(&reading)?;
        let part = match wait {
            Wait::NonBlocking => {
                self.permit(self.options.access.reads())?;
                let Some(part) = open.mapping.direct_part(offset, length) else {
                    return Err(self.not_direct(&open.mapping));
                };
                part
            }
            Wait::Blocking => self.readable_part(&open.mapping, offset, length)?,
        };
        open.mapping.check_not_faulted()?;
        Ok(show(open.region(part)))
    }

    /// Shows a range, as `region` does, unless its file is known to have lost a byte of it already.
    pub fn backed_region<R>(
        &self,
        wait: Wait,
        offset: u64,
        length: u64,
        show: impl FnOnce(Region<'_, V>) -> R,
    ) -> Result<R, Error>
    where
        V: From<View>,
    {
        if wait == Wait::Blocking {
            self.follow(offset, length)?;
        }
        let reading = self.reading(wait)?;
        let open = opened(&reading)?;
        let part = match self.readable_part(&open.mapping, offset, length) {
            Err(Error::OutOfBounds) if wait == Wait::NonBlocking && self.options.follow => {
                return Err(Error::WouldBlock);
            }
            part => part?,
        };
        open.mapping.check_not_faulted()?;
        part.check_backed()?;
        Ok(show(open.region(part)))
    }

    /// Whether it is known, without waiting or asking, that a range that `backed_region` has shown is what its file holds. `false`
    /// also if the handle has another mapping by now.
    pub fn is_known_intact(&self, offset: u64, shown: &Segment) -> bool {
        let Ok(reading) = self.reading(Wait::NonBlocking) else {
            return false;
        };
        let Ok(open) = opened(&reading) else {
            return false;
        };
        let part = open.mapping.part(offset, shown.length() as u64);
        part.is_ok_and(|part| {
            shown.length() > 0 && part.address() == shown.address() && part.is_known_intact()
        })
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

impl<V: From<View>> Open<V> {
    #[inline(always)]
    fn region<'a>(&'a self, part: Part<'a>) -> Region<'a, V> {
        let keeper = self
            .view
            .get_or_init(|| View::new(self.mapping.clone()).into());
        Region { part, keeper }
    }
}
