//! Files that lose their pages under a mapping: what the calls say, what a view shows, what `intact` tells, and that
//! the process lives. Every test has an OS process of its own, since signal handlers belong to all of it.

mod rig;

use iommap_core::{Access, Data, Error, Hint, Segment, Update, Wait};
use rig::{
    contents, ends_by, in_its_own_process, memory_disk, open_for, open_private, page, pattern,
    pread, pread_as, pwrite, pwrite_segments, set_size, show, skip, truncated_by_another_process,
    AHandle, Scratch,
};
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[test]
fn a_read_of_a_truncated_file_is_a_fault_and_works_again_when_it_has_grown_back() {
    // Another OS process truncates; any number of times; what is still there is read; nothing is faulted for good.
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let path = scratch.file(8 * page());
        let handle = open_for(&path, Access::ReadWrite);
        for _ in 0..20 {
            truncated_by_another_process(&path, page());
            for wait in [Wait::Blocking, Wait::NonBlocking] {
                let gone = pread_as(&handle, wait, 3 * page() as u64, 8);
                assert!(
                    matches!(gone, Err(Error::Fault | Error::WouldBlock)),
                    "{gone:?}"
                );
            }
            assert_eq!(pread(&handle, 3 * page(), 8), Err(Error::Fault));
            assert_eq!(
                pread(&handle, page() - 4, 8),
                Err(Error::Fault),
                "a range with the end in it"
            );
            assert_eq!(pread(&handle, 0, page()), Ok(pattern(page())));
            truncated_by_another_process(&path, 8 * page());
            assert_eq!(pread(&handle, 3 * page(), 8), Ok(vec![0; 8]));
            assert!(!handle.info(Wait::Blocking).unwrap().faulted);
        }
    });
}

#[test]
fn a_write_to_a_truncated_file_is_a_fault_and_works_again_when_it_has_grown_back() {
    // Shared and private: the page that is gone is not there to be written.
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let path = scratch.file(8 * page());
        for handle in [open_for(&path, Access::ReadWrite), open_private(&path)] {
            pwrite(&handle, 3 * page(), b"before").unwrap();
            for _ in 0..20 {
                set_size(&path, page());
                assert_eq!(pwrite(&handle, 3 * page(), b"lost"), Err(Error::Fault));
                assert_eq!(pwrite(&handle, 0, b"kept"), Ok(()));
                set_size(&path, 8 * page());
                assert_eq!(pwrite(&handle, 3 * page(), b"back"), Ok(()));
                assert_eq!(pread(&handle, 3 * page(), 4), Ok(b"back".into()));
            }
        }
        assert_eq!(&contents(&path)[..4], b"kept");
    });
}

#[test]
fn what_a_private_mapping_lost_it_does_not_take_along() {
    // The zeros that a view saw in the place of its changes are no changes: after a remap the file's bytes are there.
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let path = scratch.file(4 * page());
        let handle = open_private(&path);
        for at in [page(), 3 * page()] {
            pwrite(&handle, at, b"mine").unwrap();
        }
        let view = show(&handle, 0, 4 * page()).unwrap();
        set_size(&path, 2 * page());
        // SAFETY: the view stays mapped, with zero pages where its file is lost.
        let lost = unsafe { *((view.address() + 3 * page()) as *const u8) };
        assert_eq!(lost, 0);
        std::fs::write(&path, vec![7; 4 * page()]).unwrap();
        assert_eq!(handle.remap(), Ok(4 * page()));
        assert_eq!(pread(&handle, 3 * page(), 4), Ok(vec![7; 4]));
    });
}

#[test]
fn a_store_behind_the_end_of_a_file_in_large_folios_is_a_fault() {
    // Memory that keeps a file in one folio maps all of it, so the store meets none: the folio is not split while somebody holds a
    // page of it. Also where only a hint made the folio.
    in_its_own_process(|| {
        let huge = 2 << 20;
        for (options, collapse) in [("huge=always", false), ("huge=never", true)] {
            let Some(disk) = memory_disk(options) else {
                return;
            };
            let path = disk.path().join("file");
            std::fs::write(&path, pattern(4 * huge)).unwrap();
            let handle = open_for(&path, Access::ReadWrite);
            if collapse {
                let hinted = handle.advise(0, 4 * huge as u64, Hint::Collapse);
                if hinted != Ok(()) {
                    skip(&format!("no folio of a hint: {hinted:?}"));
                    continue;
                }
            }
            let word = 3 * page() as u64;
            let (kept, lost) = ([b"kept".as_slice().into()], [b"lost".as_slice().into()]);
            let writes = [
                (0, Data::new(&kept).unwrap()),
                (word, Data::new(&lost).unwrap()),
            ];
            for _ in 0..3 {
                let _held = held_page(&path, word);
                set_size(&path, 100);
                assert_eq!(pwrite(&handle, 0, b"kept"), Ok(()));
                assert_eq!(pwrite(&handle, word as usize, b"lost"), Err(Error::Fault));
                for wait in [Wait::Blocking, Wait::NonBlocking] {
                    let updated = handle.update(wait, word, Update::Add(1));
                    assert!(
                        matches!(updated, Err(Error::Fault | Error::WouldBlock)),
                        "{updated:?}"
                    );
                    let written = handle.pwrite_all(wait, &writes);
                    assert!(
                        matches!(written, Err((1, Error::Fault) | (0, Error::WouldBlock))),
                        "{written:?}"
                    );
                }
                assert_eq!(std::fs::metadata(&path).unwrap().len(), 100);
                set_size(&path, 4 * huge);
                assert_eq!(pwrite(&handle, word as usize, b"back"), Ok(()));
                assert_eq!(pread(&handle, word as usize, 4), Ok(b"back".into()));
            }
        }
    });
}

/// Holds a page of a file in a pipe.
fn held_page(path: &Path, offset: u64) -> [OwnedFd; 2] {
    let file = File::open(path).unwrap();
    let mut pipe = [0; 2];
    let (mut from, nothing) = (offset as i64, std::ptr::null_mut());
    // SAFETY: makes two descriptors, which are nobody else's; the file is open.
    unsafe {
        assert_eq!(libc::pipe(pipe.as_mut_ptr()), 0);
        let moved = libc::splice(file.as_raw_fd(), &mut from, pipe[1], nothing, 1, 0);
        assert_eq!(moved, 1);
        pipe.map(|end| OwnedFd::from_raw_fd(end))
    }
}

#[test]
fn data_whose_own_file_is_gone_is_a_fault() {
    // The data given to a write may be a view: its fault is not the destination's, which goes on working.
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let from = scratch.file(8 * page());
        let to = scratch.path().join("to");
        std::fs::write(&to, pattern(page())).unwrap();
        let source = open_for(&from, Access::Read);
        let view = show(&source, 0, 8 * page()).unwrap();
        let target = open_for(&to, Access::ReadWrite);
        // SAFETY: the view stays mapped, but for the pages that are lost.
        let lost = unsafe { Segment::new((view.address() + 4 * page()) as *const u8, 8) };
        set_size(&from, page());
        for _ in 0..1000 {
            let segments = [b"good".as_slice().into(), lost];
            let wrote = pwrite_segments(&target, 0, &segments);
            assert_eq!(wrote, Err(Error::Fault));
        }
        assert_eq!(pread(&target, 0, page()), Ok(pattern(page())));
        assert!(!source.info(Wait::Blocking).unwrap().faulted);
        assert!(!target.info(Wait::Blocking).unwrap().faulted);
    });
}

#[test]
fn thousands_of_faults_on_many_threads_are_each_told_to_their_caller() {
    // The file shrinks and grows all the while: a read gives the file's bytes, zeros after its end, or the fault.
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let size = 4 * page();
        let path = scratch.file(size);
        let handle = open_for(&path, Access::ReadWrite);
        let faults = AtomicUsize::new(0);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    set_size(&path, page());
                    std::thread::yield_now();
                    set_size(&path, size);
                }
            });
            let readers: Vec<_> = (0..4)
                .map(|reader| {
                    let (handle, faults) = (&handle, &faults);
                    scope.spawn(move || fault_often(handle, faults, reader))
                })
                .collect();
            readers
                .into_iter()
                .for_each(|reader| reader.join().unwrap());
            done.store(true, Ordering::Relaxed);
        });
        assert!(faults.into_inner() >= 4000);
        assert!(!handle.info(Wait::Blocking).unwrap().faulted);
        assert_eq!(pread(&handle, 0, page()), Ok(pattern(page())));
    });
}

/// Reads and writes what comes and goes until it was gone a thousand times.
fn fault_often(handle: &AHandle, faults: &AtomicUsize, reader: usize) {
    let mut own = 0;
    while own < 1000 {
        let at = 3 * page() + 64 * reader;
        let answer = match own % 3 {
            0 => pwrite(handle, at, &[0; 64]).map(|()| vec![0; 64]),
            _ => pread(handle, at, 64),
        };
        match answer {
            Ok(bytes) => assert_eq!(bytes, [0; 64]),
            Err(error) => {
                assert_eq!(error, Error::Fault);
                own += 1;
                faults.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[test]
fn a_view_of_a_truncated_file_reads_on_and_its_handle_stops() {
    // Foreign code reads zeros and lives; from then on the handle gives no bytes until it is remapped, and `intact` tells
    // which of the view's bytes are not the file's, for good.
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let size = 8 * page();
        let path = scratch.file(size);
        for handle in [open_for(&path, Access::ReadWrite), open_private(&path)] {
            std::fs::write(&path, pattern(size)).unwrap();
            let view = show(&handle, 0, size).unwrap();
            assert_eq!(view.intact(0, size), Some(true));
            truncated_by_another_process(&path, 2 * page());
            assert_eq!(
                view.intact(0, size),
                Some(false),
                "before anybody touched it"
            );
            assert!(!handle.info(Wait::Blocking).unwrap().faulted);

            let seen = view.bytes();
            assert_eq!(seen[..2 * page()], pattern(size)[..2 * page()]);
            assert!(seen[2 * page()..].iter().all(|byte| *byte == 0));
            assert!(handle.info(Wait::Blocking).unwrap().faulted);
            assert_eq!(pread(&handle, 0, 1), Err(Error::Fault));
            assert_eq!(
                pread_as(&handle, Wait::NonBlocking, 0, 1),
                Err(Error::Fault)
            );
            assert_eq!(pwrite(&handle, 0, b"x"), Err(Error::Fault));
            assert_eq!(handle.sync(false), Err(Error::Fault));
            assert_eq!(show(&handle, 0, 1).err(), Some(Error::Fault));

            std::fs::write(&path, pattern(size)).unwrap();
            assert_eq!(
                pread(&handle, 0, 1),
                Err(Error::Fault),
                "also when the file is back"
            );
            assert_eq!(handle.remap(), Ok(size));
            assert_eq!(pread(&handle, 0, size), Ok(pattern(size)));
            assert_eq!(view.intact(0, 2 * page()), Some(true));
            assert_eq!(view.intact(2 * page() - 1, 1), Some(true));
            assert_eq!(view.intact(2 * page() - 1, 2), Some(false));
            assert_eq!(view.intact(2 * page(), 1), Some(false));
            handle.close().unwrap();
            assert_eq!(view.intact(size - 1, 1), Some(false));
        }
    });
}

#[test]
fn a_view_of_a_page_with_the_new_end_in_it_is_not_intact() {
    // The kernel shows zeros there without a fault: the file's size tells.
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let path = scratch.file(page());
        let handle = open_for(&path, Access::Read);
        let view = show(&handle, 0, page()).unwrap();
        set_size(&path, 100);
        assert_eq!(view.byte(100), 0);
        assert_eq!(view.intact(0, 100), Some(true));
        assert_eq!(view.intact(0, 101), Some(false));
        assert_eq!(view.intact(200, 0), Some(true), "nothing of it is lost");
        assert!(!handle.info(Wait::Blocking).unwrap().faulted);
        assert_eq!(
            iommap_core::intact([1u8; 4].as_ptr().addr(), 4),
            None,
            "memory of nobody's file"
        );
    });
}

#[test]
fn a_view_of_bytes_that_were_copied_before_reads_on() {
    // A copy that is over is not gone back to, and the thread's errno is its own.
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let path = scratch.file(3 * page());
        let handle = open_for(&path, Access::ReadWrite);
        let view = show(&handle, 0, 3 * page()).unwrap();
        assert_eq!(pread(&handle, 0, 3 * page()), Ok(pattern(3 * page())));
        pwrite(&handle, 2 * page(), b"written").unwrap();
        set_size(&path, page());
        // SAFETY: no descriptor has that number.
        assert_eq!(unsafe { libc::close(-1) }, -1);
        let byte = view.byte(2 * page());
        let errno = std::io::Error::last_os_error();
        assert_eq!((byte, errno.raw_os_error()), (0, Some(libc::EBADF)));
        assert_eq!(view.intact(0, 3 * page()), Some(false));
    });
}

#[test]
fn a_view_of_what_a_mapping_grew_by_reads_on() {
    // It is of the same mapping, which is longer now.
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let path = scratch.file(page());
        let handle = open_for(&path, Access::ReadWrite);
        let before = show(&handle, 0, page()).unwrap();
        handle.truncate(4 * page() as u64).unwrap();
        let view = show(&handle, 0, 4 * page()).unwrap();
        assert_eq!(view.address(), before.address(), "it grew where it was");
        set_size(&path, page());
        assert_eq!(view.byte(3 * page()), 0);
        assert_eq!(view.intact(3 * page(), 1), Some(false));
        assert_eq!(view.intact(0, page()), Some(true));
    });
}

#[test]
#[cfg(target_os = "linux")] // /proc tells what is mapped
fn a_mapping_does_not_inherit_what_another_has_lost() {
    // It has the place in the registry of one that is gone, and loses another page.
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let path = scratch.file(3 * page());
        for lost in [page(), 2 * page()] {
            set_size(&path, 3 * page());
            let handle = open_for(&path, Access::Read);
            let view = show(&handle, 0, 3 * page()).unwrap();
            set_size(&path, lost);
            assert_eq!(view.byte(2 * page()), 0);
            assert_eq!(view.intact(0, lost), Some(true));
            assert_eq!(view.intact(lost, page()), Some(false));
            drop((view, handle));
            rig::wait_until("it is unmapped", || rig::maps_of(&path).is_empty());
        }
    });
}

#[test]
#[cfg(target_os = "linux")] // /proc tells what is mapped
fn one_fault_covers_the_whole_lost_tail() {
    // Not one fault for each page: a single piece of zero memory takes the place of all that was lost.
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let path = scratch.file(1000 * page());
        let handle = open_for(&path, Access::Read);
        let view = show(&handle, 0, 1000 * page()).unwrap();
        set_size(&path, 10 * page());
        assert_eq!(view.byte(500 * page()), 0);
        let left = rig::maps_of(&path);
        let expected = format!("{:x}-{:x} ", view.address(), view.address() + 10 * page());
        assert!(
            left.len() == 1 && left[0].starts_with(&expected),
            "{left:?}"
        );
    });
}

#[test]
fn views_fault_on_many_threads_while_mappings_come_and_go() {
    // Thousands of mappings opened, viewed, truncated, read and closed at once: every reader lives, and every view that
    // was not truncated shows its file and is intact.
    in_its_own_process(|| {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    let scratch = Scratch::new();
                    let mut kept = Vec::new();
                    for round in 0..150 {
                        let path = scratch.path().join(round.to_string());
                        std::fs::write(&path, pattern(3 * page())).unwrap();
                        let handle = open_for(&path, Access::Read);
                        let view = show(&handle, 0, 3 * page()).unwrap();
                        if (round + thread) % 2 == 0 {
                            set_size(&path, page());
                            assert_eq!(view.byte(2 * page()), 0);
                            assert_eq!(view.intact(2 * page(), 1), Some(false));
                        } else {
                            assert_eq!(view.byte(2 * page()), pattern(3 * page())[2 * page()]);
                            assert_eq!(view.intact(0, 3 * page()), Some(true));
                        }
                        kept.push((view, round % 2));
                        if round % 3 == 0 {
                            kept.swap_remove(kept.len() / 2);
                        }
                        handle.close().unwrap();
                    }
                    for (view, odd) in &kept {
                        let lost = (odd + thread) % 2 == 0;
                        assert_eq!(view.intact(0, 3 * page()), Some(!lost));
                        assert_eq!(view.byte(0), 1);
                    }
                });
            }
        });
    });
}

#[test]
fn a_handler_has_room_on_a_small_alternate_stack() {
    // As on a scheduler thread, whose alternate stack is not ours to choose.
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let path = scratch.file(4 * page());
        let handle = open_for(&path, Access::Read);
        let view = show(&handle, 0, 4 * page()).unwrap();
        set_size(&path, page());
        let mut stack = vec![0u8; smallest_stack() + (8 << 10)];
        let alternate = libc::stack_t {
            ss_sp: stack.as_mut_ptr().cast(),
            ss_flags: 0,
            ss_size: stack.len(),
        };
        let none = libc::stack_t {
            ss_flags: libc::SS_DISABLE,
            ..alternate
        };
        // SAFETY: the memory lives until the alternate stack is taken away again.
        let set = unsafe { libc::sigaltstack(&alternate, std::ptr::null_mut()) };
        assert_eq!(set, 0);
        assert_eq!(view.byte(2 * page()), 0);
        assert_eq!(pread(&handle, 0, 1), Err(Error::Fault));
        // SAFETY: as above.
        let taken = unsafe { libc::sigaltstack(&none, std::ptr::null_mut()) };
        assert_eq!(taken, 0);
        assert!(stack.iter().any(|byte| *byte != 0), "the handler ran there");
    });
}

/// What the kernel needs to deliver a signal.
fn smallest_stack() -> usize {
    #[cfg(target_os = "linux")]
    // SAFETY: reads a constant that the kernel gave the process.
    let told = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) } as usize;
    #[cfg(not(target_os = "linux"))]
    let told = 0;
    told.max(libc::MINSIGSTKSZ)
}

/// The test's own runtime handles SIGBUS too: it is taken away, so that nobody is before us.
fn nobody_before_us(disposition: libc::sighandler_t) {
    // SAFETY: sets what the signal does in this process.
    let before = unsafe { libc::signal(libc::SIGBUS, disposition) };
    assert_ne!(before, libc::SIG_ERR);
}

fn send_sigbus() {
    // SAFETY: sends the signal to this thread, which has it before the call returns.
    unsafe { libc::raise(libc::SIGBUS) };
}

/// A mapping of a file that is empty, made without the library: reading it is a fault that is nobody's.
fn foreign_fault(scratch: &Scratch) -> *const u8 {
    let path = scratch.path().join("foreign");
    std::fs::write(&path, pattern(page())).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    let map = memmap2::MmapOptions::new()
        .map_raw_read_only(&file)
        .unwrap();
    set_size(&path, 0);
    let address = map.as_ptr();
    std::mem::forget(map);
    address
}

#[test]
fn a_fault_that_is_nobodys_ends_the_process_as_without_us() {
    // By SIGBUS, though our handler is there and has resolved faults of ours before.
    ends_by(libc::SIGBUS, || {
        nobody_before_us(libc::SIG_DFL);
        let scratch = Scratch::new();
        let path = scratch.file(page());
        let handle = open_for(&path, Access::Read);
        set_size(&path, 0);
        assert_eq!(pread(&handle, 0, 1), Err(Error::Fault));
        let address = foreign_fault(&scratch);
        drop(scratch);
        // SAFETY: mapped memory; that its file is gone is what the test is about.
        unsafe { address.read_volatile() };
    });
}

#[test]
fn a_sigbus_that_was_sent_ends_the_process_as_without_us() {
    // kill -BUS is not a fault.
    ends_by(libc::SIGBUS, || {
        nobody_before_us(libc::SIG_DFL);
        let scratch = Scratch::new();
        let _handle = open_for(&scratch.file(page()), Access::Read);
        drop(scratch);
        send_sigbus();
    });
}

#[test]
fn a_sigbus_that_was_sent_is_ignored_where_it_was_before() {
    // SIG_IGN keeps its meaning for what was sent; a fault of ours is resolved all the same.
    in_its_own_process(|| {
        nobody_before_us(libc::SIG_IGN);
        let scratch = Scratch::new();
        let path = scratch.file(page());
        let handle = open_for(&path, Access::Read);
        send_sigbus();
        set_size(&path, 0);
        assert_eq!(pread(&handle, 0, 1), Err(Error::Fault));
    });
}

static FOREIGN_FAULTS: AtomicUsize = AtomicUsize::new(0);

/// A neighbour's handler: mends its fault and goes on.
extern "C" fn neighbour(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    FOREIGN_FAULTS.fetch_add(1, Ordering::Relaxed);
    let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: the kernel gives the siginfo of a fault in the neighbour's own mapping.
    unsafe {
        let at = ((*info).si_addr() as usize & !(page() - 1)) as *mut libc::c_void;
        libc::mmap(at, page(), libc::PROT_READ, flags, -1, 0);
    }
}

#[test]
fn a_neighbours_fault_reaches_the_neighbour_and_ours_reaches_us() {
    // It installed its handler before us; both kinds of fault come by turns.
    in_its_own_process(|| {
        // SAFETY: installs a handler of the right type.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = neighbour as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(
                libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()),
                0
            );
        }
        let scratch = Scratch::new();
        let path = scratch.file(2 * page());
        let handle = open_for(&path, Access::Read);
        set_size(&path, page());
        for round in 1..=100 {
            let address = foreign_fault(&scratch);
            // SAFETY: mapped memory, which the neighbour mends.
            assert_eq!(unsafe { address.read_volatile() }, 0);
            assert_eq!(FOREIGN_FAULTS.load(Ordering::Relaxed), round);
            assert_eq!(pread(&handle, page(), 1), Err(Error::Fault));
        }
        let view = show(&handle, 0, 2 * page()).unwrap();
        assert_eq!(view.byte(page()), 0);
        assert_eq!(FOREIGN_FAULTS.load(Ordering::Relaxed), 100);
    });
}

static BEFORE_THE_NEIGHBOUR: AtomicUsize = AtomicUsize::new(0);

/// A neighbour's handler that passes all on to the one before it, as crash reporters do.
extern "C" fn reporter(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    type Action = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);
    // SAFETY: it is what `sigaction` gave, a handler of this type.
    let before: Action =
        unsafe { std::mem::transmute(BEFORE_THE_NEIGHBOUR.load(Ordering::Relaxed)) };
    before(signal, info, context);
}

#[test]
fn a_neighbour_that_passes_faults_on_has_the_signal_blocked_and_the_next_fault_comes_all_the_same()
{
    // It installed its handler after us, and without SA_NODEFER: we leave it by a jump.
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let path = scratch.file(2 * page());
        let handle = open_for(&path, Access::Read);
        // SAFETY: installs a handler of the right type, which ours is, too.
        unsafe {
            let (mut action, mut ours): (libc::sigaction, libc::sigaction) = std::mem::zeroed();
            libc::sigaction(libc::SIGBUS, std::ptr::null(), &mut ours);
            BEFORE_THE_NEIGHBOUR.store(ours.sa_sigaction, Ordering::Relaxed);
            action.sa_sigaction = reporter as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            let set = libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
            assert_eq!(set, 0);
        }
        set_size(&path, page());
        for _ in 0..10 {
            assert_eq!(pread(&handle, page(), 1), Err(Error::Fault));
        }
        assert_eq!(pread(&handle, 0, 1), Ok(pattern(1)));
    });
}

#[test]
#[cfg(target_os = "linux")]
fn lost_views_are_read_at_the_limit_of_mappings_while_other_threads_take_every_entry_that_comes_free(
) {
    // As threads do whose allocator asks for memory again and again.
    const VIEWS: usize = 4;
    in_its_own_process(|| {
        if rig::lacking_in_qemu("limit of mappings") {
            return;
        }
        let _alone = rig::alone();
        let scratch = Scratch::new();
        let files: Vec<_> = (0..VIEWS).map(|_| scratch.file(2 * page())).collect();
        let handles: Vec<_> = files
            .iter()
            .map(|path| open_for(path, Access::Read))
            .collect();
        let views: Vec<_> = handles
            .iter()
            .map(|handle| show(handle, 0, 2 * page()).unwrap())
            .collect();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        rig::map_a_page();
                    }
                });
            }
            while rig::map_a_page() {}
            for (path, view) in files.iter().zip(&views) {
                set_size(path, page());
                // SAFETY: the view stays mapped, with zero pages where its file is lost.
                let last = unsafe { *((view.address() + 2 * page() - 1) as *const u8) };
                assert_eq!(last, 0);
            }
            done.store(true, Ordering::Relaxed);
        });
    });
}
