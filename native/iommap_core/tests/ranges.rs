//! Ranges of one mapping where the system refuses a call.

#![cfg(target_os = "linux")] // elsewhere no call is refused to one process

mod rig;

use iommap_core::{Access, Error, Hint, Wait};
use rig::*;
use std::io::Write;

/// The bytes that this process has locked in memory.
fn locked() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmLck:"));
    let kilobytes: usize = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    kilobytes * 1024
}

#[test]
fn pages_are_locked_where_the_system_cannot_lock_them_as_they_come() {
    // Before Linux 4.4 there is no mlock2(2): mlock(2) takes its place.
    if rig::lacking_in_qemu("seccomp filters") {
        return;
    }
    in_its_own_process(|| {
        refuse(&[(libc::SYS_mlock2, 0, libc::ENOSYS)]);
        let scratch = Scratch::new();
        let size = 5 * page() as u64;
        let path = scratch.file(5 * page());
        for handle in [open_for(&path, Access::Read), open_private(&path)] {
            assert_eq!(handle.lock_range(1, page() as u64), Ok(()));
            assert_eq!(locked(), 2 * page());
            assert_eq!(handle.lock_range(0, size), Ok(()));
            assert_eq!(locked(), 5 * page());
            assert!(handle.info(Wait::Blocking).unwrap().locked);
            assert_eq!(pread(&handle, 0, 5 * page()), Ok(pattern(5 * page())));
            assert_eq!(handle.unlock_range(0, size), Ok(()));
            assert_eq!(locked(), 0);
        }
    });
}

#[test]
fn a_private_mapping_whose_locked_pages_were_copied_shows_what_others_append() {
    // mlock(2) of a private mapping copies its pages: the rest of the last one is the file's all the same when it grows.
    if rig::lacking_in_qemu("seccomp filters") {
        return;
    }
    in_its_own_process(|| {
        refuse(&[(libc::SYS_mlock2, 0, libc::ENOSYS)]);
        let scratch = Scratch::new();
        let size = 3 * page() - 100;
        let path = scratch.file(size);
        let handle = open_private(&path);
        assert_eq!(handle.lock_range(2 * page() as u64, 1), Ok(()));
        let mut file = std::fs::File::options().append(true).open(&path).unwrap();
        file.write_all(&pattern(3 * page())[size..]).unwrap();
        assert_eq!(handle.remap(), Ok(3 * page()));
        assert_eq!(
            pread(&handle, size, 100),
            Ok(pattern(3 * page())[size..].into())
        );
    });
}

#[test]
fn a_refused_unlock_leaves_what_was_locked() {
    // munlock(2) is refused: the answer is its errno, and the pages are locked.
    if rig::lacking_in_qemu("seccomp filters") {
        return;
    }
    in_its_own_process(|| {
        refuse(&[(libc::SYS_munlock, 0, libc::ENOMEM)]);
        let scratch = Scratch::new();
        let handle = open_for(&scratch.file(4 * page()), Access::ReadWrite);
        assert_eq!(handle.lock_range(0, 4 * page() as u64), Ok(()));
        let refused = handle.unlock_range(page() as u64, 1);
        assert_eq!(refused, Err(Error::NO_MEMORY));
        assert!(handle.info(Wait::Blocking).unwrap().locked);
        assert_eq!(locked(), 4 * page());
    });
}

/// A handle on six pages, the first two of which the system keeps apart from the others. No mapping can be split any more.
#[cfg(target_os = "linux")]
fn handle_where_nothing_can_be_split(scratch: &Scratch, locked: bool) -> AHandle {
    let handle = open_for(&scratch.file(6 * page()), Access::ReadWrite);
    handle.advise(0, 2 * page() as u64, Hint::Random).unwrap();
    if locked {
        handle.lock_range(0, 6 * page() as u64).unwrap();
    }
    while map_a_page() {}
    handle
}

#[test]
#[cfg(target_os = "linux")]
fn a_lock_that_is_refused_halfway_locks_nothing() {
    // The first two pages could be locked, the third not by itself.
    if rig::lacking_in_qemu("limit of mappings") {
        return;
    }
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let handle = handle_where_nothing_can_be_split(&scratch, false);
        let refused = handle.lock_range(0, 3 * page() as u64);
        assert_eq!((refused, locked()), (Err(Error::NO_MEMORY), 0));
    });
}

#[test]
#[cfg(target_os = "linux")]
fn an_unlock_that_is_refused_halfway_unlocks_nothing() {
    if rig::lacking_in_qemu("limit of mappings") {
        return;
    }
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let handle = handle_where_nothing_can_be_split(&scratch, true);
        let refused = handle.unlock_range(0, 3 * page() as u64);
        assert_eq!((refused, locked()), (Err(Error::NO_MEMORY), 6 * page()));
    });
}

#[test]
fn the_truth_about_pages_is_not_made_up_where_the_system_does_not_tell_it() {
    // A file of another user, and no call to ask whether it may be written to: EPERM. Its owner needs no such call.
    if rig::lacking_in_qemu("seccomp filters") {
        return;
    }
    in_its_own_process(|| {
        const FACCESSAT2: libc::c_long = 439;
        refuse(&[(FACCESSAT2, 0, libc::ENOSYS)]);
        let scratch = Scratch::new();
        let path = scratch.file(4 * page());
        let handle = open_for(&path, Access::Read);
        assert_eq!(handle.resident(0, 4 * page() as u64), Ok(4 * page()));
        if std::os::unix::fs::chown(&path, Some(65534), None).is_err() {
            return skip("only root gives files away");
        }
        let refused = handle.resident(0, 4 * page() as u64);
        assert_eq!(refused, Err(Error::System(libc::EPERM)));
    });
}
