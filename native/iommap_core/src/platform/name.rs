//! System calls on the names of files: how files are found, made and named.
//!
//! | | Linux | macOS | FreeBSD | OpenBSD |
//! |---|---|---|---|---|
//! | a file without a name | O_TMPFILE | none: a temporary name | none | none |
//! | rename that replaces nothing | renameat2 | renameatx_np | none: link | none: link |

use super::syscall::retried;
use crate::error::Error;
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

/// Opens a directory to look up names in.
pub fn open_directory(at: Option<&File>, path: &CStr) -> Result<File, Error> {
    #[cfg(target_os = "linux")]
    const SEARCH: i32 = libc::O_PATH;
    #[cfg(not(target_os = "linux"))]
    const SEARCH: i32 = libc::O_RDONLY;
    let at = at.map_or(libc::AT_FDCWD, File::as_raw_fd);
    open_at(at, path, SEARCH | libc::O_DIRECTORY, 0)
}

/// Makes a file of that name, to read and write. `EEXIST` if there is anything of that name.
pub fn create_exclusively(directory: &File, name: &CStr, mode: u32) -> Result<File, Error> {
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
    open_at(directory.as_raw_fd(), name, flags, mode)
}

/// Makes a file without a name (O_TMPFILE), to read and write. Nothing where the system or the file system has none.
pub fn create_unnamed(directory: &File, mode: u32) -> Result<Option<File>, Error> {
    #[cfg(target_os = "linux")]
    {
        let flags = libc::O_RDWR | libc::O_TMPFILE;
        match open_at(directory.as_raw_fd(), c".", flags, mode) {
            // What file systems and kernels without it answer. If the directory is gone, the next try says so.
            Err(Error::System(
                libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT | libc::EINVAL | libc::ENOSYS,
            )) => Ok(None),
            made => made.map(Some),
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (directory, mode);
        Ok(None)
    }
}

pub fn open_at(directory: RawFd, path: &CStr, flags: i32, mode: u32) -> Result<File, Error> {
    let flags = flags | libc::O_CLOEXEC | libc::O_NOCTTY;
    let fd = retried(|| {
        // SAFETY: the path ends with a NUL.
        unsafe { libc::openat(directory, path.as_ptr(), flags, mode as libc::c_uint) }
    })?;
    // SAFETY: the descriptor is new, and nobody else's.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Gives a file without a name one (`linkat(2)`), unless there is anything of that name: `EEXIST`.
pub fn link_unnamed(fd: RawFd, directory: &File, name: &CStr) -> Result<(), Error> {
    #[cfg(target_os = "linux")]
    {
        // By the descriptor, which old kernels want a capability for; else by its name in /proc.
        let by_name = std::ffi::CString::new(format!("/proc/self/fd/{fd}"));
        let by_name = by_name.map_err(|_| Error::INVALID)?;
        link_at(fd, c"", directory, name, libc::AT_EMPTY_PATH).or_else(|error| {
            if error != Error::System(libc::ENOENT) {
                return Err(error);
            }
            link_at(
                libc::AT_FDCWD,
                &by_name,
                directory,
                name,
                libc::AT_SYMLINK_FOLLOW,
            )
        })
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (fd, directory, name);
        Err(Error::System(libc::ENOTSUP))
    }
}

/// Gives a file a second name in its directory, unless there is anything of that name: `EEXIST`.
pub fn link(directory: &File, from: &CStr, to: &CStr) -> Result<(), Error> {
    link_at(directory.as_raw_fd(), from, directory, to, 0)
}

fn link_at(at: RawFd, from: &CStr, directory: &File, to: &CStr, flags: i32) -> Result<(), Error> {
    let to_at = directory.as_raw_fd();
    retried(|| {
        // SAFETY: both names end with a NUL.
        unsafe { libc::linkat(at, from.as_ptr(), to_at, to.as_ptr(), flags) }
    })?;
    Ok(())
}

/// Gives a file another name in its directory, unless there is anything of that name: `EEXIST`.
pub fn rename_to_new(directory: &File, from: &CStr, to: &CStr) -> Result<(), Error> {
    let (at, from, to) = (directory.as_raw_fd(), from.as_ptr(), to.as_ptr());
    retried(|| {
        #[cfg(target_os = "linux")]
        // SAFETY: both names end with a NUL. (The C library may be older than the call.)
        unsafe {
            libc::syscall(
                libc::SYS_renameat2,
                at,
                from,
                at,
                to,
                libc::RENAME_NOREPLACE,
            ) as i32
        }
        #[cfg(target_os = "macos")]
        // SAFETY: both names end with a NUL.
        unsafe {
            libc::renameatx_np(at, from, at, to, libc::RENAME_EXCL)
        }
        #[cfg(not(any(target_os = "linux", target_os = "macos")))]
        // SAFETY: links an empty name, which there is not.
        unsafe {
            let _ = (from, to);
            libc::linkat(at, c"".as_ptr(), at, c"".as_ptr(), 0)
        }
    })?;
    Ok(())
}

/// Sets the permissions of a file (`fchmod(2)`).
pub fn set_permissions(fd: RawFd, permissions: u32) -> Result<(), Error> {
    // SAFETY: changes an attribute of the file.
    retried(|| unsafe { libc::fchmod(fd, permissions as libc::mode_t) })?;
    Ok(())
}

/// Takes a name away.
pub fn unlink(directory: &File, name: &CStr) {
    // SAFETY: the name ends with a NUL.
    unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), 0) };
}

/// Reads where a symbolic link points to. `EINVAL` if it is something else.
pub fn read_link(directory: &File, name: &CStr) -> Result<Vec<u8>, Error> {
    let mut target = vec![0u8; libc::PATH_MAX as usize];
    // SAFETY: the name ends with a NUL, and the target is as long as is said.
    let length = unsafe {
        libc::readlinkat(
            directory.as_raw_fd(),
            name.as_ptr(),
            target.as_mut_ptr().cast(),
            target.len(),
        )
    };
    let length = usize::try_from(length).map_err(|_| Error::last())?;
    target.truncate(length);
    Ok(target)
}

/// The user that a name belongs to, not followed if it is a symbolic link.
pub fn owner_of(directory: &File, name: &CStr) -> Result<u32, Error> {
    // SAFETY: fills the buffer, of which all-zero is a valid value; the name ends with a NUL.
    unsafe {
        let mut status: libc::stat = std::mem::zeroed();
        let flags = libc::AT_SYMLINK_NOFOLLOW;
        match libc::fstatat(directory.as_raw_fd(), name.as_ptr(), &mut status, flags) {
            0 => Ok(status.st_uid),
            _ => Err(Error::last()),
        }
    }
}

/// Whose rights count when a file is opened.
pub fn user() -> u32 {
    // SAFETY: reads an attribute of the process.
    unsafe { libc::geteuid() }
}
