//! The address space of a mapping: readable pages on either side, and growth where it is.

#![cfg(target_os = "linux")] // /proc tells who may do what with memory

mod rig;

use iommap_core::{Access, Error, Options, Wait};
use rig::{
    in_its_own_process, maps_of, open, open_for, open_private, page, pattern, pread, pwrite,
    set_size, show, skip, small_disk, truncated_by_another_process, AHandle, Scratch, Shown,
};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the system lets us do with the page of an address: "r--p", say. Nothing where nothing is mapped.
fn permissions(address: usize) -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next().unwrap().split_once('-').unwrap();
        let bound = |text| usize::from_str_radix(text, 16).unwrap();
        (bound(start)..bound(end))
            .contains(&address)
            .then(|| words.next().unwrap().to_owned())
    })
}

/// The whole of a handle, as a view.
fn whole(handle: &AHandle) -> Shown {
    show(handle, 0, handle.position(Wait::Blocking).unwrap()).unwrap()
}

fn has_readable_neighbours(shown: &Shown, size: usize) -> bool {
    let start = shown.address();
    let end = (start + size).next_multiple_of(page());
    [start - 1, start - page(), end, end + page() - 1]
        .map(permissions)
        .iter()
        .all(|found| found.as_deref() == Some("r--p"))
}

fn check(handle: &AHandle, what: &str) {
    let shown = whole(handle);
    let size = handle.position(Wait::Blocking).unwrap();
    assert!(
        has_readable_neighbours(&shown, size),
        "{what}, {size} bytes"
    );
}

#[test]
fn a_page_that_can_be_read_and_not_written_stands_on_either_side_of_every_mapping() {
    // Whatever is done to the handle, and of every size and sharing.
    let megabyte = 1 << 20;
    let sizes = [
        1,
        100,
        page() - 1,
        page(),
        page() + 1,
        16 * page(),
        megabyte,
        2 * megabyte,
        5 * megabyte + 1,
    ];
    for size in sizes {
        let scratch = Scratch::new();
        let path = scratch.file(size);
        check(&open_for(&path, Access::Read), "opened to read");
        for handle in [open_for(&path, Access::ReadWrite), open_private(&path)] {
            check(&handle, "opened");
            pwrite(&handle, 0, b"x").unwrap();
            let before = whole(&handle);
            for resized in [size + page(), 4 * size + page(), size, 1, size] {
                handle.truncate(resized as u64).unwrap();
                check(&handle, "truncated");
            }
            set_size(&path, 3 * size);
            assert_eq!(handle.remap(), Ok(3 * size));
            check(&handle, "remapped to more");
            set_size(&path, size);
            assert_eq!(handle.remap(), Ok(size));
            check(&handle, "remapped to less");
            handle.close().unwrap();
            assert!(permissions(before.address() - 1).is_some(), "closed");
        }
    }
}

#[test]
fn zero_pages_leave_the_neighbours_as_they_are() {
    // What a lost page is replaced by ends where the mapping ends.
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let path = scratch.file(5 * page() + 9);
        let handle = open_for(&path, Access::ReadWrite);
        let shown = whole(&handle);
        truncated_by_another_process(&path, 0);
        assert_eq!(shown.byte(0), 0);
        assert!(has_readable_neighbours(&shown, 5 * page() + 9));
        assert_eq!(shown.intact(0, 1), Some(false));
    });
}

#[test]
fn zero_pages_may_be_written_where_the_mapping_may() {
    // A copy into it may be on its way; nobody writes to what is mapped to be read.
    in_its_own_process(|| {
        for (access, expected) in [(Access::Read, "r--p"), (Access::ReadWrite, "rw-p")] {
            let scratch = Scratch::new();
            let path = scratch.file(3 * page());
            let handle = open_for(&path, access);
            let shown = whole(&handle);
            set_size(&path, page());
            assert_eq!(shown.byte(2 * page()), 0);
            let rights = permissions(shown.address() + 2 * page());
            assert_eq!(rights.as_deref(), Some(expected));
        }
    });
}

#[test]
fn the_neighbours_belong_to_nobodys_data() {
    // Neither the size nor what is known of lost bytes reaches into them.
    let scratch = Scratch::new();
    let handle = open_for(&scratch.file(page()), Access::Read);
    let shown = whole(&handle);
    let knows = |address: usize| iommap_core::intact(address, 1);
    assert_eq!(handle.position(Wait::Blocking), Ok(page()));
    assert_eq!(knows(shown.address()), Some(true));
    assert_eq!(knows(shown.address() - 1), None);
    assert_eq!(knows(shown.address() + page()), None);
}

#[test]
fn a_mapping_is_unmapped_with_all_of_its_address_space() {
    // Nothing of it is left when the last view has gone.
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let path = scratch.file(3 * page());
        let handle = open_for(&path, Access::ReadWrite);
        handle.truncate(5 * page() as u64).unwrap();
        let address = whole(&handle).address();
        let around = [address - page(), address, address + 5 * page()];
        assert!(around.iter().all(|at| permissions(*at).is_some()));
        handle.close().unwrap();
        assert_eq!(maps_of(&path), Vec::<String>::new());
        assert!(around.iter().all(|at| permissions(*at).is_none()));
    });
}

#[test]
fn a_mapping_grows_where_it_is_while_views_live_and_readers_read() {
    // To the double. A view's address stays its handle's, and no reader meets anything but the bytes.
    for grown_by_others in [false, true] {
        let scratch = Scratch::new();
        let path = scratch.file(8 * page());
        let bytes = pattern(8 * page());
        let handle = open_for(&path, Access::ReadWrite);
        let view = whole(&handle);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(pread(&handle, 0, 8 * page()).as_ref(), Ok(&bytes));
                    let size = handle.position(Wait::Blocking).unwrap();
                    assert_eq!(pread(&handle, size - 1, 1).map(|byte| byte.len()), Ok(1));
                    assert_eq!(view.byte(8 * page() - 1), bytes[8 * page() - 1]);
                }
            });
            for pages in 9..=16 {
                let size = pages * page() - pages;
                if grown_by_others {
                    set_size(&path, size);
                    assert_eq!(handle.remap(), Ok(size));
                } else {
                    handle.truncate(size as u64).unwrap();
                }
                assert_eq!(whole(&handle).address(), view.address());
                let last = size - 5;
                pwrite(&handle, last, b"there").unwrap();
                assert_eq!(pread(&handle, last, 5), Ok(b"there".into()));
            }
            done.store(true, Ordering::Relaxed);
            reader.join().unwrap();
        });
        assert_eq!(maps_of(&path).len(), 1);
    }
}

#[test]
fn a_growth_that_fails_leaves_a_readable_page_behind_the_end() {
    // The pages that were mapped for it are taken away again.
    in_its_own_process(|| {
        let Some(disk) = small_disk(1 << 20) else {
            return;
        };
        let path = disk.path().join("file");
        std::fs::write(&path, pattern(3 * page())).unwrap();
        let mut filler = std::fs::File::create(disk.path().join("filler")).unwrap();
        while std::io::Write::write(&mut filler, &[1; 4096]).is_ok() {}
        for private in [false, true] {
            let options = Options {
                private,
                ..Options::new(Access::ReadWrite)
            };
            let handle = open(&path, options).unwrap();
            let view = whole(&handle);
            let before = maps_of(&path);
            let full = Error::System(libc::ENOSPC);
            // In the reservation, and beyond it.
            for more in [0, 2 << 20] {
                assert_eq!(handle.truncate(16 * page() as u64 + more), Err(full));
                assert_eq!(maps_of(&path), before);
            }
            assert_eq!(handle.truncate(3 * page() as u64), Ok(()));
            assert!(has_readable_neighbours(&view, 3 * page()));
            assert_eq!(whole(&handle).address(), view.address());
            assert_eq!(maps_of(&path), before);
            drop(view);
            handle.close().unwrap();
        }
    });
}

#[test]
fn writes_that_were_answered_are_in_the_file_whatever_close_comes_between() {
    // A close between the steps of a growing truncate does not turn the growth back.
    const ROUNDS: usize = 2000;
    let scratch = Scratch::new();
    for round in 0..ROUNDS {
        let path = scratch.path().join(round.to_string());
        std::fs::write(&path, b"old").unwrap();
        let handle = open_for(&path, Access::ReadWrite);
        // With a view alive, and a fault, too: growth takes every way there is.
        let _view = (round % 2 == 0).then(|| whole(&handle));
        let size = if round % 4 < 2 { page() } else { 64 * page() };
        let written = std::thread::scope(|scope| {
            let grow = scope.spawn(|| handle.truncate(size as u64));
            let write = scope.spawn(|| {
                for _ in 0..100 {
                    if let Ok(()) = pwrite(&handle, size - 3, b"new") {
                        return true;
                    }
                }
                false
            });
            let close = scope.spawn(|| {
                (0..round % 97 * 20).for_each(|_| std::hint::spin_loop());
                handle.close()
            });
            let _ = (grow.join().unwrap(), close.join().unwrap());
            write.join().unwrap()
        });
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes.len() == 3 || bytes.len() == size, "{}", bytes.len());
        assert!(!written || bytes.ends_with(b"new"), "round {round}");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_private_mapping_that_grows_shows_what_others_appended() {
    // Also in the page that held the end, and was written; and what was written there stays.
    let scratch = Scratch::new();
    let size = 2 * page() + 10;
    for (step, held) in [
        (100, false),
        (100, true),
        (page(), false),
        (3 * page(), true),
    ] {
        let path = scratch.file(size);
        let options = Options {
            private: true,
            lock: step == page(), // which makes all its pages its own
            ..Options::new(Access::ReadWrite)
        };
        let handle = open(&path, options).unwrap();
        let view = held.then(|| whole(&handle));
        if !options.lock {
            pwrite(&handle, size - 1, b"!").unwrap();
        }
        let last = if options.lock {
            pattern(size)[size - 1]
        } else {
            b'!'
        };
        let appended = pattern(step);
        append(&path, &appended);
        assert_eq!(handle.remap(), Ok(size + step));
        assert_eq!(pread(&handle, size - 1, 1), Ok(vec![last]));
        assert_eq!(pread(&handle, size, step), Ok(appended.clone()));
        append(&path, &appended);
        handle.truncate((size + 2 * step) as u64).unwrap();
        assert_eq!(pread(&handle, size + step, step), Ok(appended));
        assert_eq!(pread(&handle, size - 1, 1), Ok(vec![last]));
        drop(view);
    }
}

fn append(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn what_was_written_behind_the_end_is_zero_when_the_file_grows() {
    // On tmpfs such bytes stay in the page, and a file that grows would show them as its own.
    in_its_own_process(|| {
        let Some(disk) = small_disk(4 << 20) else {
            return;
        };
        let path = disk.path().join("file");
        std::fs::write(&path, pattern(100)).unwrap();
        for size in [200, page(), 3 * page()] {
            set_size(&path, 100);
            let junk = open_for(&path, Access::ReadWrite);
            set_size(&path, page());
            assert_eq!(junk.remap(), Ok(page()));
            set_size(&path, 100);
            pwrite(&junk, 150, b"junk").unwrap();
            for handle in [open_for(&path, Access::ReadWrite), open_private(&path)] {
                pwrite(&junk, 150, b"junk").unwrap();
                handle.truncate(size as u64).unwrap();
                assert_eq!(pread(&handle, 100, size - 100), Ok(vec![0; size - 100]));
                assert_eq!(std::fs::read(&path).unwrap()[100..], vec![0; size - 100]);
                set_size(&path, 100);
            }
        }
    });
}

#[test]
fn what_was_written_behind_the_end_is_zero_when_open_makes_the_file_longer() {
    // As above, also where the file is emptied first.
    in_its_own_process(|| {
        let Some(disk) = small_disk(4 << 20) else {
            return;
        };
        let path = disk.path().join("file");
        std::fs::write(&path, pattern(page())).unwrap();
        let junk = open_for(&path, Access::ReadWrite);
        for size in [200, page(), 3 * page()] {
            for (truncate, private) in [(false, false), (true, false), (false, true)] {
                set_size(&path, page());
                set_size(&path, 100);
                pwrite(&junk, 150, b"junk").unwrap();
                let options = Options {
                    size: size as u64,
                    truncate,
                    private,
                    ..Options::new(Access::ReadWrite)
                };
                let handle = open(&path, options).unwrap();
                assert_eq!(pread(&handle, 100, size - 100), Ok(vec![0; size - 100]));
                assert_eq!(std::fs::read(&path).unwrap()[100..], vec![0; size - 100]);
            }
        }
    });
}

#[test]
fn a_file_of_huge_pages_is_mapped_and_lost_in_units_of_them() {
    // Of a size that is no multiple of a huge page, too.
    in_its_own_process(|| {
        let Some(huge) = HugePages::mounted() else {
            return;
        };
        let path = huge.path.join("file");
        let options = Options {
            create: true,
            size: 100,
            ..Options::new(Access::ReadWrite)
        };
        let handle = match open(&path, options) {
            Ok(handle) => handle,
            Err(error) => return skip(&format!("no huge page: {error}")),
        };
        pwrite(&handle, 0, b"huge").unwrap();
        assert_eq!(pread(&handle, 0, 4), Ok(b"huge".into()));
        let view = whole(&handle);
        let address = view.address();
        assert_eq!(permissions(address - 1).as_deref(), Some("r--p"));
        set_size(&path, 0);
        assert_eq!(view.byte(0), 0);
        assert_eq!(view.intact(0, 4), Some(false));
        assert_eq!(pread(&handle, 0, 4), Err(Error::Fault));
        drop(view);
        handle.close().unwrap();
        assert_eq!(permissions(address), None);
    });
}

/// A hugetlbfs with some pages of its own.
struct HugePages {
    path: std::path::PathBuf,
    before: String,
    _scratch: Scratch,
    _alone: Option<std::fs::File>,
}

const POOL: &str = "/proc/sys/vm/nr_hugepages";

impl HugePages {
    fn mounted() -> Option<HugePages> {
        let alone = rig::alone();
        let before = std::fs::read_to_string(POOL).unwrap_or_default();
        let more = before.trim().parse().unwrap_or(0) + 4;
        if std::fs::write(POOL, format!("{more}")).is_err() {
            skip("huge pages need root");
            return None;
        }
        let scratch = Scratch::new();
        let path = scratch.path().to_owned();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "hugetlbfs", "none"])
            .arg(&path)
            .status()
            .is_ok_and(|status| status.success());
        let pages = HugePages {
            path,
            before,
            _scratch: scratch,
            _alone: alone,
        };
        if !mounted {
            skip("hugetlbfs cannot be mounted");
            return None;
        }
        Some(pages)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.path)
            .status();
        let _ = std::fs::write(POOL, &self.before);
    }
}
