//! Grows a mapping where it is: maps more of the file behind its end (`mmap(2)`, MAP_FIXED), then publishes the size.

use super::Mapping;
use crate::error::Error;
use crate::platform::memory::Kind;
use crate::range::Range;
use std::sync::atomic::Ordering;

impl Mapping {
    /// Whether it may become `size` bytes long where it is.
    pub fn can_grow_to(&self, size: usize) -> bool {
        self.size() <= size && self.lead + size <= self.memory.capacity() && !self.is_faulted()
    }

    /// Maps the file up to `size`, which lies behind its present end and may: nobody knows of it yet. One grows it at a time.
    pub fn prepare_growth(&self, size: usize) -> Result<Growth<'_>, Error> {
        debug_assert!(self.size() <= size && self.lead + size <= self.memory.capacity());
        let mapped = self.whole().end().next_multiple_of(self.memory.unit());
        let end = self.lead + size;
        if mapped < end {
            let kind = Kind {
                populate: false,
                ..self.kind
            };
            self.memory.map(self.file.fd(), mapped, end, kind)?;
        }
        Ok(Growth {
            mapping: self,
            mapped,
            end,
            published: false,
        })
    }
}

/// More of the file, mapped behind what is known of a mapping. Taken away again unless it is published.
pub struct Growth<'a> {
    mapping: &'a Mapping,
    /// What of the memory was mapped before, and what is now, in bytes.
    mapped: usize,
    end: usize,
    published: bool,
}

impl Growth<'_> {
    /// Makes the new size known: the file is so long by now. While a private mapping grows nobody writes to it. Nobody gives a
    /// lasting hint or locks a part meanwhile.
    pub fn publish(mut self) {
        let mapping = self.mapping;
        let before = mapping.whole().end();
        mapping.complete_last_page(before);
        if self.mapped < self.end {
            let part = Range::between(self.mapped, self.end);
            mapping.apply_hints(part);
            mapping.lock_growth(part);
        }
        if before < self.end {
            let size = self.end - mapping.lead;
            mapping.slot.extend(self.end);
            mapping.size.store(size, Ordering::Release);
            if mapping.lead == 0 {
                mapping.direct.store(size, Ordering::Release);
            }
            mapping.listing.set_size(size);
            mapping.note_growth_locked();
        }
        self.published = true;
    }
}

impl Drop for Growth<'_> {
    fn drop(&mut self) {
        if !self.published && self.mapped < self.end {
            // Refused only at the limit of mappings. Then what follows the last page lacks its readable page until the mapping
            // grows over it.
            let _ = self.mapping.memory.unmap(self.mapped, self.end);
        }
    }
}
