//! Grows a mapping where it is: maps more of the file behind its end (`mmap(2)`, MAP_FIXED), then publishes the size.

use super::Mapping;
use crate::error::Error;
use crate::options::Hint;
use crate::platform::memory::Kind;
use crate::range::Range;
use parking_lot::MutexGuard;
use std::sync::atomic::Ordering;

impl Mapping {
    /// Whether it may become `size` bytes long where it is.
    pub fn can_grow_to(&self, size: usize) -> bool {
        self.size() <= size && size <= self.memory.capacity() && !self.is_faulted()
    }

    /// Maps the file up to `size`, which lies behind its present end and may: nobody knows of it yet. One grows it at a time.
    pub fn prepare_growth(&self, size: usize) -> Result<Growth<'_>, Error> {
        debug_assert!(self.size() <= size && size <= self.memory.capacity());
        let mapped = self.size().next_multiple_of(self.memory.unit());
        if mapped < size {
            let kind = Kind {
                populate: false,
                ..self.kind
            };
            self.memory.map(self.file.fd(), mapped, size, kind)?;
        }
        Ok(Growth {
            mapping: self,
            mapped,
            size,
            published: false,
        })
    }
}

/// More of the file, mapped behind what is known of a mapping. Taken away again unless it is published.
pub struct Growth<'a> {
    mapping: &'a Mapping,
    /// What was mapped before, in bytes.
    mapped: usize,
    size: usize,
    published: bool,
}

impl Growth<'_> {
    /// Makes the new size known: the file is so long by now. While a private mapping grows nobody writes to it.
    pub fn publish(mut self) {
        let mapping = self.mapping;
        let before = mapping.size();
        mapping.complete_last_page(before);
        let hint: MutexGuard<Option<Hint>> = mapping.hint.lock();
        if self.mapped < self.size {
            let part = Range::between(self.mapped, self.size);
            if let Some(hint) = *hint {
                let _ = mapping.advise_part(part, hint);
            }
            if mapping.is_locked() {
                let locked = mapping.lock_part(part);
                mapping.locked.store(locked, Ordering::Relaxed);
            }
        }
        if before < self.size {
            mapping.slot.extend(self.size);
            mapping.size.store(self.size, Ordering::Release);
            mapping.listing.set_size(self.size);
        }
        self.published = true;
    }
}

impl Drop for Growth<'_> {
    fn drop(&mut self) {
        if !self.published && self.mapped < self.size {
            // Refused only at the limit of mappings. Then what follows the last page lacks its readable page until the mapping
            // grows over it.
            let _ = self.mapping.memory.unmap(self.mapped, self.size);
        }
    }
}
