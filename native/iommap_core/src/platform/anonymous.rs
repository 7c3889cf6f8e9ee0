//! Memory that has a descriptor and no name.
//!
//! | | Linux | macOS | FreeBSD | OpenBSD |
//! |---|---|---|---|---|
//! | memory | memfd_create | shm_open, shm_unlink | the same | the same |
//! | sealed against shrinking | F_SEAL_SHRINK | by this library alone | the same | the same |
//! | a path for other processes | /proc/PID/fd/N | none | none | none |

use crate::error::Error;
use std::fs::File;
use std::os::fd::{FromRawFd, RawFd};

/// Makes anonymous memory, close-on-exec, for this user alone, that nobody can make shorter nor seal further (`memfd_create(2)`).
/// It has no size yet.
#[cfg(target_os = "linux")]
pub fn create(_size: u64) -> Result<File, Error> {
    use super::name::set_permissions;
    use super::syscall::retried;
    use std::os::fd::AsRawFd;

    const NOEXEC_SEAL: libc::c_uint = 8; // Linux 6.3
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let memfd = |flags: libc::c_uint| {
        // SAFETY: the name ends with a NUL. (The C library may be older than the call.)
        let make =
            || unsafe { libc::syscall(libc::SYS_memfd_create, c"iommap".as_ptr(), flags) as i32 };
        retried(make)
    };
    let fd = match memfd(flags | NOEXEC_SEAL) {
        Err(Error::INVALID) => memfd(flags)?,
        made => made?,
    };
    // SAFETY: the descriptor is new, and nobody else's.
    let file = unsafe { File::from_raw_fd(fd) };
    set_permissions(file.as_raw_fd(), 0o600)?;
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    // SAFETY: changes an attribute of the memory.
    retried(|| unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
    Ok(file)
}

/// Makes anonymous memory of so many bytes, close-on-exec, for this user alone (`shm_open(3)`, unlinked at once). Its size is
/// set here: macOS sets that of such an object once, and knows no other way.
#[cfg(not(target_os = "linux"))]
pub fn create(size: u64) -> Result<File, Error> {
    use std::os::fd::AsRawFd;
    use std::sync::atomic::{AtomicU32, Ordering};

    static CALLS: AtomicU32 = AtomicU32::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let name = format!("/iommap-{:x}-{call:x}", std::process::id());
    let name = std::ffi::CString::new(name).map_err(|_| Error::INVALID)?;
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
    // SAFETY: the name ends with a NUL; the descriptor is new, and nobody else's.
    let file = unsafe {
        let fd = libc::shm_open(name.as_ptr(), flags, 0o600);
        if fd < 0 {
            return Err(Error::last());
        }
        libc::shm_unlink(name.as_ptr());
        File::from_raw_fd(fd)
    };
    super::file::set_size(file.as_raw_fd(), size)?;
    Ok(file)
}

/// Whether nobody can make the memory behind a descriptor shorter (`F_GET_SEALS`), whoever made it.
#[cfg(target_os = "linux")]
pub fn is_sealed_against_shrinking(fd: RawFd) -> bool {
    // SAFETY: asks for an attribute of the file.
    let seals = unsafe { libc::fcntl(fd, libc::F_GET_SEALS) };
    seals >= 0 && seals & libc::F_SEAL_SHRINK != 0
}

/// Whether nobody can make the memory behind a descriptor shorter: the system has no seals.
#[cfg(not(target_os = "linux"))]
pub fn is_sealed_against_shrinking(_fd: RawFd) -> bool {
    false
}

/// The path by which other processes of the user can open a descriptor of this one, as long as it is open.
pub fn path(fd: RawFd) -> Option<String> {
    cfg!(target_os = "linux").then(|| format!("/proc/{}/fd/{fd}", std::process::id()))
}
