//! A handle: a lock around an open mapping, or around nothing once it is closed.
//!
//! ```text
//! open --truncate, remap, ensure_size--> open (another size, perhaps another mapping) --close--> closed
//! ```
//!
//! Every operation goes the same way down: take the lock, see that the handle is open and permits it, check the range,
//! and let the mapping do it. A call that may wait does so in two phases (`two_phase`): it prepares on a counted reference,
//! without the lock, and acts under it. So no lock is held while sleeping in the kernel, but by a copy whose pages were dropped
//! in the moment since they were fetched or faulted in, and by what resizes while it swaps mappings.
//!
//! `read`, `write`, `batch` (several ranges at once), `atomic`, `resize` and `extend` have the operations of those names.

mod atomic;
mod batch;
mod extend;
pub mod read;
mod resize;
mod write;

pub use batch::Span;

use crate::error::Error;
use crate::fault::handler;
use crate::file::opening::{self, Source};
use crate::file::{mappable, BackingFile};
use crate::listing::Info;
use crate::lock::{Lock, ReadGuard, WriteGuard};
use crate::mapping::Mapping;
use crate::options::{Access, Hint, Options};
use crate::platform::memory;
use crate::unmapper;
use parking_lot::Mutex;
use std::ops::Deref;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};

/// The longest copy that is made without waiting, in bytes: a twelfth of the millisecond a scheduler may lose, or less.
pub const NON_BLOCKING_MAX: usize = 1 << 20;

/// Whether a call may wait: for the lock, for the disk, or for a long copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It must not: it gives an error that tells why it would (`Error::would_block`) instead, and has done nothing.
    NonBlocking,
    /// It may, as long as it takes.
    Blocking,
}

/// A handle. `V` keeps the mapping alive for views: it is made of a `View` when the first view is asked for.
#[repr(C)] // the lock first, so that its address, by which threads name it, is the handle's
pub struct Handle<V> {
    lock: Lock<Option<Open<V>>>,
    /// Where the mapping begins, or began a moment ago: only good to prefetch.
    start: AtomicPtr<u8>,
    options: Options,
    /// Held through a whole truncate or remap, most of which happens outside the lock, and while what both carry over changes:
    /// lasting hints and locked pages.
    resizing: Mutex<()>,
}

struct Open<V> {
    // Dropped first: what keeps views alive has a reference to the mapping too, and the last one to go waits for nothing.
    view: OnceLock<V>,
    mapping: Arc<Mapping>,
    /// The device that its file is on.
    device: u64,
}

impl<V> Handle<V> {
    /// Opens and maps the file.
    pub fn open<'a>(source: impl Into<Source<'a>>, options: Options) -> Result<Handle<V>, Error> {
        handler::install()?;
        let source = source.into();
        unmapper::retry_after_reclaim(|| Handle::open_once(source, options))
    }

    fn open_once(source: Source, options: Options) -> Result<Handle<V>, Error> {
        let map = |file: &Arc<BackingFile>, size| Mapping::new(file.clone(), size, &options);
        let mapping = opening::open(source, &options, map)?;
        if options.populate && options.size > 0 {
            mapping.populate(); // what it was grown by was not there to be prefaulted
        }
        if options.lock {
            mapping.lock_all();
        }
        Ok(Handle::of_mapping(mapping, options))
    }

    /// Maps a file that is open already, as it is. An empty one is refused.
    pub fn of_file(file: &Arc<BackingFile>, options: Options) -> Result<Handle<V>, Error> {
        handler::install()?;
        let size = mappable(file.size()?)?;
        if size == 0 {
            return Err(Error::INVALID);
        }
        let map = || Mapping::new(file.clone(), size, &options);
        let mapping = unmapper::retry_after_reclaim(map)?;
        Ok(Handle::of_mapping(mapping, options))
    }

    fn of_mapping(mapping: Mapping, options: Options) -> Handle<V> {
        mapping.listing().begin();
        Handle {
            start: AtomicPtr::new(mapping.first_byte()),
            // Prefaulting was for the opening; a resize under the lock must not take that long.
            options: Options {
                populate: false,
                ..options
            },
            lock: Lock::new(Some(Open::new(Arc::new(mapping)))),
            resizing: Mutex::new(()),
        }
    }

    /// What the handle may do.
    pub fn access(&self) -> Access {
        self.options.access
    }

    /// Tells the processor where a call's range begins, as soon as that is known: its cache line comes while the rest is checked.
    /// Promises nothing.
    #[inline(always)]
    pub fn prefetch(&self, offset: u64) {
        let first = self.start.load(Ordering::Relaxed);
        memory::prefetch(first.wrapping_add(offset as usize));
    }

    /// Whether it maps a window of its file only.
    pub fn is_window(&self) -> bool {
        !self.options.window.is_whole()
    }

    /// Whether changes stay in the mapping.
    pub fn is_private(&self) -> bool {
        self.options.private
    }

    /// The file.
    pub fn file(&self) -> Result<Arc<BackingFile>, Error> {
        Ok(self.mapping()?.file().clone())
    }

    /// Closes the handle; the mapping goes with its last view. Waits for calls that hold the lock.
    pub fn close(&self) -> Result<(), Error> {
        let open = self.lock.write().take().ok_or(Error::Closed)?;
        open.mapping.listing().close();
        open.mapping.touch_file();
        Ok(())
    }

    /// Writes everything back and waits for it, or starts writing it back. Holds up nobody.
    pub fn sync(&self, asynchronously: bool) -> Result<(), Error> {
        self.without_the_lock(|mapping| {
            if asynchronously {
                mapping.sync_async(mapping.whole())
            } else {
                mapping.sync(mapping.whole())
            }
        })
    }

    /// The same of a range, widened to pages. Of nothing, only tells what a sync of anything would.
    pub fn sync_range(&self, offset: u64, length: u64, asynchronously: bool) -> Result<(), Error> {
        self.without_the_lock(|mapping| mapping.sync_range(offset, length, asynchronously))
    }

    /// Tells the kernel what to expect of a range; of everything from `offset` on if `length` is 0.
    pub fn advise(&self, offset: u64, length: u64, hint: Hint) -> Result<(), Error> {
        let _one_at_a_time = hint.setting().map(|_| self.resizing.lock());
        self.without_the_lock(|mapping| {
            self.permit(hint != Hint::PopulateWrite || self.options.access.writes())?;
            let length = match length {
                0 => (mapping.size() as u64).saturating_sub(offset),
                length => length,
            };
            mapping.part(offset, length)?.advise(hint)
        })
    }

    /// Locks the pages of a range in memory. Not more than before if that fails.
    pub fn lock_range(&self, offset: u64, length: u64) -> Result<(), Error> {
        let _one_at_a_time = self.resizing.lock();
        self.mapping()?.part(offset, length)?.lock()
    }

    /// Unlocks the pages of a range, however often they were locked.
    pub fn unlock_range(&self, offset: u64, length: u64) -> Result<(), Error> {
        let _one_at_a_time = self.resizing.lock();
        self.mapping()?.part(offset, length)?.unlock()
    }

    /// How many bytes of a range are in memory.
    pub fn resident(&self, offset: u64, length: u64) -> Result<usize, Error> {
        self.mapping()?.part(offset, length)?.resident()
    }

    /// The size of the mapping, in bytes.
    #[inline(always)]
    pub fn position(&self, wait: Wait) -> Result<usize, Error> {
        let reading = self.reading(wait)?;
        Ok(opened(&reading)?.mapping.size())
    }

    /// The facts about the handle and its mapping.
    pub fn info(&self, wait: Wait) -> Result<Info, Error> {
        let reading = self.reading(wait)?;
        Ok(opened(&reading)?.mapping.listing().info())
    }

    /// The two-phase step of all that may wait: look under the lock, prepare without it on a counted reference, look again
    /// under the lock, act. Both halves check the range for themselves: the second may find another mapping.
    fn two_phase<'a, Locked, Prepared, Done>(
        &'a self,
        prepare: impl FnOnce(&Mapping) -> Result<Prepared, Error>,
        lock: impl FnOnce(&'a Lock<Option<Open<V>>>) -> Locked,
        act: impl FnOnce(&Mapping, Prepared) -> Result<Done, Error>,
    ) -> Result<Done, Error>
    where
        Locked: Deref<Target = Option<Open<V>>>,
    {
        let mapping = self.mapping()?;
        let prepared = prepare(&mapping)?;
        drop(mapping);
        let locked = lock(&self.lock);
        act(&opened(&locked)?.mapping, prepared)
    }

    /// Does something to the mapping on a counted reference, however long it takes. What a resize of this handle cut off meanwhile
    /// is no fault: it is done to the mapping that came in its place then.
    fn without_the_lock(
        &self,
        act: impl Fn(&Arc<Mapping>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut mapping = self.mapping()?;
        loop {
            let done = act(&mapping);
            let present = match done {
                Err(Error::Fault) => self.mapping()?,
                done => return done,
            };
            if Arc::ptr_eq(&mapping, &present) {
                return done;
            }
            mapping = present;
        }
    }

    /// The first half of it: looks under the lock, and gives a counted reference.
    fn mapping(&self) -> Result<Arc<Mapping>, Error> {
        Ok(opened(&self.lock.read())?.mapping.clone())
    }

    #[inline]
    fn reading(&self, wait: Wait) -> Result<ReadGuard<'_, Option<Open<V>>>, Error> {
        match wait {
            Wait::NonBlocking => self.lock.try_read().ok_or(Error::Contended),
            Wait::Blocking => Ok(self.lock.read()),
        }
    }

    #[inline]
    fn try_writing(&self) -> Result<WriteGuard<'_, Option<Open<V>>>, Error> {
        self.lock.try_write().ok_or(Error::Contended)
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

impl<V> Open<V> {
    fn new(mapping: Arc<Mapping>) -> Open<V> {
        Open {
            view: OnceLock::new(),
            device: mapping.file().device(),
            mapping,
        }
    }

    /// Lets the mapping go without waiting. What keeps it alive for views, if there is that, has the last reference; if not,
    /// nothing is looked at but what stands here.
    fn release(self) {
        let Some(view) = self.view.into_inner() else {
            return unmapper::release(self.device, self.mapping);
        };
        self.mapping.listing().close();
        drop(self.mapping);
        drop(view);
    }
}

impl<V> Drop for Handle<V> {
    /// Lets the mapping go without waiting.
    fn drop(&mut self) {
        if let Some(open) = self.lock.get_mut().take() {
            open.release();
        }
    }
}

#[inline]
fn opened<V>(open: &Option<Open<V>>) -> Result<&Open<V>, Error> {
    open.as_ref().ok_or(Error::Closed)
}
