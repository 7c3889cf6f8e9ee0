//! One mapping of one file: address space, size, descriptor. It is shared by its handle and by every view, and unmaps
//! itself when the last of them lets go.
//!
//! It may grow where it is, behind its last byte, while others use it: `prepare_growth` maps more of the file behind what
//! anybody knows of, `Growth::publish` makes that known, last and in one store. It never shrinks: a fresh one takes over.
//!
//! It may be of a window of the file, which begins anywhere. Pages begin where the memory does, so a `Range` of a `Part`, and all
//! that works on it, counts from there: from `origin` in the file, `lead` bytes before the window. What callers give and are
//! given counts from the window.
//!
//! The bytes change under us at any time, so no Rust reference to them is ever made: pointer and length, and copies
//! through the guard.

#[allow(unsafe_code)] // loads and updates mapped words
pub mod atomic;
#[allow(unsafe_code)] // advises the kernel of mapped memory, faults it in
mod hints;
mod mlock;
#[allow(unsafe_code)] // copies from and to mapped memory
mod private_pages;
#[allow(unsafe_code)] // copies from mapped memory
mod read;
#[allow(unsafe_code)] // asks about mapped memory
mod resident;
pub mod resize;
mod sync;
pub mod view;
#[allow(unsafe_code)] // copies to mapped memory
mod write;
mod write_ahead;
#[allow(unsafe_code)] // copies from mapped memory
mod zeros;

use crate::error::Error;
use crate::fault::registry::{self, Registration};
use crate::file::BackingFile;
use crate::listing::{Facts, Listing};
use crate::options::Options;
use crate::platform::memory::Kind;
use crate::platform::page_cache;
use crate::range::Range;
use crate::reservation::Reservation;
use crate::residency::Residency;
use crate::unmapper::{self, Reclaim};
use hints::LastingHints;
use mlock::Locks;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering};
use std::sync::Arc;
use write_ahead::WriteAhead;

/// How long a page that was in memory is taken to be there: about a quarter of a second.
const READ_LIFETIME: u32 = 4;
/// How long a page that was written is taken to be writable at once, where the system tells later whether it still is: about a
/// quarter of a second.
const WRITE_LIFETIME: u32 = 4;
/// And where it does not tell: about a second. The kernel cleans pages after five seconds or more.
const LONG_WRITE_LIFETIME: u32 = 16;
/// How long after it was read or written a page may be found to be ready still: half a minute. By then the kernel has cleaned
/// what was written.
const RENEWABLE: u32 = 480;
/// How many pages are asked about at once then: of those that were written many, as they are mapped, and the system tells of them in
/// one to three microseconds; of those that were read fewer, as they may be in memory but not mapped, where it takes ten.
const WRITE_RENEWED: usize = read::PAGES_AT_ONCE;
const READ_RENEWED: usize = 128;

/// The most pages of one block of the cache for reading, in a mapping too big for a block of each.
const READ_BLOCK: usize = 16;

/// A mapping. See the module's text.
pub struct Mapping {
    // Dropped in this order: not listed, not known any more, unmapped, closed.
    listing: Listing,
    slot: Registration,
    memory: Reservation,
    file: Arc<BackingFile>,
    /// How many bytes of the window are mapped, and known. Only ever grows.
    size: AtomicUsize,
    /// How many of them are found without a look at `lead`: all, or none if there is one. Stored after `size`, so never more.
    direct: AtomicUsize,
    /// Where in the file the memory begins, in bytes.
    origin: u64,
    /// How many bytes of the memory come before the window.
    lead: usize,
    kind: Kind,
    reads: Residency,
    writes: Residency,
    write_ahead: WriteAhead,
    /// Whether the file was written through this mapping since its time of modification was set.
    written: AtomicBool,
    /// `BackingFile::maps_post_eof`, where a write finds it without a look at the file.
    maps_post_eof: AtomicBool,
    /// How many calls write back now.
    writebacks: AtomicU32,
    /// The errno of the last write-back that failed, or 0. Of a mapping that another has grown into, the other's too.
    writeback_error: Arc<AtomicI32>,
    /// Whether all pages are locked in memory.
    locked: Arc<AtomicBool>,
    locks: Mutex<Locks>,
    hints: Mutex<LastingHints>,
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
    /// Maps the first `size` bytes of the options' window of the file.
    pub fn new(file: Arc<BackingFile>, size: usize, options: &Options) -> Result<Mapping, Error> {
        let kind = Kind {
            private: options.private,
            writable: options.access.writes(),
            populate: options.populate && !options.private,
        };
        let lead = (options.window.offset % file.page_size() as u64) as usize;
        let origin = options.window.offset - lead as u64;
        let reserve = options.reserve.saturating_add(lead as u64);
        let memory = Reservation::new(origin, lead + size, reserve, file.page_size())?;
        memory.map(file.fd(), 0, lead + size, kind)?;
        let slot = registry::register(&registry::Entry {
            start: memory.start(),
            length: lead + size,
            origin,
            extent: memory.extent(),
            unit: memory.unit(),
            fd: file.sized_fd(),
            writable: kind.writable,
        });
        let capacity = memory.capacity();
        let written = if kind.writable { capacity } else { 0 };
        let writes = residency_of_writes(written, &file, options.private);
        let locked = Arc::new(AtomicBool::new(false));
        let facts = Facts {
            slot: *slot,
            access: options.access,
            private: options.private,
            locked: locked.clone(),
            path: file.path(),
            offset: options.window.offset,
            descriptor: file.fd(),
        };
        let mapping = Mapping {
            listing: Listing::new(facts, size),
            slot,
            memory,
            size: AtomicUsize::new(size),
            direct: AtomicUsize::new(if lead == 0 { size } else { 0 }),
            origin,
            lead,
            kind,
            reads: Residency::new(capacity, READ_LIFETIME, READ_BLOCK)
                .renewable(RENEWABLE, READ_RENEWED),
            writes,
            written: AtomicBool::new(false),
            maps_post_eof: AtomicBool::new(file.maps_post_eof()),
            write_ahead: WriteAhead::new(),
            writebacks: AtomicU32::new(0),
            writeback_error: Arc::new(AtomicI32::new(0)),
            locked,
            locks: Mutex::default(),
            hints: Mutex::default(),
            private_pages: options.private.then(Mutex::default),
            file,
        };
        if options.populate && options.private {
            mapping.populate();
        }
        Ok(mapping)
    }

    /// The size in bytes.
    #[inline]
    pub fn size(&self) -> usize {
        self.size.load(Ordering::Acquire)
    }

    /// Where the memory begins. A reader or writer must live with the bytes changing, and keep the mapping alive.
    #[inline]
    fn address(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.memory.start())
    }

    /// The first byte of the window: only good to prefetch.
    pub fn first_byte(&self) -> *mut u8 {
        self.address().wrapping_add(self.lead)
    }

    /// Where in the file a range of the memory begins.
    fn file_offset(&self, range: Range) -> u64 {
        self.origin + range.offset() as u64
    }

    /// Where in the memory a file of that size ends.
    fn up_to(&self, file_size: usize) -> usize {
        file_size.saturating_sub(self.origin as usize)
    }

    /// The file.
    pub fn file(&self) -> &Arc<BackingFile> {
        &self.file
    }

    /// Its place on the list of mappings.
    pub fn listing(&self) -> &Listing {
        &self.listing
    }

    /// Whether the file has the page before an offset of the memory.
    fn file_covers(&self, offset: usize) -> bool {
        self.file.is_surely_as_long_as(self.origin + offset as u64) || self.slot.file_covers(offset)
    }

    /// Whether changes stay here.
    pub fn is_private(&self) -> bool {
        self.private_pages.is_some()
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

    /// `Fault` if zero pages were put under it, or if a store to the range would go behind the end of the file, without a fault: it
    /// would be found there if the file grew. (A private mapping keeps what is stored in pages of its own.)
    #[inline]
    fn check_takes_stores(&self, range: Range) -> Result<(), Error> {
        if self.may_lose_stores(range) && !self.is_private() {
            return Err(Error::Fault);
        }
        self.check_not_faulted()
    }

    /// The same after the store, as the file may have been cut meanwhile.
    #[inline]
    fn check_stored(&self, range: Range) -> Result<(), Error> {
        if self.may_lose_stores(range) {
            return Err(Error::Fault);
        }
        self.check_not_faulted()
    }

    #[inline]
    fn may_lose_stores(&self, range: Range) -> bool {
        self.maps_post_eof.load(Ordering::Relaxed)
            && range.length() > 0
            && !self.file_covers(range.end())
    }

    /// Lets a reference go where nothing may be waited for. If it is the last, the mapping is unmapped, and its file closed,
    /// elsewhere and soon.
    pub fn release(self: Arc<Self>) {
        if let Some(mapping) = Arc::into_inner(self) {
            unmapper::release(mapping.file.device(), Arc::new(mapping));
        }
    }

    /// The part, if it lies inside.
    #[inline]
    pub fn part(&self, offset: u64, length: u64) -> Result<Part<'_>, Error> {
        match self.direct_part(offset, length) {
            Some(part) => Ok(part),
            None => self.part_of_window(offset, length),
        }
    }

    /// The part, if it is found without a look at the window.
    #[inline]
    pub fn direct_part(&self, offset: u64, length: u64) -> Option<Part<'_>> {
        let direct = self.direct.load(Ordering::Acquire);
        let range = Range::checked(offset, length, direct).ok()?;
        Some(Part {
            mapping: self,
            range,
        })
    }

    /// Whether every part is found so.
    #[inline]
    pub fn is_direct(&self) -> bool {
        self.lead == 0 && self.direct.load(Ordering::Acquire) == self.size()
    }

    #[cold]
    fn part_of_window(&self, offset: u64, length: u64) -> Result<Part<'_>, Error> {
        let range = Range::checked(offset, length, self.size())?;
        Ok(Part {
            mapping: self,
            range: range.moved(self.lead),
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

    /// All of the memory that is of the file, as it is now.
    pub fn whole(&self) -> Range {
        Range::between(0, self.lead + self.size())
    }
}

impl Reclaim for Mapping {
    fn unlist(&self) {
        self.listing.close();
    }
}

impl Drop for Mapping {
    /// Sets the file's time of modification, before the parts are dropped.
    fn drop(&mut self) {
        self.touch_file();
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

fn residency_of_writes(size: usize, file: &BackingFile, private: bool) -> Residency {
    let system = file.system();
    let told = if private || system.in_memory {
        page_cache::HAS_MINCORE && file.mincore_is_reliable()
    } else {
        page_cache::has_cachestat() && !system.is_stacked
    };
    if told {
        Residency::new(size, WRITE_LIFETIME, 1).renewable(RENEWABLE, WRITE_RENEWED)
    } else {
        Residency::new(size, LONG_WRITE_LIFETIME, 1)
    }
}
