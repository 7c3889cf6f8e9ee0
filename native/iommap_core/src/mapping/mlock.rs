//! Locks pages in memory (`mlock2(2)`, `munlock(2)`), and knows which are.

use super::{Mapping, Part};
use crate::error::Error;
use crate::platform::memory;
use crate::range::Range;
use crate::range_map::RangeMap;
use std::sync::atomic::Ordering;

/// The pages of a mapping that are locked.
#[derive(Debug, Default)]
pub struct Locks {
    pages: RangeMap<()>,
    /// Whether all of it is to be locked, with what it grows by: from an open with `lock` until something is unlocked.
    all: bool,
}

impl Locks {
    /// The parts of a range that are not locked.
    pub fn gaps(&self, range: Range) -> Vec<Range> {
        self.pages.gaps(range)
    }
}

impl Part<'_> {
    /// Locks the pages of the part in memory; none more than before if that fails. `Fault` if the file has lost one.
    pub fn lock(self) -> Result<(), Error> {
        self.mapping.lock_range(self.range)
    }

    /// Unlocks the pages of the part, however often they were locked; none if that fails.
    pub fn unlock(self) -> Result<(), Error> {
        let Part { mapping, range } = self;
        if range.length() == 0 {
            return Ok(());
        }
        let pages = mapping.pages_of(range);
        let mut locks = mapping.locks.lock();
        if let Err(error) = mapping.munlock(pages) {
            // Of several pieces that the system knows, some may be unlocked.
            for (part, ()) in locks.pages.parts(pages) {
                let _ = mapping.mlock(part);
            }
            return Err(error);
        }
        locks.pages.clear(pages);
        locks.all = false;
        mapping.locked.store(false, Ordering::Relaxed);
        Ok(())
    }
}

impl Mapping {
    /// Whether all pages are locked in memory.
    pub fn is_locked(&self) -> bool {
        // Zero pages in the place of lost ones are not.
        self.locked.load(Ordering::Relaxed) && !self.is_faulted()
    }

    /// Locks all pages, and what it grows by, as far as the system lets us.
    pub fn lock_all(&self) {
        self.locks.lock().all = true;
        let _ = self.lock_range(self.whole());
    }

    /// Whether the page that holds a byte is locked.
    pub(super) fn is_page_locked(&self, offset: usize) -> bool {
        let page = self.pages_of(Range::between(offset, offset + 1));
        self.locks.lock().pages.covers(page)
    }

    /// Locks the pages of a range: first as they come, which says at once whether there may be so many, then brings them in by
    /// reading. `mlock(2)` would write to those of a private mapping, and so make a copy of each. Who resizes waits meanwhile.
    fn lock_range(&self, range: Range) -> Result<(), Error> {
        if range.length() == 0 {
            return Ok(());
        }
        self.check_backed(range)?;
        let pages = self.pages_of(range);
        let gaps = {
            let mut locks = self.locks.lock();
            let gaps = locks.gaps(pages);
            locks.pages.set(pages, ()); // advice that is for others leaves them out from now on
            gaps
        };
        let locked = gaps
            .iter()
            .try_for_each(|gap| self.mlock(*gap))
            .and_then(|()| self.fault_in_readable(range));
        let mut locks = self.locks.lock();
        if locked.is_err() {
            for gap in gaps {
                let _ = self.munlock(gap);
                locks.pages.clear(gap);
            }
        }
        self.note_locked(&locks);
        locked
    }

    fn note_locked(&self, locks: &Locks) {
        let all = locks.pages.covers(self.pages_of(self.whole()));
        self.locked.store(all, Ordering::Relaxed);
    }

    /// Locks what it has grown by, if all of it is to be locked and was. Nobody knows of that part yet.
    pub(super) fn lock_growth(&self, part: Range) {
        let all = self.locks.lock().all;
        if all && self.is_locked() {
            let _ = self.lock_range(part);
        }
    }

    /// Sees whether all of it is locked, now that it has grown.
    pub(super) fn note_growth_locked(&self) {
        self.note_locked(&self.locks.lock());
    }

    /// Unlocks what is locked, for the mapping that replaces this one: what both lock would count twice.
    pub fn give_up_locks(&self) -> Locks {
        let locks = std::mem::take(&mut *self.locks.lock());
        self.locked.store(false, Ordering::Relaxed);
        for (part, ()) in locks.pages.parts(self.pages_of(self.whole())) {
            let _ = self.munlock(part);
        }
        locks
    }

    /// Locks again what remains of the pages that were locked in the mapping that this one replaces.
    pub fn take_locks(&self, locks: &Locks) {
        if locks.all {
            self.lock_all();
        }
        if !self.is_locked() {
            for (part, ()) in locks.pages.parts(self.whole()) {
                let _ = self.lock_range(part);
            }
        }
    }

    fn mlock(&self, pages: Range) -> Result<(), Error> {
        memory::lock_on_fault(self.memory.start() + pages.offset(), pages.length())
    }

    fn munlock(&self, pages: Range) -> Result<(), Error> {
        memory::unlock(self.memory.start() + pages.offset(), pages.length())
    }
}
