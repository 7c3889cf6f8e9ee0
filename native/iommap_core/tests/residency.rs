//! What a call does that must not wait: it reads what is in memory, and says so of what is not.

mod rig;

use iommap_core::{Access, Data, Error, Hint, Segment, Wait, NON_BLOCKING_MAX};
#[cfg(target_os = "linux")]
use rig::{in_its_own_process, set_size, small_disk};
use rig::{
    open_for, open_private, page, pattern, pread, pread_as, pwrite, pwrite_as, pwrite_segments,
    show, skip, wait_until, AHandle, Scratch,
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

fn pread_page_non_blocking(handle: &AHandle, page_number: usize) -> Result<Vec<u8>, Error> {
    pread_as(handle, Wait::NonBlocking, (page_number * page()) as u64, 8)
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
    assert_eq!(pread_page_non_blocking(&handle, 40), Err(Error::WouldBlock));
    assert!(!any_cached(&path), "the question itself brought pages in");
    assert_eq!(
        pread(&handle, 40 * page(), 8),
        Ok(pattern(PAGES * page())[40 * page()..][..8].into())
    );
    for (number, cached) in cached_pages(&path).into_iter().enumerate() {
        let expected = if cached {
            Ok(pattern(PAGES * page())[number * page()..][..8].into())
        } else {
            Err(Error::WouldBlock)
        };
        assert_eq!(
            pread_page_non_blocking(&handle, number),
            expected,
            "page {number}"
        );
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
    // `advise(dontneed)` ends what was in the cache: the next read asks again.
    let scratch = Scratch::new();
    let path = scratch.file(PAGES * page());
    let handle = open_for(&path, Access::ReadWrite);
    pread(&handle, 0, PAGES * page()).unwrap();
    assert!(pread_page_non_blocking(&handle, 5).is_ok());
    handle.advise(0, 0, Hint::DontNeed).unwrap();
    if !drop_pages(&path) {
        return skip("this file system keeps its pages");
    }
    // What was asked after the hint and before the pages were dropped is still good for a moment.
    wait_until("the drop is noticed", || {
        pread_page_non_blocking(&handle, 5) == Err(Error::WouldBlock)
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
    // Somebody else resized the file, or it would not have been called: whatever the cache holds may be of before.
    let scratch = Scratch::new();
    let path = scratch.file(PAGES * page());
    let handle = open_for(&path, Access::ReadWrite);
    pread(&handle, 0, PAGES * page()).unwrap();
    assert!(pread_page_non_blocking(&handle, 5).is_ok());
    if !take_away(&handle, &path) {
        return skip("this file system keeps its pages");
    }
    assert_eq!(handle.remap(), Ok(PAGES * page()));
    assert_eq!(pread_page_non_blocking(&handle, 5), Err(Error::WouldBlock));
}

#[test]
fn a_drop_that_nobody_told_of_is_noticed_after_a_moment() {
    // An entry has a bounded lifetime, whoever dropped the pages.
    let scratch = Scratch::new();
    let path = scratch.file(PAGES * page());
    let handle = open_for(&path, Access::ReadWrite);
    if !take_away(&handle, &path) {
        return skip("this file system keeps its pages");
    }
    wait_until("there is an entry", || {
        pread(&handle, 5 * page(), 8).unwrap();
        pread_page_non_blocking(&handle, 5).is_ok()
    });
    wait_until("the drop is noticed", || {
        take_away(&handle, &path) && pread_page_non_blocking(&handle, 5) == Err(Error::WouldBlock)
    });
}

/// A write that may wait, and one like it that must not, until the second finds its pages ready: what is remembered of the
/// first is forgotten after a moment, which may be over already.
fn write_twice(handle: &AHandle, offset: usize, bytes: &[u8]) {
    wait_until("a write is remembered", || {
        pwrite(handle, offset, bytes).unwrap();
        pwrite_as(handle, Wait::NonBlocking, offset as u64, bytes) == Ok(())
    });
}

#[test]
fn a_write_that_must_not_wait_goes_where_one_that_waited_went() {
    // A page is written at once only if it was written lately; a sync ends that. (Where files are in memory alone it is
    // enough that the page is there.)
    let scratch = Scratch::new();
    let path = scratch.file(PAGES * page());
    if !drop_pages(&path) {
        return skip("this file system keeps its pages");
    }
    let handle = open_for(&path, Access::ReadWrite);
    let non_blocking =
        |number: usize| pwrite_as(&handle, Wait::NonBlocking, (number * page()) as u64, b"x");
    assert_eq!(non_blocking(3), Err(Error::WouldBlock));
    for asynchronously in [false, true] {
        write_twice(&handle, 3 * page(), b"y");
        assert_eq!(non_blocking(4), Err(Error::WouldBlock));
        handle.sync(asynchronously).unwrap();
        assert_eq!(non_blocking(3), Err(Error::WouldBlock));
    }
}

#[test]
fn a_long_copy_never_runs_where_it_must_not_wait() {
    // Up to NON_BLOCKING_MAX bytes at once, and not one more; the empty range is never cold.
    let scratch = Scratch::new();
    let path = scratch.file(NON_BLOCKING_MAX + 1);
    let handle = open_for(&path, Access::ReadWrite);
    pread(&handle, 0, NON_BLOCKING_MAX + 1).unwrap();
    let short = NON_BLOCKING_MAX as u64;
    assert_eq!(
        pread_as(&handle, Wait::NonBlocking, 0, short),
        Ok(pattern(NON_BLOCKING_MAX))
    );
    assert_eq!(
        pread_as(&handle, Wait::NonBlocking, 0, short + 1),
        Err(Error::TooLong)
    );
    write_twice(&handle, 0, &pattern(NON_BLOCKING_MAX));
    assert_eq!(
        pwrite_as(
            &handle,
            Wait::NonBlocking,
            0,
            &pattern(NON_BLOCKING_MAX + 1)
        ),
        Err(Error::TooLong)
    );
    for offset in [0, 1, page() as u64, short, short + 1] {
        assert_eq!(pread_as(&handle, Wait::NonBlocking, offset, 0), Ok(vec![]));
        assert_eq!(pwrite_as(&handle, Wait::NonBlocking, offset, b""), Ok(()));
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
        let wrote = pwrite_segments(&handle, to, &[view.segment()]);
        assert_eq!(wrote, Ok(()));
        assert_eq!(pread(&handle, to, 500), Ok(before), "{from} {to}");
    }
}

#[test]
fn data_longer_than_any_memory_is_refused() {
    // The lengths of all segments together overflow: there is no such data, so no byte of it is touched.
    // SAFETY: no byte is accessed.
    let huge = unsafe { Segment::new(std::ptr::dangling(), usize::MAX / 2 + 1) };
    assert!(Data::new(&[huge]).is_some());
    assert!(Data::new(&[huge, huge]).is_none());
}

#[test]
fn data_longer_than_the_mapping_is_out_of_bounds() {
    // However long it is; nothing is touched.
    let scratch = Scratch::new();
    let handle = open_for(&scratch.file(page()), Access::ReadWrite);
    // SAFETY: refused before any byte is accessed.
    let huge = unsafe { Segment::new(std::ptr::dangling(), usize::MAX) };
    for offset in [0, 1, page(), usize::MAX] {
        let wrote = pwrite_segments(&handle, offset, &[huge]);
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
            assert_eq!(pread_as(&handle, Wait::Blocking, offset, length), expected);
            let non_blocking = pread_as(&handle, Wait::NonBlocking, offset, length);
            assert!(
                non_blocking == expected || non_blocking.is_err_and(Error::would_block),
                "{offset} {length}"
            );
            if length <= size + 1 {
                let view = show(&handle, offset as usize, length as usize);
                assert_eq!(view.map(|view| view.bytes()), expected);
            }
        }
        let one = pwrite_as(&handle, Wait::Blocking, offset, &whole[..0]);
        assert_eq!(one.is_ok(), offset <= size);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_given_to_another_owner_is_read_by_nobody_who_may_not_wait() {
    // mincore(2) says of a file that is not ours, and that we may not write, that all of it is in memory. It was ours when it
    // was opened.
    in_its_own_process(|| {
        use std::os::unix::fs::{chown, PermissionsExt};
        const NOBODY: u32 = 65534;
        let scratch = Scratch::new();
        let path = scratch.file(PAGES * page());
        if chown(&path, Some(NOBODY), None).is_err() {
            return skip("changing owners needs root");
        }
        let passable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(scratch.path(), passable).unwrap();
        if !drop_pages(&path) {
            return skip("this file system keeps its pages");
        }
        // SAFETY: changes who this process is, for the system.
        let become_user = |user| assert_eq!(unsafe { libc::seteuid(user) }, 0);
        become_user(NOBODY);
        let handle = open_for(&path, Access::ReadWrite);
        assert!(!any_cached(&path));
        become_user(0);
        chown(&path, Some(0), None).unwrap();
        become_user(NOBODY);
        // The question itself has the system read ahead, so a page may be there when it is asked about: what is sure is
        // that nobody waited for it.
        let waits = waits_for_a_disk();
        for number in 0..PAGES {
            let read = pread_page_non_blocking(&handle, number);
            assert!(matches!(read, Ok(_) | Err(Error::WouldBlock)));
        }
        assert_eq!(waits_for_a_disk(), waits, "a page fault waited");
        assert!(pread(&handle, 60 * page(), 8).is_ok());
        assert!(pread_page_non_blocking(&handle, 60).is_ok());
        become_user(0);
    });
}

/// What a call that must not wait answers of a page, if one of all is gone.
#[cfg(target_os = "linux")]
fn unless_gone<T>(gone: usize, number: usize, answer: T) -> Result<T, Error> {
    if number == gone {
        Err(Error::WouldBlock)
    } else {
        Ok(answer)
    }
}

/// How long a page that was in memory is taken to be there, and more.
#[cfg(target_os = "linux")]
const LIFETIME: std::time::Duration = std::time::Duration::from_millis(600);

/// Takes a page out of a file in memory: it is one of zeros then, and nowhere.
#[cfg(target_os = "linux")]
fn punch(path: &Path, number: usize) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    // SAFETY: changes a file.
    let done = unsafe { libc::fallocate(fd, mode, (number * page()) as i64, page() as i64) };
    assert_eq!(done, 0);
}

#[test]
#[cfg(target_os = "linux")]
fn one_page_that_is_gone_among_many_is_noticed_when_their_lifetime_is_over() {
    // Many are asked about together: whether all are there, and if not, which.
    const MANY: usize = 1024;
    const GONE: usize = 301;
    in_its_own_process(|| {
        let Some(disk) = small_disk(2 * MANY * page()) else {
            return;
        };
        let path = disk.path().join("file");
        let data = pattern(MANY * page());
        std::fs::write(&path, &data).unwrap();
        let (reader, writer) = (
            open_for(&path, Access::Read),
            open_for(&path, Access::ReadWrite),
        );
        pread(&reader, 0, MANY * page()).unwrap();
        pwrite(&writer, 0, &data).unwrap();
        punch(&path, GONE);
        std::thread::sleep(LIFETIME);
        for number in (0..MANY).step_by(7).chain([GONE - 1, GONE, GONE + 1]) {
            let expected = unless_gone(GONE, number, data[number * page()..][..8].to_vec());
            let read = pread_page_non_blocking(&reader, number);
            assert_eq!(read, expected, "page {number}");
            let written = pwrite_as(
                &writer,
                Wait::NonBlocking,
                (number * page()) as u64,
                &data[number * page()..][..1],
            );
            assert_eq!(written, unless_gone(GONE, number, ()), "page {number}");
        }
    });
}

/// How many page faults of this thread waited for a disk.
#[cfg(target_os = "linux")]
fn waits_for_a_disk() -> libc::c_long {
    // SAFETY: getrusage fills the buffer it is given; all-zero is a valid value of it.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &mut usage), 0);
        usage.ru_majflt
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_page_in_memory_of_a_file_that_is_nowhere_else_is_written_at_once() {
    // The first time, too; but not a page that the file does not have yet.
    in_its_own_process(|| {
        let Some(disk) = small_disk(1 << 20) else {
            return;
        };
        let path = disk.path().join("file");
        std::fs::write(&path, pattern(8 * page())).unwrap();
        set_size(&path, 16 * page());
        let handle = open_for(&path, Access::ReadWrite);
        let non_blocking =
            |at: usize| pwrite_as(&handle, Wait::NonBlocking, (at * page()) as u64, b"x");
        assert_eq!(non_blocking(5), Ok(()));
        assert_eq!(non_blocking(12), Err(Error::WouldBlock));
        handle.sync(false).unwrap();
        assert_eq!(non_blocking(5), Ok(()));
        assert_eq!(pread(&handle, 5 * page(), 1), Ok(b"x".to_vec()));
    });
}

/// How many pages of the file are dirty, and not being written back, if the system tells.
#[cfg(target_os = "linux")]
fn dirty_pages(path: &Path) -> Option<u64> {
    const CACHESTAT: libc::c_long = 451;
    let file = File::open(path).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    let mut counts = [0u64; 5];
    // SAFETY: the call reads two numbers and writes five.
    let done = unsafe { libc::syscall(CACHESTAT, fd, [0u64; 2].as_ptr(), counts.as_mut_ptr(), 0) };
    (done == 0).then_some(counts[1])
}

/// A file of which the system tells what is dirty, and a handle; nothing where it does not.
#[cfg(target_os = "linux")]
fn file_with_dirty_pages(scratch: &Scratch) -> Option<(std::path::PathBuf, AHandle)> {
    let path = scratch.file(PAGES * page());
    let told = dirty_pages(&path).is_some_and(|dirty| dirty > 0);
    if !told {
        skip("this system, or file system, does not tell which pages are dirty");
    }
    File::open(&path).unwrap().sync_all().unwrap();
    let handle = open_for(&path, Access::ReadWrite);
    told.then_some((path, handle))
}

#[test]
#[cfg(target_os = "linux")]
fn a_page_that_is_still_dirty_is_written_at_once_when_its_lifetime_is_over() {
    // And no more when it was written back, whoever did it.
    let scratch = Scratch::new();
    let Some((path, handle)) = file_with_dirty_pages(&scratch) else {
        return;
    };
    let non_blocking =
        |number: usize| pwrite_as(&handle, Wait::NonBlocking, (number * page()) as u64, b"x");
    // The system may write a page back at any time, and does so when its disk is busy: then it is written, and left, once more.
    wait_until("a page stays dirty for a lifetime", || {
        pwrite(&handle, 3 * page(), b"y").unwrap();
        std::thread::sleep(LIFETIME);
        non_blocking(3) == Ok(())
    });
    File::open(&path).unwrap().sync_all().unwrap();
    std::thread::sleep(LIFETIME);
    assert_eq!(non_blocking(3), Err(Error::WouldBlock));
}

#[test]
#[cfg(target_os = "linux")]
fn a_page_that_a_private_mapping_wrote_is_written_at_once_when_its_lifetime_is_over() {
    // It is memory of its own, and no file's to be written back. Another page must first be known to be written.
    let scratch = Scratch::new();
    let path = scratch.file(PAGES * page());
    let handle = open_private(&path);
    let non_blocking =
        |number: usize| pwrite_as(&handle, Wait::NonBlocking, (number * page()) as u64, b"x");
    pwrite(&handle, 3 * page(), b"y").unwrap();
    std::thread::sleep(LIFETIME);
    pwrite(&handle, 4 * page(), b"y").unwrap(); // inserted where the entry has ended
    assert_eq!(non_blocking(3), Ok(()));
    std::thread::sleep(LIFETIME);
    assert_eq!(non_blocking(4), Ok(()));
    assert_eq!(non_blocking(5), Err(Error::WouldBlock));
}

#[test]
#[cfg(target_os = "linux")]
fn a_page_stays_known_to_be_dirty_when_its_neighbour_is_written_much_later() {
    let scratch = Scratch::new();
    let Some((_, handle)) = file_with_dirty_pages(&scratch) else {
        return;
    };
    wait_until("a page stays dirty for a lifetime", || {
        pwrite(&handle, 3 * page(), b"y").unwrap();
        std::thread::sleep(LIFETIME);
        pwrite(&handle, 4 * page(), b"y").unwrap();
        pwrite_as(&handle, Wait::NonBlocking, (3 * page()) as u64, b"x") == Ok(())
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_page_that_others_made_dirty_is_not_written_at_once() {
    // The system learns of a first write through a mapping by a fault, which may wait, however dirty the page is.
    let scratch = Scratch::new();
    let Some((path, handle)) = file_with_dirty_pages(&scratch) else {
        return;
    };
    let other = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    wait_until("the page is dirty when it is asked about", || {
        std::os::unix::fs::FileExt::write_all_at(&other, b"x", 7 * page() as u64).unwrap();
        let answer = pwrite_as(&handle, Wait::NonBlocking, 7 * page() as u64, b"y");
        assert_eq!(answer, Err(Error::WouldBlock));
        dirty_pages(&path).is_some_and(|dirty| dirty > 0)
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_page_that_another_wrote_back_is_written_at_once_for_a_moment_only() {
    // The moment is the window in which a disk that freezes catches whoever must not wait. It is printed.
    const REGION: usize = 32;
    const REGIONS: usize = 400;
    let scratch = Scratch::new();
    let path = scratch.file(REGIONS * REGION * page());
    if !drop_pages(&path) {
        return skip("this file system keeps its pages");
    }
    let handle = open_for(&path, Access::ReadWrite);
    let at = |number: usize| number * REGION * page();
    for number in 0..REGIONS {
        pwrite(&handle, at(number), b"x").unwrap();
    }
    let written = std::time::Instant::now();
    File::open(&path).unwrap().sync_all().unwrap();
    let synced = written.elapsed().as_millis();
    let mut window = 0;
    // One page after another: a write makes its page dirty again.
    let late = (0..REGIONS).find(|number| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        let answer = pwrite_as(&handle, Wait::NonBlocking, at(*number) as u64, b"y");
        if answer.is_ok() {
            window = written.elapsed().as_millis();
        }
        answer == Err(Error::WouldBlock)
    });
    assert!(late.is_some());
    eprintln!(
        "written back after {synced} ms, and taken to be ready until {window} ms after the write"
    );
}

#[test]
#[cfg(target_os = "linux")]
fn an_overlay_is_read_and_written_at_once_as_its_layers_are() {
    // Containers see every file through one.
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let layer = |name: &str| {
            let path = scratch.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path.display().to_string()
        };
        let (lower, upper, work, shown) = (
            layer("lower"),
            layer("upper"),
            layer("work"),
            layer("shown"),
        );
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        let [target, options] =
            [shown.clone(), options].map(|text| std::ffi::CString::new(text).unwrap());
        let (nothing, private) = (std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
        let overlay = c"overlay".as_ptr();
        // SAFETY: changes what this process alone sees as mounted; all strings end with a NUL.
        let mounted = unsafe {
            libc::unshare(libc::CLONE_NEWNS) == 0
                && libc::mount(nothing, c"/".as_ptr(), nothing, private, nothing.cast()) == 0
                && libc::mount(
                    overlay,
                    target.as_ptr(),
                    overlay,
                    0,
                    options.as_ptr().cast(),
                ) == 0
        };
        if !mounted {
            return skip("mounting an overlay needs root, and a file system that can be its layer");
        }
        let path = Path::new(&shown).join("file");
        std::fs::write(&path, pattern(PAGES * page())).unwrap();
        let handle = open_for(&path, Access::ReadWrite);
        pread(&handle, 0, PAGES * page()).unwrap();
        assert!(pread_page_non_blocking(&handle, 5).is_ok());
        write_twice(&handle, 3 * page(), b"y");
        drop(handle);
        // SAFETY: takes away what was mounted.
        let unmounted = unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        assert_eq!(unmounted, 0);
    });
}
