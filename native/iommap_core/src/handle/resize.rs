//! Resizes the file and the mapping (`truncate`), or the mapping to the size of the file (`remap`).
//!
//! Both change the file before they take the lock, and nothing that they did is undone after: a handle that was closed meanwhile
//! may have written to what the file grew by.

use super::{Handle, Open};
use crate::error::Error;
use crate::file::{mappable, post_eof};
use crate::mapping::resize::Growth;
use crate::mapping::Mapping;
use crate::platform::file::set_size;
use crate::unmapper;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

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
        let length = mappable(size)?;
        let file = mapping.file().clone();
        let is_longer = file.size()? > size;
        // What others append meanwhile is kept, so a file is only cut if it was too long at first.
        let shrink = || {
            if is_longer {
                set_size(file.fd(), size)
            } else {
                Ok(())
            }
        };
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
        match self.replace(fresh, shrink) {
            Err(Error::Closed) if !is_longer => Ok(()),
            replaced => replaced,
        }
    }

    /// Makes the mapping as long as the file is now; clears a fault. Gives the size.
    pub fn remap(&self) -> Result<usize, Error> {
        let _one_at_a_time = self.resizing.lock();
        let mapping = self.mapping()?;
        let size = mappable(mapping.file().size()?)?;
        if size == 0 {
            return Err(Error::INVALID);
        }
        if !mapping.can_grow_to(size) {
            let fresh = self.replacement(&mapping, size)?;
            drop(mapping);
            self.replace(fresh, || Ok(()))?;
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

    fn publish(&self, growth: Growth) {
        // Others see the new end at once; only changes of a private mapping must not come in between.
        let _nobody_writes = self.options.private.then(|| self.lock.write());
        growth.publish();
    }

    /// A mapping of the same file, to take the place of one that cannot become so long.
    fn replacement(&self, mapping: &Mapping, size: usize) -> Result<Arc<Mapping>, Error> {
        let fresh = unmapper::retry_after_reclaim(|| {
            Mapping::new(mapping.file().clone(), size, &self.options)
        })?;
        fresh.take_hint(mapping);
        Ok(Arc::new(fresh))
    }

    /// Puts a fresh mapping in the place of the present one, which lives on for its views. Nothing has changed if it fails.
    fn replace(
        &self,
        fresh: Arc<Mapping>,
        shrink_file: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let replaced = {
            let mut writing = self.lock.write();
            let open = writing.as_mut().ok_or(Error::Closed)?;
            fresh.copy_private_pages(&open.mapping);
            shrink_file()?;
            self.start.store(fresh.address(), Ordering::Relaxed);
            let open_anew = Open {
                mapping: fresh.clone(),
                view: OnceLock::new(),
            };
            fresh.listing().begin();
            std::mem::replace(open, open_anew)
        };
        replaced.mapping.listing().close();
        drop(replaced); // its locked pages count until then
        if self.options.lock {
            fresh.lock();
        }
        Ok(())
    }
}
