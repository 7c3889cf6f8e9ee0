//! Mappings that are let go by a thread, and room for those that come.

#![cfg(target_os = "linux")] // /proc tells what is mapped and open

mod rig;

use iommap_core::{list, now, unmaps_waiting, Access, Options, View, Wait};
use rig::{in_its_own_process, maps_of, open, open_for, page, show, wait_until, AHandle, Scratch};
use std::path::Path;
use std::sync::Arc;

fn has_open(path: &Path) -> bool {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    open.flat_map(|entry| std::fs::read_link(entry.path()))
        .any(|file| file == path)
}

/// What keeps the mapping alive for a view, whose references are counted as a VM counts them.
fn keeper(handle: &AHandle) -> Arc<View> {
    let keeper = handle.region(Wait::Blocking, 0, 1, |region| region.keeper().clone());
    let keeper = keeper.unwrap();
    keeper.counted(|| Some(1));
    keeper
}

/// How many threads unmap.
fn threads() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    threads
        .flat_map(|thread| std::fs::read_to_string(thread.path().join("comm")))
        .filter(|name| name.trim() == "iommap_unmap")
        .count()
}

#[test]
fn the_mapping_goes_with_its_last_view_and_the_descriptor_with_it() {
    // Not with the handle.
    for size in [5000, 16 << 20] {
        let scratch = Scratch::new();
        let path = scratch.nothing();
        let options = Options {
            create: true,
            size: size as u64,
            ..Options::new(Access::ReadWrite)
        };
        let handle = open(&path, options).unwrap();
        let view = show(&handle, size - 1, 1).unwrap();
        assert_eq!(handle.close(), Ok(()));
        drop(handle);
        assert_eq!(maps_of(&path).len(), 1);
        assert_eq!(view.byte(0), 0);
        drop(view);
        wait_until("it is unmapped", || maps_of(&path).is_empty());
        wait_until("its descriptor is closed", || !has_open(&path));
    }
}

#[test]
fn what_is_collected_is_let_go_by_one_thread_and_what_is_closed_at_once() {
    // A destructor waits for nothing; who calls close expects it to be done.
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let path = scratch.file(5000);
        let handle = open_for(&path, Access::Read);
        handle.close().unwrap();
        assert!(!has_open(&path) && maps_of(&path).is_empty());
        assert_eq!(threads(), 0);
        let handles: Vec<_> = (0..1000).map(|_| open_for(&path, Access::Read)).collect();
        drop(handles);
        wait_until("all are let go", || {
            maps_of(&path).is_empty() && !has_open(&path)
        });
        assert_eq!(threads(), 1);
    });
}

#[test]
fn what_only_waits_to_be_unmapped_is_not_listed_and_all_of_it_goes() {
    // Handles that were collected by the thousand, of which some have a view; what is shown by a view that lives stays.
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let path = scratch.file(5000);
        let listed = || list(0, now(), usize::MAX).len();
        assert!(list(2, 1, usize::MAX).is_empty(), "of no time");
        let mut handles: Vec<_> = (0..900).map(|_| open_for(&path, Access::Read)).collect();
        let mut views: Vec<_> = handles.iter().take(100).map(keeper).collect();
        for left in [500, 0] {
            handles.truncate(left);
            assert_eq!(listed(), left.max(100));
            assert!(unmaps_waiting() <= 900 - left.max(100));
        }
        views.truncate(1);
        assert_eq!(listed(), 1);
        assert!(list(0, now(), 1).iter().all(|(_, info)| !info.open));
        wait_until("all others are unmapped", || maps_of(&path).len() == 1);
        wait_until("nothing waits any more", || unmaps_waiting() == 0);
        assert!(has_open(&path));
        drop(views);
        assert_eq!(listed(), 0);
        wait_until("the last is let go", || {
            maps_of(&path).is_empty() && !has_open(&path)
        });
    });
}

#[test]
fn who_opens_and_drops_fast_meets_no_limit() {
    // Neither of descriptors nor of address space: what waits to be let go is let go first.
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let path = scratch.file(64 * page());
        let limit = |which, more: u64| {
            let mut now = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            // SAFETY: asks for a limit of this process, and sets it.
            unsafe {
                libc::getrlimit(which, &mut now);
                let before = now;
                now.rlim_cur = more;
                assert_eq!(libc::setrlimit(which, &now), 0);
                before
            }
        };
        let open_and_drop = || (0..3000).for_each(|_| drop(open_for(&path, Access::Read)));
        drop(open_for(&path, Access::Read)); // the thread is there
        let before = limit(libc::RLIMIT_NOFILE, 40);
        open_and_drop();
        // SAFETY: as above.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &before) };
        let size = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = size.split(' ').next().unwrap().parse().unwrap();
        limit(libc::RLIMIT_AS, pages * page() as u64 + (8 << 20));
        open_and_drop();
    });
}
