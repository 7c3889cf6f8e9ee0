//! A device: an open file with a position, as OTP's raw files are, whose bytes are read and written in a mapping.
//!
//! What lies in the mapping is copied there. Everything else goes through the descriptor, and whatever goes wrong with a page is
//! done again through it: so the size is exact at every moment, and errors are those of a raw file. The mapping follows a longer
//! file at the first read behind its end. A file that is empty, that may not be read or that cannot be mapped has none.
//!
//! Any thread may use a device. The position is under a lock that a call holds from beginning to end; no call ends in between.

mod position;
mod read;
mod write;

use crate::error::Error;
use crate::file::BackingFile;
use crate::handle::{Handle, Wait};
use crate::options::{Access, Hint, Options};
use crate::platform::{file as system, io};
use crate::unmapper;
use parking_lot::{Mutex, MutexGuard};
use position::Cursor;
use std::ffi::{CStr, OsStr};
use std::fs::{File, OpenOptions};
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

pub use position::Whence;

/// The way a file is opened, as `file:open/2` has it.
#[derive(Debug, Clone, Copy)]
pub struct OpenMode {
    /// What the device may do.
    pub access: Access,
    /// Every write goes to the end (O_APPEND).
    pub append: bool,
    /// The file must not be there (O_EXCL).
    pub exclusive: bool,
    /// Every write reaches the disk before it returns (O_SYNC).
    pub sync: bool,
}

/// A device. `H` keeps a handle of somebody else alive.
pub struct Device<V, H> {
    access: Access,
    append: bool,
    /// Writes go through the descriptor, wherever they go.
    writes_by_descriptor: bool,
    closed: AtomicBool,
    file: Mutex<Option<Arc<BackingFile>>>,
    cursor: Mutex<Cursor>,
    mapped: OnceLock<Mapped<V, H>>,
    /// The file could not be mapped, and is not tried again.
    unmappable: AtomicBool,
}

enum Mapped<V, H> {
    Own(Box<Handle<V>>),
    Borrowed(H),
}

/// The facts about the file, as `fstat(2)` tells them; times in seconds since 1970.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Status {
    pub size: u64,
    pub is_device: bool,
    /// Whether the permissions let this user read, and write.
    pub readable: bool,
    pub writable: bool,
    pub accessed: i64,
    pub modified: i64,
    pub changed: i64,
    pub mode: u32,
    pub links: u64,
    pub device: u64,
    pub device_of: u64,
    pub inode: u64,
    pub user: u32,
    pub group: u32,
}

impl<V, H: Deref<Target = Handle<V>>> Device<V, H> {
    /// Opens a file as `file:open/2` does, and maps it if it is not empty.
    pub fn open(path: &CStr, mode: OpenMode) -> Result<Device<V, H>, Error> {
        let file = unmapper::retry_after_reclaim(|| open_file(path, mode))?;
        let path = Path::new(OsStr::from_bytes(path.to_bytes()));
        let file = BackingFile::new(file, &Options::new(mode.access))?.named(path);
        let device = Device {
            access: mode.access,
            append: mode.append,
            writes_by_descriptor: mode.append || mode.sync,
            closed: AtomicBool::new(false),
            file: Mutex::new(Some(Arc::new(file))),
            cursor: Mutex::default(),
            mapped: OnceLock::new(),
            unmappable: AtomicBool::new(!mode.access.reads()),
        };
        device.mapping(Wait::Blocking)?;
        Ok(device)
    }

    /// A device on the mapping and the descriptor of a handle, which must not be one of a window.
    pub fn of_handle(handle: H) -> Result<Device<V, H>, Error> {
        let (access, file) = (handle.access(), handle.file()?);
        if handle.is_window() {
            return Err(Error::INVALID);
        }
        Ok(Device {
            access,
            append: false,
            writes_by_descriptor: false,
            closed: AtomicBool::new(false),
            file: Mutex::new(Some(file)),
            cursor: Mutex::default(),
            mapped: OnceLock::from(Mapped::Borrowed(handle)),
            unmappable: AtomicBool::new(false),
        })
    }

    /// Closes the device: its file and its own mapping, or neither of a handle's.
    pub fn close(&self) -> Result<(), Error> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Err(Error::Closed);
        }
        self.close_mapping();
        let file = self.file.lock().take();
        drop(file);
        Ok(())
    }

    fn close_mapping(&self) {
        if let Some(Mapped::Own(handle)) = self.mapped.get() {
            let _ = handle.close(); // or it was closed before
        }
    }

    /// Writes the file back, or its data alone, and waits for it. Tells an error of writing back what was written in the
    /// mapping, as long as the handle does.
    pub fn sync(&self, data_only: bool) -> Result<(), Error> {
        let file = self.file()?;
        if let Some(handle) = self.mapping(Wait::Blocking)? {
            match handle.sync(false) {
                Ok(()) | Err(Error::Fault) => {} // what the file lost is not to be written
                error => return error,
            }
        }
        io::sync(file.fd(), data_only)
    }

    /// Allocates the blocks of a range, and makes the file as long as its end.
    pub fn allocate(&self, offset: u64, length: u64) -> Result<(), Error> {
        let file = self.file()?;
        if length > 0 {
            self.permit(self.access.writes())?;
        }
        let end = offset
            .checked_add(length)
            .ok_or(Error::System(libc::EFBIG))?;
        system::check_size_limit(end)?;
        io::allocate(file.fd(), offset, length)
    }

    /// Tells the system what to expect of a range, in the mapping and elsewhere; of everything from `offset` on if `length`
    /// is 0.
    pub fn advise(&self, offset: u64, length: u64, hint: Hint) -> Result<(), Error> {
        let file = self.file()?;
        io::advise(file.fd(), offset, length, hint);
        if let Some(handle) = self.mapping(Wait::Blocking)? {
            let size = handle.position(Wait::Blocking).unwrap_or(0) as u64;
            let length = length.min(size.saturating_sub(offset));
            let _ = handle.advise(offset, length, hint); // hints promise nothing
        }
        Ok(())
    }

    /// The facts about the file.
    pub fn status(&self) -> Result<Status, Error> {
        let file = self.file()?;
        let data = file.metadata()?;
        let (user, group) = io::user_and_group();
        let shift = match (data.uid() == user, data.gid() == group) {
            (true, _) => 6,
            (false, true) => 3,
            (false, false) => 0,
        };
        let permitted = data.mode() >> shift;
        Ok(Status {
            size: data.len(),
            is_device: !data.is_file(),
            readable: permitted & 4 != 0,
            writable: permitted & 2 != 0,
            accessed: data.atime(),
            modified: data.mtime(),
            changed: data.ctime(),
            mode: data.mode(),
            links: data.nlink(),
            device: data.dev(),
            device_of: data.rdev(),
            inode: data.ino(),
            user: data.uid(),
            group: data.gid(),
        })
    }

    /// The mapping, which is made as soon as there is something to map; nothing if there is none.
    #[inline]
    fn mapping(&self, wait: Wait) -> Result<Option<&Handle<V>>, Error> {
        match self.mapped() {
            Some(handle) => Ok(Some(handle)),
            None => self.map(wait),
        }
    }

    /// The mapping, if it was made already.
    #[inline(always)]
    fn mapped(&self) -> Option<&Handle<V>> {
        Some(match self.mapped.get()? {
            Mapped::Own(handle) => handle,
            Mapped::Borrowed(handle) => handle,
        })
    }

    #[cold]
    fn map(&self, wait: Wait) -> Result<Option<&Handle<V>>, Error> {
        if self.unmappable.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if wait == Wait::NonBlocking {
            return Err(Error::WouldBlock);
        }
        let file = self.file()?;
        if file.size()? == 0 {
            return Ok(None);
        }
        match Handle::of_file(&file, Options::new(self.access)) {
            Ok(handle) => {
                // Another thread may have been faster; its mapping is as good.
                let _ = self.mapped.set(Mapped::Own(Box::new(handle)));
            }
            Err(Error::System(libc::ENOMEM | libc::EMFILE | libc::ENFILE)) => return Ok(None),
            Err(_) => {
                self.unmappable.store(true, Ordering::Relaxed);
                return Ok(None);
            }
        }
        if self.closed.load(Ordering::Acquire) {
            self.close_mapping();
            return Err(Error::Closed);
        }
        self.mapping(wait)
    }

    /// Makes the mapping as long as the file. Nobody but its user clears the fault of a handle.
    fn follow(&self, handle: &Handle<V>) -> Result<(), Error> {
        if self.is_borrowed() && handle.info(Wait::Blocking)?.faulted {
            return Err(Error::Fault);
        }
        handle.remap().map(drop)
    }

    fn file(&self) -> Result<Arc<BackingFile>, Error> {
        self.file.lock().clone().ok_or(Error::Closed)
    }

    /// How long the file is now. A server is asked, and waited for.
    fn file_size(&self, wait: Wait) -> Result<u64, Error> {
        let file = self.file()?;
        match file.sized_fd() {
            Some(fd) if !file.system().remote => system::size(fd).ok_or_else(Error::last),
            _ => {
                must_wait(wait)?;
                file.size()
            }
        }
    }

    fn is_borrowed(&self) -> bool {
        matches!(self.mapped.get(), Some(Mapped::Borrowed(_)))
    }

    #[inline]
    fn check_open(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::Acquire) {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    /// `EBADF` is the system's answer to a read or write through a descriptor that is not open for it.
    #[inline]
    fn permit(&self, permitted: bool) -> Result<(), Error> {
        if permitted {
            Ok(())
        } else {
            Err(Error::System(libc::EBADF))
        }
    }

    #[inline]
    fn lock_cursor(&self, wait: Wait) -> Result<MutexGuard<'_, Cursor>, Error> {
        match wait {
            Wait::NonBlocking => self.cursor.try_lock().ok_or(Error::Contended),
            Wait::Blocking => Ok(self.cursor.lock()),
        }
    }
}

impl<V, H> Drop for Device<V, H> {
    /// Lets the file go without waiting; the mapping does so by itself.
    fn drop(&mut self) {
        if let Some(file) = self.file.get_mut().take() {
            if let Some(file) = Arc::into_inner(file) {
                unmapper::release(file.device(), Arc::new(file));
            }
        }
    }
}

fn must_wait(wait: Wait) -> Result<(), Error> {
    match wait {
        Wait::NonBlocking => Err(Error::WouldBlock),
        Wait::Blocking => Ok(()),
    }
}

fn open_file(path: &CStr, mode: OpenMode) -> Result<File, Error> {
    let path = OsStr::from_bytes(path.to_bytes());
    let mut how = OpenOptions::new();
    let (reads, writes) = (mode.access.reads(), mode.access.writes());
    how.read(reads);
    if mode.append {
        how.append(true);
    } else {
        how.write(writes);
    }
    if writes {
        how.create(true).create_new(mode.exclusive);
        how.truncate(!reads && !mode.append && !mode.exclusive);
    }
    let sync = if mode.sync { libc::O_SYNC } else { 0 };
    // Opening a FIFO or a terminal must neither wait nor adopt it.
    how.custom_flags(sync | libc::O_NONBLOCK | libc::O_NOCTTY);
    let opened = match how.open(path) {
        // A lease on the file: as `open(2)` does, wait for it to be given up.
        Err(error) if error.raw_os_error() == Some(libc::EWOULDBLOCK) => {
            how.custom_flags(sync | libc::O_NOCTTY).open(path)
        }
        opened => opened,
    };
    match opened {
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Err(Error::INVALID),
        opened => Ok(opened?),
    }
}
