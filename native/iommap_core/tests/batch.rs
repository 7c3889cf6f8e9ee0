//! Several ranges in one call: checked all together, read and written in order.

mod rig;

use iommap_core::{Access, Data, Error, Segment, Span, Wait, NON_BLOCKING_MAX};
use rig::{contents, open_for, open_private, page, pattern, set_size, show, AHandle, Scratch};
use std::cell::Cell;

fn pread_all(handle: &AHandle, wait: Wait, spans: &[Span]) -> Result<Vec<Vec<u8>>, Error> {
    handle.pread_all(wait, spans, |length| Some(vec![0xaa; length]))
}

/// Writes one segment at each offset.
fn pwrite_all(handle: &AHandle, wait: Wait, writes: &[(u64, &[u8])]) -> Result<(), (usize, Error)> {
    let segments: Vec<[Segment; 1]> = writes.iter().map(|(_, bytes)| [(*bytes).into()]).collect();
    let data: Vec<(u64, Data)> = writes
        .iter()
        .zip(&segments)
        .map(|((offset, _), segment)| (*offset, Data::new(segment).unwrap()))
        .collect();
    handle.pwrite_all(wait, &data)
}

#[test]
fn every_range_is_checked_before_a_buffer_is_made() {
    // The last one, too; and a handle that is closed or may not read is told before a range.
    let scratch = Scratch::new();
    let path = scratch.file(1000);
    let handle = open_for(&path, Access::ReadWrite);
    let writer = open_for(&path, Access::Write);
    for past in [
        (1000, 1),
        (1001, 0),
        (u64::MAX, 1),
        (0, u64::MAX),
        (1, u64::MAX),
    ] {
        let made = Cell::new(0);
        let read = handle.pread_all(Wait::Blocking, &[(0, 10), past], |length| {
            made.set(made.get() + 1);
            Some(vec![0; length])
        });
        assert_eq!((read, made.get()), (Err(Error::OutOfBounds), 0), "{past:?}");
    }
    for wait in [Wait::Blocking, Wait::NonBlocking] {
        assert_eq!(
            pread_all(&handle, wait, &[(0, 1), (1001, 0)]),
            Err(Error::OutOfBounds)
        );
        assert_eq!(
            pread_all(&writer, wait, &[(0, 1001)]),
            Err(Error::NO_ACCESS)
        );
        assert_eq!(pread_all(&writer, wait, &[]), Err(Error::NO_ACCESS));
    }
    handle.close().unwrap();
    assert_eq!(pread_all(&handle, Wait::Blocking, &[]), Err(Error::Closed));
    let written = pwrite_all(&handle, Wait::Blocking, &[]);
    assert_eq!(written, Err((0, Error::Closed)));
}

#[test]
fn a_buffer_that_cannot_be_had_is_the_error_of_the_whole() {
    let scratch = Scratch::new();
    let handle = open_for(&scratch.file(1000), Access::Read);
    let refuse_second = || {
        let mut made = 0;
        move |length| {
            made += 1;
            (made < 2).then(|| vec![0u8; length])
        }
    };
    let read = handle.pread_all(Wait::Blocking, &[(0, 1), (1, 1), (2, 1)], refuse_second());
    assert_eq!(read, Err(Error::NO_MEMORY));
}

#[test]
fn what_must_not_wait_is_hot_and_short_altogether() {
    // One page that nobody has written, or a byte too many, and nothing is read or written.
    let scratch = Scratch::new();
    let size = NON_BLOCKING_MAX + page();
    let path = scratch.file(size);
    let handle = open_for(&path, Access::ReadWrite);
    let half = NON_BLOCKING_MAX as u64 / 2;
    assert!(pread_all(&handle, Wait::Blocking, &[(0, size as u64)]).is_ok());
    let read = pread_all(&handle, Wait::NonBlocking, &[(0, half), (half, half)]);
    assert_eq!(
        read.map(|read| read.concat()),
        Ok(pattern(size)[..NON_BLOCKING_MAX].to_vec())
    );
    let read = pread_all(&handle, Wait::NonBlocking, &[(0, half), (0, half + 1)]);
    assert_eq!(read, Err(Error::TooLong));

    let first: (u64, &[u8]) = (0, b"first");
    let far = (4 * page() as u64, &b"far"[..]);
    assert_eq!(pwrite_all(&handle, Wait::Blocking, &[first]), Ok(()));
    let written = pwrite_all(&handle, Wait::NonBlocking, &[(1, b"x"), far]);
    if written.is_err() {
        // Where the file is in memory alone, every page is ready.
        assert_eq!(written, Err((0, Error::WouldBlock)));
        assert_eq!(contents(&path)[..5], *b"first");
    }
    assert_eq!(pwrite_all(&handle, Wait::Blocking, &[far]), Ok(()));
    assert_eq!(
        pwrite_all(&handle, Wait::NonBlocking, &[first, far]),
        Ok(())
    );
}

#[test]
fn elements_are_written_in_order() {
    // To a shared mapping and to a private one; a later element wins.
    let scratch = Scratch::new();
    let path = scratch.file(2 * page());
    let edge = page() as u64 - 2;
    for handle in [open_private(&path), open_for(&path, Access::ReadWrite)] {
        let writes: &[(u64, &[u8])] = &[(edge, b"aaaa"), (edge + 1, b"bb"), (0, b""), (edge, b"c")];
        assert_eq!(pwrite_all(&handle, Wait::Blocking, writes), Ok(()));
        let read = pread_all(
            &handle,
            Wait::Blocking,
            &[(edge, 4), (edge + 4, 0), (edge - 1, 1)],
        );
        let before = pattern(2 * page())[page() - 3];
        assert_eq!(read, Ok(vec![b"cbba".to_vec(), vec![], vec![before]]));
    }
    assert_eq!(contents(&path)[page() - 2..page() + 2], *b"cbba");
}

#[test]
fn a_lost_page_fails_a_read_whole_and_a_write_where_it_stands() {
    let scratch = Scratch::new();
    let path = scratch.file(8 * page());
    let handle = open_for(&path, Access::ReadWrite);
    set_size(&path, 2 * page());
    let lost = 5 * page() as u64;
    let read = pread_all(&handle, Wait::Blocking, &[(0, 10), (lost, 1), (10, 10)]);
    assert_eq!(read, Err(Error::Fault));
    let writes: &[(u64, &[u8])] = &[(0, b"one"), (3, b"two"), (lost, b"lost"), (6, b"no")];
    let written = pwrite_all(&handle, Wait::Blocking, writes);
    assert_eq!(written, Err((2, Error::Fault)));
    let expected = pattern(8)[6..].to_vec();
    assert_eq!(contents(&path)[..8], *[&b"onetwo"[..], &expected].concat());
}

#[test]
fn a_faulted_mapping_refuses_even_nothing() {
    let scratch = Scratch::new();
    let path = scratch.file(4 * page());
    let handle = open_for(&path, Access::ReadWrite);
    let view = show(&handle, 0, 4 * page()).unwrap();
    set_size(&path, page());
    assert_eq!(view.byte(3 * page()), 0);
    for wait in [Wait::Blocking, Wait::NonBlocking] {
        assert_eq!(pread_all(&handle, wait, &[]), Err(Error::Fault));
        assert_eq!(pwrite_all(&handle, wait, &[]), Err((0, Error::Fault)));
    }
}

#[test]
fn long_writes_never_run_where_they_must_not_wait() {
    // However short each of them is: all together are at most NON_BLOCKING_MAX bytes.
    let scratch = Scratch::new();
    let half = NON_BLOCKING_MAX / 2;
    let handle = open_for(&scratch.file(2 * half), Access::ReadWrite);
    let (bytes, second) = (vec![1; half], half as u64);
    let write =
        |wait, more: &[u8]| pwrite_all(&handle, wait, &[(0, &bytes), (second, &bytes), (0, more)]);
    assert_eq!(write(Wait::Blocking, b"x"), Ok(()));
    assert_eq!(write(Wait::NonBlocking, b""), Ok(()));
    assert_eq!(write(Wait::NonBlocking, b"x"), Err((0, Error::TooLong)));
}

#[test]
#[cfg(target_os = "linux")]
fn a_batch_that_must_not_wait_asks_about_so_many_of_its_ranges_and_moves() {
    // Each is in another region of what the system is asked about at once. What it was asked is not asked again.
    const MOST: usize = 64;
    const REGION: usize = 32;
    let scratch = Scratch::new();
    let path = scratch.file((MOST + 1) * REGION * page());
    let spans: Vec<Span> = (0..=MOST)
        .map(|number| ((number * REGION * page()) as u64, 8))
        .collect();
    let handle = open_for(&path, Access::ReadWrite);
    assert_eq!(
        pread_all(&handle, Wait::NonBlocking, &spans),
        Err(Error::WouldBlock)
    );
    assert!(pread_all(&handle, Wait::NonBlocking, &spans).is_ok());
    let fresh = open_for(&path, Access::ReadWrite);
    assert!(pread_all(&fresh, Wait::NonBlocking, &spans[1..]).is_ok());
}
