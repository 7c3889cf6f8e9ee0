//! Hints (`madvise(2)`), and pages faulted in.

use super::{Mapping, Part};
use crate::error::Error;
use crate::fault::guard;
use crate::options::{Hint, Setting};
use crate::platform::memory;
use crate::range::Range;
use crate::range_map::RangeMap;
use std::sync::atomic::Ordering;

/// The hints that last, by what they set: where they hold. One that was given up to the end of the mapping has no end: it holds
/// for what the mapping grows by, too.
pub type LastingHints = [RangeMap<Hint>; Setting::COUNT];

impl Part<'_> {
    /// Tells the kernel what to expect. Never changes what is read. `ENOTSUP` if there is no such hint here.
    pub fn advise(self, hint: Hint) -> Result<(), Error> {
        let Part { mapping, range } = self;
        if range.length() == 0 {
            return Ok(());
        }
        match hint {
            Hint::PopulateWrite if !mapping.is_private() => self.populate_write(),
            Hint::PopulateRead | Hint::PopulateWrite => {
                mapping.check_backed(range)?;
                mapping.fault_in_readable(range)
            }
            Hint::DontNeed if mapping.is_private() => Ok(()), // it would undo the changes
            Hint::DontNeed | Hint::Cold | Hint::PageOut => mapping.let_go(range, hint),
            hint => mapping.advise_and_keep(range, hint),
        }
    }

    /// Makes the pages of a shared mapping writable, without a change. The guard does so page by page: MADV_POPULATE_WRITE would
    /// hold a lock of the whole address space while it waits.
    fn populate_write(self) -> Result<(), Error> {
        self.mapping.check_backed(self.range)?;
        let at = self.address().cast_mut();
        // SAFETY: the part is mapped as long as the mapping lives, to be written to, as the handle has checked.
        unsafe { guard::fault_in_writeable(at, self.length()) }
    }
}

impl Mapping {
    /// Gives a hint, and keeps it if it lasts.
    fn advise_and_keep(&self, range: Range, hint: Hint) -> Result<(), Error> {
        let pages = self.pages_of(range);
        if matches!(hint, Hint::HugePage | Hint::Collapse) {
            self.file.set_huge_pages();
            let maps = self.file.maps_post_eof();
            self.maps_post_eof.store(maps, Ordering::Relaxed);
        }
        self.madvise(pages, hint)?;
        if let Some(setting) = hint.setting() {
            let end = if range.end() == self.whole().end() {
                usize::MAX
            } else {
                pages.end()
            };
            let hints = &mut self.hints.lock()[setting as usize];
            hints.set(Range::between(pages.offset(), end), hint);
        }
        Ok(())
    }

    /// Gives the lasting hints for a part that nobody knows of yet.
    pub(super) fn apply_hints(&self, part: Range) {
        for hints in self.hints.lock().iter() {
            for (part, hint) in hints.parts(self.pages_of(part)) {
                let _ = self.madvise(part, hint);
            }
        }
    }

    /// Takes the lasting hints over from a mapping that this one replaces. Nobody knows of this one yet.
    pub fn take_hints(&self, other: &Mapping) {
        *self.hints.lock() = other.hints.lock().clone();
        self.apply_hints(self.whole());
    }

    /// Lets pages go, but those that are locked, of which the system would refuse it.
    fn let_go(&self, range: Range, hint: Hint) -> Result<(), Error> {
        let is_unlocked = |part: Range| self.locks.lock().gaps(part) == [part];
        let unlocked = self.locks.lock().gaps(self.pages_of(range));
        let done = unlocked
            .into_iter()
            .try_for_each(|part| match self.madvise(part, hint) {
                Err(_) if !is_unlocked(part) => Ok(()), // locked meanwhile
                done => done,
            });
        self.invalidate_residency();
        done
    }

    fn madvise(&self, pages: Range, hint: Hint) -> Result<(), Error> {
        // SAFETY: the pages are mapped; a hint that would discard changes of a private mapping does not come so far.
        unsafe { memory::advise(self.memory.start() + pages.offset(), pages.length(), hint) }
    }

    /// The whole pages that hold a range.
    pub(super) fn pages_of(&self, range: Range) -> Range {
        range.widened(self.memory.unit())
    }

    /// `Fault` if the file has lost a page of the range.
    pub(super) fn check_backed(&self, range: Range) -> Result<(), Error> {
        if self.slot.lost(range.offset(), range.end()) || !self.slot.file_covers(range.end()) {
            Err(Error::Fault)
        } else {
            Ok(())
        }
    }

    /// Invalidates what was found out about pages in memory.
    pub fn invalidate_residency(&self) {
        self.reads.invalidate();
        self.writes.invalidate();
    }

    /// Brings all pages into memory.
    pub fn populate(&self) {
        let _ = self.fault_in_readable(self.whole());
    }

    /// Brings pages into memory by reading them, up to one that is gone. That makes no copies for a private mapping:
    /// `MAP_POPULATE` would, as it writes where that is permitted.
    pub(super) fn fault_in_readable(&self, part: Range) -> Result<(), Error> {
        // SAFETY: the part is mapped as long as `self` lives.
        unsafe { guard::fault_in_readable(self.address().add(part.offset()), part.length()) }
    }
}
