//! Words: what loads and updates give, what refuses them, and that a lost page is a fault. Every test that loses a page has an OS
//! process of its own.

mod rig;

use iommap_core::{Access, Error, Options, Update, Wait};
use rig::{
    contents, in_its_own_process, open, open_for, open_private, page, pattern, pwrite, set_size,
    show, AHandle, Scratch,
};
use std::path::Path;

const NO_ACCESS: Error = Error::System(libc::EACCES);
const INVALID: Error = Error::System(libc::EINVAL);

fn word(path: &Path, offset: usize) -> u64 {
    u64::from_ne_bytes(contents(path)[offset..offset + 8].try_into().unwrap())
}

fn fetch_update(handle: &AHandle, offset: usize, update: Update) -> Result<u64, Error> {
    handle.fetch_update(Wait::Blocking, offset as u64, update)
}

#[test]
fn every_update_leaves_and_gives_what_arithmetic_says() {
    // Blocking first, then without waiting: both are the same, and reach the file.
    let scratch = Scratch::new();
    let path = scratch.file(page());
    let handle = open_for(&path, Access::ReadWrite);
    let edges = [
        0,
        1,
        0x5555_5555_5555_5555,
        i64::MAX as u64,
        1 << 63,
        u64::MAX,
    ];
    for before in edges {
        for operand in edges {
            let updates = [
                (Update::Exchange(operand), operand),
                (Update::Add(operand), before.wrapping_add(operand)),
                (Update::And(operand), before & operand),
                (Update::Or(operand), before | operand),
                (Update::Xor(operand), before ^ operand),
                (
                    Update::CompareExchange {
                        expected: before,
                        new: operand,
                    },
                    operand,
                ),
                (
                    Update::CompareExchange {
                        expected: before ^ 1,
                        new: operand,
                    },
                    before,
                ),
            ];
            for (update, after) in updates {
                for wait in [Wait::Blocking, Wait::NonBlocking] {
                    let put = Update::Exchange(before);
                    assert_eq!(handle.update(Wait::Blocking, 16, put), Ok(()));
                    let found = handle.fetch_update(wait, 16, update);
                    if wait == Wait::NonBlocking && found == Err(Error::WouldBlock) {
                        continue; // so long ago
                    }
                    assert_eq!(found, Ok(before), "{update:?}");
                    assert_eq!(handle.load(Wait::Blocking, 16), Ok(after), "{update:?}");
                    assert_eq!(update.applied_to(before), after);
                    assert_eq!(word(&path, 16), after);
                }
            }
        }
    }
    assert_eq!(contents(&path)[..16], pattern(page())[..16]);
    assert_eq!(contents(&path)[24..], pattern(page())[24..]);
}

#[test]
fn words_are_refused_where_they_are_misaligned_outside_closed_or_not_permitted() {
    let scratch = Scratch::new();
    let path = scratch.file(page());
    let add = Update::Add(1);
    for wait in [Wait::Blocking, Wait::NonBlocking] {
        let handle = open_for(&path, Access::ReadWrite);
        let end = page() as u64;
        assert_eq!(handle.check_words(wait, 0, end / 8), Ok(()));
        assert_eq!(handle.check_words(wait, 4, 1), Err(INVALID));
        assert_eq!(
            handle.check_words(wait, 8, end / 8),
            Err(Error::OutOfBounds)
        );
        assert_eq!(
            handle.check_words(wait, 8, 1 << 61),
            Err(Error::OutOfBounds)
        );
        assert_eq!(handle.load(wait, end), Err(Error::OutOfBounds));
        assert_eq!(handle.load(wait, u64::MAX - 7), Err(Error::OutOfBounds));
        handle.update(Wait::Blocking, 0, add).unwrap(); // so that the page is ready
        assert_eq!(handle.load(wait, 4), Err(INVALID));
        assert_eq!(handle.update(wait, 4, add), Err(INVALID));
        assert_eq!(open_private(&path).check_words(wait, 0, 1), Err(INVALID));

        let reader = open_for(&path, Access::Read);
        assert_eq!(reader.update(wait, 0, add), Err(NO_ACCESS));
        assert_eq!(reader.fetch_update(wait, 0, add), Err(NO_ACCESS));
        let writer = open_for(&path, Access::Write);
        assert_eq!(writer.load(wait, 0), Err(NO_ACCESS));
        assert_eq!(writer.fetch_update(wait, 0, add), Err(NO_ACCESS));
        assert_eq!(writer.update(Wait::Blocking, 0, add), Ok(()));

        handle.close().unwrap();
        assert_eq!(handle.check_words(wait, 0, 1), Err(Error::Closed));
        assert_eq!(handle.load(wait, 0), Err(Error::Closed));
        assert_eq!(handle.update(wait, 0, add), Err(Error::Closed));
    }
}

#[test]
fn an_update_that_must_not_wait_waits_for_no_page_that_was_not_written() {
    // The first update of a page is for a thread that may wait; the next one is not. (A page in memory is enough on tmpfs, which the
    // directory of the build is not, where this machine has it.)
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, pattern(4 * page())).unwrap();
    let handle = open_for(&path, Access::ReadWrite);
    let update =
        |wait, number: usize| handle.update(wait, (number * page()) as u64, Update::Add(1));
    let first = update(Wait::NonBlocking, 2);
    assert!(matches!(first, Ok(()) | Err(Error::WouldBlock)));
    let before = word(&path, 2 * page());
    // It is ready for a moment, in which this thread may sleep.
    let mut made = 0;
    let ready = (0..100).any(|_| {
        assert_eq!(update(Wait::Blocking, 2), Ok(()));
        let ready = update(Wait::NonBlocking, 2).is_ok();
        made += 1 + u64::from(ready);
        ready
    });
    assert!(ready);
    assert_eq!(word(&path, 2 * page()), before + made);
    if first.is_err() {
        assert_eq!(update(Wait::NonBlocking, 3), Err(Error::WouldBlock));
        handle.sync(false).unwrap();
        assert_eq!(update(Wait::NonBlocking, 2), Err(Error::WouldBlock));
    }
}

#[test]
fn threads_that_add_to_one_word_through_two_handles_lose_none() {
    // Also while others write the bytes beside it, and the file grows.
    const THREADS: usize = 4;
    const TIMES: u64 = 100_000; // for longer than a thread takes to start
    let together = std::sync::Barrier::new(THREADS);
    let scratch = Scratch::new();
    let path = scratch.file(page());
    let handles = [(); 2].map(|()| open_for(&path, Access::ReadWrite));
    pwrite(&handles[0], 8, &[0; 8]).unwrap();
    let add = |handle: &AHandle| {
        together.wait();
        for _ in 0..TIMES {
            match handle.update(Wait::NonBlocking, 8, Update::Add(1)) {
                Err(refused) if refused.would_block() => {
                    handle.update(Wait::Blocking, 8, Update::Add(1))
                }
                updated => updated,
            }
            .unwrap();
        }
    };
    std::thread::scope(|scope| {
        for handle in handles.iter().cycle().take(THREADS) {
            scope.spawn(|| add(handle));
        }
        for size in 1..50 {
            pwrite(&handles[0], 0, &[size as u8; 8]).unwrap();
            handles[0].truncate((size * page()) as u64).unwrap();
        }
    });
    let sum = THREADS as u64 * TIMES;
    assert_eq!(word(&path, 8), sum);
    assert_eq!(handles[1].load(Wait::Blocking, 8), Ok(sum));
}

#[test]
fn a_word_of_a_page_that_is_gone_is_a_fault_and_works_again() {
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let path = scratch.file(4 * page());
        let handle = open_for(&path, Access::ReadWrite);
        let at = 3 * page();
        for round in 0..50 {
            assert!(fetch_update(&handle, at, Update::Exchange(7)).is_ok());
            set_size(&path, page());
            let swap = Update::CompareExchange {
                expected: 7,
                new: 8,
            };
            for wait in [Wait::NonBlocking, Wait::Blocking] {
                let tried = [
                    handle.load(wait, at as u64),
                    handle.update(wait, at as u64, Update::Add(1)).map(|()| 0),
                    handle.fetch_update(wait, at as u64, swap),
                ];
                // The page was ready a moment ago: mostly the access is made, and faults.
                let answers = |got| {
                    got == Err(Error::Fault)
                        || wait == Wait::NonBlocking && got == Err(Error::WouldBlock)
                };
                assert!(tried.into_iter().all(answers), "{round}: {tried:?}");
            }
            assert!(fetch_update(&handle, 0, Update::Add(1)).is_ok());
            assert!(!handle.info(Wait::Blocking).unwrap().faulted);
            set_size(&path, 4 * page());
            assert_eq!(fetch_update(&handle, at, Update::Add(1)), Ok(0));
        }
    });
}

#[test]
fn words_of_a_faulted_mapping_are_a_fault_until_it_is_remapped() {
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let path = scratch.file(4 * page());
        let handle = open_for(&path, Access::ReadWrite);
        let view = show(&handle, 0, 4 * page()).unwrap();
        set_size(&path, page());
        assert_eq!(view.byte(2 * page()), 0);
        assert_eq!(handle.load(Wait::Blocking, 0), Err(Error::Fault));
        assert_eq!(fetch_update(&handle, 0, Update::Add(1)), Err(Error::Fault));
        assert_eq!(contents(&path), pattern(page()), "nothing was added");
        handle.remap().unwrap();
        assert!(fetch_update(&handle, 0, Update::Add(1)).is_ok());
    });
}

#[test]
fn an_update_is_a_change_of_the_file() {
    // As a write: the time of modification is set when it is synced.
    let scratch = Scratch::new();
    let path = scratch.file(page());
    let handle = open(&path, Options::new(Access::ReadWrite)).unwrap();
    let long_ago = std::time::SystemTime::UNIX_EPOCH;
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    handle.load(Wait::Blocking, 0).unwrap();
    handle.sync(false).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().modified().unwrap(),
        long_ago
    );
    handle.update(Wait::Blocking, 0, Update::Add(1)).unwrap();
    handle.sync(false).unwrap();
    assert_ne!(
        std::fs::metadata(&path).unwrap().modified().unwrap(),
        long_ago
    );
}
