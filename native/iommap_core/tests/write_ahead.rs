//! Sequential writers: that they seldom wait, and what is prepared ahead of them.

mod rig;

use iommap_core::{Access, Error, Hint, Wait};
use rig::{in_its_own_process, open_for, page, pwrite_as, set_size, small_disk, AHandle, Scratch};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const PAGES: usize = 256;

/// Writes 64 bytes as the VM does, and tells whether that had to wait.
fn write_waited(handle: &AHandle, page_number: usize) -> bool {
    let offset = (page_number * page()) as u64;
    match pwrite_as(handle, Wait::NonBlocking, offset, &[1; 64]) {
        Err(Error::WouldBlock) => {
            pwrite_as(handle, Wait::Blocking, offset, &[1; 64]).unwrap();
            true
        }
        written => {
            written.unwrap();
            false
        }
    }
}

/// How many pages a file of a memory file system has.
fn pages_of(path: &Path) -> usize {
    std::fs::metadata(path).unwrap().blocks() as usize * 512 / page()
}

/// A file of holes, in memory of a file system of its own.
fn holes(check: impl FnOnce(&Path, AHandle)) {
    let Some(disk) = small_disk(4 * PAGES * page()) else {
        return;
    };
    let path = disk.path().join("holes");
    std::fs::write(&path, "").unwrap();
    set_size(&path, PAGES * page());
    let handle = open_for(&path, Access::ReadWrite);
    check(&path, handle);
}

#[test]
fn what_is_to_be_written_soon_is_made_writable_page_by_page() {
    // Each gets its memory.
    in_its_own_process(|| {
        holes(|path, handle| {
            let pages = 7 * page() as u64;
            handle
                .advise(page() as u64 + 5, pages, Hint::PopulateWrite)
                .unwrap();
            assert_eq!(pages_of(path), 8);
            handle.advise(0, 0, Hint::PopulateWrite).unwrap();
            assert_eq!(pages_of(path), PAGES);
        });
    });
}

#[test]
fn a_sequential_writer_waits_for_one_page_in_many() {
    let scratch = Scratch::new();
    let path = scratch.nothing();
    std::fs::write(&path, "").unwrap();
    set_size(&path, PAGES * page());
    let handle = open_for(&path, Access::ReadWrite);
    let waited = (0..PAGES)
        .filter(|&page| write_waited(&handle, page))
        .count();
    assert!((1..PAGES / 4).contains(&waited), "{waited} of {PAGES}");
}

#[test]
fn no_more_pages_are_prepared_than_were_written_in_order() {
    // And never more than 16, and none behind the end of the mapping.
    in_its_own_process(|| {
        holes(|path, handle| {
            for number in 0..PAGES {
                write_waited(&handle, number);
                let (written, pages) = (number + 1, pages_of(path));
                let most = (2 * written).min(written + 16).min(PAGES);
                assert!((written..=most).contains(&pages), "{pages} after {written}");
            }
            assert_eq!(
                std::fs::metadata(path).unwrap().len() as usize,
                PAGES * page()
            );
        });
    });
}

#[test]
fn no_page_is_prepared_for_a_writer_that_leaves_pages_out() {
    in_its_own_process(|| {
        holes(|path, handle| {
            for (written, number) in (0..PAGES).step_by(2).enumerate() {
                write_waited(&handle, number);
                assert_eq!(pages_of(path), written + 1);
            }
        });
    });
}

#[test]
fn no_page_is_prepared_for_a_writer_that_syncs_each_page() {
    // A page that was prepared for nothing would be written to the device, too.
    in_its_own_process(|| {
        holes(|path, handle| {
            for number in 0..PAGES {
                write_waited(&handle, number);
                handle.sync(false).unwrap();
                assert_eq!(pages_of(path), number + 1);
            }
        });
    });
}
