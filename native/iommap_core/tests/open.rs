//! Opening: what the file is before and after, for every combination of options.

mod rig;

use iommap_core::{Access, Error, Options};
use rig::{contents, open, pattern, pread, pwrite, Scratch};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};

const EXISTS: Error = Error::System(libc::EEXIST);

/// What an open must do to a file of the size `before` (`None`: there is none), by the contract: the new size, or why
/// not.
fn expected(before: Option<u64>, options: &Options) -> Result<u64, Error> {
    let reads = options.access == Access::Read;
    if reads && (options.create || options.truncate) {
        return Err(Error::INVALID);
    }
    let now = match before {
        Some(size) => size,
        None if options.create => 0,
        None => return Err(Error::System(libc::ENOENT)),
    };
    let after = if options.truncate {
        options.size
    } else {
        options.size.max(now)
    };
    match after {
        0 => Err(Error::INVALID),
        after if reads && after > now => Err(Error::INVALID),
        after => Ok(after),
    }
}

#[test]
fn every_combination_of_options_leaves_the_file_as_the_contract_says() {
    // 3 modes, 2 sharings, create, truncate, 4 sizes, 4 files: the answer, and the file's size and bytes afterwards.
    let mut tried = 0;
    for access in [Access::Read, Access::Write, Access::ReadWrite] {
        for bits in 0..8 {
            for size in [0, 1, 5000, 20_000] {
                for before in [None, Some(0), Some(1), Some(5000)] {
                    let (private, create, truncate) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
                    let mut options = Options::new(access);
                    (options.private, options.create) = (private, create);
                    (options.truncate, options.size) = (truncate, size);
                    try_combination(before, options);
                    tried += 1;
                }
            }
        }
    }
    assert_eq!(tried, 3 * 8 * 4 * 4);
}

fn try_combination(before: Option<u64>, options: Options) {
    let scratch = Scratch::new();
    let path = match before {
        Some(size) => scratch.file(size as usize),
        None => scratch.nothing(),
    };
    let old = before.map(|size| pattern(size as usize));
    let opened = open(&path, options);
    match expected(before, &options) {
        Ok(size) => {
            let handle = opened.unwrap_or_else(|error| panic!("{before:?} {options:?}: {error}"));
            let mut bytes = if options.truncate {
                vec![]
            } else {
                old.unwrap_or_default()
            };
            bytes.resize(size as usize, 0);
            assert_eq!(contents(&path), bytes, "{before:?} {options:?}");
            if options.access.reads() {
                assert_eq!(pread(&handle, 0, size as usize), Ok(bytes));
            }
        }
        Err(error) => {
            assert_eq!(opened.err(), Some(error), "{before:?} {options:?}");
            let now = path.exists().then(|| contents(&path));
            assert_eq!(now, old, "{before:?} {options:?}");
        }
    }
}

#[test]
fn what_is_not_a_regular_file_is_refused_without_waiting() {
    // A directory, a FIFO without a writer, a character device, a socket.
    let scratch = Scratch::new();
    let fifo = scratch.path().join("fifo");
    let made = std::process::Command::new("mkfifo")
        .arg(&fifo)
        .status()
        .unwrap();
    assert!(made.success() && std::fs::metadata(&fifo).unwrap().file_type().is_fifo());
    let socket = scratch.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();

    let refused = |path: &std::path::Path, access| open(path, Options::new(access)).err();
    assert_eq!(
        refused(scratch.path(), Access::Read),
        Some(Error::System(libc::EISDIR))
    );
    assert_eq!(
        refused(scratch.path(), Access::ReadWrite),
        Some(Error::System(libc::EISDIR))
    );
    for path in [&fifo, &socket, &"/dev/null".into()] {
        for access in [Access::Read, Access::ReadWrite] {
            assert_eq!(refused(path, access), Some(Error::INVALID), "{path:?}");
        }
    }
}

#[test]
#[cfg(target_os = "linux")] // /proc tells what is open
fn the_descriptor_is_closed_on_exec() {
    // A program started while a handle is open does not get the file.
    let scratch = Scratch::new();
    let path = scratch.file(10);
    let _handle = rig::open_for(&path, Access::ReadWrite);
    let listed = std::process::Command::new("ls")
        .args(["-l", "/proc/self/fd"])
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(!listed.contains(path.to_str().unwrap()), "{listed}");
}

#[test]
fn a_size_that_memory_cannot_have_is_efbig_and_nothing_changes() {
    // 2^63 and beyond.
    let scratch = Scratch::new();
    let path = scratch.file(10);
    for size in [1 << 63, u64::MAX] {
        let options = Options {
            size,
            ..Options::new(Access::ReadWrite)
        };
        assert_eq!(open(&path, options).err(), Some(Error::System(libc::EFBIG)));
        let options = Options {
            truncate: true,
            ..options
        };
        assert_eq!(open(&path, options).err(), Some(Error::System(libc::EFBIG)));
        assert_eq!(contents(&path), pattern(10));
        let options = Options {
            create: true,
            ..options
        };
        assert!(open(&scratch.nothing(), options).is_err());
        assert!(!scratch.nothing().exists());
    }
    assert_ne!(open(&path, Options::new(Access::Read)).err(), Some(EXISTS));
}

#[test]
fn a_created_file_obeys_the_umask() {
    // Mode 0644, less what the umask forbids: the test's own is not touched, so it is asked for.
    let scratch = Scratch::new();
    let options = Options {
        create: true,
        size: 1,
        ..Options::new(Access::ReadWrite)
    };
    open(&scratch.nothing(), options).unwrap();
    let mode = std::fs::metadata(scratch.nothing())
        .unwrap()
        .permissions()
        .mode()
        & 0o777;
    std::fs::write(scratch.path().join("other"), "").unwrap();
    let other = std::fs::metadata(scratch.path().join("other"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode, other & 0o644);
}

#[test]
fn the_mode_decides_what_a_handle_may_do_and_memory_is_as_read_only_as_it() {
    // Read: no writing, and the pages refuse it too. Write: no reading.
    let scratch = Scratch::new();
    let path = scratch.file(5000);
    let reading = rig::open_for(&path, Access::Read);
    assert_eq!(pwrite(&reading, 0, b"x"), Err(Error::NO_ACCESS));
    assert_eq!(reading.truncate(1), Err(Error::NO_ACCESS));
    #[cfg(target_os = "linux")] // /proc tells how it is mapped
    assert!(rig::maps_of(&path).iter().all(|line| line.contains("r--s")));
    drop(reading);

    let writing = rig::open_for(&path, Access::Write);
    assert_eq!(pread(&writing, 0, 1), Err(Error::NO_ACCESS));
    assert_eq!(rig::show(&writing, 0, 1).err(), Some(Error::NO_ACCESS));
    assert_eq!(pwrite(&writing, 4999, b"x"), Ok(()));
    assert_eq!(contents(&path)[4999], b'x');
}

#[test]
fn a_file_with_holes_that_cannot_be_emptied_and_grown_keeps_its_bytes() {
    // The disk has no room for what the file should be, though the file says that it is longer.
    rig::in_its_own_process(|| {
        let Some(disk) = rig::small_disk(1 << 20) else {
            return;
        };
        let path = disk.path().join("holes");
        std::fs::write(&path, pattern(5000)).unwrap();
        rig::set_size(&path, 1 << 23);
        let options = Options {
            truncate: true,
            size: 1 << 22,
            ..Options::new(Access::ReadWrite)
        };
        let refused = open(&path, options).err();
        assert_eq!(refused, Some(Error::System(libc::ENOSPC)));
        assert_eq!(contents(&path)[..5000], pattern(5000));
    });
}

#[test]
fn a_file_that_the_disk_has_no_room_for_is_as_it_was() {
    // On a full file system: no new file stays behind, and an old one keeps its bytes, also if it should be emptied.
    rig::in_its_own_process(|| {
        let Some(disk) = rig::small_disk(1 << 20) else {
            return;
        };
        let options = Options {
            size: 1 << 22,
            ..Options::new(Access::ReadWrite)
        };
        let creating = Options {
            create: true,
            ..options
        };
        let new = disk.path().join("new");
        assert_eq!(
            open(&new, creating).err(),
            Some(Error::System(libc::ENOSPC))
        );
        assert!(!new.exists());

        let old = disk.path().join("old");
        std::fs::write(&old, pattern(5000)).unwrap();
        for options in [
            options,
            Options {
                truncate: true,
                ..options
            },
        ] {
            assert_eq!(open(&old, options).err(), Some(Error::System(libc::ENOSPC)));
            assert_eq!(contents(&old), pattern(5000));
        }
    });
}
