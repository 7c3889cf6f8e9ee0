//! Many threads on one handle.

mod rig;

use iommap_core::{Access, Error, Wait};
use rig::{open_for, page, pread, pread_as, pwrite_as, set_size, show, Scratch};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Barrier;

const LENGTH: usize = 3000;
const READS: usize = 20_000;

fn all_alike(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == bytes[0])
}

#[test]
fn no_read_sees_half_of_a_write() {
    // Writers fill a range with one byte each, and readers never find two: with and without waiting.
    let scratch = Scratch::new();
    let path = scratch.path().join("file");
    std::fs::write(&path, vec![0; 2 * page()]).unwrap();
    let handle = open_for(&path, Access::ReadWrite);
    let at = 1000;
    // Who writes goes on until all have read, so that neither is done before the other begins.
    let (readers, writers) = ([Wait::NonBlocking, Wait::Blocking], 2);
    let (left, start) = (
        AtomicUsize::new(readers.len()),
        Barrier::new(readers.len() + writers),
    );
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let (handle, left, start) = (&handle, &left, &start);
            scope.spawn(move || {
                start.wait();
                let mut round = 0;
                while left.load(Ordering::Relaxed) > 0 {
                    let bytes = vec![(round * writers + writer) as u8; LENGTH];
                    let now = pwrite_as(handle, Wait::NonBlocking, at, &bytes);
                    if now.is_err_and(Error::would_block) {
                        pwrite_as(handle, Wait::Blocking, at, &bytes).unwrap();
                    }
                    round += 1;
                }
            });
        }
        for wait in readers {
            let (handle, left, start) = (&handle, &left, &start);
            scope.spawn(move || {
                start.wait();
                let mut whole = true;
                for _ in 0..READS {
                    match pread_as(handle, wait, at, LENGTH as u64) {
                        Ok(bytes) => whole &= all_alike(&bytes),
                        Err(error) => whole &= error.would_block(),
                    }
                }
                left.fetch_sub(1, Ordering::Relaxed);
                assert!(whole);
            });
        }
    });
}

#[test]
fn calls_that_race_with_a_close_finish_or_are_told() {
    // Every read gives the bytes or `closed`, never anything else, and the mapping goes when all are done.
    let scratch = Scratch::new();
    let path = scratch.file(2 * page());
    for _ in 0..300 {
        let handle = open_for(&path, Access::ReadWrite);
        let closed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for waits in [Wait::NonBlocking, Wait::Blocking] {
                let (handle, closed) = (&handle, &closed);
                scope.spawn(move || loop {
                    let was_closed = closed.load(Ordering::Acquire);
                    match pread_as(handle, waits, 5, 100) {
                        Ok(bytes) => {
                            assert!(!was_closed && bytes == rig::pattern(105)[5..]);
                        }
                        Err(error) if error.would_block() => {}
                        Err(error) => return assert_eq!(error, Error::Closed),
                    }
                });
            }
            handle.close().unwrap();
            closed.store(true, Ordering::Release);
        });
        #[cfg(target_os = "linux")] // /proc tells what is mapped
        assert!(rig::maps_of(&path).is_empty());
    }
}

#[test]
fn reads_writes_and_views_race_with_resizing() {
    // The size goes up and down: what is read is what was there, or the range is out of bounds; views stay as they were.
    let scratch = Scratch::new();
    let (small, large) = (2 * page(), 40 * page());
    let path = scratch.file(small);
    let handle = open_for(&path, Access::ReadWrite);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for wait in [Wait::NonBlocking, Wait::Blocking] {
            let (handle, done) = (&handle, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    match pread_as(handle, wait, 0, small as u64) {
                        Ok(bytes) => assert_eq!(bytes, rig::pattern(small)),
                        Err(error) => assert!(error.would_block()),
                    }
                    match pread_as(handle, wait, (large - 8) as u64, 8) {
                        Ok(bytes) => assert_eq!(bytes, [0; 8]),
                        Err(error) => {
                            assert!(error.would_block() || error == Error::OutOfBounds);
                        }
                    }
                }
            });
        }
        let (viewed, over) = (&handle, &done);
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let view = show(viewed, 100, 50).unwrap();
                std::thread::yield_now();
                assert_eq!(view.bytes(), rig::pattern(150)[100..]);
            }
        });
        for round in 0..300 {
            handle
                .truncate(if round % 2 == 0 { large } else { small } as u64)
                .unwrap();
            assert_eq!(handle.remap(), handle.position(Wait::Blocking));
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(pread(&handle, 0, small), Ok(rig::pattern(small)));
}

#[test]
fn a_sync_holds_up_nobody_and_everything_races_with_it() {
    // Syncs, hints and writes at once: no error, and the last write is in the file.
    let scratch = Scratch::new();
    let path = scratch.file(64 * page());
    let handle = open_for(&path, Access::ReadWrite);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for asynchronously in [true, false] {
            let (handle, done) = (&handle, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    handle.sync(asynchronously).unwrap();
                    handle.advise(0, 0, iommap_core::Hint::DontNeed).unwrap();
                }
            });
        }
        for round in 0..500 {
            let bytes = [round as u8; 100];
            rig::pwrite(&handle, 60 * page(), &bytes).unwrap();
            assert_eq!(pread(&handle, 60 * page(), 100), Ok(bytes.into()));
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(
        rig::contents(&path)[60 * page()..][..100],
        [(499 % 256) as u8; 100]
    );
}

#[test]
fn what_was_written_behind_the_old_end_is_in_the_file_whenever_the_handle_is_closed() {
    // A writer waits for the part that `truncate` grows the file by, and closes the handle as soon as its write is `ok`, while
    // the truncate may still be on its way out.
    const ROUNDS: usize = 6000;
    let scratch = Scratch::new();
    let path = scratch.path().join("file");
    let (size, grown) = (page(), 4 * page());
    for round in 0..ROUNDS {
        std::fs::write(&path, [1]).unwrap();
        set_size(&path, size);
        let handle = open_for(&path, Access::ReadWrite);
        let byte = (round % 255 + 1) as u8;
        let at = grown - 1 - round % 100;
        let truncated = std::thread::scope(|scope| {
            let writer = scope.spawn(|| loop {
                match pwrite_as(&handle, Wait::Blocking, at as u64, &[byte]) {
                    Err(Error::OutOfBounds) => std::hint::spin_loop(),
                    written => break written.and_then(|()| handle.close()),
                }
            });
            let truncated = handle.truncate(grown as u64);
            assert_eq!(writer.join().unwrap(), Ok(()));
            truncated
        });
        assert_eq!(truncated, Ok(()), "round {round}");
        let bytes = rig::contents(&path);
        assert_eq!(
            (bytes.len(), bytes.get(at)),
            (grown, Some(&byte)),
            "round {round}"
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn without_a_barrier_for_all_threads_everything_holds() {
    // Where the system lacks membarrier(2), the lock is a plain one, and keeps what the other keeps.
    if rig::lacking_in_qemu("seccomp filters") {
        return;
    }
    rig::in_its_own_process(|| {
        rig::forbid_membarrier();
        no_read_sees_half_of_a_write();
        calls_that_race_with_a_close_finish_or_are_told();
        reads_writes_and_views_race_with_resizing();
        a_sync_holds_up_nobody_and_everything_races_with_it();
    });
}
