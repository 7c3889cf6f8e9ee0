//! Address space and pages.
//!
//! | | Linux | macOS | FreeBSD | OpenBSD |
//! |---|---|---|---|---|
//! | lock pages as they come | mlock2 | none: mlock | none: mlock | none: mlock |
//! | hints of huge pages, of dumps, of forks, cold, pageout | madvise | none | none | none |

use crate::error::Error;
use crate::options::Hint;
use memmap2::Advice;
use std::ffi::c_void;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::OnceLock;

/// The page size, in bytes.
pub fn page_size() -> usize {
    static PAGE_SIZE: OnceLock<usize> = OnceLock::new();
    // SAFETY: sysconf reads a constant.
    *PAGE_SIZE.get_or_init(|| unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize)
}

/// Tells the processor that a byte will be read soon. Never faults, and does nothing where Rust has no name for it.
#[inline(always)]
pub fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; any address may be given.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// How a file is mapped.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Copy-on-write.
    pub private: bool,
    /// Whether the pages may be written.
    pub writable: bool,
    /// Fault all pages in at once, where the system can.
    pub populate: bool,
}

/// The accesses that pages permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// They may be read.
    Read,
    /// They may be read and written.
    ReadWrite,
}

impl Protection {
    /// The protection of pages that are read, and perhaps written.
    pub fn of(writable: bool) -> Protection {
        if writable {
            Protection::ReadWrite
        } else {
            Protection::Read
        }
    }

    fn flags(self) -> i32 {
        match self {
            Protection::Read => libc::PROT_READ,
            Protection::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
pub(super) const NO_RESERVE: i32 = libc::MAP_NORESERVE;
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
pub(super) const NO_RESERVE: i32 = 0;

#[cfg(target_os = "linux")]
const POPULATE: i32 = libc::MAP_POPULATE;
#[cfg(not(target_os = "linux"))]
const POPULATE: i32 = 0;

const ANONYMOUS: i32 = libc::MAP_PRIVATE | libc::MAP_ANON | NO_RESERVE;

/// The size of the pages that a processor's table maps in one entry of the level above, in bytes.
pub fn huge_page_size() -> usize {
    const USUAL: usize = 2 << 20;
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| {
        std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .filter(|size: &usize| size.is_power_of_two() && *size >= page_size())
            .unwrap_or(USUAL)
    })
}

/// How many bytes of memory and swap the machine has left, as far as the system tells (`/proc/meminfo`).
#[cfg(target_os = "linux")]
pub fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kilobytes = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    };
    Some((kilobytes("MemAvailable:")? + kilobytes("SwapFree:")?) * 1024)
}

/// Reserves anonymous, private, read-only address space, and gives where.
pub fn reserve(length: usize) -> Result<usize, Error> {
    // SAFETY: the system chooses an address where nothing is.
    let base = unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ, ANONYMOUS, -1, 0) };
    if base == libc::MAP_FAILED {
        Err(Error::last())
    } else {
        Ok(base as usize)
    }
}

/// Maps a part of a file over a part of a reservation.
///
/// # Safety
///
/// The part belongs to a reservation of the caller's; nobody relies on what is there.
pub unsafe fn map_file(
    address: usize,
    length: usize,
    fd: RawFd,
    offset: u64,
    kind: Kind,
) -> Result<(), Error> {
    let sharing = match (kind.private, kind.writable) {
        (false, _) => libc::MAP_SHARED,
        (true, false) => libc::MAP_PRIVATE,
        (true, true) => libc::MAP_PRIVATE | NO_RESERVE,
    };
    let populate = if kind.populate { POPULATE } else { 0 };
    let protection = Protection::of(kind.writable);
    let flags = sharing | populate;
    // SAFETY: the caller's promise.
    unsafe { map_fixed(address, length, protection, flags, fd, offset) }
}

/// Maps anonymous pages over a part of a reservation. Async-signal-safe.
///
/// # Safety
///
/// As for `map_file`.
pub unsafe fn map_anonymous(
    address: usize,
    length: usize,
    protection: Protection,
) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    unsafe { map_fixed(address, length, protection, ANONYMOUS, -1, 0) }
}

unsafe fn map_fixed(
    address: usize,
    length: usize,
    protection: Protection,
    flags: i32,
    fd: RawFd,
    offset: u64,
) -> Result<(), Error> {
    // SAFETY: the caller's promise: what is replaced is the caller's own.
    let mapped = unsafe {
        libc::mmap(
            address as *mut c_void,
            length,
            protection.flags(),
            libc::MAP_FIXED | flags,
            fd,
            offset as libc::off_t,
        )
    };
    if mapped == libc::MAP_FAILED {
        Err(Error::last())
    } else {
        Ok(())
    }
}

/// Unmaps a whole reservation.
///
/// # Safety
///
/// The reservation is the caller's, and nobody uses an address in it from now on.
pub unsafe fn unmap(base: usize, length: usize) {
    // SAFETY: the caller's promise. A system that refuses, at its limit of mappings, leaves address space lost.
    let _ = unsafe { libc::munmap(base as *mut c_void, length) };
}

/// Tells the system what to expect of whole pages of a mapping (`madvise(2)`). `ENOTSUP` where it has no such hint, or where that
/// does not apply.
///
/// # Safety
///
/// The pages are mapped, and not those of a private mapping if the hint is to drop them: it would lose its changes.
pub unsafe fn advise(address: usize, length: usize, hint: Hint) -> Result<(), Error> {
    let none = Error::System(libc::ENOTSUP);
    let advice = advice(hint).ok_or(none)?;
    // SAFETY: the caller's promise; mappings consist of whole pages.
    match done(unsafe { libc::madvise(address as *mut c_void, length, advice) }) {
        Err(Error::INVALID) => Err(none),
        done => done,
    }
}

/// The system's number of a hint.
fn advice(hint: Hint) -> Option<i32> {
    let usual = match hint {
        Hint::Normal => Some(Advice::Normal),
        Hint::Random => Some(Advice::Random),
        Hint::Sequential => Some(Advice::Sequential),
        Hint::WillNeed => Some(Advice::WillNeed),
        #[cfg(target_os = "linux")]
        Hint::HugePage => Some(Advice::HugePage),
        #[cfg(target_os = "linux")]
        Hint::NoHugePage => Some(Advice::NoHugePage),
        #[cfg(target_os = "linux")]
        Hint::DontDump => Some(Advice::DontDump),
        #[cfg(target_os = "linux")]
        Hint::DoDump => Some(Advice::DoDump),
        #[cfg(target_os = "linux")]
        Hint::DontFork => Some(Advice::DontFork),
        #[cfg(target_os = "linux")]
        Hint::DoFork => Some(Advice::DoFork),
        _ => None,
    };
    match hint {
        Hint::DontNeed => Some(libc::MADV_DONTNEED),
        #[cfg(target_os = "linux")]
        Hint::Cold => Some(libc::MADV_COLD),
        #[cfg(target_os = "linux")]
        Hint::PageOut => Some(libc::MADV_PAGEOUT),
        #[cfg(target_os = "linux")]
        Hint::Collapse => Some(25), // MADV_COLLAPSE, which the crate libc does not name for every C library
        _ => usual.map(|advice| advice as i32),
    }
}

/// Writes changes to a part of a shared mapping back to the file, and waits if asked to (`msync(2)`).
pub fn flush(address: usize, length: usize, wait: bool) -> Result<(), Error> {
    let (start, length) = whole_pages(address, length);
    let flags = if wait { libc::MS_SYNC } else { libc::MS_ASYNC };
    // SAFETY: the call changes no memory; it fails where nothing is mapped.
    done(unsafe { libc::msync(start as *mut c_void, length, flags) })
}

/// Locks the pages of a part of a mapping in memory (`mlock(2)`).
pub fn lock(address: usize, length: usize) -> Result<(), Error> {
    // SAFETY: the call changes no memory; it fails where nothing is mapped.
    done(unsafe { libc::mlock(address as *const c_void, length) })
}

/// Locks the pages of a part of a mapping that are in memory, and every other one as soon as it is (`mlock2(2)`). Where the
/// system cannot do that, it locks all of them now, whatever that costs.
pub fn lock_on_fault(address: usize, length: usize) -> Result<(), Error> {
    match mlock2(address, length) {
        Err(Error::System(libc::ENOSYS)) => lock(address, length),
        answer => answer,
    }
}

/// Whether `lock_on_fault` makes copies of the pages of a private mapping.
pub fn locking_copies() -> bool {
    static COPIES: OnceLock<bool> = OnceLock::new();
    *COPIES.get_or_init(|| mlock2(0, 0) == Err(Error::System(libc::ENOSYS)))
}

#[cfg(target_os = "linux")]
fn mlock2(address: usize, length: usize) -> Result<(), Error> {
    const MLOCK_ONFAULT: libc::c_uint = 1;
    // SAFETY: the call changes no memory; it fails where nothing is mapped.
    done(unsafe { libc::syscall(libc::SYS_mlock2, address, length, MLOCK_ONFAULT) as i32 })
}

#[cfg(not(target_os = "linux"))]
fn mlock2(_address: usize, _length: usize) -> Result<(), Error> {
    Err(Error::System(libc::ENOSYS))
}

/// Unlocks the pages of a part of a mapping (`munlock(2)`).
pub fn unlock(address: usize, length: usize) -> Result<(), Error> {
    // SAFETY: the call changes no memory; it fails where nothing is mapped.
    done(unsafe { libc::munlock(address as *const c_void, length) })
}

fn whole_pages(address: usize, length: usize) -> (usize, usize) {
    let start = address & !(page_size() - 1);
    (start, address + length - start)
}

fn done(status: i32) -> Result<(), Error> {
    if status == 0 {
        Ok(())
    } else {
        Err(Error::last())
    }
}

/// Maps zero pages over a page-aligned part of a mapping. Async-signal-safe.
///
/// Pages of a mapping that may be written can be written, too, if the system has memory for them: a copy into the mapping
/// may be on its way.
///
/// # Safety
///
/// The part belongs to a mapping of ours that stays mapped for as long as the call runs.
pub unsafe fn map_zero_pages(address: usize, length: usize, writable: bool) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        map_anonymous(address, length, Protection::of(writable)).is_ok()
            || writable && map_anonymous(address, length, Protection::Read).is_ok()
    }
}
