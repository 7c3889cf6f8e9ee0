//! Everything that differs between systems: a real implementation or a stated fallback for each.
//!
//! | | Linux | macOS | FreeBSD | OpenBSD |
//! |---|---|---|---|---|
//! | size of a file, without asking a server | statx | fstat | fstat | fstat |
//! | residency | mincore, preadv2 | mincore | mincore | none: cold |
//! | barrier on all threads | membarrier | none: readers lock | none | none |
//! | dirty pages | cachestat | none | none | none |
//! | start writeback | sync_file_range | MS_ASYNC | MS_ASYNC | MS_ASYNC |
//! | lock pages as they come | mlock2 | none: mlock | none: mlock | none: mlock |

pub mod file;
pub mod memory;

use crate::error::Error;
use std::os::fd::RawFd;
use std::sync::OnceLock;

/// The page size, in bytes.
pub fn page_size() -> usize {
    static PAGE_SIZE: OnceLock<usize> = OnceLock::new();
    // SAFETY: sysconf reads a constant.
    *PAGE_SIZE.get_or_init(|| unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize)
}

/// The system's time that only goes forward, in ticks of about a sixteenth of a second.
pub fn ticks() -> u32 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC_COARSE;
    #[cfg(target_os = "freebsd")]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC_FAST;
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes the timespec it is given.
    unsafe { libc::clock_gettime(CLOCK, &mut now) };
    ((now.tv_sec as u32) << 4).wrapping_add((now.tv_nsec >> 26) as u32)
}

/// The size of an open file, in bytes. Async-signal-safe, and never waits for a file server.
pub fn size(fd: RawFd) -> Option<u64> {
    status(fd).map(|(size, _)| size)
}

/// Size and owner of an open file.
fn status(fd: RawFd) -> Option<(u64, u32)> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: statx fills the buffer it is given; all-zero is a valid value of it. The raw system call is
        // async-signal-safe.
        unsafe {
            let mut status: libc::statx = std::mem::zeroed();
            let done = libc::syscall(
                libc::SYS_statx,
                fd,
                c"".as_ptr(),
                libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC,
                libc::STATX_SIZE | libc::STATX_UID,
                &raw mut status,
            );
            if done == 0 {
                return Some((status.stx_size, status.stx_uid));
            }
        }
    }
    // SAFETY: fstat fills the buffer it is given, is async-signal-safe, and all-zero is a valid value.
    unsafe {
        let mut status: libc::stat = std::mem::zeroed();
        (libc::fstat(fd, &mut status) == 0).then_some((status.st_size as u64, status.st_uid))
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

/// Who owns an open file, as far as is known without asking a server.
pub fn owner(fd: RawFd) -> Option<u32> {
    status(fd).map(|(_, owner)| owner)
}

/// What the file system of an open file is like.
#[derive(Debug, Clone, Copy)]
pub struct FileSystem {
    /// Operations may wait for something other than a local device: a server or a user process.
    pub remote: bool,
    /// Its files are nowhere but in memory: to write to a page that is there waits for nothing.
    pub in_memory: bool,
    /// A write through a shared mapping leaves the time of modification what it was.
    pub forgets_mtime: bool,
    /// It lies over others, which have the pages (overlayfs): it answers that it started writing back, and that nothing is dirty.
    pub is_stacked: bool,
    /// The size of the pages by which its files are mapped, in bytes.
    pub page_size: usize,
}

/// Asks what the file system of an open file is like (`fstatfs(2)`).
pub fn file_system(fd: RawFd) -> FileSystem {
    // SAFETY: fstatfs fills the buffer it is given; all-zero is a valid value of it.
    let status = unsafe {
        let mut status: libc::statfs = std::mem::zeroed();
        (libc::fstatfs(fd, &mut status) == 0).then_some(status)
    };
    let Some(status) = status else {
        return FileSystem {
            remote: true,
            in_memory: false,
            forgets_mtime: false,
            is_stacked: false,
            page_size: page_size(),
        };
    };
    #[cfg(target_os = "linux")]
    {
        const HUGETLBFS: u32 = 0x9584_58f6;
        const TMPFS: u32 = 0x0102_1994;
        const RAMFS: u32 = 0x8584_58f6;
        const OVERLAYFS: u32 = 0x794c_7630;
        const REMOTE: [u32; 11] = [
            0x6573_5546, // FUSE
            0x6969,      // NFS
            0x517b,      // SMB
            0xff53_4d42, // CIFS
            0xfe53_4d42, // SMB2
            0x0102_1997, // 9P
            0x00c3_6400, // CEPH
            0x5346_414f, // AFS
            0x0bd0_0bd0, // Lustre
            0x7461_636f, // OCFS2
            0x0116_1970, // GFS2
        ];
        let kind = status.f_type as u32; // of another type on each system
        let in_memory = [HUGETLBFS, TMPFS, RAMFS].contains(&kind);
        FileSystem {
            remote: REMOTE.contains(&kind),
            in_memory,
            forgets_mtime: in_memory || kind == OVERLAYFS, // which may lie over one of these
            is_stacked: kind == OVERLAYFS,
            page_size: if kind == HUGETLBFS {
                status.f_bsize as usize
            } else {
                page_size()
            },
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        FileSystem {
            remote: status.f_flags as u64 & libc::MNT_LOCAL as u64 == 0,
            in_memory: false,
            forgets_mtime: false,
            is_stacked: false,
            page_size: page_size(),
        }
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

/// Whether `barrier` works here.
pub fn has_barrier() -> bool {
    #[cfg(target_os = "linux")]
    {
        static REGISTERED: OnceLock<bool> = OnceLock::new();
        const MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED: i32 = 1 << 4;
        *REGISTERED.get_or_init(|| {
            // SAFETY: registers the intent to use the barrier.
            unsafe {
                libc::syscall(
                    libc::SYS_membarrier,
                    MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED,
                    0,
                    0,
                ) == 0
            }
        })
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// Makes every running thread of this process pass a full memory barrier before it returns. Only after
/// `has_barrier` said yes.
pub fn barrier() {
    #[cfg(target_os = "linux")]
    {
        const MEMBARRIER_CMD_GLOBAL: i32 = 1;
        const MEMBARRIER_CMD_PRIVATE_EXPEDITED: i32 = 1 << 3;
        // The slow one is for a process that was forbidden the fast one since it registered.
        let done = [MEMBARRIER_CMD_PRIVATE_EXPEDITED, MEMBARRIER_CMD_GLOBAL]
            .into_iter()
            // SAFETY: a barrier.
            .any(|command| unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 });
        assert!(done, "a barrier that was there does not go away");
    }
    #[cfg(not(target_os = "linux"))]
    unreachable!("there is no barrier here");
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

/// Whose rights count when a file is opened.
pub fn user() -> u32 {
    // SAFETY: reads an attribute of the process.
    unsafe { libc::geteuid() }
}

/// Runs something with all signals blocked; threads started inside inherit that.
pub fn without_signals<T>(run: impl FnOnce() -> T) -> T {
    // SAFETY: an all-zero set is a valid value; the calls change this thread's mask only, and change it back.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let result = run();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        result
    }
}

/// The processor is told that this is a waiting loop; every so often the thread gives its time away.
pub fn backoff(round: u32) {
    match round {
        0..=63 => std::hint::spin_loop(),
        64..=127 => std::thread::yield_now(),
        _ => std::thread::sleep(std::time::Duration::from_micros(50)),
    }
}
