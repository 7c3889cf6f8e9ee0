//! The file under a mapping: its descriptor, its kind, its size.

mod new_file;
pub mod opening;
#[allow(unsafe_code)] // copies from and to mapped memory
pub mod post_eof;

use crate::error::Error;
use crate::options::Options;
use crate::platform::file_system::{file_system, FileSystem};
use crate::platform::{
    self, anonymous, descriptor, file as system, memory, name, page_cache, time,
};
use crate::unmapper::Reclaim;
use std::fs::{File, Metadata};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// An open file that can be mapped.
pub struct BackingFile {
    file: File,
    /// When it was opened.
    first_size: u64,
    is_block_device: bool,
    device: u64,
    largest_piece: AtomicUsize,
    system: FileSystem,
    /// Whether it is memory without a name.
    anonymous: bool,
    /// Whether nobody can make it shorter.
    never_shrinks: bool,
    /// Whether the position of its descriptor is another's, too, who may move it.
    shares_position: bool,
    /// Absolute, as it was opened; of memory without a name, by which other processes open it.
    path: Option<Arc<Path>>,
}

impl BackingFile {
    /// A file that was opened. Refused if it can have no mapping.
    pub fn new(file: File, options: &Options) -> Result<BackingFile, Error> {
        let metadata = file.metadata()?;
        let fd = file.as_raw_fd();
        let kind = metadata.file_type();
        if kind.is_dir() {
            return Err(Error::System(libc::EISDIR));
        }
        if !kind.is_file() && !kind.is_block_device() {
            return Err(Error::INVALID);
        }
        if options.nocache {
            page_cache::avoid_cache(fd);
        }
        let mut system = file_system(fd);
        if kind.is_block_device() {
            // What was asked about is where its name is, in memory.
            system.in_memory = false;
            system.forgets_mtime = false;
        }
        Ok(BackingFile {
            first_size: if kind.is_block_device() {
                descriptor::device_size(fd)?
            } else {
                metadata.len()
            },
            is_block_device: kind.is_block_device(),
            never_shrinks: kind.is_block_device()
                || system.in_memory && anonymous::is_sealed_against_shrinking(file.as_raw_fd()),
            shares_position: false,
            device: metadata.dev(),
            largest_piece: AtomicUsize::new(system.page_size.max(metadata.blksize() as usize)),
            system,
            file,
            anonymous: false,
            path: None,
        })
    }

    /// Memory without a name.
    pub fn anonymous(size: u64, options: &Options) -> Result<BackingFile, Error> {
        let memory = BackingFile::new(anonymous::create(size)?, options)?;
        Ok(BackingFile {
            anonymous: true,
            path: anonymous::path(memory.fd()).map(|path| Path::new(&path).into()),
            ..memory
        })
    }

    /// The same, by a descriptor whose position is another's, too.
    pub fn with_shared_position(self) -> BackingFile {
        BackingFile {
            shares_position: true,
            ..self
        }
    }

    /// The same, with the path that it was opened by, made absolute.
    pub fn named(self, path: &Path) -> BackingFile {
        let absolute = if path.is_absolute() {
            Some(path.to_path_buf())
        } else {
            // `None` in a directory that was removed, of which only `..` can be opened.
            let directory = std::env::current_dir().ok();
            directory.map(|directory| directory.join(path))
        };
        BackingFile {
            path: absolute.map(Arc::from),
            ..self
        }
    }

    /// The absolute path by which it was opened, or others can open it, if there is one.
    pub fn path(&self) -> Option<Arc<Path>> {
        self.path.clone()
    }

    /// The size in bytes, as it was when the file was opened.
    pub fn first_size(&self) -> u64 {
        self.first_size
    }

    /// The size in bytes, as it is now.
    pub fn size(&self) -> Result<u64, Error> {
        if self.is_block_device {
            return descriptor::device_size(self.fd());
        }
        Ok(self.file.metadata()?.len())
    }

    /// The facts about it (`fstat(2)`).
    pub fn metadata(&self) -> Result<Metadata, Error> {
        Ok(self.file.metadata()?)
    }

    /// Whether another descriptor is of the same file.
    pub fn is_same_as(&self, other: &BackingFile) -> Result<bool, Error> {
        let (one, other) = (self.file.metadata()?, other.file.metadata()?);
        Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
    }

    /// Checks that the file may be made so long at all.
    pub fn check_resizable(&self, size: u64) -> Result<(), Error> {
        if self.is_block_device {
            return Err(Error::INVALID);
        }
        system::check_size_limit(size)
    }

    /// Allocates the blocks that the file needs to become `to` bytes long (fallocate, FALLOC_FL_KEEP_SIZE). Its size stays
    /// what it is. None are needed if it is as long already.
    pub fn preallocate(&self, to: u64) -> Result<Preallocation<'_>, Error> {
        let metadata = self.file.metadata()?;
        let from = metadata.len();
        let mut preallocation = Preallocation {
            file: self,
            from,
            last: from,
            to,
            allocated: false,
        };
        if from >= to {
            return Ok(preallocation);
        }
        self.check_resizable(to)?;
        // What is allocated as one is allocated or not when the file grows, and needs no room beforehand.
        let unit = metadata.blksize().clamp(512, platform::page_size() as u64);
        preallocation.last = from.max((to - 1) / unit * unit);
        if preallocation.last > from {
            let had = (metadata.blocks() * 512).saturating_sub(from);
            if !system::has_free_blocks(self.fd(), (to - from).saturating_sub(had)) {
                return Err(Error::System(libc::ENOSPC));
            }
            preallocation.allocated = true; // some of it, also when it fails
            preallocation.allocated = system::preallocate(self.fd(), from, to)?;
        }
        Ok(preallocation)
    }

    /// Makes the file `to` zeros. If there is no room for them, it is what it was.
    ///
    /// Emptied first, the file would lose its blocks to others. So its blocks are preallocated while it is whole, and are kept;
    /// the zeros, which btrfs may have no room for, come before the size, which is not refused by then. Where they cannot be
    /// (overlayfs on tmpfs, NFS, FUSE without FALLOC_FL_ZERO_RANGE), others may take them in between: then it is empty when
    /// this fails.
    pub fn empty(&self, to: u64) -> Result<(), Error> {
        let preallocation = self.preallocate(to)?;
        let before = preallocation.before();
        if before > to && anonymous::is_sealed_against_shrinking(self.fd()) {
            return Err(Error::System(libc::EPERM));
        }
        if !self.zero_in_place(before.min(to))? {
            self.shrink(0)?;
            return self.preallocate(to)?.grow();
        }
        if before > to {
            self.shrink(to)
        } else {
            preallocation.grow()
        }
    }

    /// Makes the first bytes of the file zeros, in blocks that it has or gets before. `false` where that cannot be done.
    fn zero_in_place(&self, length: u64) -> Result<bool, Error> {
        let fd = self.fd();
        if !system::preallocate(fd, 0, length)? {
            return Ok(false);
        }
        system::unshare(fd, 0, length)?;
        if system::zero(fd, 0, length)? {
            return Ok(true);
        }
        // Memory: there is room for what is there already.
        Ok(!self.system.remote && system::write_zeros(fd, 0, length).is_ok())
    }

    /// Makes the file shorter.
    pub fn shrink(&self, to: u64) -> Result<(), Error> {
        if self.anonymous {
            return Err(Error::System(libc::EPERM));
        }
        system::set_size(self.fd(), to)
    }

    /// Makes the file so long, with its blocks allocated, if it is shorter; what is new is zero. It is what it was if that fails,
    /// but for what others made of it meanwhile.
    pub fn grow_to(&self, size: u64) -> Result<(), Error> {
        self.preallocate(size)?.grow()
    }

    /// Sets the time of modification to now where a write through a mapping leaves it what it was. Failing to is no error.
    pub fn touch(&self) {
        if self.system.forgets_mtime {
            let _ = time::set_mtime(self.fd());
        }
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

    /// The largest piece of memory, in bytes, that may hold the end of the file and keep what is written behind it. Nothing
    /// where the system zeroes what is behind the end.
    pub fn keeps_post_eof(&self) -> Option<usize> {
        let system = &self.system;
        if system.in_memory || system.is_stacked {
            Some(self.largest_piece.load(Ordering::Relaxed))
        } else {
            system.remote.then_some(system.page_size) // FUSE leaves them in the page
        }
    }

    /// Whether a mapping of it may reach behind its end, to where a store meets no fault and goes to no file: memory that keeps it
    /// in folios larger than a page maps all of one.
    pub fn maps_post_eof(&self) -> bool {
        self.keeps_post_eof()
            .is_some_and(|piece| piece > self.system.page_size)
    }

    /// It may be in huge pages from now on, whatever the system says of its pieces.
    pub fn set_huge_pages(&self) {
        self.largest_piece
            .fetch_max(memory::huge_page_size(), Ordering::Relaxed);
    }

    /// The device that it is on.
    pub fn device(&self) -> u64 {
        self.device
    }

    /// The properties of its file system.
    pub fn system(&self) -> &FileSystem {
        &self.system
    }

    /// The size in bytes, as far as it is known without asking a server; nothing if that says nothing (a block device).
    pub fn known_size(&self) -> Option<usize> {
        let size = self.sized_fd().and_then(system::size)?;
        usize::try_from(size).ok()
    }

    /// Whether it is found out quickly that the file still is at least so long: asking where it ends takes twice the time.
    pub fn is_surely_as_long_as(&self, size: u64) -> bool {
        self.never_shrinks
            || !self.shares_position
                && !self.system.is_stacked
                && system::is_surely_as_long_as(self.fd(), size)
    }

    /// Whether `mincore(2)` tells the truth about it to this user now: the owner, or one who may write to it.
    pub fn mincore_tells_this_user(&self) -> bool {
        self.mincore_is_reliable() || system::may_write(self.fd())
    }

    /// Whether `mincore(2)` tells the truth about it now: it tells its owner, and says "resident" of every page to others.
    pub fn mincore_is_reliable(&self) -> bool {
        system::owner(self.fd()) == Some(name::user())
    }
}

impl Reclaim for BackingFile {}

/// Blocks preallocated behind the end of a file, for it to grow into. Freed unless it grows.
pub struct Preallocation<'a> {
    file: &'a BackingFile,
    /// The end of the file when the blocks were preallocated.
    from: u64,
    /// Where the part begins that growing allocates by itself.
    last: u64,
    to: u64,
    allocated: bool,
}

impl Preallocation<'_> {
    /// How long the file was when the blocks were preallocated.
    pub fn before(&self) -> u64 {
        self.from
    }

    /// Makes the file as long as its blocks are preallocated for, unless others made it longer yet: the size is never set down.
    pub fn grow(mut self) -> Result<(), Error> {
        if self.from < self.to {
            system::grow(self.file.fd(), self.from, self.last, self.to)?;
        }
        self.allocated = false;
        Ok(())
    }
}

impl Drop for Preallocation<'_> {
    fn drop(&mut self) {
        if self.allocated {
            system::free_preallocated(self.file.fd(), self.to);
        }
    }
}

/// The size as a length of memory.
pub fn mappable(size: u64) -> Result<usize, Error> {
    isize::try_from(size)
        .map(|size| size as usize)
        .map_err(|_| Error::System(libc::EFBIG))
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
