//! The file's own tests.

use super::*;
use crate::options::Access;

fn file_in(directory: &str) -> BackingFile {
    let file = tempfile::tempfile_in(directory).unwrap();
    BackingFile::new(file, &Options::new(Access::ReadWrite)).unwrap()
}

#[test]
fn touching_sets_the_time_of_modification_and_no_other() {
    // On a tmpfs, where a mapping leaves it what it was.
    let file = file_in("/dev/shm");
    assert!(file.system().forgets_mtime);
    let times = || {
        let metadata = file.file.metadata().unwrap();
        (metadata.modified().unwrap(), metadata.accessed().unwrap())
    };
    let long_ago = std::time::SystemTime::UNIX_EPOCH;
    let old = std::fs::FileTimes::new()
        .set_modified(long_ago)
        .set_accessed(long_ago);
    file.file.set_times(old).unwrap();
    assert_eq!(times(), (long_ago, long_ago));
    file.touch();
    assert!(times().0 > long_ago);
    assert_eq!(times().1, long_ago);
}

#[test]
fn a_file_is_surely_as_long_only_as_it_is_whatever_its_size_and_position() {
    const GIB: u64 = 1 << 30;
    for directory in [std::env::temp_dir().to_str().unwrap(), "/dev/shm"] {
        for size in [
            0,
            1,
            4096,
            4097,
            2 * GIB - 1,
            2 * GIB,
            3 * GIB,
            4 * GIB,
            4 * GIB + 5,
            9 * GIB,
        ] {
            let mut file = file_in(directory);
            file.file.set_len(size).unwrap();
            for end in [
                1,
                4096,
                GIB,
                2 * GIB - 1,
                2 * GIB,
                4 * GIB,
                4 * GIB + 5,
                9 * GIB + 1,
            ] {
                let surely = file.is_surely_as_long_as(end);
                assert!(!surely || end <= size, "{size} {end}");
                assert!(surely || end > size || size >= 2 * GIB, "{size} {end}");
            }
            // The position of a descriptor that is another's, too, may be anywhere, and would be counted from.
            std::io::Seek::seek(&mut &file.file, std::io::SeekFrom::Start(size + 3 * GIB)).unwrap();
            assert!(
                system::is_surely_as_long_as(file.fd(), 1),
                "what this is for"
            );
            file = file.with_shared_position();
            assert!(!file.is_surely_as_long_as(1));
        }
    }
}

#[test]
fn memory_that_cannot_shrink_is_known_to_be_as_long_as_it_was() {
    let options = Options::new(Access::ReadWrite);
    let memory = BackingFile::anonymous(100, &options).unwrap();
    assert!(memory.never_shrinks);
    assert!(memory.is_surely_as_long_as(u64::MAX), "nobody asks");
    assert!(!file_in("/dev/shm").never_shrinks);
}

#[test]
fn a_descriptor_that_appends_is_grown_without_a_write() {
    // pwrite(2) would append, whatever offset it is given: zeros are refused, and the last byte is set by the size.
    use std::os::unix::fs::FileExt;
    let scratch = tempfile::NamedTempFile::new().unwrap();
    scratch.as_file().write_all_at(b"kept", 0).unwrap();
    let appending = std::fs::OpenOptions::new()
        .read(true)
        .append(true)
        .open(scratch.path())
        .unwrap();
    let fd = appending.as_raw_fd();
    assert_eq!(system::write_zeros(fd, 0, 2), Err(Error::INVALID));
    assert_eq!(system::write_last_byte(fd, 10), Ok(()));
    assert_eq!(std::fs::read(scratch.path()).unwrap(), b"kept\0\0\0\0\0\0");
}

#[test]
fn preallocating_leaves_the_size_and_growing_never_sets_it_down() {
    // On a disk and in memory; to the end of a page, beyond it, far beyond it; nothing, and others' appends, in between.
    for directory in [std::env::temp_dir().to_str().unwrap(), "/dev/shm"] {
        for (from, to, appended) in [(0, 1, 0), (5000, 5001, 0), (1, 100_000, 0), (5000, 4000, 0)]
            .into_iter()
            .chain([(5000, 5001, 10), (1, 100_000, 5000), (1, 100_000, 200_000)])
        {
            let file = file_in(directory);
            file.file.set_len(from).unwrap();
            let preallocation = file.preallocate(to).unwrap();
            assert_eq!(file.size(), Ok(from));
            if appended > 0 {
                file.file.set_len(from + appended).unwrap();
            }
            preallocation.grow().unwrap();
            assert_eq!(file.size(), Ok(to.max(from + appended)), "{from} {to}");
            if appended == 0 && from == 1 {
                assert!(file.file.metadata().unwrap().blocks() * 512 >= to);
            }
        }
    }
}

#[test]
fn blocks_that_were_preallocated_for_nothing_are_given_back() {
    // All but those that an append may have reached meanwhile: 64 MiB, where the system does not look for itself.
    const KEPT: u64 = 65 << 20;
    let file = file_in(std::env::temp_dir().to_str().unwrap());
    file.preallocate(5000).unwrap().grow().unwrap();
    let bytes = || file.file.metadata().unwrap().blocks() * 512;
    let before = bytes();
    let preallocation = match file.preallocate(3 * KEPT) {
        Err(Error::System(libc::ENOSPC)) => return eprintln!("Skipped: no room for 200 MB"),
        preallocation => preallocation.unwrap(),
    };
    if bytes() < 3 * KEPT {
        return eprintln!("Skipped: nothing is preallocated on this file system");
    }
    drop(preallocation);
    assert_eq!(file.size(), Ok(5000));
    assert!(bytes() <= before + KEPT, "{}", bytes());
}
