//! Files that are larger than any memory.

#![cfg(target_os = "linux")] // /proc tells what a process takes

mod rig;

use iommap_core::{Access, Wait};
use rig::{in_its_own_process, open_for, page, pread, pwrite, pwrite_as, skip, AHandle, Scratch};
use std::fs::File;

const GIBIBYTE: usize = 1 << 30;
const TEBIBYTE: usize = 1 << 40;

/// So many kibibytes of this process: `RssAnon` is the memory that it has for itself, `VmData` what it may come to have,
/// untouched tables included.
fn kibibytes(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn memory() -> [usize; 2] {
    ["RssAnon:", "VmData:"].map(kibibytes)
}

/// A handle on a hole of that size, used all over, and what it took. Nothing if there can be no such file.
fn open_a_hole(scratch: &Scratch, size: usize) -> Option<(AHandle, [usize; 2])> {
    let path = scratch.path().join(size.to_string());
    if let Err(error) = File::create(&path).unwrap().set_len(size as u64) {
        skip(&format!("no file of {size} bytes here: {error}"));
        return None;
    }
    let before = memory();
    let handle = open_for(&path, Access::ReadWrite);
    for sixteenth in 0..16 {
        // On both sides of the end of a page.
        let at = sixteenth * (size / 16) + page() - 6;
        assert_eq!(pread(&handle, at, 12), Ok(vec![0; 12]));
        pwrite(&handle, at, b"both sides..").unwrap();
        assert_eq!(pread(&handle, at, 12), Ok(b"both sides..".into()));
        // Whether it is ready is remembered of every place.
        let _ = pwrite_as(&handle, Wait::NonBlocking, at as u64, b"once more");
    }
    pwrite(&handle, size - 3, b"end").unwrap();
    assert_eq!(pread(&handle, size - 3, 3), Ok(b"end".into()));
    let after = memory();
    Some((
        handle,
        [0, 1].map(|kind| after[kind].saturating_sub(before[kind])),
    ))
}

#[test]
fn a_tebibyte_takes_no_more_memory_than_a_gibibyte() {
    // Reading and writing here and there in a sparse file costs the same memory whatever the size of the file.
    in_its_own_process(|| {
        let scratch = Scratch::new();
        // What is set up once for all mappings.
        let _first = open_a_hole(&scratch, GIBIBYTE / 2);
        let Some((_small, small)) = open_a_hole(&scratch, GIBIBYTE) else {
            return;
        };
        let Some((_large, large)) = open_a_hole(&scratch, TEBIBYTE) else {
            return;
        };
        // The allocator takes memory in steps.
        const LITTLE: usize = 512;
        assert!(
            (0..2).all(|kind| large[kind] <= small[kind] + LITTLE),
            "KiB of its own and at most: {large:?} after {small:?}"
        );
        assert!(small.iter().all(|taken| *taken < 1024), "{small:?} KiB");
    });
}
