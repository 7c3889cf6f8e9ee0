//! One mapping of one file: address space, size, descriptor. It is shared by its handle and by every view, and unmaps
//! itself when the last of them lets go.
//!
//! It may grow where it is, behind its last byte, while others use it: `prepare_growth` maps more of the file behind what
//! anybody knows of, `Growth::publish` makes that known, last and in one store. It never shrinks: a fresh one takes over.
//!
//! The bytes change under us at any time, so no Rust reference to them is ever made: pointer and length, and copies
//! through the guard.

#[allow(unsafe_code)] // loads and updates mapped words
pub mod atomic;
#[allow(unsafe_code)] // advises the kernel of mapped memory, faults it in
mod hints;
#[allow(unsafe_code)] // copies from and to mapped memory
mod private_pages;
#[allow(unsafe_code)] // copies from mapped memory
mod read;
pub mod resize;
mod sync;
pub mod view;
#[allow(unsafe_code)] // copies to mapped memory
mod write;
#[allow(unsafe_code)] // copies from mapped memory
mod zeros;

use crate::error::Error;
use crate::fault::registry::{self, Registration};
use crate::file::BackingFile;
use crate::options::{Hint, Options};
use crate::platform::memory::Kind;
use crate::platform::page_cache;
use crate::range::Range;
use crate::reservation::Reservation;
use crate::residency::Residency;
use crate::unmapper::{self, Remains};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering};
use std::sync::Arc;

/// How long a page that was in memory is taken to be there: about a quarter of a second.
const READ_LIFETIME: u32 = 4;
/// How long a page that was written is taken to be writable at once, where the system tells later whether it still is: about a
/// quarter of a second.
const WRITE_LIFETIME: u32 = 4;
/// And where it does not tell: about a second. The kernel cleans pages after five seconds or more.
const LONG_WRITE_LIFETIME: u32 = 16;
/// How long after it was written a page may be found to be writable still: half a minute, after which the kernel cleans all.
const WRITE_RENEWABLE: u32 = 480;

/// The most pages of one block of the cache for reading, in a mapping too big for a block of each.
const READ_BLOCK: usize = 16;

/// A mapping. See the module's text.
pub struct Mapping {
    // Dropped in this order: not known any more, unmapped, closed.
    slot: Registration,
    memory: Reservation,
    file: Arc<BackingFile>,
    /// How many bytes of the file are mapped, and known. Only ever grows.
    size: AtomicUsize,
    kind: Kind,
    reads: Residency,
    writes: Residency,
    /// Whether the file was written through this mapping since its time of modification was set.
    written: AtomicBool,
    /// How many calls write back now.
    writebacks: AtomicU32,
    /// The errno of the last write-back that failed, or 0.
    writeback_error: AtomicI32,
    locked: AtomicBool,
    /// The lasting hint for all of it. Held while the size grows, so that no part misses a hint.
    hint: Mutex<Option<Hint>>,
    /// The pages that a private mapping has of its own; `None` for a shared one.
    private_pages: Option<Mutex<BTreeSet<usize>>>,
}

/// A range that lies inside a mapping, for as long as the mapping lives: it never shrinks.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    mapping: &'a Mapping,
    range: Range,
}

/// A range that lies inside a mapping that may be written to.
#[derive(Clone, Copy)]
pub struct WritablePart<'a>(Part<'a>);

impl Mapping {
    /// Maps the first `size` bytes of the file.
    pub fn new(file: Arc<BackingFile>, size: usize, options: &Options) -> Result<Mapping, Error> {
        let kind = Kind {
            private: options.private,
            writable: options.access.writes(),
            populate: options.populate && !options.private,
        };
        let memory = Reservation::new(size, file.page_size())?;
        memory.map(file.fd(), 0, size, kind)?;
        let slot = registry::register(&registry::Entry {
            start: memory.start(),
            length: size,
            extent: memory.extent(),
            unit: memory.unit(),
            fd: file.sized_fd(),
            writable: kind.writable,
        });
        let capacity = memory.capacity();
        let written = if kind.writable { capacity } else { 0 };
        let writes = residency_of_writes(written, &file);
        let mapping = Mapping {
            slot,
            memory,
            size: AtomicUsize::new(size),
            kind,
            file,
            reads: Residency::new(capacity, READ_LIFETIME, READ_BLOCK),
            writes,
            written: AtomicBool::new(false),
            writebacks: AtomicU32::new(0),
            writeback_error: AtomicI32::new(0),
            locked: AtomicBool::new(false),
            hint: Mutex::new(None),
            private_pages: options.private.then(Mutex::default),
        };
        if options.populate && options.private {
            mapping.fault_in_readable(Range::between(0, size));
        }
        Ok(mapping)
    }

    /// The size in bytes.
    #[inline]
    pub fn size(&self) -> usize {
        self.size.load(Ordering::Acquire)
    }

    /// The first byte. A reader or writer must live with the bytes changing, and keep the mapping alive.
    #[inline]
    pub fn address(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.memory.start())
    }

    /// The file.
    pub fn file(&self) -> &Arc<BackingFile> {
        &self.file
    }

    /// Whether changes stay here.
    pub fn is_private(&self) -> bool {
        self.private_pages.is_some()
    }

    /// Whether the pages are locked in memory.
    pub fn is_locked(&self) -> bool {
        self.locked.load(Ordering::Relaxed)
    }

    /// Whether zero pages were put under it.
    pub fn is_faulted(&self) -> bool {
        self.slot.faulted()
    }

    /// `Fault` if zero pages were put under it. Asked after reading: if not, what was read was real.
    #[inline]
    pub fn check_not_faulted(&self) -> Result<(), Error> {
        if self.is_faulted() {
            Err(Error::Fault)
        } else {
            Ok(())
        }
    }

    /// Lets a reference go where nothing may be waited for. If it is the last, the mapping is unmapped, and its file closed,
    /// elsewhere and soon.
    pub fn release(self: Arc<Self>) {
        if let Some(mapping) = Arc::into_inner(self) {
            let was_written = !mapping.is_private() && mapping.written.load(Ordering::Acquire);
            let Mapping {
                slot, memory, file, ..
            } = mapping;
            drop(slot);
            unmapper::release(Remains::new(memory, file, was_written));
        }
    }

    /// The part, if it lies inside.
    #[inline]
    pub fn part(&self, offset: u64, length: u64) -> Result<Part<'_>, Error> {
        let range = Range::checked(offset, length, self.size())?;
        Ok(Part {
            mapping: self,
            range,
        })
    }

    /// The part, to write to, if that is permitted and it lies inside.
    #[inline]
    pub fn writable_part(&self, offset: u64, length: u64) -> Result<WritablePart<'_>, Error> {
        if !self.kind.writable {
            return Err(Error::NO_ACCESS);
        }
        Ok(WritablePart(self.part(offset, length)?))
    }

    /// All of it, as it is now.
    pub fn whole(&self) -> Range {
        Range::between(0, self.size())
    }
}

impl Part<'_> {
    /// The first byte. A reader must live with the bytes changing, and keep the mapping alive.
    #[inline]
    pub fn address(self) -> *const u8 {
        self.mapping.address().wrapping_add(self.range.offset())
    }

    /// How many bytes.
    #[inline]
    pub fn length(self) -> usize {
        self.range.length()
    }
}

fn residency_of_writes(size: usize, file: &BackingFile) -> Residency {
    if page_cache::has_cachestat() && !file.system().is_stacked {
        Residency::new(size, WRITE_LIFETIME, 1).renewable(WRITE_RENEWABLE)
    } else {
        Residency::new(size, LONG_WRITE_LIFETIME, 1)
    }
}
