//! Resizes the file and the mapping (`truncate`), or the mapping to the size of the file (`remap`).
//!
//! Both change the file before they take the lock, and nothing that they did is undone after: a handle that was closed meanwhile
//! may have written to what the file grew by.

use super::{Handle, Open};
use crate::error::Error;
use crate::file::{mappable, post_eof};
use crate::mapping::resize::Growth;
use crate::mapping::Mapping;
use crate::unmapper;
use std::sync::atomic::Ordering;
use std::sync::Arc;

impl<V> Handle<V> {
    /// Makes the file and the mapping `size` bytes long, whatever the file's size was; clears a fault.
    ///
    /// If any step fails, the handle is what it was. A `close` that comes in between is as if it had come after.
    pub fn truncate(&self, size: u64) -> Result<(), Error> {
        if size == 0 {
            return Err(Error::INVALID);
        }
        let _one_at_a_time = self.resizing.lock();
        let mapping = self.mapping()?;
        self.permit(self.options.access.writes())?;
        self.check_whole()?;
        let length = mappable(size)?;
        let file = mapping.file().clone();
        let is_longer = file.size()? > size;
        // What others append meanwhile is kept, so a file is only cut if it was too long at first.
        let shrink = || if is_longer { file.shrink(size) } else { Ok(()) };
        if mapping.can_grow_to(length) {
            let growth = mapping.prepare_growth(length)?;
            post_eof::zero(&file, size)?;
            file.grow_to(size)?;
            shrink()?;
            self.publish(growth);
            mapping.clear_writeback_error();
            // A fault before the file was so long is one that this call clears.
            if !mapping.is_faulted() {
                return Ok(());
            }
        }
        let fresh = self.replacement(&mapping, length)?;
        drop(mapping);
        post_eof::zero(&file, size)?;
        file.grow_to(size)?;
        match self.replace(fresh, |_| shrink()) {
            Err(Error::Closed) if !is_longer => Ok(()),
            replaced => replaced,
        }
    }

    /// Makes the mapping as long as the file, or its window, is now; clears a fault. Gives the size.
    pub fn remap(&self) -> Result<usize, Error> {
        let _one_at_a_time = self.resizing.lock();
        let mapping = self.mapping()?;
        let window = self.options.window;
        let shown = window.length_in(mapping.file().size()?);
        let size = mappable(shown.ok_or(Error::INVALID)?)?;
        if !mapping.can_grow_to(size) {
            let fresh = self.replacement(&mapping, size)?;
            drop(mapping);
            self.replace(fresh, |_| Ok(()))?;
        } else {
            if mapping.size() < size {
                self.publish(mapping.prepare_growth(size)?);
            } else {
                mapping.invalidate_residency();
            }
            mapping.clear_writeback_error();
        }
        Ok(size)
    }

    /// Checks that all of the file is mapped: a window has no say in the file's size.
    #[inline]
    pub(super) fn check_whole(&self) -> Result<(), Error> {
        if self.options.window.is_whole() {
            Ok(())
        } else {
            Err(Error::INVALID)
        }
    }

    pub(super) fn publish(&self, growth: Growth) {
        // Others see the new end at once; only changes of a private mapping must not come in between.
        let _nobody_writes = self.options.private.then(|| self.lock.write());
        growth.publish();
    }

    /// A mapping of the same file, to take the place of one that cannot become so long.
    pub(super) fn replacement(&self, mapping: &Mapping, size: usize) -> Result<Mapping, Error> {
        let fresh = unmapper::retry_after_reclaim(|| {
            Mapping::new(mapping.file().clone(), size, &self.options)
        })?;
        fresh.take_hints(mapping);
        Ok(fresh)
    }

    /// Puts a fresh mapping in the place of the present one, which lives on for its views, after `last` was done, to which the
    /// present one is shown. Nothing has changed if that fails.
    pub(super) fn replace(
        &self,
        fresh: Mapping,
        last: impl FnOnce(&Mapping) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let fresh = Arc::new(fresh);
        let replaced = {
            let mut writing = self.lock.write();
            let open = writing.as_mut().ok_or(Error::Closed)?;
            fresh.copy_private_pages(&open.mapping);
            last(&open.mapping)?;
            self.start.store(fresh.first_byte(), Ordering::Relaxed);
            fresh.listing().begin();
            std::mem::replace(open, Open::new(fresh.clone()))
        };
        let locks = replaced.mapping.give_up_locks();
        replaced.mapping.listing().close();
        drop(replaced);
        fresh.take_locks(&locks);
        Ok(())
    }
}
