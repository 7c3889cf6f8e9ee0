//! What a call does that must not wait: it reads what is in memory, and says so of what is not.

mod rig;

use iommap_core::{Access, Error, Hint, Wait, SHORT};
use rig::{
    open_for, page, pattern, pread, pread_as, pwrite, pwrite_as, show, skip, wait_until, AHandle,
    Scratch,
};
use std::fs::File;
use std::path::Path;

const PAGES: usize = 64;

/// Drops the file's clean pages that nobody has touched through a mapping. `false` if the system would not.
fn drop_pages(path: &Path) -> bool {
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    #[cfg(any(target_os = "linux", target_os = "freebsd"))]
    // SAFETY: a hint about the page cache.
    unsafe {
        libc::posix_fadvise(
            std::os::fd::AsRawFd::as_raw_fd(&file),
            0,
            0,
            libc::POSIX_FADV_DONTNEED,
        )
    };
    !any_cached(path)
}

/// Whether the page cache has any page of the file, asked through a mapping that nobody reads.
fn any_cached(path: &Path) -> bool {
    cached_pages(path).contains(&true)
}

/// Where nothing tells, every page may be there.
#[cfg(target_os = "openbsd")]
fn cached_pages(path: &Path) -> Vec<bool> {
    let size = std::fs::metadata(path).unwrap().len() as usize;
    vec![true; size.div_ceil(page())]
}

#[cfg(not(target_os = "openbsd"))]
fn cached_pages(path: &Path) -> Vec<bool> {
    let file = File::open(path).unwrap();
    let map = memmap2::MmapOptions::new()
        .map_raw_read_only(&file)
        .unwrap();
    let mut pages = vec![0u8; map.len().div_ceil(page())];
    // SAFETY: the vector has a byte for each page of the mapping.
    let asked = unsafe {
        libc::mincore(
            map.as_ptr().cast_mut().cast(),
            map.len(),
            pages.as_mut_ptr().cast(),
        )
    };
    assert_eq!(asked, 0);
    pages.iter().map(|page| page & 1 == 1).collect()
}

fn never(handle: &AHandle, page_number: usize) -> Result<Vec<u8>, Error> {
    pread_as(handle, Wait::Never, (page_number * page()) as u64, 8)
}

#[test]
fn a_read_that_must_not_wait_reads_exactly_what_is_in_memory() {
    // Page by page it agrees with the kernel, before and after a read that waited.
    let scratch = Scratch::new();
    let path = scratch.file(PAGES * page());
    if !drop_pages(&path) {
        return skip("this file system keeps its pages");
    }
    let handle = open_for(&path, Access::ReadWrite);
    assert_eq!(never(&handle, 40), Err(Error::WouldWait));
    assert!(!any_cached(&path), "the question itself brought pages in");
    assert_eq!(
        pread(&handle, 40 * page(), 8),
        Ok(pattern(PAGES * page())[40 * page()..][..8].into())
    );
    for (number, cached) in cached_pages(&path).into_iter().enumerate() {
        let expected = if cached {
            Ok(pattern(PAGES * page())[number * page()..][..8].into())
        } else {
            Err(Error::WouldWait)
        };
        assert_eq!(never(&handle, number), expected, "page {number}");
    }
}

#[test]
fn a_cold_read_leaves_its_neighbours_on_the_disk() {
    // It goes through the descriptor: a fault would pull in what lies around it.
    const READS: usize = 40;
    let scratch = Scratch::new();
    let path = scratch.file(4096 * page());
    if !drop_pages(&path) {
        return skip("this file system keeps its pages");
    }
    let handle = open_for(&path, Access::ReadWrite);
    for read in 1..=READS {
        // Every hundredth page, in no order.
        let at = read * 17 % (READS + 1) * 100;
        pread(&handle, at * page() + 17, 8).unwrap();
    }
    let brought = cached_pages(&path).iter().filter(|cached| **cached).count();
    assert!(
        (READS..4 * READS).contains(&brought),
        "{brought} pages for {READS}"
    );
}

#[test]
fn pages_given_back_are_known_to_be_gone_at_once() {
    // `advise(dontneed)` ends what was proved: the next read asks again.
    let scratch = Scratch::new();
    let path = scratch.file(PAGES * page());
    let handle = open_for(&path, Access::ReadWrite);
    pread(&handle, 0, PAGES * page()).unwrap();
    assert!(never(&handle, 5).is_ok());
    handle.advise(0, 0, Hint::DontNeed).unwrap();
    if !drop_pages(&path) {
        return skip("this file system keeps its pages");
    }
    // Proofs begun after the hint and before the pages were dropped are still good for a moment.
    wait_until("the drop is noticed", || {
        never(&handle, 5) == Err(Error::WouldWait)
    });
}

/// Takes the pages out of the handle's mapping without a word to the handle, and then out of memory, as the system does
/// when memory is short.
fn take_away(handle: &AHandle, path: &Path) -> bool {
    let shown = show(handle, 0, PAGES * page()).unwrap();
    // SAFETY: a shared mapping shows the same bytes again afterwards.
    let done = unsafe {
        libc::madvise(
            shown.address() as *mut libc::c_void,
            PAGES * page(),
            libc::MADV_DONTNEED,
        )
    };
    assert_eq!(done, 0);
    drop_pages(path)
}

#[test]
fn a_remap_that_changes_nothing_asks_again() {
    // Somebody else resized the file, or it would not have been called: whatever was proved may be of before.
    let scratch = Scratch::new();
    let path = scratch.file(PAGES * page());
    let handle = open_for(&path, Access::ReadWrite);
    pread(&handle, 0, PAGES * page()).unwrap();
    assert!(never(&handle, 5).is_ok());
    if !take_away(&handle, &path) {
        return skip("this file system keeps its pages");
    }
    assert_eq!(handle.remap(), Ok(PAGES * page()));
    assert_eq!(never(&handle, 5), Err(Error::WouldWait));
}

#[test]
fn a_drop_that_nobody_told_of_is_noticed_after_a_moment() {
    // A proof has a bounded life, whoever dropped the pages.
    let scratch = Scratch::new();
    let path = scratch.file(PAGES * page());
    let handle = open_for(&path, Access::ReadWrite);
    if !take_away(&handle, &path) {
        return skip("this file system keeps its pages");
    }
    pread(&handle, 5 * page(), 8).unwrap();
    wait_until("the drop is noticed", || {
        take_away(&handle, &path) && never(&handle, 5) == Err(Error::WouldWait)
    });
}

/// A write that may wait, and one like it that must not, until the second finds its pages ready: what is remembered of the
/// first is forgotten after a moment, which may be over already.
fn write_twice(handle: &AHandle, offset: usize, bytes: &[u8]) {
    wait_until("a write is remembered", || {
        pwrite(handle, offset, bytes).unwrap();
        pwrite_as(handle, Wait::Never, offset as u64, bytes) == Ok(())
    });
}

#[test]
fn a_write_that_must_not_wait_goes_where_one_that_waited_went() {
    // A page is written at once only if it was written lately; a sync ends that.
    let scratch = Scratch::new();
    let path = scratch.file(PAGES * page());
    let handle = open_for(&path, Access::ReadWrite);
    let at_once = |number: usize| pwrite_as(&handle, Wait::Never, (number * page()) as u64, b"x");
    assert_eq!(at_once(3), Err(Error::WouldWait));
    for asynchronously in [false, true] {
        write_twice(&handle, 3 * page(), b"y");
        assert_eq!(at_once(4), Err(Error::WouldWait));
        handle.sync(asynchronously).unwrap();
        assert_eq!(at_once(3), Err(Error::WouldWait));
    }
}

#[test]
fn a_long_copy_never_runs_where_it_must_not_wait() {
    // Up to SHORT bytes at once, and not one more; the empty range is never cold.
    let scratch = Scratch::new();
    let path = scratch.file(SHORT + 1);
    let handle = open_for(&path, Access::ReadWrite);
    pread(&handle, 0, SHORT + 1).unwrap();
    let short = SHORT as u64;
    assert_eq!(pread_as(&handle, Wait::Never, 0, short), Ok(pattern(SHORT)));
    assert_eq!(
        pread_as(&handle, Wait::Never, 0, short + 1),
        Err(Error::WouldWait)
    );
    write_twice(&handle, 0, &pattern(SHORT));
    assert_eq!(
        pwrite_as(&handle, Wait::Never, 0, &pattern(SHORT + 1)),
        Err(Error::WouldWait)
    );
    for offset in [0, 1, page() as u64, short, short + 1] {
        assert_eq!(pread_as(&handle, Wait::Never, offset, 0), Ok(vec![]));
        assert_eq!(pwrite_as(&handle, Wait::Never, offset, b""), Ok(()));
    }
}

#[test]
fn data_may_lie_in_the_mapping_that_is_written() {
    // A view of the same handle, also of the very bytes that are written over: it arrives as it was.
    let scratch = Scratch::new();
    let size = 2 * page();
    let path = scratch.file(size);
    let handle = open_for(&path, Access::ReadWrite);
    for (from, to) in [(0, page()), (0, 7), (7, 0), (100, 100)] {
        let view = show(&handle, from, 500).unwrap();
        let before = view.bytes();
        // SAFETY: the segment is a live view.
        let wrote = unsafe { handle.pwrite(Wait::Gladly, to as u64, &[view.segment()]) };
        assert_eq!(wrote, Ok(()));
        assert_eq!(pread(&handle, to, 500), Ok(before), "{from} {to}");
    }
}

#[test]
fn data_longer_than_any_memory_is_out_of_bounds() {
    // The lengths of all segments together overflow; nothing is touched.
    let scratch = Scratch::new();
    let handle = open_for(&scratch.file(page()), Access::ReadWrite);
    let huge = libc::iovec {
        iov_base: std::ptr::dangling_mut::<u8>().cast(),
        iov_len: usize::MAX / 2 + 1,
    };
    for wait in [Wait::Never, Wait::Gladly] {
        // SAFETY: refused before any byte is accessed.
        let wrote = unsafe { handle.pwrite(wait, 0, &[huge, huge]) };
        assert_eq!(wrote, Err(Error::OutOfBounds));
    }
}

#[test]
fn edges_are_checked_without_overflow_in_every_call() {
    // Offsets and lengths around pages, the end, 2^63 and 2^64: the same answer as arithmetic without bounds.
    let scratch = Scratch::new();
    let size = 3 * page() as u64 + 7;
    let path = scratch.file(size as usize);
    let handle = open_for(&path, Access::ReadWrite);
    let page = page() as u64;
    let seeds = [
        0,
        1,
        page - 1,
        page,
        page + 1,
        size - 1,
        size,
        size + 1,
        1 << 63,
        u64::MAX - 1,
        u64::MAX,
    ];
    let whole = pattern(size as usize);
    for offset in seeds {
        for length in seeds {
            let inside = u128::from(offset) + u128::from(length) <= u128::from(size);
            let expected = if inside {
                Ok(whole[offset as usize..][..length as usize].to_vec())
            } else {
                Err(Error::OutOfBounds)
            };
            assert_eq!(pread_as(&handle, Wait::Gladly, offset, length), expected);
            let at_once = pread_as(&handle, Wait::Never, offset, length);
            assert!(
                at_once == expected || at_once == Err(Error::WouldWait),
                "{offset} {length}"
            );
            if length <= size + 1 {
                let view = show(&handle, offset as usize, length as usize);
                assert_eq!(view.map(|view| view.bytes()), expected);
            }
        }
        let one = pwrite_as(&handle, Wait::Gladly, offset, &whole[..0]);
        assert_eq!(one.is_ok(), offset <= size);
    }
}
