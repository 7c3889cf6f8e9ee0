//! One mapping of one file: address space, size, descriptor. It is shared by its handle and by every view, and unmaps
//! itself when the last of them lets go.
//!
//! It may grow where it is, behind its last byte, while others use it: `prepare_growth` maps more of the file behind what
//! anybody knows of, `Growth::publish` makes that known, last and in one store. It never shrinks: a fresh one takes over.
//!
//! The bytes change under us at any time, so no Rust reference to them is ever made: pointer and length, and copies
//! through the guard.

use crate::buffer::{Buffer, Data, Segment};
use crate::error::Error;
use crate::file::BackingFile;
use crate::guard;
use crate::options::Options;
use crate::platform::memory::Kind;
use crate::platform::{self, memory};
use crate::range::Range;
use crate::registry::{self, Registration};
use crate::reservation::Reservation;
use crate::residency::{Residency, Stamp};
use crate::thread;
use crate::unmapper::{self, Remains};
use memmap2::Advice;
use parking_lot::{Mutex, MutexGuard};
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

/// How many pages are asked about in one system call.
const PAGES_AT_ONCE: usize = 512;

/// A hint about future accesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// No particular order.
    Normal,
    /// At random: no read-ahead.
    Random,
    /// In order: more read-ahead.
    Sequential,
    /// Soon: read ahead now.
    WillNeed,
    /// Not soon: the pages may be dropped.
    DontNeed,
}

impl Hint {
    /// Whether the hint goes on to hold, so that a mapping that replaces this one should have it too.
    pub fn lasts(self) -> bool {
        matches!(self, Hint::Normal | Hint::Random | Hint::Sequential)
    }
}

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

    /// The first byte. Whoever reads through it must live with the bytes changing, and keep the mapping alive.
    #[inline]
    pub fn address(&self) -> *const u8 {
        self.first()
    }

    #[inline]
    fn first(&self) -> *mut u8 {
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

    // Reading.

    #[inline]
    fn is_ready_to_read(&self, range: Range) -> bool {
        // The copy needs it next: the checks in between take about as long as half a cache miss.
        platform::prefetch(self.first().wrapping_add(range.offset()));
        self.reads.contains(range) || self.query(range)
    }

    /// Asks the kernel which pages around the range are in memory, and keeps the answer. Of a file whose server may hang nothing
    /// is kept: a page that was dropped meanwhile would be asked of the server.
    #[cold]
    fn query(&self, range: Range) -> bool {
        if range.length() == 0 {
            return true;
        }
        let stamp = self.reads.stamp();
        let by_mincore = self.file.mincore_is_reliable();
        let single_pages = self.reads.block_size() == platform::page_size();
        let unit = if self.file.system().remote {
            platform::page_size()
        } else if single_pages && by_mincore {
            self.reads.region_size() // a region of single pages is asked about at once
        } else {
            self.reads.block_size()
        };
        let around = range.widened(unit).before(self.size());
        let step = PAGES_AT_ONCE * platform::page_size();
        let mut all = true;
        let mut offset = around.offset();
        while offset < around.end() && all {
            let part = Range::between(offset, around.end().min(offset + step));
            all = if by_mincore {
                self.query_mincore(part, range, stamp)
            } else {
                self.query_nowait(part, stamp)
            };
            offset += step;
        }
        all
    }

    /// Whether all pages of `part`, which begins at a page, are in memory, found out by a read that does not wait.
    fn query_nowait(&self, part: Range, stamp: Stamp) -> bool {
        let cached = platform::is_cached(self.file.fd(), part.offset() as u64, part.length());
        if cached {
            self.insert_resident(part.widened(platform::page_size()), stamp);
        }
        cached
    }

    /// Whether those pages of `part` that `wanted` needs are in memory. `part` begins at a page.
    fn query_mincore(&self, part: Range, wanted: Range, stamp: Stamp) -> bool {
        let page_size = platform::page_size();
        let mut pages = [0u8; PAGES_AT_ONCE];
        // SAFETY: the part lies inside the mapping and begins at a page; `pages` is long enough for a step.
        let told =
            unsafe { memory::resident(self.first().add(part.offset()), part.length(), &mut pages) };
        let pages = &pages[..part.length().div_ceil(page_size)];
        if !told {
            return false;
        }
        let mut page = 0;
        let mut all = true;
        for run in pages.chunk_by(|one, next| one & 1 == next & 1) {
            let start = part.offset() + page * page_size;
            let run_range = Range::between(start, start + run.len() * page_size);
            if run[0] & 1 == 1 {
                self.insert_resident(run_range, stamp);
            } else if run_range.overlaps(wanted) {
                all = false;
            }
            page += run.len();
        }
        all
    }

    fn insert_resident(&self, range: Range, stamp: Stamp) {
        if !self.file.system().remote {
            self.reads.insert(range, stamp);
        }
    }

    /// Asks about pages of which nothing but zeros was copied, and copies them again. While a file is cut, a system that keeps
    /// files in memory in pieces larger than a page may show zeros in pages that are no longer the file's, instead of a fault.
    /// The file is shorter by then; but it may have grown back before we ask, so zeros are believed the second time. (A page
    /// that was zeroed while it was copied has zeros anywhere, as other pages do.)
    ///
    /// # Safety
    ///
    /// `to` holds a copy of the range, which lies inside, and is writable.
    #[cold]
    unsafe fn recheck_zeros(&self, range: Range, to: *mut u8) -> Result<(), Error> {
        let ask = || {
            // SAFETY: the copy is there.
            let cut = unsafe { zero_parts(range, to) }.any(|part| self.lies_in_zeros(part));
            if cut && !self.slot.file_covers(range.end()) {
                return Err(Error::Fault);
            }
            Ok(())
        };
        ask()?;
        // SAFETY: the copy is there; each part is looked at before it is copied again.
        for part in unsafe { zero_parts(range, to) } {
            let at = part.offset() - range.offset();
            // SAFETY: the part lies in the range.
            unsafe { guard::copy(to.add(at), self.first().add(part.offset()), part.length())? };
        }
        self.check_not_faulted()?;
        ask()
    }

    /// Whether the lines of the cache that hold the part are nothing but zeros, as they are in pages that were zeroed. They
    /// were read just now, so to look at them takes less than to ask where the file ends.
    fn lies_in_zeros(&self, part: Range) -> bool {
        const LINE: usize = 64;
        let lines = part.widened(LINE);
        let is_zero = |start: usize, end: usize| {
            let mut bytes = [0u8; LINE];
            // SAFETY: a line lies in a page, and the mapping is of whole pages.
            let seen =
                unsafe { guard::copy(bytes.as_mut_ptr(), self.first().add(start), end - start) };
            seen.is_err() || bytes == [0; LINE]
        };
        is_zero(lines.offset(), part.offset()) && is_zero(part.end(), lines.end())
    }

    // Writing.

    #[inline]
    fn is_ready_to_write(&self, range: Range) -> bool {
        range.length() == 0 || self.writes.contains(range) || self.is_still_ready_to_write(range)
    }

    /// Asks whether writing the range waits for nothing, though it was not written just now: a page in memory is all that
    /// is needed where the file is nowhere else; and elsewhere, that pages which this mapping wrote before are still dirty, and
    /// so may be written. (A private mapping must know first which pages it writes.)
    #[cold]
    fn is_still_ready_to_write(&self, range: Range) -> bool {
        if self.is_private() || self.writebacks.load(Ordering::Acquire) != 0 {
            return false;
        }
        if self.file.system().in_memory {
            let stamp = self.writes.stamp();
            let ready = self.is_ready_to_read(range);
            if ready {
                let pages = range.widened(platform::page_size());
                self.writes.insert(pages, stamp);
            }
            return ready;
        }
        let fd = self.file.fd();
        self.writes.renew(range, |run| {
            platform::is_dirty(fd, run.offset() as u64, run.length())
        })
    }

    fn insert_written(&self, range: Range, stamp: Stamp) {
        // A write to a file whose server may hang is never taken for one that waits for nothing.
        if self.writebacks.load(Ordering::Acquire) == 0 && !self.file.system().remote {
            self.writes
                .insert(range.widened(platform::page_size()), stamp);
        }
    }

    fn write_stamp(&self) -> Stamp {
        self.writes.stamp()
    }

    fn mark_private(&self, range: Range) {
        if let Some(private_pages) = &self.private_pages {
            if self.writes.contains(range) {
                return; // what is in the cache was marked
            }
            let pages = range.widened(platform::page_size());
            let page_size = platform::page_size();
            private_pages
                .lock()
                .extend(pages.offset() / page_size..pages.end() / page_size);
        }
    }

    // Everything else.

    /// Writes a range back to the file and waits for it.
    pub fn sync(&self, range: Range) -> Result<(), Error> {
        self.while_writing_back(|| {
            memory::flush(self.memory.start() + range.offset(), range.length(), true)
        })
    }

    /// Starts writing a range back to the file.
    pub fn sync_async(self: &Arc<Self>, range: Range) -> Result<(), Error> {
        if self.file.system().is_stacked {
            self.sync_on_a_thread(range)
        } else {
            self.while_writing_back(|| self.start_writeback(range))
        }
    }

    fn start_writeback(&self, range: Range) -> Result<(), Error> {
        let (offset, length) = (range.offset(), range.length());
        if platform::start_writeback(self.file.fd(), offset as u64, length as u64)? {
            return Ok(());
        }
        memory::flush(self.memory.start() + offset, length, false)
    }

    /// Writes a range back on a thread of its own, or here if there is none. What fails there is told by the next sync.
    fn sync_on_a_thread(self: &Arc<Self>, range: Range) -> Result<(), Error> {
        self.while_writing_back(|| Ok(()))?; // what can be told now
        let mapping = self.clone();
        let sync = move || {
            let _ = mapping.sync(range);
        };
        match thread::start("iommap_sync", sync) {
            Some(_) => Ok(()),
            None => self.sync(range),
        }
    }

    /// Writeback cleans pages, and the next write to a clean page may wait: what the cache holds of writing is invalid, and
    /// nothing is inserted while it runs. (A write that began before either `invalidate` is inserted too late to be believed.)
    fn while_writing_back(
        &self,
        write_back: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.check_not_faulted()?;
        if self.is_private() || !self.kind.writable {
            return Ok(());
        }
        self.check_writeback_error()?;
        self.writebacks.fetch_add(1, Ordering::AcqRel);
        self.writes.invalidate();
        let done = write_back();
        self.touch_file();
        self.writes.invalidate();
        self.writebacks.fetch_sub(1, Ordering::AcqRel);
        if let Err(Error::System(errno)) = done {
            self.writeback_error.store(errno, Ordering::Release);
        }
        done?;
        self.check_not_faulted()
    }

    /// Sees to the file's time of modification, if it was written through this mapping.
    pub fn touch_file(&self) {
        if !self.is_private() && self.written.swap(false, Ordering::AcqRel) {
            self.file.touch();
        }
    }

    /// The error of a write-back that failed before. The system tells it once, and takes the pages for clean after.
    fn check_writeback_error(&self) -> Result<(), Error> {
        match self.writeback_error.load(Ordering::Acquire) {
            0 => Ok(()),
            errno => Err(Error::System(errno)),
        }
    }

    /// Clears the error of a failed write-back: whoever resizes the file, or maps it anew, has been told.
    pub fn clear_writeback_error(&self) {
        self.writeback_error.store(0, Ordering::Release);
    }

    fn advise(&self, range: Range, hint: Hint) -> Result<(), Error> {
        let mut kept = hint.lasts().then(|| self.hint.lock());
        let whole = range.length() == self.size();
        self.advise_part(range, hint)?;
        if let Some(kept) = kept.as_mut().filter(|_| whole) {
            **kept = Some(hint);
        }
        Ok(())
    }

    fn advise_part(&self, range: Range, hint: Hint) -> Result<(), Error> {
        let (address, length) = (self.memory.start() + range.offset(), range.length());
        let advice = match hint {
            Hint::Normal => Advice::Normal,
            Hint::Random => Advice::Random,
            Hint::Sequential => Advice::Sequential,
            Hint::WillNeed => Advice::WillNeed,
            Hint::DontNeed => return self.drop_pages(address, length),
        };
        // SAFETY: the range lies inside the mapping, and the advice discards nothing.
        unsafe { memory::advise(address, length, advice) }
    }

    fn drop_pages(&self, address: usize, length: usize) -> Result<(), Error> {
        if self.is_private() {
            return Ok(()); // it would undo the changes
        }
        // SAFETY: the range lies inside the mapping, which is shared: it shows the same bytes again afterwards.
        let dropped = unsafe { memory::drop_pages(address, length) };
        self.invalidate_residency();
        match dropped {
            Err(Error::INVALID) if self.is_locked() => Ok(()), // locked pages stay
            dropped => dropped,
        }
    }

    /// Invalidates what was found out about pages in memory.
    pub fn invalidate_residency(&self) {
        self.reads.invalidate();
        self.writes.invalidate();
    }

    /// Brings all pages into memory.
    pub fn populate(&self) {
        self.fault_in_readable(Range::between(0, self.size()));
    }

    /// Locks the pages in memory, if the system lets us.
    pub fn lock(&self) {
        let locked = self.lock_part(Range::between(0, self.size()));
        self.locked.store(locked, Ordering::Relaxed);
    }

    /// Locks whole pages. Those of a private mapping stay the file's until they are written: `mlock(2)` would write to all
    /// of them, and so make a copy of each.
    fn lock_part(&self, part: Range) -> bool {
        let address = self.memory.start() + part.offset();
        if !self.is_private() {
            return memory::lock(address, part.length()).is_ok();
        }
        let locked = memory::lock_on_fault(address, part.length()).is_ok();
        if locked {
            self.fault_in_readable(part);
        }
        locked
    }

    /// Brings pages into memory by reading them, up to one that is gone. That makes no copies for a private mapping:
    /// `MAP_POPULATE` would, as it writes where that is permitted.
    fn fault_in_readable(&self, part: Range) {
        // SAFETY: the part is mapped as long as `self` lives.
        let _ = unsafe { guard::fault_in_readable(self.first().add(part.offset()), part.length()) };
    }

    // Growing.

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

    /// Brings what the file has behind `end` into the page that holds `end`, if a private mapping has that page of its own.
    fn complete_last_page(&self, end: usize) {
        let page_size = platform::page_size();
        let rest = Range::between(end, end.next_multiple_of(page_size));
        let is_own = |private_pages: &Mutex<BTreeSet<usize>>| {
            self.kind.writable
                && (self.is_locked() || private_pages.lock().contains(&(end / page_size)))
        };
        if rest.length() == 0 || !self.private_pages.as_ref().is_some_and(is_own) {
            return;
        }
        let mut bytes = vec![0; rest.length()];
        // SAFETY: the bytes are as many as the rest of the page; that page is mapped, and writable, as it was written.
        unsafe {
            platform::fetch(self.file.fd(), end as u64, bytes.as_mut_ptr(), bytes.len());
            let to = self.first().add(end);
            let _ = guard::copy(to, bytes.as_ptr(), bytes.len());
        }
    }

    /// Takes the lasting hint over from a mapping that this one replaces.
    pub fn take_hint(&self, other: &Mapping) {
        let hint = *other.hint.lock();
        if let Some(hint) = hint {
            let _ = self.advise(Range::between(0, self.size()), hint);
        }
    }

    /// Takes over the changes another private mapping of the same file holds, as far as both reach and neither lost them.
    /// Nobody else knows this mapping yet.
    pub fn copy_private_pages(&self, other: &Mapping) {
        let Some(private_pages) = &other.private_pages else {
            return;
        };
        let page_size = platform::page_size();
        let size = self.size().min(other.size());
        for page in private_pages.lock().iter() {
            let start = page * page_size;
            let end = (start + page_size).min(size);
            if start >= end || other.slot.lost(start, end) {
                continue;
            }
            let range = Range::between(start, end);
            // SAFETY: the range lies inside the other mapping, which is alive.
            let page = [unsafe { Segment::new(other.first().wrapping_add(start), range.length()) }];
            let part = self.writable_part(start as u64, range.length() as u64);
            if let (Ok(part), Some(data)) = (part, Data::new(&page)) {
                let _ = part.copy_in(data); // a fault: the page was truncated away
            }
        }
    }
}

impl<'a> Part<'a> {
    /// The first byte. Whoever reads through it must live with the bytes changing, and keep the mapping alive.
    #[inline]
    pub fn address(self) -> *const u8 {
        self.mapping.first().wrapping_add(self.range.offset())
    }

    /// How many bytes.
    #[inline]
    pub fn length(self) -> usize {
        self.range.length()
    }

    /// Whether the pages of the part are in memory, as far as was found out lately.
    #[inline]
    pub fn is_ready_to_read(self) -> bool {
        self.mapping.is_ready_to_read(self.range)
    }

    /// Copies the part out, to a buffer that is as long.
    #[inline]
    pub fn copy_out(self, buffer: &mut impl Buffer) -> Result<(), Error> {
        let (mapping, range) = (self.mapping, self.range);
        assert!(range.length() <= buffer.len(), "a buffer too short");
        let to = buffer.as_mut_ptr();
        // SAFETY: the part is mapped as long as the mapping lives; the buffer is long enough, and no part of a mapping.
        unsafe { guard::copy(to, self.address(), range.length())? };
        mapping.check_not_faulted()?;
        // SAFETY: the copy is there.
        if unsafe { zero_parts(range, to) }.next().is_some() {
            // SAFETY: as for the copy.
            unsafe { mapping.recheck_zeros(range, to) }
        } else {
            Ok(())
        }
    }

    /// Brings the part into memory through the descriptor, which does not drag its neighbours along and cannot fault.
    /// What is read on the way is not believed: while a file is cut, the system lets zeros be read that it never held.
    pub fn fetch(self, scratch: &mut impl Buffer) {
        assert!(self.length() <= scratch.len(), "a buffer too short");
        let (fd, offset) = (self.mapping.file.fd(), self.range.offset() as u64);
        // SAFETY: the buffer is writable for the length.
        unsafe { platform::fetch(fd, offset, scratch.as_mut_ptr(), self.length()) }
    }

    /// Tells the kernel what to expect. Never changes what is read. A lasting hint for all of the mapping also holds for what
    /// it grows by, and for what replaces it.
    pub fn advise(self, hint: Hint) -> Result<(), Error> {
        self.mapping.advise(self.range, hint)
    }
}

impl WritablePart<'_> {
    /// Whether the pages of the part were written lately, so that writing them again waits for nothing.
    #[inline]
    pub fn is_ready_to_write(self) -> bool {
        self.0.mapping.is_ready_to_write(self.0.range)
    }

    /// Makes the pages of the part writable, which may wait for the file system. A page that is gone does not matter yet: a
    /// resize may have taken it, so the write itself finds out.
    pub fn fault_in_writeable(self) {
        let Part { mapping, range } = self.0;
        mapping.mark_private(range);
        let at = self.0.address().cast_mut();
        // SAFETY: the part is mapped to be written to as long as the mapping lives.
        let _ = unsafe { guard::fault_in_writeable(at, range.length()) };
    }

    /// Copies data to the part, which is as long. The caller sees to it that nobody else reads or writes through the handle
    /// meanwhile.
    #[inline]
    pub fn copy_in(self, data: Data) -> Result<(), Error> {
        let Part { mapping, range } = self.0;
        assert!(data.length() <= range.length(), "a range too short");
        mapping.check_not_faulted()?;
        mapping.mark_private(range);
        if !mapping.written.load(Ordering::Relaxed) {
            mapping.written.store(true, Ordering::Relaxed);
        }
        // SAFETY: the part is mapped to be written to as long as the mapping lives, and is long enough.
        unsafe { guard::gather(self.0.address().cast_mut(), data)? };
        mapping.check_not_faulted()
    }

    /// The stamp of a write that begins now.
    pub fn write_stamp(self) -> Stamp {
        self.0.mapping.write_stamp()
    }

    /// The part was written, in a write that began at `stamp`.
    pub fn insert_written(self, stamp: Stamp) {
        self.0.mapping.insert_written(self.0.range, stamp);
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

/// The parts of the range, each of one page, of which nothing but zeros was copied.
///
/// # Safety
///
/// `copy` is readable for the length of the range as long as the parts are asked for, and nobody writes to a part while it is.
#[inline(always)]
unsafe fn zero_parts(range: Range, copy: *const u8) -> impl Iterator<Item = Range> {
    range.pages().filter(move |part| {
        // SAFETY: inside the copy, which is not of the mapping.
        let part = unsafe {
            std::slice::from_raw_parts(copy.add(part.offset() - range.offset()), part.length())
        };
        match part.split_first_chunk() {
            // All are like the first.
            Some((first, rest)) => {
                u64::from_ne_bytes(*first) == 0
                    && (rest.is_empty() || part[8..] == part[..rest.len()])
            }
            None => part.iter().all(|byte| *byte == 0),
        }
    })
}

fn residency_of_writes(size: usize, file: &BackingFile) -> Residency {
    if platform::has_cachestat() && !file.system().is_stacked {
        Residency::new(size, WRITE_LIFETIME, 1).renewable(WRITE_RENEWABLE)
    } else {
        Residency::new(size, LONG_WRITE_LIFETIME, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Access;
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;

    fn mapping(pages: usize) -> Mapping {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        let options = Options {
            create: true,
            size: (pages * platform::page_size()) as u64,
            ..Options::new(Access::ReadWrite)
        };
        let map = |file: &Arc<BackingFile>, size| Mapping::new(file.clone(), size, &options);
        crate::opening::open(&path, &options, map).unwrap()
    }

    #[test]
    fn a_write_is_cached_neither_before_nor_during_nor_by_a_write_begun_during_a_write_back() {
        // Whatever was written before the write-back is over may be clean after it.
        let mapping = mapping(4);
        let part = mapping.writable_part(0, 10).unwrap();
        let insert = |stamp| part.insert_written(stamp);
        let written_back = mapping.while_writing_back(|| {
            let stamp = mapping.write_stamp();
            insert(stamp);
            assert!(!part.is_ready_to_write(), "inserted during");
            assert!(mapping.while_writing_back(|| Ok(())).is_ok());
            insert(mapping.write_stamp());
            assert!(!part.is_ready_to_write(), "one of two is over");
            Ok(())
        });
        assert_eq!(written_back, Ok(()));
        let mut stamp = mapping.write_stamp();
        assert_eq!(
            mapping.while_writing_back(|| {
                stamp = mapping.write_stamp();
                Ok(())
            }),
            Ok(())
        );
        insert(stamp);
        assert!(!part.is_ready_to_write(), "begun during");
        insert(mapping.write_stamp());
        assert!(part.is_ready_to_write(), "begun after");
    }
}
