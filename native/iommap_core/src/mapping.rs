//! One mapping of one file: pointer, length, descriptor. It is shared by its handle and by every view, and unmaps
//! itself when the last of them lets go.
//!
//! The bytes change under us at any time, so no Rust reference to them is ever made: pointer and length, and copies
//! through the guard.

use crate::error::Error;
use crate::file::BackingFile;
use crate::guard;
use crate::options::Options;
use crate::platform;
use crate::range::Range;
use crate::registry::{self, Slot};
use crate::residency::Residency;
use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::Arc;

/// How long a page that was in memory is taken to be there: about a quarter of a second.
const READ_PROOF_LIFE: u32 = 4;
/// How long a page that was written is taken to be writable at once: about a second. The kernel cleans pages after
/// five seconds or more.
const WRITE_PROOF_LIFE: u32 = 16;

/// The most pages that are proved as one for reading, in a mapping too big for a proof of each.
const READ_BLOCK: usize = 16;

/// To unmap a mapping that is smaller takes less than 0.1 ms.
const SLOW_TO_UNMAP: usize = 8 << 20;

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
    map: MmapRaw,
    file: Arc<BackingFile>,
    slot: Slot,
    reads: Residency,
    writes: Residency,
    /// How many calls write back now.
    writing_back: AtomicU32,
    locked: AtomicBool,
    writable: bool,
    /// The pages that a private mapping has of its own; `None` for a shared one.
    changed: Option<Mutex<BTreeSet<usize>>>,
}

impl Mapping {
    /// Maps the first `size` bytes of the file.
    pub fn new(file: Arc<BackingFile>, size: usize, options: &Options) -> Result<Mapping, Error> {
        let map = map(&file, size, options)?;
        let writable = options.access.writes();
        let slot = registry::register(map.as_ptr() as usize, size, file.sized_fd(), writable);
        Ok(Mapping {
            slot,
            map,
            file,
            reads: Residency::new(size, READ_PROOF_LIFE, READ_BLOCK),
            writes: Residency::new(if writable { size } else { 0 }, WRITE_PROOF_LIFE, 1),
            writing_back: AtomicU32::new(0),
            locked: AtomicBool::new(false),
            writable,
            changed: options.private.then(Mutex::default),
        })
    }

    /// The size in bytes.
    pub fn size(&self) -> usize {
        self.map.len()
    }

    /// The first byte. Whoever reads through it must live with the bytes changing, and keep the mapping alive.
    pub fn address(&self) -> *const u8 {
        self.map.as_ptr()
    }

    /// The file.
    pub fn file(&self) -> &Arc<BackingFile> {
        &self.file
    }

    /// Whether changes stay here.
    pub fn is_private(&self) -> bool {
        self.changed.is_some()
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
    pub fn check_whole(&self) -> Result<(), Error> {
        if self.is_faulted() {
            Err(Error::Fault)
        } else {
            Ok(())
        }
    }

    /// Whether unmapping, and closing the file with it, may take longer than a scheduler should wait.
    pub fn is_slow_to_unmap(&self) -> bool {
        self.size() >= SLOW_TO_UNMAP || self.file.is_slow_to_close()
    }

    /// The range, if it lies inside.
    #[inline]
    pub fn range(&self, offset: u64, length: u64) -> Result<Range, Error> {
        Range::checked(offset, length, self.size())
    }

    // Reading.

    /// Whether the pages of the range are in memory, as far as was found out lately.
    #[inline]
    pub fn is_ready_to_read(&self, range: Range) -> bool {
        // The copy needs it next: the checks in between take about as long as half a cache miss.
        platform::prefetch(self.map.as_ptr().wrapping_add(range.offset()));
        self.reads.covers(range) || self.ask(range)
    }

    /// Asks the kernel which pages around the range are in memory, and remembers it.
    #[cold]
    fn ask(&self, range: Range) -> bool {
        if range.length() == 0 {
            return true;
        }
        let stamp = self.reads.stamp();
        // A region of single pages is asked about at once; larger blocks, or those that are read to find out, singly.
        let single_pages = self.reads.block_size() == platform::page_size();
        let unit = if single_pages && self.file.is_told_of_by_mincore() {
            self.reads.region_size()
        } else {
            self.reads.block_size()
        };
        let around = range.widened(unit).before(self.size());
        let step = PAGES_AT_ONCE * platform::page_size();
        let mut all = true;
        let mut offset = around.offset();
        while offset < around.end() && all {
            let part = Range::between(offset, around.end().min(offset + step));
            all = self.ask_part(part, range, stamp);
            offset += step;
        }
        all
    }

    /// Whether those pages of `part` that `wanted` needs are in memory. `part` begins at a page.
    fn ask_part(&self, part: Range, wanted: Range, stamp: crate::residency::Stamp) -> bool {
        if !self.file.is_told_of_by_mincore() {
            let cached = platform::cached(self.file.fd(), part.offset() as u64, part.length());
            if cached {
                self.reads.prove(part.widened(platform::page_size()), stamp);
            }
            return cached;
        }
        let page_size = platform::page_size();
        let mut pages = [0u8; PAGES_AT_ONCE];
        // SAFETY: the part lies inside the mapping and begins at a page; `pages` is long enough for a step.
        let told = unsafe {
            platform::resident(
                self.map.as_ptr().add(part.offset()),
                part.length(),
                &mut pages,
            )
        };
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
                self.reads.prove(run_range, stamp);
            } else if run_range.overlaps(wanted) {
                all = false;
            }
            page += run.len();
        }
        all
    }

    /// Copies the range out.
    ///
    /// # Safety
    ///
    /// `to` is writable for the length of the range and is no part of this mapping.
    #[inline]
    pub unsafe fn copy_out(&self, range: Range, to: *mut u8) -> Result<(), Error> {
        debug_assert!(range.end() <= self.size());
        // SAFETY: the range lies inside the mapping, which is mapped as long as `self` lives; the rest is promised.
        unsafe { guard::copy(to, self.map.as_ptr().add(range.offset()), range.length())? };
        self.check_whole()?;
        // SAFETY: the copy is there.
        if unsafe { zero_parts(range, to) }.next().is_some() {
            // SAFETY: as for this function.
            unsafe { self.doubt_zeros(range, to) }
        } else {
            Ok(())
        }
    }

    /// Asks about pages of which nothing but zeros was copied, and copies them again. While a file is cut, a system that keeps
    /// files in memory in pieces larger than a page may show zeros in pages that are no longer the file's, instead of a fault.
    /// The file is shorter by then; but it may have grown back before we ask, so zeros are believed the second time. (A page
    /// that was zeroed while it was copied has zeros anywhere, as other pages do.)
    ///
    /// # Safety
    ///
    /// As for `copy_out`, which made the copy.
    #[cold]
    unsafe fn doubt_zeros(&self, range: Range, to: *mut u8) -> Result<(), Error> {
        let ask = || {
            // SAFETY: the copy is there.
            let cut = unsafe { zero_parts(range, to) }.any(|part| self.lies_in_zeros(part));
            if cut && !self.slot.reaches(range.end()) {
                return Err(Error::Fault);
            }
            Ok(())
        };
        ask()?;
        // SAFETY: the copy is there; each part is looked at before it is copied again.
        for part in unsafe { zero_parts(range, to) } {
            let at = part.offset() - range.offset();
            // SAFETY: the part lies in the range.
            unsafe {
                guard::copy(
                    to.add(at),
                    self.map.as_ptr().add(part.offset()),
                    part.length(),
                )?
            };
        }
        self.check_whole()?;
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
            let seen = unsafe {
                guard::copy(
                    bytes.as_mut_ptr(),
                    self.map.as_ptr().add(start),
                    end - start,
                )
            };
            seen.is_err() || bytes == [0; LINE]
        };
        is_zero(lines.offset(), part.offset()) && is_zero(part.end(), lines.end())
    }

    /// Brings the range into memory through the descriptor, which does not drag its neighbours along and cannot fault.
    /// What is read on the way is not believed: while a file is cut, the system lets zeros be read that it never held.
    ///
    /// # Safety
    ///
    /// As for `copy_out`.
    pub unsafe fn fetch(&self, range: Range, scratch: *mut u8) {
        let (fd, offset) = (self.file.fd(), range.offset() as u64);
        // SAFETY: the caller's promise.
        unsafe { platform::fetch(fd, offset, scratch, range.length()) }
    }

    // Writing.

    /// Whether the pages of the range were written lately, so that writing them again waits for nothing.
    #[inline]
    pub fn is_ready_to_write(&self, range: Range) -> bool {
        range.length() == 0 || self.writes.covers(range)
    }

    /// Makes the pages of the range writable, which may wait for the file system. A page that is gone does not matter yet: a
    /// resize may have taken it, so the write itself finds out.
    ///
    /// # Safety
    ///
    /// The mapping is writable.
    pub unsafe fn prepare_to_write(&self, range: Range) {
        debug_assert!(self.writable && range.end() <= self.size());
        self.note_changed(range);
        // SAFETY: the range lies inside the mapping, which is mapped as long as `self` lives; the rest is promised.
        let _ =
            unsafe { guard::rewrite(self.map.as_mut_ptr().add(range.offset()), range.length()) };
    }

    /// Copies the segments to the range, which is as long as they are together.
    ///
    /// # Safety
    ///
    /// - The mapping is writable.
    /// - The segments are readable.
    /// - No one else reads or writes through this handle meanwhile.
    #[inline]
    pub unsafe fn copy_in(&self, range: Range, segments: &[libc::iovec]) -> Result<(), Error> {
        debug_assert!(self.writable && range.end() <= self.size());
        self.check_whole()?;
        self.note_changed(range);
        // SAFETY: the range lies inside the mapping, which is mapped as long as `self` lives; the rest is promised.
        unsafe { guard::gather(self.map.as_mut_ptr().add(range.offset()), segments)? };
        self.check_whole()
    }

    /// The range was written, in a write that began at `stamp`.
    pub fn prove_written(&self, range: Range, stamp: crate::residency::Stamp) {
        if self.writing_back.load(Ordering::Acquire) == 0 {
            self.writes
                .prove(range.widened(platform::page_size()), stamp);
        }
    }

    /// The stamp of a write that begins now.
    pub fn write_stamp(&self) -> crate::residency::Stamp {
        self.writes.stamp()
    }

    fn note_changed(&self, range: Range) {
        if let Some(changed) = &self.changed {
            if self.writes.covers(range) {
                return; // what was proved was noted
            }
            let pages = range.widened(platform::page_size());
            let page_size = platform::page_size();
            changed
                .lock()
                .extend(pages.offset() / page_size..pages.end() / page_size);
        }
    }

    // Everything else.

    /// Writes a range back to the file and waits for it.
    pub fn sync(&self, range: Range) -> Result<(), Error> {
        self.writes_back(|| Ok(self.map.flush_range(range.offset(), range.length())?))
    }

    /// Starts writing a range back to the file.
    pub fn sync_async(&self, range: Range) -> Result<(), Error> {
        self.writes_back(|| {
            let (offset, length) = (range.offset() as u64, range.length() as u64);
            if !platform::start_writeback(self.file.fd(), offset, length)? {
                self.map.flush_async_range(range.offset(), range.length())?;
            }
            Ok(())
        })
    }

    /// Writeback cleans pages, and the next write to a clean page may wait: what was proved of writing ends, and nothing
    /// is proved while it runs. (A write that began before either `forget` is proved too late to be believed.)
    fn writes_back(&self, write_back: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        self.check_whole()?;
        if self.is_private() || !self.writable {
            return Ok(());
        }
        self.writing_back.fetch_add(1, Ordering::AcqRel);
        self.writes.forget();
        let done = write_back();
        self.writes.forget();
        self.writing_back.fetch_sub(1, Ordering::AcqRel);
        done?;
        self.check_whole()
    }

    /// Tells the kernel what to expect. Never changes what is read.
    pub fn advise(&self, range: Range, hint: Hint) -> Result<(), Error> {
        let (offset, length) = (range.offset(), range.length());
        match hint {
            Hint::Normal => self.map.advise_range(Advice::Normal, offset, length)?,
            Hint::Random => self.map.advise_range(Advice::Random, offset, length)?,
            Hint::Sequential => self.map.advise_range(Advice::Sequential, offset, length)?,
            Hint::WillNeed => self.map.advise_range(Advice::WillNeed, offset, length)?,
            // On a private mapping this would undo the changes.
            Hint::DontNeed if self.is_private() => {}
            Hint::DontNeed => {
                // SAFETY: a shared mapping shows the same bytes again afterwards.
                unsafe {
                    self.map
                        .unchecked_advise_range(UncheckedAdvice::DontNeed, offset, length)?;
                }
                self.forget_residency();
            }
        }
        Ok(())
    }

    /// What was found out about pages in memory holds no longer.
    pub fn forget_residency(&self) {
        self.reads.forget();
        self.writes.forget();
    }

    /// Locks the pages in memory, if the system lets us.
    pub fn lock(&self) {
        self.locked
            .store(self.map.lock().is_ok(), Ordering::Relaxed);
    }

    /// Makes the mapping longer or shorter, moved if need be. It is as it was if that fails.
    pub fn resize(&mut self, size: usize) -> Result<(), Error> {
        #[cfg(target_os = "linux")]
        {
            self.check_whole()?;
            registry::withdraw(self.slot);
            let how = memmap2::RemapOptions::new().may_move(true);
            // SAFETY: nobody else uses the mapping: we have it exclusively, and no view of it exists.
            let done = unsafe { self.map.remap(size, how) };
            let start = self.map.as_ptr() as usize;
            self.slot =
                registry::register(start, self.map.len(), self.file.sized_fd(), self.writable);
            done?;
            self.reads = Residency::new(size, READ_PROOF_LIFE, READ_BLOCK);
            self.writes = Residency::new(size, WRITE_PROOF_LIFE, 1);
            self.clear_after(size)
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = size;
            Err(Error::System(libc::ENOTSUP))
        }
    }

    /// A page that a private mapping has of its own keeps what it held after the new end: those bytes must be zero,
    /// should the mapping grow again.
    #[cfg(target_os = "linux")]
    fn clear_after(&self, size: usize) -> Result<(), Error> {
        let page_size = platform::page_size();
        if let Some(changed) = &self.changed {
            changed.lock().split_off(&size.div_ceil(page_size));
            let rest = Range::between(size, size.next_multiple_of(page_size));
            if self.writable && rest.length() > 0 {
                self.note_changed(rest);
                let zeros = vec![0u8; rest.length()];
                // SAFETY: the rest of the page that holds the last byte is mapped, and is not read by anybody.
                return unsafe {
                    guard::copy(self.map.as_mut_ptr().add(size), zeros.as_ptr(), zeros.len())
                };
            }
        }
        Ok(())
    }

    /// Takes over the changes another private mapping of the same file holds, as far as both reach and it did not lose
    /// them.
    pub fn carry_changes(&self, other: &Mapping) -> Result<(), Error> {
        let Some(changed) = &other.changed else {
            return Ok(());
        };
        let page_size = platform::page_size();
        let size = self.size().min(other.size());
        for page in changed.lock().iter() {
            let start = page * page_size;
            let end = (start + page_size).min(size);
            if start >= end || other.slot.lost(start, end) {
                continue;
            }
            let range = Range::between(start, end);
            let segment = libc::iovec {
                iov_base: other.map.as_mut_ptr().wrapping_add(start).cast(),
                iov_len: range.length(),
            };
            // SAFETY: nobody else knows this mapping yet, and the other is alive.
            match unsafe { self.copy_in(range, &[segment]) } {
                // The page was truncated away, here and there.
                Ok(()) | Err(Error::Fault) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        registry::withdraw(self.slot);
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

fn map(file: &BackingFile, size: usize, options: &Options) -> Result<MmapRaw, Error> {
    let mut how = MmapOptions::new();
    how.len(size);
    if options.populate {
        how.populate();
    }
    let fd = file.fd();
    let map = match (options.private, options.access.writes()) {
        (false, true) => how.map_raw(fd)?,
        (false, false) => how.map_raw_read_only(fd)?,
        // SAFETY: the slice that these types could make is never made: they become a `MmapRaw` at once.
        (true, true) => unsafe { how.no_reserve_swap().map_copy(fd)? }.into(),
        // SAFETY: as above.
        (true, false) => unsafe { how.map_copy_read_only(fd)? }.into(),
    };
    Ok(map)
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
        let (file, size) = BackingFile::open(&path, &options).unwrap();
        Mapping::new(Arc::new(file), size, &options).unwrap()
    }

    #[test]
    fn a_write_is_proved_neither_before_nor_during_nor_by_a_write_begun_during_a_write_back() {
        // Whatever was written before the write-back is over may be clean after it.
        let mapping = mapping(4);
        let range = mapping.range(0, 10).unwrap();
        let prove = |stamp| mapping.prove_written(range, stamp);
        let written_back = mapping.writes_back(|| {
            let stamp = mapping.write_stamp();
            prove(stamp);
            assert!(!mapping.is_ready_to_write(range), "proved during");
            assert!(mapping.writes_back(|| Ok(())).is_ok());
            prove(mapping.write_stamp());
            assert!(!mapping.is_ready_to_write(range), "one of two is over");
            Ok(())
        });
        assert_eq!(written_back, Ok(()));
        let mut stamp = mapping.write_stamp();
        assert_eq!(
            mapping.writes_back(|| {
                stamp = mapping.write_stamp();
                Ok(())
            }),
            Ok(())
        );
        prove(stamp);
        assert!(!mapping.is_ready_to_write(range), "begun during");
        prove(mapping.write_stamp());
        assert!(mapping.is_ready_to_write(range), "begun after");
    }
}
