//! Windows of a file: where they are in memory, and what is known of their pages.

mod rig;

use iommap_core::{Access, Error, Options, Wait, Window};
use rig::{open, page, pattern, pread_as, pwrite_as, set_size, show, AHandle, Scratch};

fn window(path: &std::path::Path, offset: usize, length: Option<u64>) -> AHandle {
    let options = Options {
        window: Window {
            offset: offset as u64,
            length,
        },
        ..Options::new(Access::ReadWrite)
    };
    open(path, options).unwrap()
}

#[test]
fn the_length_of_a_window_is_what_the_file_has_of_it() {
    // At the edges of offset, length and file, without overflow.
    let of = |offset, length, size| Window { offset, length }.length_in(size);
    for (offset, length, size, expected) in [
        (0, None, 0, None),
        (0, None, 10, Some(10)),
        (9, None, 10, Some(1)),
        (10, None, 10, None),
        (u64::MAX, None, u64::MAX, None),
        (1, None, u64::MAX, Some(u64::MAX - 1)),
        (3, Some(0), 10, None),
        (3, Some(5), 10, Some(5)),
        (3, Some(u64::MAX), 10, Some(7)),
        (u64::MAX, Some(u64::MAX), 10, None),
    ] {
        assert_eq!(
            of(offset, length, size),
            expected,
            "{offset} {length:?} {size}"
        );
    }
}

#[test]
fn a_byte_of_a_window_lies_in_its_page_where_the_file_has_it() {
    // So that pages are mapped, synced and asked about as the file's.
    let scratch = Scratch::new();
    let path = scratch.file(10 * page());
    for offset in [0, 1, page() - 1, page(), 3 * page() + 5] {
        let handle = window(&path, offset, None);
        let view = show(&handle, 0, 1).unwrap();
        assert_eq!(view.address() % page(), offset % page());
        assert_eq!(view.byte(0), pattern(10 * page())[offset]);
    }
}

#[test]
fn pages_of_a_window_in_memory_are_read_and_written_without_waiting() {
    // One that begins at a page is read on the spot, as a whole file is; of another only writes are, and reads may have to wait.
    let scratch = Scratch::new();
    let path = scratch.file(10 * page());
    let bytes = pattern(10 * page());
    for (offset, past_the_end) in [
        (page(), Error::OutOfBounds),
        (1, Error::WouldBlock),
        (page() + 7, Error::WouldBlock),
    ] {
        let length = 6 * page() as u64;
        let handle = window(&path, offset, Some(length));
        let all = pread_as(&handle, Wait::Blocking, 0, length).unwrap();
        assert_eq!(all, bytes[offset..][..length as usize]);
        for at in [0, length / 2, length - 1] {
            let same = &all[at as usize..][..1];
            let expected = if offset % page() == 0 {
                Ok(same.to_vec())
            } else {
                Err(Error::WouldBlock)
            };
            assert_eq!(pread_as(&handle, Wait::NonBlocking, at, 1), expected);
            assert_eq!(pread_as(&handle, Wait::Blocking, at, 1), Ok(same.to_vec()));
            assert_eq!(pwrite_as(&handle, Wait::Blocking, at, same), Ok(()));
            assert_eq!(pwrite_as(&handle, Wait::NonBlocking, at, same), Ok(()));
        }
        let past = |wait| pread_as(&handle, wait, length, 1);
        assert_eq!(past(Wait::NonBlocking), Err(past_the_end));
        assert_eq!(past(Wait::Blocking), Err(Error::OutOfBounds));
    }
}

#[test]
fn a_window_grows_where_it_is() {
    // A view's address is the window's before and after; the bytes in between are the file's.
    let scratch = Scratch::new();
    let path = scratch.file(3 * page());
    let offset = page() + 100;
    let handle = window(&path, offset, Some(5 * page() as u64));
    let before = show(&handle, 0, 1).unwrap();
    for size in [3 * page() + 1, 4 * page(), 9 * page()] {
        std::fs::write(&path, pattern(size)).unwrap();
        set_size(&path, size);
        let shown = (size - offset).min(5 * page());
        assert_eq!(handle.remap(), Ok(shown));
        let after = show(&handle, 0, shown).unwrap();
        assert_eq!(after.address(), before.address());
        assert_eq!(after.bytes(), pattern(size)[offset..][..shown]);
    }
}
