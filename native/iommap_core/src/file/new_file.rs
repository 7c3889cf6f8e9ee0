//! How a new file comes by its name: last of all, when it is whole, and never in another's place.
//!
//! ```text
//! unnamed ----------link---------> named        O_TMPFILE: ext4, xfs, btrfs, tmpfs, overlayfs
//! of a temporary name --rename---> named        where there are no unnamed files; link and unlink
//!                                               where rename may only replace
//! named from the start                          where there is neither
//! ```
//!
//! The name that the user gave is never unlinked, whatever fails: somebody may have put another file there meanwhile.

use crate::error::Error;
use crate::platform::name as system;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

/// The permissions to run as the file's owner or group, and the sticky bit.
const SPECIAL: u32 = 0o7000;

/// How many symbolic links the system follows.
const LINKS: usize = 40;

/// A directory, and a name in it that is free.
pub struct Target {
    directory: File,
    name: CString,
}

impl Target {
    /// Finds out where `open(2)` would make the file: in the directory of the path, or of what a link without a target
    /// names. Nothing if there is something by now.
    pub fn find(path: &Path) -> Result<Option<Target>, Error> {
        let mut path = path.as_os_str().as_bytes().to_vec();
        let mut at: Option<File> = None;
        for _ in 0..LINKS {
            let (directory, name) = split(&path)?;
            let directory = system::open_directory(at.as_ref(), &directory)?;
            let Some(name) = name else {
                return Err(Error::System(libc::EISDIR));
            };
            match system::read_link(&directory, &name) {
                Ok(target) => {
                    check_link(&directory, system::owner_of(&directory, &name)?)?;
                    path = target;
                }
                Err(Error::System(libc::ENOENT)) => return Ok(Some(Target { directory, name })),
                Err(Error::System(libc::EINVAL)) => return Ok(None),
                Err(error) => return Err(error),
            }
            at = Some(directory);
        }
        Err(Error::System(libc::ELOOP))
    }
}

/// The directory and the name in it, which is none if the path can only be a directory's.
fn split(path: &[u8]) -> Result<(CString, Option<CString>), Error> {
    let string = |bytes: &[u8]| CString::new(bytes).map_err(|_| Error::INVALID);
    if path.is_empty() {
        return Err(Error::System(libc::ENOENT));
    }
    let end = path.iter().rposition(|byte| *byte != b'/');
    let (whole, slashes) = path.split_at(end.map_or(0, |last| last + 1));
    let slash = whole.iter().rposition(|byte| *byte == b'/');
    let (directory, name) = whole.split_at(slash.map_or(0, |slash| slash + 1));
    let directory = match (directory, name) {
        (b"", b"") => slashes,
        (b"", _) => b".",
        _ => directory,
    };
    let is_name = slashes.is_empty() && name != b"." && name != b"..";
    let name = is_name.then(|| string(name)).transpose()?;
    Ok((string(directory)?, name))
}

/// Refuses a link in a sticky directory that all may write to, unless it is ours or the directory's owner's, as the system
/// does (`fs.protected_symlinks`): it may have been put there since the system looked.
fn check_link(directory: &File, owner: u32) -> Result<(), Error> {
    let metadata = directory.metadata()?;
    let anybodys = metadata.mode() & 0o1002 == 0o1002;
    if anybodys && owner != system::user() && owner != metadata.uid() {
        return Err(Error::NO_ACCESS);
    }
    Ok(())
}

/// How a file is called until it is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// It has no name.
    Unnamed,
    /// It has a name of its own in the same directory.
    Temporary,
    /// It has its name from the start, and keeps it when something fails.
    Named,
}

/// The outcome of giving a file its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// It has its name.
    Done,
    /// The name is another's by now.
    Taken,
    /// It cannot be done so here.
    Try(Strategy),
}

/// A new file that has not got its name yet. It goes without a trace unless it is published.
pub struct NewFile {
    target: Target,
    strategy: Strategy,
    temporary: Option<CString>,
    /// Permissions that the system takes away where the file is written: to run as its owner or group.
    special: Option<u32>,
}

impl NewFile {
    /// Makes an empty file with these permissions, under the umask or the directory's default ACL, to read and write. Nothing if
    /// the name is another's by now.
    pub fn create(
        target: Target,
        strategy: Strategy,
        permissions: u32,
    ) -> Result<Option<(File, NewFile)>, Error> {
        let (file, temporary) = match strategy {
            Strategy::Unnamed => match system::create_unnamed(&target.directory, permissions)? {
                Some(file) => (file, None),
                None => return NewFile::create(target, Strategy::Temporary, permissions),
            },
            Strategy::Temporary => {
                let name = temporary_name()?;
                let file = system::create_exclusively(&target.directory, &name, permissions)?;
                (file, Some(name))
            }
            Strategy::Named => {
                match system::create_exclusively(&target.directory, &target.name, permissions) {
                    Err(Error::System(libc::EEXIST)) => return Ok(None),
                    file => (file?, None),
                }
            }
        };
        let has_special = permissions & SPECIAL != 0;
        let special = has_special.then(|| file.metadata().map(|metadata| metadata.mode() & 0o7777));
        let new = NewFile {
            target,
            strategy,
            temporary,
            special: special.transpose()?,
        };
        Ok(Some((file, new)))
    }

    /// Gives the file, whose descriptor this is, its name.
    pub fn publish(self, fd: RawFd) -> Result<Published, Error> {
        if let Some(permissions) = self.special {
            system::set_permissions(fd, permissions)?;
        }
        let Target { directory, name } = &self.target;
        let (named, otherwise) = match &self.temporary {
            Some(temporary) => (rename(directory, temporary, name), Strategy::Named),
            None if self.strategy == Strategy::Named => return Ok(Published::Done),
            None => (
                system::link_unnamed(fd, directory, name),
                Strategy::Temporary,
            ),
        };
        match named {
            Ok(()) => Ok(Published::Done),
            Err(Error::System(libc::EEXIST)) => Ok(Published::Taken),
            Err(error) if is_refusal(error) => Ok(Published::Try(otherwise)),
            Err(error) => Err(error),
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            system::unlink(&self.target.directory, temporary);
        }
    }
}

/// Moves a file to a free name; where that cannot be done without replacing another, links it there.
fn rename(directory: &File, from: &CStr, to: &CStr) -> Result<(), Error> {
    system::rename_to_new(directory, from, to).or_else(|error| {
        if is_refusal(error) {
            system::link(directory, from, to)
        } else {
            Err(error)
        }
    })
}

/// Whether the system has no such thing, or not for this file system. (No entry: it wants a /proc that is not mounted.)
fn is_refusal(error: Error) -> bool {
    let Error::System(errno) = error else {
        return false;
    };
    [
        libc::EPERM,
        libc::EOPNOTSUPP,
        libc::ENOTSUP,
        libc::ENOSYS,
        libc::EINVAL,
        libc::EXDEV,
        libc::ENOENT,
    ]
    .contains(&errno)
}

/// A name that nobody else has, nor is likely to guess: of this process, this moment, and this call.
fn temporary_name() -> Result<CString, Error> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_nanos());
    let name = format!(".iommap-{:x}-{now:x}-{call:x}", std::process::id());
    CString::new(name).map_err(|_| Error::INVALID)
}
