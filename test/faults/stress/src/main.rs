//! The core's threads at work, without a VM: readers, writers, resizers, closers and a truncator on shared
//! handles, every answer checked. For the sanitizers, which see what no answer shows.
//!
//!     stress SECONDS [whole]
//!
//! `whole`: no file is truncated, for a sanitizer that blocks all signals in a handler and so cannot follow our
//! jump out of it.

use iommap_core::{intact, Access, Data, Error, Handle, Options, Region, View, Wait};
use parking_lot::Mutex;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const SIZE: usize = 64 * 4096;

type Shared = Handle<Arc<View>>;

/// The pattern of `external_writer.c`: never zero.
fn pattern(offset: usize) -> u8 {
    ((offset ^ (offset >> 8) ^ (offset >> 16)) % 255 + 1) as u8
}

fn bytes(offset: usize, length: usize) -> Vec<u8> {
    (offset..offset + length).map(pattern).collect()
}

/// Numbers enough for a test: xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn range(&mut self, size: usize) -> (usize, usize) {
        let offset = self.below(size);
        (offset, 1 + self.below((size - offset).min(5000)))
    }
}

fn open(path: &Path, options: Options) -> Shared {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    Handle::open(&path, options).unwrap()
}

/// Reads as the library does: without waiting first, and again if that will not do.
fn pread(handle: &Shared, offset: usize, length: usize) -> Result<Vec<u8>, Error> {
    let buffer = |length| Some(vec![0; length]);
    let read = |wait| handle.pread(wait, offset as u64, length as u64, buffer);
    match read(Wait::NonBlocking) {
        Err(error) if error.would_block() => read(Wait::Blocking),
        done => done,
    }
}

fn pwrite(handle: &Shared, offset: usize, data: &[u8]) -> Result<(), Error> {
    let (first, second) = data.split_at(data.len() / 2);
    let segments = [first.into(), second.into()];
    let data = Data::new(&segments).ok_or(Error::OutOfBounds)?;
    let write = |wait| handle.pwrite(wait, offset as u64, data);
    match write(Wait::NonBlocking) {
        Err(error) if error.would_block() => write(Wait::Blocking),
        done => done,
    }
}

/// A range as a view shows it: what keeps it alive, and where it is.
fn region(handle: &Shared, offset: usize, length: usize) -> Result<(Arc<View>, usize), Error> {
    let show = |region: Region<'_, Arc<View>>| (region.keeper().clone(), region.address() as usize);
    handle.region(Wait::Blocking, offset as u64, length as u64, show)
}

/// What the other threads of the process see of a view, as a NIF of another library would read it.
fn look(address: usize, length: usize) -> Vec<u8> {
    // SAFETY: the caller holds the view; pages that are lost are replaced by the handler.
    (0..length)
        .map(|index| unsafe { ((address + index) as *const u8).read_volatile() })
        .collect()
}

// What each thread does over and over.

fn read(handle: &Shared, random: &mut Random) {
    let (offset, length) = random.range(SIZE);
    assert_eq!(
        pread(handle, offset, length).unwrap(),
        bytes(offset, length)
    );
}

fn write(handle: &Shared, random: &mut Random) {
    let (offset, length) = random.range(SIZE);
    pwrite(handle, offset, &bytes(offset, length)).unwrap();
    if random.below(50) == 0 {
        handle.sync(random.below(2) == 0).unwrap();
    }
}

fn view(handle: &Shared, random: &mut Random) {
    let (offset, length) = random.range(SIZE);
    let (_view, address) = region(handle, offset, length).unwrap();
    assert_eq!(look(address, length), bytes(offset, length));
    assert_eq!(intact(address, length), Some(true));
}

/// The file is cut and grown back all the time, and never holds a zero.
fn read_truncated(handle: &Shared, random: &mut Random) {
    let (offset, length) = random.range(SIZE);
    match pread(handle, offset, length) {
        Ok(copy) => assert_eq!(copy, bytes(offset, length)),
        Err(error) => assert!(
            matches!(error, Error::Fault | Error::OutOfBounds),
            "{error:?}"
        ),
    }
    match region(handle, offset, length) {
        Ok((_view, address)) => {
            let seen = look(address, length);
            if intact(address, length) == Some(true) {
                assert_eq!(seen, bytes(offset, length));
            }
        }
        Err(_) => {
            let _ = handle.remap();
        }
    }
}

fn truncate(file: &File, random: &mut Random) {
    use std::os::unix::fs::FileExt;
    let left = random.below(SIZE / 4096) * 4096;
    file.set_len(left as u64).unwrap();
    for page in (left..SIZE).step_by(4096) {
        file.write_all_at(&bytes(page, 4096), page as u64).unwrap();
    }
}

fn resize(handle: &Shared, random: &mut Random) {
    let size = 4096 + random.below(SIZE);
    handle.truncate(size as u64).unwrap();
    // Others resize the same handle.
    match pwrite(handle, 0, &bytes(0, 100)) {
        Ok(()) => assert_eq!(pread(handle, 0, 100).unwrap(), bytes(0, 100)),
        Err(error) => panic!("{error:?}"),
    }
}

/// Handles come and go while others read them.
fn reopen(place: &Mutex<Arc<Shared>>, path: &Path) {
    let new = Arc::new(open(path, Options::new(Access::Read)));
    let old = std::mem::replace(&mut *place.lock(), new);
    old.close().unwrap();
    assert_eq!(old.close(), Err(Error::Closed));
}

fn read_reopened(place: &Mutex<Arc<Shared>>, random: &mut Random) {
    let handle = place.lock().clone();
    let (offset, length) = random.range(SIZE);
    match pread(&handle, offset, length) {
        Ok(copy) => assert_eq!(copy, bytes(offset, length)),
        Err(error) => assert_eq!(error, Error::Closed),
    }
}

struct Directory(PathBuf);

impl Directory {
    fn file(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes(0, SIZE)).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments
        .next()
        .map_or(10, |argument| argument.parse().unwrap());
    let whole = arguments.next().is_some_and(|argument| argument == "whole");
    let directory =
        Directory(std::env::temp_dir().join(format!("iommap-stress-{}", std::process::id())));
    fs::create_dir(&directory.0).unwrap();

    let well_path = directory.file("well");
    let well = &open(&well_path, Options::new(Access::ReadWrite));
    let read_only = &open(&directory.file("read-only"), Options::new(Access::Read));
    let private = &open(
        &directory.file("private"),
        Options {
            private: true,
            ..Options::new(Access::ReadWrite)
        },
    );
    let victim_path = directory.file("victim");
    let victim = &open(&victim_path, Options::new(Access::ReadWrite));
    let resized = &open(&directory.file("resized"), Options::new(Access::ReadWrite));
    let reopened_path = &directory.file("reopened");
    let reopened = &Mutex::new(Arc::new(open(reopened_path, Options::new(Access::Read))));
    let file = &File::options().write(true).open(&victim_path).unwrap();

    type Role<'a> = Box<dyn FnMut(&mut Random) + Send + 'a>;
    let roles: Vec<Role> = vec![
        Box::new(|random| read(well, random)),
        Box::new(|random| read(well, random)),
        Box::new(|random| write(well, random)),
        Box::new(|random| view(read_only, random)),
        Box::new(|random| read(private, random)),
        Box::new(|random| write(private, random)),
        Box::new(|random| read_truncated(victim, random)),
        Box::new(|random| read_truncated(victim, random)),
        Box::new(|random| {
            if whole {
                read(victim, random)
            } else {
                truncate(file, random)
            }
        }),
        Box::new(|random| resize(resized, random)),
        Box::new(|random| resize(resized, random)),
        Box::new(|_| reopen(reopened, reopened_path)),
        Box::new(|random| read_reopened(reopened, random)),
        Box::new(|random| read_reopened(reopened, random)),
    ];
    let enough = &AtomicBool::new(false);
    let counts: Vec<u64> = thread::scope(|scope| {
        let threads: Vec<_> = roles
            .into_iter()
            .enumerate()
            .map(|(number, mut step)| {
                scope.spawn(move || {
                    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1));
                    let mut count = 0;
                    while !enough.load(Ordering::Relaxed) {
                        step(&mut random);
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        // A thread that panics ends everything at the end of its join; until then the others go on.
        for _ in 0..10 * seconds {
            thread::sleep(Duration::from_millis(100));
            if threads.iter().any(|thread| thread.is_finished()) {
                break;
            }
        }
        enough.store(true, Ordering::Relaxed);
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    println!("stress: {seconds} seconds, {counts:?} steps, every answer right");
}
