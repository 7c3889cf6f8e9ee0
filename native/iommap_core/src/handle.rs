//! A handle: a lock around an open mapping, or around nothing once it is closed.
//!
//! ```text
//! open --truncate, remap--> open (another size, perhaps another mapping) --close--> closed
//! ```
//!
//! Every operation goes the same way down: take the lock, see that the handle is open and permits it, check the range,
//! and let the mapping do it. What may take long happens without the lock, on a reference to the mapping, and the lock is
//! taken again to see that the outcome still holds: so no lock is held while sleeping in the kernel, but by a copy whose
//! pages were dropped in the moment since they were fetched or faulted in, and by `truncate` and `remap` while they swap
//! mappings.

use crate::buffer::{Buffer, Data, Segment};
use crate::error::Error;
use crate::file::{mappable, BackingFile};
use crate::guard;
use crate::lock::{Lock, ReadGuard, WriteGuard};
use crate::mapping::{Growth, Hint, Mapping, WritablePart};
use crate::opening;
use crate::options::{Access, Options};
use crate::platform;
use crate::post_eof;
use crate::unmapper;
use crate::view::View;
use parking_lot::Mutex;
use std::ffi::CStr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};

/// The longest copy that is made without waiting, in bytes: a twelfth of the millisecond a scheduler may lose, or less.
pub const NON_BLOCKING_MAX: usize = 1 << 20;

/// Whether a call may wait: for the lock, for the disk, or for a long copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It must not: it gives `WouldBlock` instead, and has done nothing.
    NonBlocking,
    /// It may, as long as it takes.
    Blocking,
}

/// A handle. `V` is what keeps the mapping alive for views: made when the first view is asked for.
pub struct Handle<V> {
    /// Where the mapping begins, or began a moment ago: only good to prefetch.
    start: AtomicPtr<u8>,
    options: Options,
    lock: Lock<Option<Open<V>>>,
    /// Held through a whole truncate or remap, most of which happens outside the lock.
    resizing: Mutex<()>,
}

struct Open<V> {
    // Dropped first: what keeps views alive has a reference to the mapping too, and the last one to go waits for nothing.
    view: OnceLock<V>,
    mapping: Arc<Mapping>,
}

/// What a handle tells of itself.
#[derive(Debug, Clone, Copy)]
pub struct Info {
    /// In bytes.
    pub size: usize,
    /// What the handle may do.
    pub access: Access,
    /// Whether changes stay in this mapping.
    pub private: bool,
    /// Whether the pages are locked in memory.
    pub locked: bool,
    /// Whether zero pages were put under it.
    pub faulted: bool,
}

impl<V> Handle<V> {
    /// Opens and maps the file.
    pub fn open(path: &CStr, options: Options) -> Result<Handle<V>, Error> {
        guard::install()?;
        unmapper::retry_after_reclaim(|| Handle::open_once(path, options))
    }

    fn open_once(path: &CStr, options: Options) -> Result<Handle<V>, Error> {
        let map = |file: &Arc<BackingFile>, size| Mapping::new(file.clone(), size, &options);
        let mapping = opening::open(path, &options, map)?;
        if options.populate && options.size > 0 {
            mapping.populate(); // what it was grown by was not there to be prefaulted
        }
        if options.lock {
            mapping.lock();
        }
        Ok(Handle {
            start: AtomicPtr::new(mapping.address().cast_mut()),
            // Prefaulting was for the opening; a resize under the lock must not take that long.
            options: Options {
                populate: false,
                ..options
            },
            lock: Lock::new(Some(Open {
                mapping: Arc::new(mapping),
                view: OnceLock::new(),
            })),
            resizing: Mutex::new(()),
        })
    }

    /// Closes the handle; the mapping goes with its last view. Waits for calls that hold the lock.
    pub fn close(&self) -> Result<(), Error> {
        let open = self.lock.write().take().ok_or(Error::Closed)?;
        open.mapping.touch_file();
        Ok(())
    }

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
            return Err(Error::WouldBlock);
        }
        let reading = self.reading(Wait::NonBlocking)?;
        let part = self.readable(&reading)?.mapping.part(offset, length)?;
        if !part.is_ready_to_read() {
            return Err(Error::WouldBlock);
        }
        let mut buffer = make(part.length()).ok_or(Error::NO_MEMORY)?;
        part.copy_out(&mut buffer)?;
        Ok(buffer)
    }

    fn pread_blocking<B: Buffer>(
        &self,
        offset: u64,
        length: u64,
        make: impl FnOnce(usize) -> Option<B>,
    ) -> Result<B, Error> {
        let mapping = {
            let reading = self.reading(Wait::Blocking)?;
            let open = self.readable(&reading)?;
            open.mapping.part(offset, length)?;
            open.mapping.clone()
        };
        let part = mapping.part(offset, length)?;
        let mut buffer = make(part.length()).ok_or(Error::NO_MEMORY)?;
        if !part.is_ready_to_read() {
            part.fetch(&mut buffer);
        }
        drop(mapping);

        let reading = self.reading(Wait::Blocking)?;
        let part = self.readable(&reading)?.mapping.part(offset, length)?;
        part.copy_out(&mut buffer)?;
        Ok(buffer)
    }

    /// Tells the processor what will be written, as soon as that is known: the checks that come before the copy then take
    /// place while the cache lines come, up to a page of them. Promises nothing.
    #[inline]
    pub fn prefetch(&self, offset: u64, length: usize) {
        let first = self.start.load(Ordering::Relaxed);
        for line in (0..length.clamp(1, 4096)).step_by(64) {
            platform::prefetch(first.wrapping_add(offset as usize).wrapping_add(line));
        }
    }

    /// Copies the segments in, one after another; all of them or none for every error but `Fault`. They may lie in mappings of
    /// ours, if the call may wait.
    #[inline]
    pub fn pwrite(&self, wait: Wait, offset: u64, segments: &[Segment]) -> Result<(), Error> {
        let data = Data::new(segments).ok_or(Error::OutOfBounds)?;
        match wait {
            Wait::NonBlocking => self.pwrite_non_blocking(offset, data),
            Wait::Blocking => self.pwrite_blocking(offset, data),
        }
    }

    #[inline]
    fn pwrite_non_blocking(&self, offset: u64, data: Data) -> Result<(), Error> {
        if data.length() > NON_BLOCKING_MAX {
            return Err(Error::WouldBlock);
        }
        let writing = self.writing(Wait::NonBlocking)?;
        let part = writable(&writing, offset, data.length())?;
        if !part.is_ready_to_write() {
            return Err(Error::WouldBlock);
        }
        part.copy_in(data)
    }

    /// What a write of so many bytes would be refused for, other than its data.
    pub fn check_pwrite(&self, wait: Wait, offset: u64, length: usize) -> Result<(), Error> {
        let reading = self.reading(wait)?;
        writable(&reading, offset, length)?;
        Ok(())
    }

    fn pwrite_blocking(&self, offset: u64, data: Data) -> Result<(), Error> {
        let length = data.length();
        let mapping = {
            let reading = self.reading(Wait::Blocking)?;
            writable(&reading, offset, length)?;
            opened(&reading)?.mapping.clone()
        };
        mapping.check_not_faulted()?;
        guard::fault_in_data(data)?;
        mapping
            .writable_part(offset, length as u64)?
            .fault_in_writeable();
        drop(mapping);

        let writing = self.writing(Wait::Blocking)?;
        let part = writable(&writing, offset, length)?;
        let stamp = part.write_stamp();
        part.copy_in(data)?;
        part.insert_written(stamp);
        Ok(())
    }

    /// Shows a range: `show` gets what keeps it alive (made by `make` for the first view), where it is, and how long.
    pub fn region<R>(
        &self,
        wait: Wait,
        offset: u64,
        length: u64,
        make: impl FnOnce(View) -> V,
        show: impl FnOnce(&V, *const u8, usize) -> R,
    ) -> Result<R, Error> {
        let reading = self.reading(wait)?;
        let open = self.readable(&reading)?;
        let part = open.mapping.part(offset, length)?;
        open.mapping.check_not_faulted()?;
        let view = open
            .view
            .get_or_init(|| make(View::new(open.mapping.clone())));
        Ok(show(view, part.address(), part.length()))
    }

    /// Writes everything back and waits for it, or starts writing it back. Holds up nobody.
    pub fn sync(&self, asynchronously: bool) -> Result<(), Error> {
        let mapping = self.mapping(Wait::Blocking)?;
        if asynchronously {
            mapping.sync_async(mapping.whole())
        } else {
            mapping.sync(mapping.whole())
        }
    }

    /// Tells the kernel what to expect of a range; of everything from `offset` on if `length` is 0.
    pub fn advise(&self, offset: u64, length: u64, hint: Hint) -> Result<(), Error> {
        let mapping = self.mapping(Wait::Blocking)?;
        let length = match length {
            0 => (mapping.size() as u64).saturating_sub(offset),
            length => length,
        };
        mapping.part(offset, length)?.advise(hint)
    }

    /// The size of the mapping, in bytes.
    pub fn position(&self, wait: Wait) -> Result<usize, Error> {
        let reading = self.reading(wait)?;
        Ok(opened(&reading)?.mapping.size())
    }

    /// What there is to know.
    pub fn info(&self, wait: Wait) -> Result<Info, Error> {
        let reading = self.reading(wait)?;
        let mapping = &opened(&reading)?.mapping;
        Ok(Info {
            size: mapping.size(),
            access: self.options.access,
            private: mapping.is_private(),
            locked: mapping.is_locked(),
            faulted: mapping.is_faulted(),
        })
    }

    /// Makes the file and the mapping `size` bytes long, whatever the file's size was; clears a fault.
    ///
    /// If any step fails, the handle is what it was. A `close` that comes in between is as if it had come after.
    pub fn truncate(&self, size: u64) -> Result<(), Error> {
        if size == 0 {
            return Err(Error::INVALID);
        }
        let _one_at_a_time = self.resizing.lock();
        let mapping = self.mapping(Wait::Blocking)?;
        self.permit(self.options.access.writes())?;
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
        match self.replace(fresh, shrink) {
            Err(Error::Closed) if !is_longer => Ok(()),
            replaced => replaced,
        }
    }

    /// Makes the mapping as long as the file is now; clears a fault. Gives the size.
    pub fn remap(&self) -> Result<usize, Error> {
        let _one_at_a_time = self.resizing.lock();
        let mapping = self.mapping(Wait::Blocking)?;
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
            self.start
                .store(fresh.address().cast_mut(), Ordering::Relaxed);
            let open_anew = Open {
                mapping: fresh.clone(),
                view: OnceLock::new(),
            };
            std::mem::replace(open, open_anew)
        };
        drop(replaced); // its locked pages count until then
        if self.options.lock {
            fresh.lock();
        }
        Ok(())
    }

    fn mapping(&self, wait: Wait) -> Result<Arc<Mapping>, Error> {
        let reading = self.reading(wait)?;
        Ok(opened(&reading)?.mapping.clone())
    }

    #[inline]
    fn reading(&self, wait: Wait) -> Result<ReadGuard<'_, Option<Open<V>>>, Error> {
        match wait {
            Wait::NonBlocking => self.lock.try_read().ok_or(Error::WouldBlock),
            Wait::Blocking => Ok(self.lock.read()),
        }
    }

    #[inline]
    fn writing(&self, wait: Wait) -> Result<WriteGuard<'_, Option<Open<V>>>, Error> {
        match wait {
            Wait::NonBlocking => self.lock.try_write().ok_or(Error::WouldBlock),
            Wait::Blocking => Ok(self.lock.write()),
        }
    }

    #[inline]
    fn readable<'a>(&self, open: &'a Option<Open<V>>) -> Result<&'a Open<V>, Error> {
        let open = opened(open)?;
        self.permit(self.options.access.reads())?;
        Ok(open)
    }

    #[inline]
    fn permit(&self, permitted: bool) -> Result<(), Error> {
        if permitted {
            Ok(())
        } else {
            Err(Error::NO_ACCESS)
        }
    }
}

impl<V> Drop for Handle<V> {
    /// Lets the mapping go without waiting.
    fn drop(&mut self) {
        if let Some(Open { mapping, view }) = self.lock.get_mut().take() {
            drop(view);
            mapping.release();
        }
    }
}

#[inline]
fn writable<V>(
    open: &Option<Open<V>>,
    offset: u64,
    length: usize,
) -> Result<WritablePart<'_>, Error> {
    opened(open)?.mapping.writable_part(offset, length as u64)
}

#[inline]
fn opened<V>(open: &Option<Open<V>>) -> Result<&Open<V>, Error> {
    open.as_ref().ok_or(Error::Closed)
}
