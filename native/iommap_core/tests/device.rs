//! Devices: an open file with a position over a mapping that follows it.

mod rig;

use iommap_core::{Access, Data, Device, Error, Handle, OpenMode, View, Wait, Whence};
use rig::{contents, page, pattern, set_size, Scratch};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

type TestDevice = Device<View, Arc<Handle<View>>>;

fn device(path: &Path, access: Access) -> TestDevice {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mode = OpenMode {
        access,
        append: false,
        exclusive: false,
        sync: false,
    };
    Device::open(&path, mode).unwrap()
}

fn vector(length: usize) -> Option<Vec<u8>> {
    Some(vec![0; length])
}

fn pread(device: &TestDevice, offset: u64, length: u64) -> Result<Option<Vec<u8>>, Error> {
    device.pread(Wait::Blocking, offset, length, vector)
}

fn write(device: &TestDevice, bytes: &[u8]) -> Result<(), Error> {
    let segments = [bytes.into()];
    device.write(Wait::Blocking, Data::new(&segments).unwrap())
}

#[test]
fn an_empty_file_is_mapped_when_it_is_not_empty_any_more() {
    // A device on an empty file has nothing to read; what it writes is in the file at once, and is read without waiting.
    let scratch = Scratch::new();
    let path = scratch.nothing();
    let device = device(&path, Access::ReadWrite);
    assert_eq!(pread(&device, 0, 10), Ok(None));
    write(&device, &pattern(100)).unwrap();
    assert_eq!(contents(&path), pattern(100));
    assert_eq!(pread(&device, 0, 1000), Ok(Some(pattern(100))));
    let hot = device.pread(Wait::NonBlocking, 0, 100, vector);
    assert_eq!(hot, Ok(Some(pattern(100))));
}

#[test]
fn the_mapping_follows_a_write_inside_a_longer_file() {
    // What was appended is written in the mapping from the second time on, without waiting.
    let scratch = Scratch::new();
    let device = device(&scratch.nothing(), Access::ReadWrite);
    for _ in 0..10 {
        write(&device, &pattern(1000)).unwrap();
    }
    let segments = [(&b"hot"[..]).into()];
    let data = Data::new(&segments).unwrap();
    device.pwrite(Wait::Blocking, 9000, data).unwrap();
    device.pwrite(Wait::NonBlocking, 9000, data).unwrap();
    assert_eq!(&contents(&scratch.nothing())[9000..9003], b"hot");
}

#[test]
fn nothing_is_done_where_it_would_block() {
    // A write that makes the file longer, and a read of what another appended, do nothing unless they may wait.
    let scratch = Scratch::new();
    let path = scratch.file(100);
    let device = device(&path, Access::ReadWrite);
    let segments = [(&b"more"[..]).into()];
    let data = Data::new(&segments).unwrap();
    let written = device.pwrite(Wait::NonBlocking, 98, data);
    assert_eq!(written, Err(Error::WouldBlock));
    assert_eq!(contents(&path), pattern(100));
    set_size(&path, 200);
    let read = device.pread(Wait::NonBlocking, 90, 100, vector);
    assert_eq!(read, Err(Error::WouldBlock));
    assert_eq!(pread(&device, 150, 100), Ok(Some(vec![0; 50])));
}

#[test]
#[cfg(target_os = "linux")] // elsewhere RLIMIT_AS does not stop mmap(2)
fn a_file_that_cannot_be_mapped_yet_is_read_and_written_by_its_descriptor() {
    // No address space: the device reads and writes all the same, and maps the file as soon as there is room.
    if rig::lacking_in_qemu("RLIMIT_AS") {
        return;
    }
    rig::in_its_own_process(|| {
        let scratch = Scratch::new();
        let path = scratch.file(100);
        set_size(&path, 1 << 30);
        let before = rig::limit_address_space(512 << 20);
        let device = device(&path, Access::ReadWrite);
        assert_eq!(pread(&device, 0, 100), Ok(Some(pattern(100))));
        write(&device, b"mine").unwrap();
        let hot = device.pread(Wait::NonBlocking, 0, 4, vector);
        assert_eq!(hot, Err(Error::WouldBlock));
        // SAFETY: sets a limit of this process.
        unsafe { libc::setrlimit(libc::RLIMIT_AS, &before) };
        assert_eq!(pread(&device, 0, 4), Ok(Some(b"mine".to_vec())));
        let hot = device.pread(Wait::NonBlocking, 0, 4, vector);
        assert_eq!(hot, Ok(Some(b"mine".to_vec())));
    });
}

#[test]
fn stores_behind_the_end_of_a_cut_file_are_not_lost() {
    // The page that holds the end takes a store that the file never sees: such a write goes through the descriptor.
    let scratch = Scratch::new();
    let path = scratch.file(page());
    let device = device(&path, Access::ReadWrite);
    set_size(&path, 10);
    assert_eq!(pread(&device, 5, 100), Ok(Some(pattern(10)[5..].to_vec())));
    device.seek(Wait::Blocking, Whence::Start, 20).unwrap();
    write(&device, b"behind").unwrap();
    let expected = [&pattern(10)[..], &[0; 10], b"behind"].concat();
    assert_eq!(contents(&path), expected);
    assert_eq!(pread(&device, 0, 100), Ok(Some(expected)));
}

#[test]
fn a_closed_device_is_closed_for_all_that_use_it() {
    // Threads that read while a device is closed get their bytes or are told; then the descriptor is gone.
    let scratch = Scratch::new();
    let path = scratch.file(3 * page());
    let device = device(&path, Access::Read);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| loop {
                match pread(&device, 100, 1000) {
                    Ok(bytes) => assert_eq!(bytes.unwrap(), pattern(3 * page())[100..1100]),
                    Err(error) => return assert_eq!(error, Error::Closed),
                }
            });
        }
        std::thread::yield_now();
        device.close().unwrap();
    });
    assert_eq!(device.close(), Err(Error::Closed));
    assert_eq!(
        device.seek(Wait::Blocking, Whence::Current, 0),
        Err(Error::Closed)
    );
    assert_eq!(device.sync(false), Err(Error::Closed));
}

#[test]
fn every_line_is_read_once_by_one_thread() {
    // Threads that read lines of one device get each line once, whole.
    let scratch = Scratch::new();
    let lines: Vec<String> = (0..20_000).map(|line| format!("line {line}\n")).collect();
    std::fs::write(scratch.nothing(), lines.concat()).unwrap();
    let device = device(&scratch.nothing(), Access::Read);
    let read_all = || {
        let read = || device.read_line(Wait::Blocking, vector).unwrap();
        std::iter::from_fn(read).collect::<Vec<_>>()
    };
    let mut read: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4).map(|_| scope.spawn(read_all)).collect();
        let lines = readers.into_iter().map(|reader| reader.join().unwrap());
        lines.flatten().collect()
    });
    let mut expected: Vec<Vec<u8>> = lines.into_iter().map(String::into_bytes).collect();
    read.sort();
    expected.sort();
    assert!(read == expected);
}
