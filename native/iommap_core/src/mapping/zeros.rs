//! Rechecks zeros that were copied: the file's, or of a page that it lost?

use super::Mapping;
use crate::error::Error;
use crate::fault::guard;
use crate::range::Range;

impl Mapping {
    /// Asks about pages of which nothing but zeros was copied, and copies them again. While a file is cut, a system that keeps
    /// files in memory in pieces larger than a page may show zeros in pages that are no longer the file's, instead of a fault.
    /// The file is shorter by then; but it may have grown back before we ask, so zeros are believed the second time. (A page
    /// that was zeroed while it was copied has zeros anywhere, as other pages do.)
    ///
    /// # Safety
    ///
    /// `to` holds a copy of the range, which lies inside, and is writable.
    #[cold]
    pub(super) unsafe fn recheck_zeros(&self, range: Range, to: *mut u8) -> Result<(), Error> {
        let ask = || {
            // SAFETY: the copy is there.
            let cut = unsafe { zero_parts(range, to) }.any(|part| self.lies_in_zeros(part));
            if cut && !self.slot.file_covers(range.end()) {
                return Err(Error::Fault);
            }
            Ok(())
        };
        ask()?;
        // SAFETY: the copy is there; each part is looked at before it is copied again.
        for part in unsafe { zero_parts(range, to) } {
            let at = part.offset() - range.offset();
            // SAFETY: the part lies in the range.
            unsafe { guard::copy(to.add(at), self.address().add(part.offset()), part.length())? };
        }
        self.check_not_faulted()?;
        ask()
    }

    /// Whether the lines of the cache that hold the part are nothing but zeros, as they are in pages that were zeroed. They
    /// were read just now, so to look at them takes less than to ask where the file ends.
    pub(super) fn lies_in_zeros(&self, part: Range) -> bool {
        const LINE: usize = 64;
        let lines = part.widened(LINE);
        let is_zero = |start: usize, end: usize| {
            let mut bytes = [0u8; LINE];
            // SAFETY: a line lies in a page, and the mapping is of whole pages.
            let seen =
                unsafe { guard::copy(bytes.as_mut_ptr(), self.address().add(start), end - start) };
            seen.is_err() || bytes == [0; LINE]
        };
        is_zero(lines.offset(), part.offset()) && is_zero(part.end(), lines.end())
    }
}

/// The parts of the range, each of one page, of which nothing but zeros was copied.
///
/// # Safety
///
/// `copy` is readable for the length of the range as long as the parts are asked for, and nobody writes to a part while it is.
#[inline(always)]
pub(super) unsafe fn zero_parts(range: Range, copy: *const u8) -> impl Iterator<Item = Range> {
    range.pages().filter(move |part| {
        // SAFETY: inside the copy, which is not of the mapping.
        let part = unsafe {
            std::slice::from_raw_parts(copy.add(part.offset() - range.offset()), part.length())
        };
        match part.split_first_chunk() {
            // All are like the first.
            Some((first, rest)) => {
                u64::from_ne_bytes(*first) == 0
                    && (rest.is_empty() || part[8..] == part[..rest.len()])
            }
            None => part.iter().all(|byte| *byte == 0),
        }
    })
}
