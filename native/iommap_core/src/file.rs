//! The file under a mapping: opened, sized and resized.

use crate::error::Error;
use crate::options::{Access, Options};
use crate::platform;
use std::ffi::{CStr, OsStr};
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// An open file that can be mapped.
pub struct BackingFile {
    file: File,
    is_block_device: bool,
    device: u64,
    largest_piece: usize,
    system: platform::FileSystem,
}

impl BackingFile {
    /// Opens the file, and makes it, empties it and grows it as the options say. Gives its size too, which is not 0.
    ///
    /// What can be refused is refused before anything is changed; a file that cannot be grown keeps its contents.
    pub fn open(path: &CStr, options: &Options) -> Result<(BackingFile, usize), Error> {
        let path = Path::new(OsStr::from_bytes(path.to_bytes()));
        if options.access == Access::Read && (options.create || options.truncate) {
            return Err(Error::INVALID);
        }
        let (file, created) = open_or_create(path, options)?;
        let opened = BackingFile::examined(file, options);
        let sized = opened.and_then(|backing| {
            let size = backing.sized(options)?;
            Ok((backing, size))
        });
        if sized.is_err() && created {
            // Nobody asked for an empty file.
            let _ = std::fs::remove_file(path);
        }
        sized
    }

    fn examined(file: File, options: &Options) -> Result<BackingFile, Error> {
        let metadata = file.metadata()?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            return Err(Error::System(libc::EISDIR));
        }
        if !kind.is_file() && !kind.is_block_device() {
            return Err(Error::INVALID);
        }
        if options.nocache {
            platform::avoid_cache(file.as_raw_fd());
        }
        let system = platform::file_system(file.as_raw_fd());
        Ok(BackingFile {
            is_block_device: kind.is_block_device(),
            device: metadata.dev(),
            largest_piece: if system.in_memory {
                system.page_size.max(metadata.blksize() as usize)
            } else {
                system.page_size
            },
            system,
            file,
        })
    }

    /// Brings the file to the size the options ask for.
    fn sized(&self, options: &Options) -> Result<usize, Error> {
        let now = self.size()?;
        let wanted = if options.truncate {
            options.size
        } else {
            options.size.max(now)
        };
        if wanted == 0 || (wanted > now && options.access == Access::Read) {
            return Err(Error::INVALID);
        }
        let mappable = mappable(wanted)?;
        if options.truncate && now > 0 {
            // Before the file is emptied, which may have holes: when the disk is full, nothing is lost.
            platform::reserve(self.fd(), wanted).inspect_err(|_| {
                if self.size() == Ok(now) {
                    let _ = platform::set_size(self.fd(), now); // gives back what was reserved
                }
            })?;
        } else if wanted > now {
            self.grow(now, wanted)?;
        }
        if options.truncate && now > 0 {
            self.shrink(0)?;
            self.grow(0, wanted)?;
        }
        Ok(mappable)
    }

    /// The size in bytes, as it is now.
    pub fn size(&self) -> Result<u64, Error> {
        if self.is_block_device {
            return Ok((&self.file).seek(SeekFrom::End(0))?);
        }
        Ok(self.file.metadata()?.len())
    }

    /// Makes the file longer, with its blocks allocated; as long as it was if that fails, unless others made it longer yet.
    pub fn grow(&self, from: u64, to: u64) -> Result<(), Error> {
        platform::preallocate(self.fd(), from, to).inspect_err(|_| {
            if self.size().is_ok_and(|now| from < now && now <= to) {
                let _ = platform::set_size(self.fd(), from);
            }
        })
    }

    /// Makes the file shorter.
    pub fn shrink(&self, to: u64) -> Result<(), Error> {
        platform::set_size(self.fd(), to)
    }

    /// Makes the file so long, with its blocks allocated, if it is shorter; what is new is zero.
    pub fn grow_to(&self, size: u64) -> Result<(), Error> {
        let now = self.size()?;
        if now < size {
            self.grow(now, size)?;
        }
        Ok(())
    }

    /// Makes the file so long, if it is longer.
    pub fn shrink_to(&self, size: u64) -> Result<(), Error> {
        if size < self.size()? {
            self.shrink(size)?;
        }
        Ok(())
    }

    /// The descriptor.
    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// The descriptor, if the file's size tells which pages of a mapping are backed.
    pub fn sized_fd(&self) -> Option<RawFd> {
        (!self.is_block_device).then(|| self.fd())
    }

    /// The size of the pages by which it is mapped, in bytes.
    pub fn page_size(&self) -> usize {
        self.system.page_size
    }

    /// The largest piece of memory, in bytes, that may hold the end of the file and keep what is written behind it.
    pub fn largest_piece(&self) -> usize {
        self.largest_piece
    }

    /// The device that it is on.
    pub fn device(&self) -> u64 {
        self.device
    }

    /// What its file system is like.
    pub fn system(&self) -> &platform::FileSystem {
        &self.system
    }

    /// Whether `mincore(2)` tells the truth about it now: it tells its owner, and says "resident" of every page to others.
    pub fn mincore_is_reliable(&self) -> bool {
        platform::owner(self.fd()) == Some(platform::user())
    }
}

/// The size as a length of memory.
pub fn mappable(size: u64) -> Result<usize, Error> {
    isize::try_from(size)
        .map(|size| size as usize)
        .map_err(|_| Error::System(libc::EFBIG))
}

/// The file, and whether it is new.
fn open_or_create(path: &Path, options: &Options) -> Result<(File, bool), Error> {
    let mut how = OpenOptions::new();
    how.read(true).write(options.access.writes()).mode(0o644);
    // Opening a FIFO or a terminal must neither wait nor adopt it. Close-on-exec is std's own habit.
    how.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);

    match how.open(path) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) && options.create => {
            if options.size == 0 {
                return Err(Error::INVALID);
            }
            match how.clone().create_new(true).open(path) {
                // It appeared meanwhile, or is a link to nothing.
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                    Ok((how.create(true).open(path)?, false))
                }
                made => Ok((made?, true)),
            }
        }
        // A socket, or a device without a driver.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Err(Error::INVALID),
        opened => Ok((opened?, false)),
    }
}
