//! The pages of files in memory: which are there, which are dirty, how they come and go.
//!
//! | | Linux | macOS | FreeBSD | OpenBSD |
//! |---|---|---|---|---|
//! | residency | mincore, preadv2 | mincore | mincore | none: cold |
//! | dirty pages | cachestat | none | none | none |
//! | start reading | fadvise | none: in turn | fadvise | none: in turn |
//! | start writeback | sync_file_range | MS_ASYNC | MS_ASYNC | MS_ASYNC |

use super::memory::page_size;
use crate::error::Error;
use std::os::fd::RawFd;
#[cfg(target_os = "linux")]
use std::sync::OnceLock;

/// Whether the system tells which pages are in memory.
pub const HAS_MINCORE: bool = cfg!(not(target_os = "openbsd"));

/// Tells for each page of a page-aligned range, in the lowest bit of a byte each, whether an access finds it in
/// memory. `false` if the system cannot tell.
///
/// # Safety
///
/// The range is mapped; `pages` has a byte for each of its pages.
pub unsafe fn resident(address: *const u8, length: usize, pages: &mut [u8]) -> bool {
    debug_assert!(length.div_ceil(page_size()) <= pages.len());
    #[cfg(not(target_os = "openbsd"))]
    {
        // SAFETY: the caller's promise; the call writes a byte for each page.
        unsafe { libc::mincore(address.cast_mut().cast(), length, pages.as_mut_ptr().cast()) == 0 }
    }
    #[cfg(target_os = "openbsd")]
    {
        let _ = (address, length, pages);
        false
    }
}

/// Whether a whole range of the file is in the page cache, found out by reading it without waiting. For files that
/// `mincore(2)` tells nothing about: it says "resident" of every page of a file that the caller could not write to.
pub fn is_cached(fd: RawFd, offset: u64, length: usize) -> bool {
    #[cfg(target_os = "linux")]
    {
        const SCRATCH: usize = 4096;
        const SEGMENTS: usize = 256;
        let mut scratch = [0u8; SCRATCH];
        // Every segment is the same piece of memory: the bytes do not matter, only whether they came at once.
        let segment = libc::iovec {
            iov_base: scratch.as_mut_ptr().cast(),
            iov_len: SCRATCH,
        };
        let mut segments = [segment; SEGMENTS];
        let mut read = 0;
        while read < length {
            let wanted = (length - read).min(SCRATCH * SEGMENTS);
            let count = wanted.div_ceil(SCRATCH);
            segments[count - 1].iov_len = wanted - (count - 1) * SCRATCH;
            // SAFETY: the segments all lie in `scratch`.
            let got = unsafe {
                libc::preadv2(
                    fd,
                    segments.as_ptr(),
                    count as i32,
                    (offset + read as u64) as libc::off_t,
                    libc::RWF_NOWAIT,
                )
            };
            if got != wanted as isize {
                return false;
            }
            segments[count - 1].iov_len = SCRATCH;
            read += wanted;
        }
        true
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (fd, offset, length);
        false
    }
}

/// Starts to bring a range of the file, which is not empty, into the page cache (`posix_fadvise(2)`, POSIX_FADV_WILLNEED), and
/// does not wait for it. A hint: as much of it as the system reads ahead.
pub fn start_fetch(fd: RawFd, offset: u64, length: usize) {
    debug_assert!(length > 0, "0 means: up to the end of the file");
    #[cfg(any(target_os = "linux", target_os = "freebsd"))]
    // SAFETY: a hint about a file.
    unsafe {
        libc::posix_fadvise(
            fd,
            offset as libc::off_t,
            length as libc::off_t,
            libc::POSIX_FADV_WILLNEED,
        );
    }
    #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
    let _ = (fd, offset, length);
}

/// Brings a range of the file into the page cache, by reading it to `scratch`; how much of it the file has, and whether
/// that succeeds, does not matter.
///
/// # Safety
///
/// `scratch` is writable for `length` bytes.
pub unsafe fn fetch(fd: RawFd, offset: u64, scratch: *mut u8, length: usize) {
    let mut read = 0;
    while read < length {
        // SAFETY: the rest of the caller's range.
        let got = unsafe {
            libc::pread(
                fd,
                scratch.add(read).cast(),
                length - read,
                (offset + read as u64) as libc::off_t,
            )
        };
        match got {
            0 => return,
            got if got > 0 => read += got as usize,
            _ if matches!(Error::last(), Error::System(libc::EINTR)) => {}
            _ => return,
        }
    }
}

/// Whether every page of a page-aligned range of the file is dirty and not being written back (`cachestat(2)`, Linux 6.5). Never
/// waits. `false` if the system cannot tell.
pub fn is_dirty(fd: RawFd, offset: u64, length: usize) -> bool {
    #[cfg(target_os = "linux")]
    {
        dirty_pages(fd, offset, length as u64)
            .is_some_and(|dirty| dirty == length.div_ceil(page_size()) as u64)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (fd, offset, length);
        false
    }
}

/// Whether the system tells which pages are dirty.
pub fn has_cachestat() -> bool {
    #[cfg(target_os = "linux")]
    {
        static TELLS: OnceLock<bool> = OnceLock::new();
        *TELLS.get_or_init(|| {
            dirty_pages(-1, 0, 0);
            Error::last() != Error::System(libc::ENOSYS)
        })
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// How many pages of a range of the file are dirty, if none of them is being written back.
#[cfg(target_os = "linux")]
fn dirty_pages(fd: RawFd, offset: u64, length: u64) -> Option<u64> {
    const CACHESTAT: libc::c_long = 451; // on every architecture
    let range = [offset, length];
    // In the cache, dirty, being written back, evicted, evicted lately.
    let mut counts = [0u64; 5];
    // SAFETY: the call reads two numbers and writes five.
    let done = unsafe { libc::syscall(CACHESTAT, fd, range.as_ptr(), counts.as_mut_ptr(), 0) };
    let [_, dirty, written_back, ..] = counts;
    (done == 0 && written_back == 0).then_some(dirty)
}

/// Starts writing a range of the file's dirty pages to the device, without waiting for the end of it. `false`: this
/// system has no call for that, use MS_ASYNC.
pub fn start_writeback(fd: RawFd, offset: u64, length: u64) -> Result<bool, Error> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: only starts writeback.
        let done = unsafe {
            libc::sync_file_range(
                fd,
                offset as libc::off64_t,
                length as libc::off64_t,
                libc::SYNC_FILE_RANGE_WRITE,
            )
        };
        match done {
            0 => Ok(true),
            _ => match Error::last() {
                Error::System(libc::ENOSYS | libc::ESPIPE | libc::EINVAL) => Ok(false),
                error => Err(error),
            },
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (fd, offset, length);
        Ok(false)
    }
}

/// Asks the system not to keep the file's pages in its cache. A hint.
pub fn avoid_cache(fd: RawFd) {
    #[cfg(target_os = "macos")]
    // SAFETY: sets a flag of the descriptor.
    unsafe {
        libc::fcntl(fd, libc::F_NOCACHE, 1);
    }
    let _ = fd;
}
