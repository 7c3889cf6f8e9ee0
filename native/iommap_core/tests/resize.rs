//! `truncate` and `remap`: the file, the mapping, and the views of the one before.

mod rig;

use iommap_core::{Access, Error, Hint, Options, Wait};
use rig::{
    contents, in_its_own_process, open, open_for, open_private, page, pattern, pread, pwrite,
    set_size, show, skip, small_disk, Scratch,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Sizes around which things change.
fn sizes() -> Vec<usize> {
    let page = page();
    vec![
        1,
        page - 1,
        page,
        page + 1,
        3 * page - 7,
        3 * page,
        40 * page + 1,
    ]
}

/// Every way from one size to another.
fn ways() -> impl Iterator<Item = (usize, usize)> {
    sizes()
        .into_iter()
        .flat_map(|from| sizes().into_iter().map(move |to| (from, to)))
}

fn resized(mut bytes: Vec<u8>, size: usize) -> Vec<u8> {
    bytes.resize(size, 0);
    bytes
}

#[test]
fn truncate_makes_file_and_mapping_so_long_and_new_bytes_zero() {
    // From every size to every other and back, in place.
    for (from, to) in ways() {
        let scratch = Scratch::new();
        let path = scratch.file(from);
        let handle = open_for(&path, Access::ReadWrite);
        handle.truncate(to as u64).unwrap();
        let after = resized(pattern(from), to);
        assert_eq!(handle.position(Wait::Blocking), Ok(to));
        assert_eq!(pread(&handle, 0, to), Ok(after.clone()), "{from} {to}");
        assert_eq!(pread(&handle, 0, to + 1), Err(Error::OutOfBounds));
        assert_eq!(contents(&path), after);

        handle.truncate(from as u64).unwrap();
        assert_eq!(
            pread(&handle, 0, from),
            Ok(resized(after, from)),
            "{from} {to} and back"
        );
        assert_eq!(pwrite(&handle, from - 1, b"x"), Ok(()));
        assert_eq!(contents(&path)[from - 1], b'x');
    }
}

#[test]
fn a_view_lives_on_as_it_was_when_its_handle_is_resized() {
    // The mapping is replaced then, and the old one serves the view: what the file still has stays the same.
    for (from, to) in ways() {
        let scratch = Scratch::new();
        let path = scratch.file(from);
        let handle = open_for(&path, Access::ReadWrite);
        let view = show(&handle, 0, from.min(to)).unwrap();
        handle.truncate(to as u64).unwrap();
        assert_eq!(view.bytes(), pattern(from.min(to)), "{from} {to}");
        assert_eq!(pread(&handle, 0, to), Ok(resized(pattern(from), to)));
        pwrite(&handle, 0, b"new").unwrap_or_else(|error| assert!(to < 3, "{error}"));
        if from.min(to) >= 3 {
            assert_eq!(view.byte(0), b'n', "both mappings show the file");
        }
    }
}

#[test]
fn private_changes_are_kept_in_place_and_when_replaced() {
    // What was written stays, what was not is the file's, and the file never sees any of it but its size.
    for (from, to) in ways().filter(|(from, _)| *from > 1) {
        for viewed in [false, true] {
            let scratch = Scratch::new();
            let path = scratch.file(from);
            let handle = open_private(&path);
            let mut bytes = pattern(from);
            for at in [0, from / 2, from - 1] {
                pwrite(&handle, at, &[7]).unwrap();
                bytes[at] = 7;
            }
            let view = viewed.then(|| show(&handle, 0, 1).unwrap());
            handle.truncate(to as u64).unwrap();
            let bytes = resized(bytes, to);
            assert_eq!(
                pread(&handle, 0, to),
                Ok(bytes.clone()),
                "{from} {to} {viewed}"
            );
            handle.truncate(from as u64).unwrap();
            assert_eq!(
                pread(&handle, 0, from),
                Ok(resized(bytes, from)),
                "{from} {to} {viewed}"
            );
            let file = resized(resized(pattern(from), to), from);
            assert_eq!(contents(&path), file);
            drop(view);
        }
    }
}

#[test]
fn truncate_looks_at_the_file_and_not_at_the_mapping() {
    // Another process made the file longer or shorter meanwhile: afterwards both are as long as was asked.
    for (now, wanted) in ways() {
        let scratch = Scratch::new();
        let path = scratch.file(3 * page());
        let handle = open_for(&path, Access::ReadWrite);
        set_size(&path, now);
        handle.truncate(wanted as u64).unwrap();
        let after = resized(resized(pattern(3 * page()), now), wanted);
        assert_eq!(contents(&path), after, "{now} {wanted}");
        assert_eq!(pread(&handle, 0, wanted), Ok(after), "{now} {wanted}");
    }
}

#[test]
fn remap_follows_a_file_that_others_resize() {
    // Longer, shorter, the same; with and without a view; a read handle too.
    for access in [Access::Read, Access::ReadWrite] {
        for (from, to) in ways() {
            let scratch = Scratch::new();
            let path = scratch.file(from);
            let handle = open_for(&path, access);
            let view = (to % 2 == 0).then(|| show(&handle, 0, 1).unwrap());
            set_size(&path, to);
            assert_eq!(handle.remap(), Ok(to));
            assert_eq!(pread(&handle, 0, to), Ok(resized(pattern(from), to)));
            drop(view);
        }
    }
}

#[test]
fn remap_of_an_empty_file_is_invalid_and_the_handle_as_it_was() {
    // It works again when the file has bytes again.
    let scratch = Scratch::new();
    let path = scratch.file(5000);
    let handle = open_for(&path, Access::ReadWrite);
    set_size(&path, 0);
    assert_eq!(handle.remap(), Err(Error::INVALID));
    assert_eq!(handle.truncate(0), Err(Error::INVALID));
    assert_eq!(handle.position(Wait::Blocking), Ok(5000));
    set_size(&path, 10);
    assert_eq!(handle.remap(), Ok(10));
    assert_eq!(pread(&handle, 0, 10), Ok(vec![0; 10]));
}

#[test]
fn a_size_beyond_all_memory_is_efbig_and_changes_nothing() {
    // 2^63 and 2^64 - 1.
    let scratch = Scratch::new();
    let path = scratch.file(5000);
    let handle = open_for(&path, Access::ReadWrite);
    for size in [1 << 63, u64::MAX] {
        assert_eq!(handle.truncate(size), Err(Error::System(libc::EFBIG)));
    }
    assert_eq!(contents(&path), pattern(5000));
    assert_eq!(pread(&handle, 0, 5000), Ok(pattern(5000)));
}

#[test]
fn a_closed_handle_is_closed_to_every_call() {
    // In every mode, and the second close too.
    let scratch = Scratch::new();
    let path = scratch.file(5000);
    let handle = open_for(&path, Access::Read);
    assert_eq!(handle.close(), Ok(()));
    assert_eq!(handle.close(), Err(Error::Closed));
    assert_eq!(pread(&handle, 0, 0), Err(Error::Closed));
    assert_eq!(pwrite(&handle, 0, b""), Err(Error::Closed));
    assert_eq!(show(&handle, 0, 0).err(), Some(Error::Closed));
    assert_eq!(handle.truncate(1), Err(Error::Closed));
    assert_eq!(handle.remap(), Err(Error::Closed));
    assert_eq!(handle.sync(true), Err(Error::Closed));
    assert_eq!(handle.advise(0, 0, Hint::Random), Err(Error::Closed));
    assert_eq!(handle.position(Wait::NonBlocking), Err(Error::Closed));
    assert!(handle
        .info(Wait::NonBlocking)
        .is_err_and(|error| error == Error::Closed));
}

#[test]
fn a_full_disk_leaves_the_handle_as_it_was() {
    // Enlarging is refused as a whole; reading and writing go on, with and without a view.
    in_its_own_process(|| {
        let Some(disk) = small_disk(1 << 20) else {
            return;
        };
        let path = disk.path().join("file");
        std::fs::write(&path, pattern(5000)).unwrap();
        for viewed in [false, true] {
            let handle = open_for(&path, Access::ReadWrite);
            let view = viewed.then(|| show(&handle, 0, 1).unwrap());
            assert_eq!(handle.truncate(1 << 22), Err(Error::System(libc::ENOSPC)));
            assert_eq!(contents(&path), pattern(5000));
            assert_eq!(pread(&handle, 0, 5000), Ok(pattern(5000)));
            assert_eq!(pread(&handle, 5000, 1), Err(Error::OutOfBounds));
            assert_eq!(pwrite(&handle, 0, &pattern(5000)), Ok(()));
            assert_eq!(handle.truncate(6000), Ok(()));
            assert_eq!(handle.truncate(5000), Ok(()));
            drop(view);
        }
    });
}

#[test]
fn what_others_appended_is_kept_when_the_disk_is_full() {
    // A growth that failed is undone only if nobody made the file longer meanwhile.
    in_its_own_process(|| {
        let Some(disk) = small_disk(1 << 20) else {
            return;
        };
        let path = disk.path().join("file");
        let (large, larger) = (1 << 22, (1 << 22) + 5000);
        let mut failures = 0;
        let mut round = 0;
        let give_up = Instant::now() + Duration::from_secs(60); // on a machine where the growth is always too quick or too late
        while round < 400 || failures == 0 && Instant::now() < give_up {
            round += 1;
            std::fs::write(&path, pattern(5000)).unwrap();
            let handle = open_for(&path, Access::ReadWrite);
            let started = AtomicBool::new(false);
            let answer = std::thread::scope(|scope| {
                let growing = scope.spawn(|| {
                    started.store(true, Ordering::Relaxed);
                    handle.truncate(large)
                });
                while !started.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
                // Somewhere in the growth, which takes a moment to fill the disk.
                let now = Instant::now();
                while now.elapsed() < Duration::from_micros(round % 400) {
                    std::hint::spin_loop();
                }
                set_size(&path, larger);
                growing.join().unwrap()
            });
            // Or it was longer before the growth began, and was cut.
            if answer.is_err() {
                assert_eq!(answer, Err(Error::System(libc::ENOSPC)));
                assert_eq!(contents(&path).len(), larger);
                failures += 1;
            }
        }
        assert!(failures > 0);
    });
}

#[test]
fn a_replaced_mapping_is_let_go_before_its_successor_is_locked() {
    // RLIMIT_MEMLOCK allows for the new one and no more.
    in_its_own_process(|| {
        // SAFETY: tells who we are.
        if unsafe { libc::geteuid() } != 0 {
            return skip("only root can become somebody else");
        }
        let scratch = Scratch::new();
        let path = scratch.file(8 * page());
        let handle = open(
            &path,
            Options {
                lock: true,
                ..Options::new(Access::Read)
            },
        )
        .unwrap();
        let view = show(&handle, 0, 8 * page()).unwrap();
        set_size(&path, page());
        assert_eq!(view.byte(4 * page()), 0);
        set_size(&path, 8 * page());
        drop(view);
        let limit = libc::rlimit {
            rlim_cur: 8 * page() as libc::rlim_t,
            rlim_max: 8 * page() as libc::rlim_t,
        };
        assert!(handle.info(Wait::Blocking).unwrap().faulted);
        // SAFETY: sets a limit of this process, and gives up its rights to exceed it for a while.
        unsafe {
            assert_eq!(libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit), 0);
            if libc::seteuid(65534) != 0 {
                return skip("this root cannot become somebody else");
            }
            assert_eq!(handle.remap(), Ok(8 * page()));
            assert_eq!(libc::seteuid(0), 0);
        }
        let info = handle.info(Wait::Blocking).unwrap();
        assert!(info.locked && !info.faulted, "{info:?}");
    });
}

/// The room on the disk that a file takes, in blocks of 512 bytes.
fn blocks_of(path: &std::path::Path) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(path).unwrap())
}

#[test]
#[cfg(target_os = "linux")] // elsewhere RLIMIT_AS does not stop mmap(2)
fn no_address_space_leaves_the_handle_as_it_was() {
    // RLIMIT_AS: the file is as long as before, and so is the mapping; with room again, it grows.
    if rig::lacking_in_qemu("RLIMIT_AS") {
        return;
    }
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let path = scratch.file(5000);
        let handle = open_for(&path, Access::ReadWrite);
        let private = open_private(&path);
        pwrite(&private, 1, b"mine").unwrap();
        let before = rig::limit_address_space(512 << 20);
        let blocks = blocks_of(&path);
        for handle in [&handle, &private] {
            for viewed in [false, true] {
                let view = viewed.then(|| show(handle, 0, 1).unwrap());
                let large = 1 << 30;
                assert_eq!(handle.truncate(large), Err(Error::NO_MEMORY));
                assert_eq!(contents(&path), pattern(5000));
                assert_eq!(blocks_of(&path), blocks);
                assert_eq!(handle.position(Wait::Blocking), Ok(5000));
                set_size(&path, large as usize);
                assert_eq!(handle.remap(), Err(Error::NO_MEMORY));
                set_size(&path, 5000);
                assert_eq!(pread(handle, 4990, 10), Ok(pattern(5000)[4990..].into()));
                drop(view);
            }
        }
        assert!(open(&path, Options::new(Access::Read)).is_ok());
        // SAFETY: sets a limit of this process.
        unsafe { libc::setrlimit(libc::RLIMIT_AS, &before) };
        assert_eq!(handle.truncate(1 << 30), Ok(()));
        assert_eq!(private.remap(), Ok(1 << 30));
        assert_eq!(
            pread(&private, 0, 5),
            Ok([&pattern(1)[..], b"mine"].concat())
        );
    });
}

#[test]
fn a_hint_for_part_of_the_mapping_does_not_stop_it_from_growing() {
    // Hints cut the mapping into pieces for the kernel, which then cannot be moved as one.
    let scratch = Scratch::new();
    let size = 10 * page();
    let path = scratch.file(size);
    let handle = open_for(&path, Access::ReadWrite);
    handle
        .advise(3 * page() as u64, page() as u64, Hint::Random)
        .unwrap();
    handle.truncate(100 * size as u64).unwrap();
    assert_eq!(pread(&handle, 0, size), Ok(pattern(size)));
    handle.truncate(size as u64 - 1).unwrap();
    assert_eq!(pread(&handle, 0, size - 1), Ok(pattern(size - 1)));
}

#[test]
fn a_hint_never_changes_what_is_read() {
    // Every hint over every piece of edges, on shared mappings with unsaved changes and on private ones.
    let scratch = Scratch::new();
    let size = 5 * page() + 3;
    let path = scratch.file(size);
    for (handle, byte) in [
        (open_for(&path, Access::ReadWrite), 9),
        (open_private(&path), 8),
    ] {
        let mut bytes = pread(&handle, 0, size).unwrap();
        for at in [0, page() - 1, page(), size - 1] {
            pwrite(&handle, at, &[byte]).unwrap();
            bytes[at] = byte;
        }
        let hints = [
            Hint::Normal,
            Hint::Random,
            Hint::Sequential,
            Hint::WillNeed,
            Hint::DontNeed,
            Hint::PopulateRead,
            Hint::PopulateWrite,
            #[cfg(target_os = "linux")]
            Hint::Cold,
            #[cfg(target_os = "linux")]
            Hint::PageOut,
            #[cfg(target_os = "linux")]
            Hint::DontDump,
            #[cfg(target_os = "linux")]
            Hint::DoDump,
            #[cfg(target_os = "linux")]
            Hint::DontFork,
            #[cfg(target_os = "linux")]
            Hint::DoFork,
        ];
        for hint in hints {
            for (offset, length) in [(0, 0), (1, 1), (page(), page()), (size, 0), (size - 1, 1)] {
                assert_eq!(handle.advise(offset as u64, length as u64, hint), Ok(()));
                assert_eq!(
                    pread(&handle, 0, size),
                    Ok(bytes.clone()),
                    "{hint:?} {offset}"
                );
            }
            let beyond = [
                (size as u64 + 1, 0),
                (0, size as u64 + 1),
                (u64::MAX, 1),
                (1, u64::MAX),
            ];
            for (offset, length) in beyond {
                assert_eq!(handle.advise(offset, length, hint), Err(Error::OutOfBounds));
            }
        }
    }
}

#[test]
fn sync_close_and_collection_set_the_time_of_modification_of_a_file_in_memory() {
    // The system leaves it alone when a file on tmpfs is written through a mapping.
    in_its_own_process(|| {
        let Some(disk) = rig::small_disk(1 << 20) else {
            return;
        };
        let path = disk.path().join("file");
        let modified = || std::fs::metadata(&path).unwrap().modified().unwrap();
        let long_ago = || {
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        };
        std::fs::write(&path, pattern(3 * page())).unwrap();
        let handle = open_for(&path, Access::ReadWrite);
        for asynchronously in [false, true] {
            long_ago();
            pwrite(&handle, 5, b"x").unwrap();
            handle.sync(asynchronously).unwrap();
            assert_ne!(modified(), std::time::UNIX_EPOCH);
            long_ago();
            handle.sync(asynchronously).unwrap();
            assert_eq!(modified(), std::time::UNIX_EPOCH, "nothing was written");
        }
        pwrite(&handle, 5, b"y").unwrap();
        handle.close().unwrap();
        assert_ne!(modified(), std::time::UNIX_EPOCH);
        long_ago();
        let handle = open_for(&path, Access::ReadWrite);
        pwrite(&handle, 5, b"z").unwrap();
        drop(handle);
        rig::wait_until("it is touched", || modified() != std::time::UNIX_EPOCH);
        long_ago();
        let private = open_private(&path);
        pwrite(&private, 5, b"mine").unwrap();
        private.sync(false).unwrap();
        private.close().unwrap();
        assert_eq!(modified(), std::time::UNIX_EPOCH, "a private mapping");
    });
}

#[test]
fn what_a_call_on_a_range_meets_of_a_resize_is_before_or_after_it() {
    // Who syncs or brings in a range while another thread cuts it off by the same handle does so before, or finds it out of
    // bounds: nothing was lost.
    let scratch = Scratch::new();
    let handle = open_for(&scratch.file(3 * page()), Access::ReadWrite);
    std::thread::scope(|scope| {
        let resizes = scope.spawn(|| {
            for _ in 0..2000 {
                handle.truncate(211).unwrap();
                handle.truncate(3 * page() as u64).unwrap();
            }
        });
        let mut answers = 0;
        while !resizes.is_finished() {
            let length = 2 * page() as u64;
            for answer in [
                handle.sync_range(0, length, true),
                handle.advise(0, length, Hint::PopulateRead),
                handle.advise(0, length, Hint::PopulateWrite),
                handle.sync(true),
            ] {
                assert!(
                    matches!(answer, Ok(()) | Err(Error::OutOfBounds)),
                    "{answer:?}"
                );
                answers += 1;
            }
        }
        assert!(answers > 0);
    });
}
