//! The properties of a file system (`fstatfs(2)`).

use super::memory::page_size;
use std::os::fd::RawFd;

/// The properties of the file system that an open file is on.
#[derive(Debug, Clone, Copy)]
pub struct FileSystem {
    /// Operations may wait for something other than a local device: a server or a user process.
    pub remote: bool,
    /// Its files are nowhere but in memory: to write to a page that is there waits for nothing.
    pub in_memory: bool,
    /// A write through a shared mapping leaves the time of modification what it was.
    pub forgets_mtime: bool,
    /// It lies over others, which have the pages (overlayfs): it answers that it started writing back, and that nothing is dirty.
    pub is_stacked: bool,
    /// The size of the pages by which its files are mapped, in bytes.
    pub page_size: usize,
}

#[cfg(target_os = "linux")]
const HUGETLBFS: u32 = 0x9584_58f6;
#[cfg(target_os = "linux")]
const TMPFS: u32 = 0x0102_1994;
#[cfg(target_os = "linux")]
const RAMFS: u32 = 0x8584_58f6;
#[cfg(target_os = "linux")]
pub const EXT4: u32 = 0xef53;
#[cfg(target_os = "linux")]
pub const OVERLAYFS: u32 = 0x794c_7630;
#[cfg(target_os = "linux")]
const REMOTE: [u32; 11] = [
    0x6573_5546, // FUSE
    0x6969,      // NFS
    0x517b,      // SMB
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB2
    0x0102_1997, // 9P
    0x00c3_6400, // CEPH
    0x5346_414f, // AFS
    0x0bd0_0bd0, // Lustre
    0x7461_636f, // OCFS2
    0x0116_1970, // GFS2
];

/// Asks for the properties of an open file's file system (`fstatfs(2)`). One that does not answer is taken to be remote.
pub fn file_system(fd: RawFd) -> FileSystem {
    status(fd).map_or_else(
        || FileSystem {
            remote: true,
            in_memory: false,
            forgets_mtime: false,
            is_stacked: false,
            page_size: page_size(),
        },
        |status| of_status(&status),
    )
}

#[cfg(target_os = "linux")]
fn of_status(status: &libc::statfs) -> FileSystem {
    let kind = status.f_type as u32; // of another type on each system
    let in_memory = [HUGETLBFS, TMPFS, RAMFS].contains(&kind);
    FileSystem {
        remote: REMOTE.contains(&kind),
        in_memory,
        forgets_mtime: in_memory || kind == OVERLAYFS, // which may lie over one of these
        is_stacked: kind == OVERLAYFS,
        page_size: if kind == HUGETLBFS {
            status.f_bsize as usize
        } else {
            page_size()
        },
    }
}

#[cfg(not(target_os = "linux"))]
fn of_status(status: &libc::statfs) -> FileSystem {
    FileSystem {
        remote: status.f_flags as u64 & libc::MNT_LOCAL as u64 == 0,
        in_memory: false,
        forgets_mtime: false,
        is_stacked: false,
        page_size: page_size(),
    }
}

fn status(fd: RawFd) -> Option<libc::statfs> {
    // SAFETY: fills the buffer, of which all-zero is a valid value.
    unsafe {
        let mut status: libc::statfs = std::mem::zeroed();
        (libc::fstatfs(fd, &mut status) == 0).then_some(status)
    }
}

/// Whether the file is in memory without a limit but the machine's: a memfd, a tmpfs with `size=0`.
#[cfg(target_os = "linux")]
pub fn is_unlimited_memory(fd: RawFd) -> bool {
    status(fd).is_some_and(|status| status.f_type as u32 == TMPFS && status.f_blocks == 0)
}

/// The kind of file system that the file is on, and how many bytes are free there (`fstatfs(2)`).
#[cfg(target_os = "linux")]
pub fn kind_and_free(fd: RawFd) -> Option<(u32, u64)> {
    let status = status(fd)?;
    #[allow(clippy::unnecessary_cast)] // the types differ between processors
    let (kind, free) = (
        status.f_type as u32,
        (status.f_bfree as u64).saturating_mul(status.f_bsize as u64),
    );
    Some((kind, free))
}
