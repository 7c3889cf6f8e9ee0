//! System calls on an open file, as OTP's raw files make them.
//!
//! | | Linux | macOS | FreeBSD | OpenBSD |
//! |---|---|---|---|---|
//! | allocate | fallocate, posix_fallocate | none: ENOTSUP | posix_fallocate | none: ENOTSUP |
//! | advise | posix_fadvise | nothing | posix_fadvise | nothing |
//! | data without metadata | fdatasync | F_FULLFSYNC (std) | fdatasync | fdatasync |

use super::syscall::retried;
use crate::buffer::{Data, Segment};
use crate::error::Error;
use crate::options::Hint;
use std::os::fd::RawFd;

/// The most segments of one system call.
const SEGMENTS_AT_ONCE: usize = 64;

/// Reads from an offset on (`pread(2)`): as many bytes as there are, at most `bytes.len()`.
pub fn read_at(fd: RawFd, offset: u64, bytes: &mut [u8]) -> Result<usize, Error> {
    let mut read = 0;
    while read < bytes.len() {
        let at = file_offset(offset + read as u64)?;
        let rest = &mut bytes[read..];
        // SAFETY: writes to the rest of the slice.
        match transferred(unsafe { libc::pread(fd, rest.as_mut_ptr().cast(), rest.len(), at) })? {
            Some(0) => break,
            Some(more) => read += more,
            None => {}
        }
    }
    Ok(read)
}

/// Writes all of the data, at an offset (`pwritev(2)`) or where the descriptor writes (`writev(2)`). Adds to `written` what was
/// written, also when it fails.
pub fn write(fd: RawFd, at: Option<u64>, data: Data, written: &mut u64) -> Result<(), Error> {
    let mut rest = data.segments().to_vec();
    let mut done = 0;
    while done < data.length() {
        rest.retain(|segment| segment.length() > 0);
        match transferred(write_some(fd, at.map(|at| at + done as u64), &rest)?)? {
            Some(0) => return Err(Error::System(libc::EIO)),
            Some(more) => {
                done += more;
                *written += more as u64;
                rest = data.after(done);
            }
            None => {}
        }
    }
    Ok(())
}

fn write_some(fd: RawFd, at: Option<u64>, segments: &[Segment]) -> Result<isize, Error> {
    let count = segments.len().min(SEGMENTS_AT_ONCE) as i32;
    let first = segments.as_ptr().cast::<libc::iovec>(); // a segment is one
    let at = at.map(file_offset).transpose()?;
    // SAFETY: the segments are readable; a page that is lost gives EFAULT.
    Ok(unsafe {
        match at {
            Some(at) => libc::pwritev(fd, first, count, at),
            None => libc::writev(fd, first, count),
        }
    })
}

/// What a read or write did; nothing if a signal interrupted it.
fn transferred(done: isize) -> Result<Option<usize>, Error> {
    match usize::try_from(done) {
        Ok(done) => Ok(Some(done)),
        Err(_) => match Error::last() {
            Error::System(libc::EINTR) => Ok(None),
            error => Err(error),
        },
    }
}

/// Finds a byte (`memchr(3)`, which looks at many at once).
#[inline]
pub fn find(byte: u8, bytes: &[u8]) -> Option<usize> {
    let start = bytes.as_ptr();
    // SAFETY: reads the slice.
    let found = unsafe { libc::memchr(start.cast(), i32::from(byte), bytes.len()) };
    (!found.is_null()).then(|| found.addr() - start.addr())
}

/// Moves the descriptor's own position (`lseek(2)`), and gives it.
pub fn seek(fd: RawFd, offset: i64, whence: i32) -> Result<u64, Error> {
    // SAFETY: changes only the position.
    u64::try_from(unsafe { libc::lseek(fd, offset, whence) }).map_err(|_| Error::last())
}

/// Writes the file back (`fsync(2)`), or its data alone (`fdatasync(2)`).
pub fn sync(fd: RawFd, data_only: bool) -> Result<(), Error> {
    #[cfg(target_os = "macos")]
    {
        let _ = data_only;
        // SAFETY: changes nothing.
        retried(|| unsafe { libc::fcntl(fd, libc::F_FULLFSYNC) })?;
    }
    #[cfg(not(target_os = "macos"))]
    // SAFETY: changes nothing.
    retried(|| unsafe {
        if data_only {
            libc::fdatasync(fd)
        } else {
            libc::fsync(fd)
        }
    })?;
    Ok(())
}

/// Allocates the blocks of a range, and makes the file as long as its end.
pub fn allocate(fd: RawFd, offset: u64, length: u64) -> Result<(), Error> {
    #[cfg(any(target_os = "linux", target_os = "freebsd"))]
    {
        let (offset, length) = (file_offset(offset)?, file_offset(length)?);
        #[cfg(target_os = "linux")]
        // SAFETY: changes only the file.
        if retried(|| unsafe { libc::fallocate(fd, 0, offset, length) }).is_ok() {
            return Ok(());
        }
        loop {
            // SAFETY: changes only the file.
            match unsafe { libc::posix_fallocate(fd, offset, length) } {
                0 => return Ok(()),
                libc::EINTR => {}
                errno => return Err(Error::System(errno)),
            }
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
    {
        let _ = (fd, offset, length);
        Err(Error::System(libc::ENOTSUP))
    }
}

/// Tells the system what to expect of a range (`posix_fadvise(2)`). Failing to is no error.
pub fn advise(fd: RawFd, offset: u64, length: u64, hint: Hint) {
    #[cfg(any(target_os = "linux", target_os = "freebsd"))]
    {
        let hint = match hint {
            Hint::Normal => libc::POSIX_FADV_NORMAL,
            Hint::Random => libc::POSIX_FADV_RANDOM,
            Hint::Sequential => libc::POSIX_FADV_SEQUENTIAL,
            Hint::WillNeed => libc::POSIX_FADV_WILLNEED,
            Hint::DontNeed => libc::POSIX_FADV_DONTNEED,
            _ => return, // of mappings only
        };
        if let (Ok(offset), Ok(length)) = (file_offset(offset), file_offset(length)) {
            // SAFETY: changes nothing.
            unsafe { libc::posix_fadvise(fd, offset, length, hint) };
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
    let _ = (fd, offset, length, hint);
}

/// The user and the group that this process acts as.
pub fn user_and_group() -> (u32, u32) {
    // SAFETY: they always succeed.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

fn file_offset(offset: u64) -> Result<libc::off_t, Error> {
    libc::off_t::try_from(offset).map_err(|_| Error::INVALID)
}
