//! System calls on the sizes and blocks of files.
//!
//! | | Linux | macOS | FreeBSD | OpenBSD |
//! |---|---|---|---|---|
//! | size of a file, without asking a server | statx | fstat | fstat | fstat |
//! | whether mincore tells the truth | faccessat2 | taken for granted | taken for granted | no mincore |
//! | blocks before the size | FALLOC_FL_KEEP_SIZE | F_PREALLOCATE | none | none |
//! | grow | fallocate | pwrite | posix_fallocate | pwrite |
//! | zeros in place | FALLOC_FL_ZERO_RANGE | none: empty and grow | none | none |

use super::descriptor::appends;
#[cfg(target_os = "linux")]
use super::file_system::{is_unlimited_memory, kind_and_free, EXT4, OVERLAYFS};
#[cfg(target_os = "linux")]
use super::memory;
#[cfg(target_os = "linux")]
use super::name::open_at;
use super::syscall::retried;
use crate::error::Error;
#[cfg(target_os = "linux")]
use std::ffi::CStr;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::fd::RawFd;

/// A failed growth gives back nothing nearer to the end than this: an append may come between the look and the punch.
#[cfg(target_os = "linux")]
const APPENDS_MEANWHILE: u64 = 64 << 20;

/// The size of an open file, in bytes. Async-signal-safe, and never waits for a file server.
pub fn size(fd: RawFd) -> Option<u64> {
    status(fd).map(|(size, _)| size)
}

/// Whether an open file is known to be at least so long, by a question that is answered sooner than that for its size (FIONREAD:
/// how much there is from the descriptor's position on, as a signed number of 32 bits). Its position must be less than 2 GiB. Never
/// waits for a file server.
pub fn is_surely_as_long_as(fd: RawFd, size: u64) -> bool {
    #[cfg(target_os = "linux")]
    {
        let mut left: libc::c_int = 0;
        // SAFETY: the call writes a number.
        let told = unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut left) == 0 };
        // The number is of the size's lower bits, and so never more.
        told && u64::try_from(left).is_ok_and(|left| size <= left)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (fd, size);
        false
    }
}

/// The owner of an open file, as far as is known without asking a server.
pub fn owner(fd: RawFd) -> Option<u32> {
    status(fd).map(|(_, owner)| owner)
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

/// Whether the file's mode lets the effective user write to it, whatever the descriptor may do (`faccessat2(2)`).
pub fn may_write(fd: RawFd) -> bool {
    #[cfg(target_os = "linux")]
    {
        const FACCESSAT2: libc::c_long = 439; // on every architecture
        let (nothing, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH | libc::AT_EACCESS);
        // SAFETY: asks about an open file. (The C library may be older than the call.)
        unsafe { libc::syscall(FACCESSAT2, fd, nothing, libc::W_OK, flags) == 0 }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = fd;
        true
    }
}

/// Checks that the process may make a file this large (`getrlimit(2)`): else the system would send it SIGXFSZ.
pub fn check_size_limit(size: u64) -> Result<(), Error> {
    // SAFETY: fills the struct, of which all-zero is a valid value.
    let limit = unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        match libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) {
            0 => limit.rlim_cur,
            _ => libc::RLIM_INFINITY,
        }
    };
    // The types differ between systems.
    #[allow(clippy::unnecessary_cast)]
    if limit != libc::RLIM_INFINITY && size > limit as u64 {
        return Err(Error::System(libc::EFBIG));
    }
    Ok(())
}

/// Allocates the blocks of a range without changing the size (FALLOC_FL_KEEP_SIZE). `false` where the file system cannot.
pub fn preallocate(fd: RawFd, from: u64, to: u64) -> Result<bool, Error> {
    #[cfg(target_os = "linux")]
    {
        supported(fallocate(fd, libc::FALLOC_FL_KEEP_SIZE, from, to))
    }
    #[cfg(target_os = "macos")]
    {
        let mut store = libc::fstore_t {
            fst_flags: libc::F_ALLOCATEALL,
            fst_posmode: libc::F_PEOFPOSMODE,
            fst_offset: 0,
            fst_length: offset(to)? - offset(from)?,
            fst_bytesalloc: 0,
        };
        // SAFETY: allocates blocks of the file.
        match retried(|| unsafe { libc::fcntl(fd, libc::F_PREALLOCATE, &mut store) }) {
            Err(Error::System(libc::ENOSPC)) => Err(Error::System(libc::ENOSPC)),
            done => Ok(done.is_ok()),
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    {
        let _ = (fd, from, to);
        Ok(false)
    }
}

/// Copies the blocks of a range that it shares with other files (FALLOC_FL_UNSHARE_RANGE), where the file system can.
pub fn unshare(fd: RawFd, from: u64, to: u64) -> Result<(), Error> {
    #[cfg(target_os = "linux")]
    {
        let mode = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_UNSHARE_RANGE;
        match fallocate(fd, mode, from, to) {
            Err(Error::System(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL)) => Ok(()),
            done => done,
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (fd, from, to);
        Ok(())
    }
}

/// Makes a range zeros, with blocks for it (FALLOC_FL_ZERO_RANGE). `false` where the file system cannot.
pub fn zero(fd: RawFd, from: u64, to: u64) -> Result<bool, Error> {
    #[cfg(target_os = "linux")]
    {
        let mode = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_ZERO_RANGE;
        supported(fallocate(fd, mode, from, to))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (fd, from, to);
        Ok(false)
    }
}

/// Makes a file that ends at `from`, or did, `to` bytes long, unless it is longer. On Linux only what comes after `last`
/// gets blocks here; the rest was preallocated.
pub fn grow(fd: RawFd, from: u64, last: u64, to: u64) -> Result<(), Error> {
    #[cfg(target_os = "linux")]
    if supported(fallocate(fd, 0, last.max(from), to))? {
        return Ok(());
    }
    #[cfg(target_os = "freebsd")]
    {
        // SAFETY: changes only the file.
        match unsafe { libc::posix_fallocate(fd, offset(from)?, offset(to)? - offset(from)?) } {
            0 => return Ok(()),
            libc::EINVAL | libc::EOPNOTSUPP => {} // ZFS cannot
            errno => return Err(Error::System(errno)),
        }
    }
    let _ = (from, last);
    write_last_byte(fd, to)
}

/// Makes a file longer by a byte that is written. `ftruncate(2)` would cut off what is appended beyond `size` between the look
/// and the call; this makes one byte of it 0 at worst.
pub fn write_last_byte(fd: RawFd, size: u64) -> Result<(), Error> {
    if self::size(fd).is_some_and(|now| now >= size) {
        return Ok(());
    }
    if appends(fd) {
        return set_size(fd, size);
    }
    write_at(fd, &[0], size - 1)
}

/// Writes zeros over a range. Refused where they would be appended.
pub fn write_zeros(fd: RawFd, from: u64, to: u64) -> Result<(), Error> {
    if appends(fd) {
        return Err(Error::INVALID);
    }
    let zeros = vec![0u8; 1 << 20];
    let mut at = from;
    while at < to {
        let length = zeros.len().min((to - at) as usize);
        write_at(fd, &zeros[..length], at)?;
        at += length as u64;
    }
    Ok(())
}

/// Writes all bytes to the file, from an offset on (`pwrite(2)`).
fn write_at(fd: RawFd, mut bytes: &[u8], mut at: u64) -> Result<(), Error> {
    while !bytes.is_empty() {
        // SAFETY: reads so many bytes.
        match unsafe { libc::pwrite(fd, bytes.as_ptr().cast(), bytes.len(), offset(at)?) } {
            written if written > 0 => {
                bytes = &bytes[written as usize..];
                at += written as u64;
            }
            0 => return Err(Error::System(libc::EIO)),
            _ => match Error::last() {
                Error::System(libc::EINTR) => {}
                error => return Err(error),
            },
        }
    }
    Ok(())
}

/// Sets the size (`ftruncate(2)`).
pub fn set_size(fd: RawFd, size: u64) -> Result<(), Error> {
    let size = offset(size)?;
    // SAFETY: changes only the file.
    retried(|| unsafe { libc::ftruncate(fd, size) })?;
    Ok(())
}

/// Whether a file may get so many bytes of blocks more (`fstatfs(2)`). `false` only where the system is sure.
pub fn has_free_blocks(fd: RawFd, wanted: u64) -> bool {
    #[cfg(target_os = "linux")]
    {
        // Memory without a limit would be taken until the system ends processes for want of it.
        if is_unlimited_memory(fd) {
            return memory::available().is_none_or(|available| available >= wanted);
        }
        // It would take all there is before it fails. Others take all or nothing, and find more room than they tell.
        kind_and_free(fd).is_none_or(|(kind, free)| kind != EXT4 || free >= wanted)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (fd, wanted);
        true
    }
}

/// Frees the blocks behind the end of a file, up to `to`, that no append can have reached by now.
pub fn free_preallocated(fd: RawFd, to: u64) {
    #[cfg(target_os = "linux")]
    {
        let kind = kind_and_free(fd).map(|(kind, _)| kind);
        if kind == Some(EXT4) || (kind == Some(OVERLAYFS) && writes_directly(fd)) {
            free_eof_blocks(fd, to);
        }
        if let Some(end) = size(fd) {
            let from = (end + APPENDS_MEANWHILE).next_multiple_of(1 << 16);
            if from < to {
                let mode = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE;
                let _ = fallocate(fd, mode, from, to.next_multiple_of(1 << 16));
            }
        }
    }
    let _ = (fd, to);
}

/// Whether direct writes do not go through the page cache (STATX_DIOALIGN). On a tmpfs they do, and one that fails can
/// leave the file longer.
#[cfg(target_os = "linux")]
fn writes_directly(fd: RawFd) -> bool {
    const STATX_DIOALIGN: u32 = 0x2000;
    // SAFETY: fills the buffer, of which all-zero is a valid value.
    unsafe {
        let mut status: libc::statx = std::mem::zeroed();
        let (nothing, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
        libc::syscall(
            libc::SYS_statx,
            fd,
            nothing,
            flags,
            STATX_DIOALIGN,
            &raw mut status,
        ) == 0
            && status.stx_mask & STATX_DIOALIGN != 0
    }
}

/// Frees the blocks behind the end of a file of ext4, by a direct write that fails. Punching there frees nothing that
/// lies behind the end, and setting the size could cut off an append; but ext4 frees those blocks itself after an extending
/// write that failed, under its own lock. This one reads from address 0, and so can write nothing.
#[cfg(target_os = "linux")]
fn free_eof_blocks(fd: RawFd, to: u64) {
    const BLOCK: u64 = 1 << 16; // the largest that direct writes must be aligned to
    let path = format!("/proc/self/fd/{fd}\0");
    let flags = libc::O_WRONLY | libc::O_DIRECT | libc::O_CLOEXEC;
    let Ok(path) = CStr::from_bytes_with_nul(path.as_bytes()) else {
        return;
    };
    if let (Ok(file), Ok(at)) = (
        open_at(libc::AT_FDCWD, path, flags, 0),
        offset(to.saturating_sub(1) / BLOCK * BLOCK),
    ) {
        // SAFETY: the system finds nothing to read at address 0.
        unsafe { libc::pwrite(file.as_raw_fd(), std::ptr::null(), BLOCK as usize, at) };
    }
}

#[cfg(target_os = "linux")]
fn fallocate(fd: RawFd, mode: i32, from: u64, to: u64) -> Result<(), Error> {
    let (from, to) = (offset(from)?, offset(to)?);
    // SAFETY: changes only the file.
    retried(|| unsafe { libc::fallocate(fd, mode, from, to - from) })?;
    Ok(())
}

/// Whether it was done; `false` if the file system has no such thing.
#[cfg(target_os = "linux")]
fn supported(done: Result<(), Error>) -> Result<bool, Error> {
    match done {
        Err(Error::System(libc::EOPNOTSUPP | libc::ENOSYS)) => Ok(false),
        done => done.map(|()| true),
    }
}

fn offset(size: u64) -> Result<libc::off_t, Error> {
    libc::off_t::try_from(size).map_err(|_| Error::System(libc::EFBIG))
}
