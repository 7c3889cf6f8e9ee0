//! Address space of its own for one mapping, with the file in its middle and a readable page on either side.
//!
//! ```text
//! base                start            start + mapped                 start + capacity        base + length
//! | anonymous         | the file's     | anonymous                    |                       |
//! | a page, or more   | pages          | room to grow where it is     | a page, or more       |
//! | to align `start`  |                |                              |                       |
//! ```
//!
//! The machine code that Erlang's JIT makes of a match loads whole words, which may begin up to seven bytes before the
//! field; parsers in C read on behind the end of their data. Both find memory that can be read, and nobody can write to:
//! anonymous, private, read-only, and so counted nowhere, not even under strict overcommit.
//!
//! This is the only place that maps a file. What is mapped here is unmapped as one, when the value goes.

use crate::error::Error;
use crate::platform::memory::{self, Kind, Protection};
use crate::platform::page_size;
use std::os::fd::RawFd;

/// See the module's text.
pub struct Reservation {
    /// Where in the file `start` is, in bytes.
    offset: u64,
    base: usize,
    length: usize,
    start: usize,
    capacity: usize,
    unit: usize,
}

/// The least room to grow, and the most.
const MIN_HEADROOM: usize = 64 << 10;
const MAX_HEADROOM: usize = 64 << 30;

impl Reservation {
    /// Reserves address space for `size` bytes from an offset of a file on, a multiple of its pages of `unit` bytes, with room to
    /// grow to about the double, and to `reserve` bytes at least. Where that much is not to be had, there is room for the double,
    /// or none.
    pub fn new(offset: u64, size: usize, reserve: u64, unit: usize) -> Result<Reservation, Error> {
        let double = size.saturating_add(size.clamp(MIN_HEADROOM, MAX_HEADROOM));
        let wanted = usize::try_from(reserve).unwrap_or(usize::MAX);
        Reservation::exact(offset, double.max(wanted), unit)
            .or_else(|_| Reservation::exact(offset, double, unit))
            .or_else(|_| Reservation::exact(offset, size, unit))
    }

    /// Reserves address space for so many bytes from an offset of the file on, a multiple of `unit`, and no more.
    pub fn exact(offset: u64, size: usize, unit: usize) -> Result<Reservation, Error> {
        debug_assert!(offset % unit as u64 == 0);
        let huge = memory::huge_page_size();
        let align = if size >= huge { unit.max(huge) } else { unit };
        let capacity = size.checked_next_multiple_of(unit);
        // With the pages on either side, and what aligning may skip.
        let length = capacity.and_then(|capacity| capacity.checked_add(page_size() + align));
        let (Some(capacity), Some(length)) = (capacity, length) else {
            return Err(Error::NO_MEMORY);
        };
        let base = memory::reserve(length)?;
        // Where a huge page of the file begins, one of the memory does.
        let phase = (offset % align as u64) as usize;
        let least = base + page_size();
        Ok(Reservation {
            offset,
            base,
            length,
            start: least + (phase + align - least % align) % align,
            capacity,
            unit,
        })
    }

    /// The address of the first byte that is mapped.
    #[inline]
    pub fn start(&self) -> usize {
        self.start
    }

    /// How many bytes of the file, from there on, have room.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The size of the file's pages here: the system's, or that of huge pages on hugetlbfs.
    pub fn unit(&self) -> usize {
        self.unit
    }

    /// All of it: address and length.
    pub fn extent(&self) -> (usize, usize) {
        (self.base, self.length)
    }

    /// Maps the file from `from`, a multiple of `unit`, to `to`, over what is there; both count from `start`.
    pub fn map(&self, fd: RawFd, from: usize, to: usize, kind: Kind) -> Result<(), Error> {
        debug_assert!(from % self.unit == 0 && from < to && to <= self.capacity);
        let length = to.next_multiple_of(self.unit) - from;
        let offset = self.offset + from as u64;
        // SAFETY: the part is ours, and nobody holds a Rust reference to memory of a mapping.
        unsafe { memory::map_file(self.start + from, length, fd, offset, kind) }
    }

    /// Takes the file away from `from` to `to`, as if it had not been mapped there.
    pub fn unmap(&self, from: usize, to: usize) -> Result<(), Error> {
        debug_assert!(from % self.unit == 0 && from < to && to <= self.capacity);
        let length = to.next_multiple_of(self.unit) - from;
        // SAFETY: the part is ours, and nobody holds a Rust reference to memory of a mapping.
        unsafe { memory::map_anonymous(self.start + from, length, Protection::Read) }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the address space is ours, and nobody is left that could name an address in it.
        unsafe { memory::unmap(self.base, self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_on_either_side_of_all_that_can_be_mapped() {
        let huge = memory::huge_page_size();
        for unit in [page_size(), huge] {
            for size in [1, unit, unit + 1, 3 * unit, 5 * huge] {
                for offset in [0, 1, 3, 511].map(|units| units * unit as u64) {
                    let reservation = Reservation::exact(offset, size, unit).unwrap();
                    let (base, length) = reservation.extent();
                    let (start, capacity) = (reservation.start(), reservation.capacity);
                    assert!(capacity >= size && start >= base + page_size());
                    assert!(start + capacity + page_size() <= base + length);
                    assert_eq!(start as u64 % unit as u64, 0);
                }
            }
        }
    }
}
