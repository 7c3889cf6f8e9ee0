//! System calls on files: how they are found, named, sized and dated.
//!
//! | | Linux | macOS | FreeBSD | OpenBSD |
//! |---|---|---|---|---|
//! | a file without a name | O_TMPFILE | none: a temporary name | none | none |
//! | rename that replaces nothing | renameat2 | renameatx_np | none: link | none: link |
//! | blocks before the size | FALLOC_FL_KEEP_SIZE | F_PREALLOCATE | none | none |
//! | grow | fallocate | pwrite | posix_fallocate | pwrite |
//! | zeros in place | FALLOC_FL_ZERO_RANGE | none: empty and grow | none | none |

use crate::error::Error;
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

/// A failed growth gives back nothing nearer to the end than this: an append may come between the look and the punch.
#[cfg(target_os = "linux")]
const APPENDS_MEANWHILE: u64 = 64 << 20;

// Names.

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

fn open_at(directory: RawFd, path: &CStr, flags: i32, mode: u32) -> Result<File, Error> {
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

// Sizes.

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
fn write_last_byte(fd: RawFd, size: u64) -> Result<(), Error> {
    if super::size(fd).is_some_and(|now| now >= size) {
        return Ok(());
    }
    let at = offset(size)? - 1;
    loop {
        // SAFETY: reads one byte.
        match unsafe { libc::pwrite(fd, [0u8].as_ptr().cast(), 1, at) } {
            1 => return Ok(()),
            0 => return Err(Error::System(libc::EIO)),
            _ => match Error::last() {
                Error::System(libc::EINTR) => {}
                error => return Err(error),
            },
        }
    }
}

/// Writes zeros over a range.
pub fn write_zeros(fd: RawFd, from: u64, to: u64) -> Result<(), Error> {
    let zeros = vec![0u8; 1 << 20];
    let mut at = from;
    while at < to {
        let length = zeros.len().min((to - at) as usize);
        // SAFETY: reads so many bytes.
        match unsafe { libc::pwrite(fd, zeros.as_ptr().cast(), length, offset(at)?) } {
            written if written > 0 => at += written as u64,
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
        if kind == Some(EXT4) || (kind == Some(OVERLAY) && writes_directly(fd)) {
            free_eof_blocks(fd, to);
        }
        if let Some(end) = super::size(fd) {
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

/// Calls the system, and again when it was interrupted by a signal.
fn retried(mut call: impl FnMut() -> i32) -> Result<i32, Error> {
    loop {
        let done = call();
        if done >= 0 {
            return Ok(done);
        }
        match Error::last() {
            Error::System(libc::EINTR) => {}
            error => return Err(error),
        }
    }
}

// File systems and times.

#[cfg(target_os = "linux")]
const EXT4: u32 = 0xef53;
#[cfg(target_os = "linux")]
const OVERLAY: u32 = 0x794c_7630;

/// What kind of file system the file is on, and how many bytes are free there.
#[cfg(target_os = "linux")]
fn kind_and_free(fd: RawFd) -> Option<(u32, u64)> {
    // SAFETY: fills the buffer, of which all-zero is a valid value.
    let status = unsafe {
        let mut status: libc::statfs = std::mem::zeroed();
        (libc::fstatfs(fd, &mut status) == 0).then_some(status)
    }?;
    #[allow(clippy::unnecessary_cast)] // the types differ between processors
    let (kind, free) = (
        status.f_type as u32,
        (status.f_bfree as u64).saturating_mul(status.f_bsize as u64),
    );
    Some((kind, free))
}

/// Sets the file's time of modification to now (`futimens(2)`); that of access too where the file is another user's.
pub fn set_mtime(fd: RawFd) -> Result<(), Error> {
    let time = |nanoseconds| libc::timespec {
        tv_sec: 0,
        tv_nsec: nanoseconds,
    };
    let modified = [time(libc::UTIME_OMIT), time(libc::UTIME_NOW)];
    // SAFETY: reads two times, or none.
    match retried(|| unsafe { libc::futimens(fd, modified.as_ptr()) }) {
        // Only the owner may set one of them; who may write may set both.
        Err(Error::System(libc::EPERM)) => {
            // SAFETY: as above.
            retried(|| unsafe { libc::futimens(fd, std::ptr::null()) })?;
        }
        done => {
            done?;
        }
    }
    Ok(())
}
