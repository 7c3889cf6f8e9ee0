//! System calls on descriptors: copies of them, the accesses that they permit, the size of what they stand for.
//!
//! | | Linux | macOS | FreeBSD | OpenBSD |
//! |---|---|---|---|---|
//! | a descriptor that permits nothing | O_PATH | none | none | none |
//! | size of a block device | BLKGETSIZE64 | lseek, and back | lseek, and back | lseek, and back |

use super::syscall::retried;
use crate::error::Error;
use std::fs::File;
use std::os::fd::{FromRawFd, RawFd};

/// The accesses that an open file permits, whatever its descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permits {
    /// It may be read.
    pub reads: bool,
    /// It may be written.
    pub writes: bool,
}

/// Duplicates a descriptor, close-on-exec (F_DUPFD_CLOEXEC). `EBADF` if it is not open.
pub fn duplicate(fd: RawFd) -> Result<File, Error> {
    const BEHIND_STANDARD_STREAMS: i32 = 3;
    // SAFETY: makes a new descriptor.
    let duplicate =
        retried(|| unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, BEHIND_STANDARD_STREAMS) })?;
    // SAFETY: the descriptor is new, and nobody else's.
    Ok(unsafe { File::from_raw_fd(duplicate) })
}

/// Asks what an open file permits (F_GETFL).
pub fn permits(fd: RawFd) -> Result<Permits, Error> {
    let flags = flags(fd)?;
    #[cfg(target_os = "linux")]
    let is_name = flags & libc::O_PATH != 0;
    #[cfg(not(target_os = "linux"))]
    let is_name = false;
    let access = flags & libc::O_ACCMODE;
    Ok(Permits {
        reads: !is_name && access != libc::O_WRONLY,
        writes: !is_name && access != libc::O_RDONLY,
    })
}

/// Whether `pwrite(2)` writes behind the end, whatever offset it is given, as Linux does (O_APPEND).
pub fn appends(fd: RawFd) -> bool {
    flags(fd).is_ok_and(|flags| flags & libc::O_APPEND != 0)
}

fn flags(fd: RawFd) -> Result<i32, Error> {
    // SAFETY: reads the flags of an open file.
    retried(|| unsafe { libc::fcntl(fd, libc::F_GETFL) })
}

/// The size of a block device, in bytes. The position of its descriptor stays where it is.
#[cfg(target_os = "linux")]
pub fn device_size(fd: RawFd) -> Result<u64, Error> {
    /// `_IOR(0x12, 114, size_t)`, whose first bits are not the same on every processor.
    const BLKGETSIZE64: u32 = if cfg!(any(
        target_arch = "powerpc64",
        target_arch = "mips64",
        target_arch = "mips64r6",
        target_arch = "sparc64"
    )) {
        0x4008_1272
    } else {
        0x8008_1272
    };
    let mut size = 0u64;
    // SAFETY: the call fills the number. (The type of the request differs between C libraries.)
    retried(|| unsafe { libc::ioctl(fd, BLKGETSIZE64 as _, &raw mut size) })?;
    Ok(size)
}

/// The size of a block device, in bytes. The position of its descriptor is elsewhere for a moment.
#[cfg(not(target_os = "linux"))]
pub fn device_size(fd: RawFd) -> Result<u64, Error> {
    let seek = |offset, whence| {
        // SAFETY: moves the position only.
        let position = unsafe { libc::lseek(fd, offset, whence) };
        u64::try_from(position).map_err(|_| Error::last())
    };
    let position = seek(0, libc::SEEK_CUR)?;
    let size = seek(0, libc::SEEK_END)?;
    seek(position as libc::off_t, libc::SEEK_SET)?;
    Ok(size)
}
