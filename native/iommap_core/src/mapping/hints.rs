//! Hints (`madvise(2)`), locks (`mlock(2)`), and pages faulted in.

use super::{Mapping, Part};
use crate::error::Error;
use crate::fault::guard;
use crate::options::Hint;
use crate::platform::memory;
use crate::range::Range;
use memmap2::Advice;
use std::sync::atomic::Ordering;

impl Part<'_> {
    /// Tells the kernel what to expect. Never changes what is read. A lasting hint for all of the mapping also holds for what
    /// it grows by, and for what replaces it.
    pub fn advise(self, hint: Hint) -> Result<(), Error> {
        let Part { mapping, range } = self;
        let mut kept = hint.lasts().then(|| mapping.hint.lock());
        let whole = range.length() == mapping.size();
        mapping.advise_part(range, hint)?;
        if let Some(kept) = kept.as_mut().filter(|_| whole) {
            **kept = Some(hint);
        }
        Ok(())
    }
}

impl Mapping {
    pub(super) fn advise_part(&self, range: Range, hint: Hint) -> Result<(), Error> {
        let (address, length) = (self.memory.start() + range.offset(), range.length());
        let advice = match hint {
            Hint::Normal => Advice::Normal,
            Hint::Random => Advice::Random,
            Hint::Sequential => Advice::Sequential,
            Hint::WillNeed => Advice::WillNeed,
            Hint::DontNeed => return self.drop_pages(address, length),
        };
        // SAFETY: the range lies inside the mapping, and the advice discards nothing.
        unsafe { memory::advise(address, length, advice) }
    }

    fn drop_pages(&self, address: usize, length: usize) -> Result<(), Error> {
        if self.is_private() {
            return Ok(()); // it would undo the changes
        }
        // SAFETY: the range lies inside the mapping, which is shared: it shows the same bytes again afterwards.
        let dropped = unsafe { memory::drop_pages(address, length) };
        self.invalidate_residency();
        match dropped {
            Err(Error::INVALID) if self.is_locked() => Ok(()), // locked pages stay
            dropped => dropped,
        }
    }

    /// Invalidates what was found out about pages in memory.
    pub fn invalidate_residency(&self) {
        self.reads.invalidate();
        self.writes.invalidate();
    }

    /// Brings all pages into memory.
    pub fn populate(&self) {
        self.fault_in_readable(self.whole());
    }

    /// Locks the pages in memory, if the system lets us.
    pub fn lock(&self) {
        let locked = self.lock_part(self.whole());
        self.locked.store(locked, Ordering::Relaxed);
    }

    /// Locks whole pages. Those of a private mapping stay the file's until they are written: `mlock(2)` would write to all
    /// of them, and so make a copy of each.
    pub(super) fn lock_part(&self, part: Range) -> bool {
        let address = self.memory.start() + part.offset();
        if !self.is_private() {
            return memory::lock(address, part.length()).is_ok();
        }
        let locked = memory::lock_on_fault(address, part.length()).is_ok();
        if locked {
            self.fault_in_readable(part);
        }
        locked
    }

    /// Brings pages into memory by reading them, up to one that is gone. That makes no copies for a private mapping:
    /// `MAP_POPULATE` would, as it writes where that is permitted.
    pub(super) fn fault_in_readable(&self, part: Range) {
        // SAFETY: the part is mapped as long as `self` lives.
        let _ =
            unsafe { guard::fault_in_readable(self.address().add(part.offset()), part.length()) };
    }

    /// Takes the lasting hint over from a mapping that this one replaces.
    pub fn take_hint(&self, other: &Mapping) {
        let hint = *other.hint.lock();
        if let Some(hint) = hint {
            let _ = self.part(0, self.size() as u64).map(|all| all.advise(hint));
        }
    }
}
