//! Opening a file to map it: found or made, mapped, and only then changed.
//!
//! 1. The file is looked for, or a new one is made that has no name yet. What can be refused is refused.
//! 2. The caller maps it, at the size that it is going to have. A mapping may reach beyond the end of its file.
//! 3. The file is brought to that size, and to its name if it is new. Nothing can fail afterwards.
//!
//! So whatever fails, the file that was there is what it was, and no other appears or goes.

use super::new_file::{NewFile, Published, Strategy, Target};
use super::{mappable, post_eof, BackingFile};
use crate::error::Error;
use crate::options::{Access, Options};
use crate::platform::{descriptor, file as system};
use std::ffi::{CStr, CString, OsStr};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

/// How often a file may come and go under our hands before we give up.
const TRIES: usize = 100;

/// What is opened.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// The file of that path.
    Path(&'a CStr),
    /// What that descriptor of the process stands for.
    Descriptor(RawFd),
    /// New memory without a name.
    Anonymous,
}

impl<'a> From<&'a CStr> for Source<'a> {
    fn from(path: &'a CStr) -> Source<'a> {
        Source::Path(path)
    }
}

impl<'a> From<&'a CString> for Source<'a> {
    fn from(path: &'a CString) -> Source<'a> {
        Source::Path(path)
    }
}

/// Opens the file, or makes it, and has it mapped by `map`, which gets the size of the mapping too; then empties and grows it as the options
/// say. What `map` gave is given, or dropped if anything fails: then nothing has happened. `map` may be called again.
pub fn open<T>(
    source: Source,
    options: &Options,
    map: impl FnMut(&Arc<BackingFile>, usize) -> Result<T, Error>,
) -> Result<T, Error> {
    match source {
        Source::Path(path) => open_path(path, options, map),
        Source::Descriptor(fd) => open_descriptor(fd, options, map),
        Source::Anonymous => open_anonymous(options, map),
    }
}

fn open_path<T>(
    path: &CStr,
    options: &Options,
    mut map: impl FnMut(&Arc<BackingFile>, usize) -> Result<T, Error>,
) -> Result<T, Error> {
    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    if options.access == Access::Read && (options.create || options.truncate) {
        return Err(Error::INVALID);
    }
    let mut strategy = Strategy::Unnamed;
    for _ in 0..TRIES {
        let Some(pending) = Pending::open(path, options, strategy)? else {
            continue;
        };
        let (file, size, is_new) = (pending.file.clone(), pending.size, pending.new.is_some());
        let mapped = map(&file, size)?;
        match pending.commit()? {
            Published::Done if is_new => {
                // In /proc a file is called what it was called when it was opened.
                let named = open_by_name(path, options, &file);
                return Ok(named.and_then(|named| map(&named, size)).unwrap_or(mapped));
            }
            Published::Done => return Ok(mapped),
            Published::Taken => {}
            Published::Try(other) => strategy = other,
        }
    }
    Err(Error::System(libc::EEXIST))
}

/// Maps what a descriptor stands for, through a descriptor of its own. The position, which both share, stays where it is.
fn open_descriptor<T>(
    fd: RawFd,
    options: &Options,
    mut map: impl FnMut(&Arc<BackingFile>, usize) -> Result<T, Error>,
) -> Result<T, Error> {
    if options.access == Access::Read && options.truncate {
        return Err(Error::INVALID);
    }
    let file = BackingFile::new(descriptor::duplicate(fd)?, options)?.with_shared_position();
    let permits = descriptor::permits(file.fd())?;
    if !permits.reads || (options.access.writes() && !permits.writes) {
        return Err(Error::NO_ACCESS);
    }
    let pending = Pending::checked(file, options, None)?;
    let mapped = map(&pending.file, pending.size)?;
    pending.commit()?;
    Ok(mapped)
}

/// Makes memory without a name, and room for it, and maps it.
fn open_anonymous<T>(
    options: &Options,
    mut map: impl FnMut(&Arc<BackingFile>, usize) -> Result<T, Error>,
) -> Result<T, Error> {
    if options.access == Access::Read || options.private || !options.window.is_whole() {
        return Err(Error::INVALID);
    }
    if options.size == 0 {
        return Err(Error::INVALID);
    }
    system::check_size_limit(options.size)?;
    let file = BackingFile::anonymous(options.size, options)?;
    let pending = Pending::checked(file, options, None)?;
    let mapped = map(&pending.file, pending.size)?;
    pending.commit()?;
    Ok(mapped)
}

/// A file that is open, and what is still to be done to it.
struct Pending {
    file: Arc<BackingFile>,
    /// How much of it is going to be mapped.
    size: usize,
    change: Change,
    new: Option<NewFile>,
}

enum Change {
    None,
    Grow(u64),
    /// It becomes so many zeros.
    Empty(u64),
}

impl Pending {
    /// Nothing if a file appeared or went meanwhile.
    fn open(path: &Path, options: &Options, strategy: Strategy) -> Result<Option<Pending>, Error> {
        match open_existing(path, options) {
            Ok(file) => {
                let file = BackingFile::new(file, options)?.named(path);
                Pending::checked(file, options, None).map(Some)
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) && options.create => {
                if options.window.length_in(options.size).is_none() {
                    return Err(Error::INVALID);
                }
                let Some(target) = Target::find(path)? else {
                    return Ok(None);
                };
                system::check_size_limit(options.size)?;
                let Some((file, new)) = NewFile::create(target, strategy, options.permissions)?
                else {
                    return Ok(None);
                };
                let file = BackingFile::new(file, options)?.named(path);
                Pending::checked(file, options, Some(new)).map(Some)
            }
            // A socket, or a device without a driver.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Err(Error::INVALID),
            Err(error) => Err(error.into()),
        }
    }

    fn checked(
        file: BackingFile,
        options: &Options,
        new: Option<NewFile>,
    ) -> Result<Pending, Error> {
        let now = file.first_size();
        let wanted = if options.truncate {
            options.size
        } else {
            options.size.max(now)
        };
        if wanted > now && options.access == Access::Read {
            return Err(Error::INVALID);
        }
        let shown = options.window.length_in(wanted).ok_or(Error::INVALID)?;
        let size = mappable(shown)?;
        let change = if options.truncate && now > 0 {
            Change::Empty(wanted)
        } else if wanted > now {
            Change::Grow(wanted)
        } else {
            Change::None
        };
        if !matches!(change, Change::None) {
            file.check_resizable(wanted)?;
        }
        Ok(Pending {
            file: Arc::new(file),
            size,
            change,
            new,
        })
    }

    /// Does to the file what is to be done.
    fn commit(self) -> Result<Published, Error> {
        match self.change {
            Change::None => {}
            Change::Grow(size) => {
                post_eof::zero(&self.file, size)?;
                self.file.preallocate(size)?.grow()?;
            }
            Change::Empty(size) => {
                post_eof::zero(&self.file, size)?;
                self.file.empty(size)?;
            }
        }
        match self.new {
            Some(new) => new.publish(self.file.fd()),
            None => Ok(Published::Done),
        }
    }
}

/// Opens a file that has got its name, once more. Refused if another has the name by now.
fn open_by_name(
    path: &Path,
    options: &Options,
    file: &BackingFile,
) -> Result<Arc<BackingFile>, Error> {
    let named = BackingFile::new(open_options(options).open(path)?, options)?.named(path);
    if named.is_same_as(file)? {
        Ok(Arc::new(named))
    } else {
        Err(Error::System(libc::EEXIST))
    }
}

/// Opens a file that is there. Waits until another process gives up its lease on it, as `open(2)` does, but for nothing else.
fn open_existing(path: &Path, options: &Options) -> io::Result<File> {
    let mut how = open_options(options);
    match how.open(path) {
        Err(error) if error.raw_os_error() == Some(libc::EWOULDBLOCK) => {
            wait_for_lease(path, &mut how).unwrap_or(Err(error))
        }
        opened => opened,
    }
}

fn open_options(options: &Options) -> OpenOptions {
    let mut how = OpenOptions::new();
    how.read(true).write(options.access.writes());
    // Opening a FIFO or a terminal must neither wait nor adopt it. Close-on-exec is std's own habit.
    how.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    how
}

/// Opens a regular file, waiting. Nothing if it is none, or if it cannot be known without opening it.
fn wait_for_lease(path: &Path, how: &mut OpenOptions) -> Option<io::Result<File>> {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        let named = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(path)
            .ok()?;
        if !named.metadata().ok()?.is_file() {
            return None;
        }
        how.custom_flags(libc::O_NOCTTY);
        let same = format!("/proc/self/fd/{}", named.as_raw_fd());
        Some(how.open(same))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (path, how);
        None
    }
}
