//! Where a new file appears, when, and what is left when it does not: nothing.

#![cfg(target_os = "linux")] // limits, leases and refused calls are Linux's

mod rig;

use iommap_core::{Access, Error, Options};
use rig::{contents, in_its_own_process, open, page, pattern, pread, pwrite, Scratch};
use std::fs::Permissions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::path::Path;

const NO_ROOM: u64 = 1 << 30;

fn create(size: u64) -> Options {
    Options {
        create: true,
        size,
        ..Options::new(Access::ReadWrite)
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_that_cannot_be_mapped_is_what_it_was() {
    // No address space: none is made, also not through a link; the one that is there is neither emptied nor grown.
    if rig::lacking_in_qemu("RLIMIT_AS") {
        return;
    }
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let path = scratch.file(5000);
        let link = scratch.path().join("link");
        symlink("target", &link).unwrap();
        let before = rig::limit_address_space(512 << 20);
        let sized = Options {
            create: false,
            ..create(NO_ROOM)
        };
        let emptied = Options {
            truncate: true,
            ..sized
        };
        for (path, options) in [
            (&scratch.nothing(), create(NO_ROOM)),
            (&link, create(NO_ROOM)),
            (&path, create(NO_ROOM)),
            (&path, sized),
            (&path, emptied),
        ] {
            assert_eq!(open(path, options).err(), Some(Error::NO_MEMORY));
            assert_eq!(names(scratch.path()), ["file", "link"]);
            assert_eq!(contents(&scratch.path().join("file")), pattern(5000));
        }
        // SAFETY: sets a limit of this process.
        unsafe { libc::setrlimit(libc::RLIMIT_AS, &before) };
        assert!(open(&scratch.nothing(), create(5000)).is_ok());
    });
}

#[test]
fn a_file_beyond_the_size_limit_is_efbig_and_what_it_was() {
    // RLIMIT_FSIZE, where the system would send SIGXFSZ: making, growing, emptying, truncating.
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let path = scratch.file(5000);
        let handle = open(&path, Options::new(Access::ReadWrite)).unwrap();
        let before = rig::limit(libc::RLIMIT_FSIZE, 10_000);
        let too_big = Error::System(libc::EFBIG);
        let emptied = |size| Options {
            truncate: true,
            ..create(size)
        };
        assert_eq!(
            open(&scratch.nothing(), create(10_001)).err(),
            Some(too_big)
        );
        assert_eq!(open(&path, create(10_001)).err(), Some(too_big));
        assert_eq!(open(&path, emptied(10_001)).err(), Some(too_big));
        assert_eq!(handle.truncate(10_001), Err(too_big));
        assert_eq!(names(scratch.path()), ["file"]);
        assert_eq!(contents(&path), pattern(5000));
        assert_eq!(handle.truncate(10_000), Ok(()));
        assert!(open(&path, emptied(10_000)).is_ok());
        assert!(open(&scratch.nothing(), create(10_000)).is_ok());
        // SAFETY: sets a limit of this process, which may write a longer file when it ends: what it covered.
        unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &before) };
    });
}

#[test]
fn a_link_to_nothing_is_made_a_link_to_the_new_file() {
    // Relative, absolute, through other links and directories; as open(2) with O_CREAT does.
    let scratch = Scratch::new();
    let here = scratch.path();
    std::fs::create_dir_all(here.join("deep/er")).unwrap();
    symlink("target", here.join("relative")).unwrap();
    symlink(here.join("absolute-target"), here.join("absolute")).unwrap();
    symlink("deep/er/link", here.join("chain")).unwrap();
    symlink("../chained", here.join("deep/er/link")).unwrap();
    symlink("deep/er", here.join("directory")).unwrap();
    for (path, made) in [
        ("relative", "target"),
        ("absolute", "absolute-target"),
        ("chain", "deep/chained"),
        ("directory/in", "deep/er/in"),
        ("deep//er/./plain", "deep/er/plain"),
    ] {
        let made = here.join(made);
        assert!(!made.exists());
        let handle = open(&here.join(path), create(5000)).unwrap();
        pwrite(&handle, 0, b"here").unwrap();
        assert_eq!(&contents(&made)[..4], b"here", "{path}");
        assert_eq!(std::fs::metadata(&made).unwrap().nlink(), 1);
    }
    symlink("round", here.join("and")).unwrap();
    symlink("and", here.join("round")).unwrap();
    symlink("missing/target", here.join("lost")).unwrap();
    for (path, errno) in [
        ("round", libc::ELOOP),
        ("lost", libc::ENOENT),
        ("missing/file", libc::ENOENT),
        ("new/", libc::EISDIR),
        ("target/file", libc::ENOTDIR),
        (&"n".repeat(300), libc::ENAMETOOLONG),
        ("", libc::ENOENT),
    ] {
        let path = if path.is_empty() {
            Path::new("").to_owned()
        } else {
            here.join(path)
        };
        let before = names(here);
        let made = std::fs::File::create(&path).err().unwrap();
        assert_eq!(made.raw_os_error(), Some(errno), "{path:?}");
        assert_eq!(
            open(&path, create(5000)).err(),
            Some(Error::System(errno)),
            "{path:?}"
        );
        assert_eq!(names(here), before);
    }
}

#[test]
fn a_new_file_is_its_makers_under_the_umask_and_the_directorys_group() {
    // As open(2) would make it.
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let shared = scratch.path().join("shared");
        std::fs::create_dir(&shared).unwrap();
        std::fs::set_permissions(&shared, Permissions::from_mode(0o2775)).unwrap();
        for mask in [0o000, 0o022, 0o027, 0o077] {
            // SAFETY: changes the mask of this process.
            unsafe { libc::umask(mask) };
            let made = shared.join(format!("made-{mask}"));
            let expected = shared.join(format!("expected-{mask}"));
            let _handle = open(&made, create(5000)).unwrap();
            use std::os::unix::fs::OpenOptionsExt;
            std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o644)
                .open(&expected)
                .unwrap();
            let is = |path| {
                let metadata = std::fs::metadata(path).unwrap();
                (metadata.mode(), metadata.uid(), metadata.gid())
            };
            assert_eq!(is(&made), is(&expected));
            assert_eq!(is(&made).0 & 0o7777, 0o644 & !mask);
        }
    });
}

#[test]
fn a_name_that_another_takes_meanwhile_stays_the_others() {
    // A thousand files that are renamed to the path while it is opened to be made: each is there afterwards.
    let scratch = Scratch::new();
    let (path, mine) = (scratch.nothing(), scratch.path().join("mine"));
    for round in 0..1000_u64 {
        std::fs::write(&mine, round.to_ne_bytes()).unwrap();
        std::thread::scope(|scope| {
            let opening = scope.spawn(|| open(&path, create(1 << 16)).unwrap());
            std::fs::rename(&mine, &path).unwrap();
            // It is of whichever file had the name.
            assert_eq!(pread(&opening.join().unwrap(), 8, 1), Ok(vec![0]));
        });
        let now = contents(&path);
        assert_eq!(now[..8], round.to_ne_bytes());
        assert_eq!(names(scratch.path()), ["nothing"]);
        std::fs::remove_file(&path).unwrap();
    }
}

/// Makes a file, and fails to, where the system refuses these calls; the directory shows nothing else.
fn make_without(calls: &'static [(libc::c_long, u32, i32)]) {
    let scratch = Scratch::new();
    let link = scratch.path().join("link");
    symlink("target", &link).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            rig::refuse(calls);
            for (path, names_then) in [
                (scratch.nothing(), vec!["link", "nothing"]),
                (link, vec!["link", "nothing", "target"]),
            ] {
                let handle = open(&path, create(5000)).unwrap();
                assert_eq!(names(scratch.path()), names_then, "{calls:?}");
                pwrite(&handle, 0, &pattern(5000)).unwrap();
                assert_eq!(contents(&path), pattern(5000));
                assert_eq!(std::fs::metadata(&path).unwrap().nlink(), 1);
            }
            let failed = open(&scratch.path().join("failed"), create(1 << 62));
            assert!(failed.is_err());
        });
    });
    assert_eq!(names(scratch.path()), ["link", "nothing", "target"]);
}

const TMPFILE: u32 = 0o20_000_000;

#[test]
fn files_are_made_where_there_are_none_without_a_name() {
    // NFS and vfat, by a name of its own; where rename may only replace, by a link; where there is neither, in place.
    if rig::lacking_in_qemu("seccomp filters") {
        return;
    }
    let unnamed = (libc::SYS_openat, TMPFILE, libc::EOPNOTSUPP);
    let rename = (libc::SYS_renameat2, 0, libc::EINVAL);
    let link = (libc::SYS_linkat, 0, libc::EPERM);
    for calls in [
        vec![unnamed],
        vec![unnamed, rename],
        vec![unnamed, link],
        vec![unnamed, link, rename],
        // Without /proc an unprivileged process cannot link what has no name.
        vec![(libc::SYS_linkat, 0, libc::ENOENT)],
        vec![(libc::SYS_linkat, 0, libc::ENOENT), rename],
    ] {
        make_without(calls.leak());
    }
}

#[test]
fn a_new_file_is_called_by_its_name_in_proc() {
    // And not by that of a file that was deleted, though it had none when it was made.
    let scratch = Scratch::new();
    let path = scratch.nothing();
    let _handle = open(&path, create(page() as u64)).unwrap();
    let maps = rig::maps_of(&path);
    assert!(
        maps.len() == 1 && maps[0].ends_with(path.to_str().unwrap()),
        "{maps:?}"
    );
    let open_files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let links = open_files.flat_map(|entry| std::fs::read_link(entry.path()));
    assert_eq!(links.filter(|link| *link == path).count(), 1);
}

#[test]
fn a_leased_file_is_opened_once_the_lease_is_given_up() {
    // As open(2) waits for it; not answered eagain.
    in_its_own_process(|| {
        let scratch = Scratch::new();
        let path = scratch.file(5000);
        let leased = std::fs::File::open(&path).unwrap();
        let lease = |command, what: i32| {
            // SAFETY: asks for or about a lease of the file.
            let done = unsafe { libc::fcntl(leased.as_raw_fd(), command, what) };
            assert!(done >= 0, "{}", std::io::Error::last_os_error());
            done
        };
        // SAFETY: a signal that is to be broken is only asked for.
        unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
        for (kind, access) in [
            (libc::F_RDLCK, Access::ReadWrite),
            (libc::F_RDLCK, Access::Write),
        ] {
            lease(libc::F_SETLEASE, kind);
            std::thread::scope(|scope| {
                let opening = scope.spawn(|| open(&path, Options::new(access))?.close());
                rig::wait_until("the lease is asked for", || {
                    lease(libc::F_GETLEASE, 0) != kind || opening.is_finished()
                });
                assert!(!opening.is_finished());
                lease(libc::F_SETLEASE, libc::F_UNLCK);
                assert_eq!(opening.join().unwrap(), Ok(()));
            });
        }
    });
}
