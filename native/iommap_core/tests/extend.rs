//! `ensure_size`, and the room that is kept for growing.

mod rig;

use iommap_core::{Access, Error, Options, Wait};
use rig::{
    contents, in_its_own_process, open, open_for, page, pattern, pread, pwrite, set_size, show,
    small_disk, Scratch,
};

fn padded(mut bytes: Vec<u8>, size: usize) -> Vec<u8> {
    bytes.resize(size, 0);
    bytes
}

#[test]
fn what_is_long_enough_is_told_without_waiting_and_the_rest_is_not() {
    // A call that must not wait answers what needs no system call, and else does nothing.
    let scratch = Scratch::new();
    let path = scratch.file(1000);
    let handle = open_for(&path, Access::ReadWrite);
    for least in [0, 1, 1000] {
        assert_eq!(handle.ensure_size(Wait::NonBlocking, least), Ok(1000));
    }
    assert_eq!(
        handle.ensure_size(Wait::NonBlocking, 1001),
        Err(Error::WouldBlock)
    );
    assert_eq!(contents(&path), pattern(1000));
    assert_eq!(handle.ensure_size(Wait::Blocking, 1001), Ok(1500));
    assert_eq!(handle.ensure_size(Wait::NonBlocking, 1500), Ok(1500));
    assert_eq!(contents(&path), padded(pattern(1000), 1500));
}

#[test]
fn where_half_as_much_again_does_not_fit_what_is_needed_does() {
    // On a disk of a MiB: half more, then only what is asked for, then nothing; the file keeps its size and bytes then.
    in_its_own_process(|| {
        let Some(disk) = small_disk(1 << 20) else {
            return;
        };
        let path = disk.path().join("file");
        for viewed in [false, true] {
            std::fs::write(&path, pattern(600_000)).unwrap();
            let handle = open_for(&path, Access::ReadWrite);
            let view = viewed.then(|| show(&handle, 0, 1).unwrap());
            assert_eq!(handle.ensure_size(Wait::Blocking, 600_001), Ok(900_000));
            assert_eq!(handle.ensure_size(Wait::Blocking, 900_001), Ok(900_001));
            let full = Err(Error::System(libc::ENOSPC));
            assert_eq!(handle.ensure_size(Wait::Blocking, 2_000_000), full);
            assert_eq!(contents(&path), padded(pattern(600_000), 900_001));
            assert_eq!(
                pread(&handle, 0, 900_001),
                Ok(padded(pattern(600_000), 900_001))
            );
            assert_eq!(pwrite(&handle, 900_000, b"x"), Ok(()));
            drop(view);
        }
    });
}

#[test]
fn a_file_that_others_make_longer_all_the_time_is_never_cut() {
    // Another descriptor appends while the mapping grows: nothing of it is lost, and the mapping shows it.
    let scratch = Scratch::new();
    let path = scratch.file(100);
    let handle = open_for(&path, Access::ReadWrite);
    std::thread::scope(|scope| {
        let appending = scope.spawn(|| {
            let mut size = 100;
            while size < 3_000_000 {
                size = size.max(std::fs::metadata(&path).unwrap().len() as usize) + 777;
                if set_longer(&path, size) {
                    assert!(std::fs::metadata(&path).unwrap().len() as usize >= size);
                }
            }
        });
        let mut least = 100;
        while !appending.is_finished() {
            least += 1000;
            let size = handle.ensure_size(Wait::Blocking, least).unwrap();
            assert!(size as u64 >= least);
            assert!(std::fs::metadata(&path).unwrap().len() >= size as u64);
        }
    });
    let size = handle.ensure_size(Wait::Blocking, 4_000_000).unwrap();
    assert_eq!(pread(&handle, 0, size).map(|bytes| bytes.len()), Ok(size));
}

/// Makes the file longer, as an append does, by its last byte.
fn set_longer(path: &std::path::Path, size: usize) -> bool {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(b"x", size as u64 - 1).is_ok()
}

#[test]
fn reserved_room_is_grown_into_where_the_mapping_is() {
    // A view's address is the mapping's before and after; without room reserved another mapping takes over.
    for (reserve, stays) in [(0, false), (64 << 20, true)] {
        let scratch = Scratch::new();
        let path = scratch.file(page());
        let options = Options {
            reserve,
            ..Options::new(Access::ReadWrite)
        };
        let handle = open(&path, options).unwrap();
        let before = show(&handle, 0, 1).unwrap();
        handle.ensure_size(Wait::Blocking, 64 << 20).unwrap();
        let after = show(&handle, 0, 1).unwrap();
        assert_eq!(before.address() == after.address(), stays, "{reserve}");
        set_size(&path, 0);
    }
}
