//! What a directory holds, and what this process has of it: names, identities, sizes, bytes, descriptors, memory.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The room that a file system may leave to a file beyond its bytes, in bytes: preallocation of its own; and what is not given
/// back where that could take an append's blocks.
fn slack(directory: &Path) -> u64 {
    const EXT4: u32 = 0xef53;
    let path = std::ffi::CString::new(directory.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: fills the buffer, of which all-zero is a valid value; the path ends with a NUL.
    let kind = unsafe {
        let mut status: libc::statfs = std::mem::zeroed();
        assert_eq!(libc::statfs(path.as_ptr(), &mut status), 0);
        status.f_type as u32
    };
    if kind == EXT4 {
        96 << 10
    } else {
        64 << 20
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    inode: u64,
    mode: u32,
    links: u64,
    bytes: Vec<u8>,
    room: u64,
}

/// A moment.
pub struct World {
    files: BTreeMap<String, Held>,
    descriptors: usize,
    mappings: Vec<String>,
    memory: usize,
}

impl World {
    pub fn of(directory: &Path) -> World {
        let (mappings, memory) = mapped(directory);
        World {
            files: files(directory),
            descriptors: descriptors(directory),
            mappings,
            memory,
        }
    }

    /// The address space of reservations that this process has, in KiB.
    pub fn memory() -> usize {
        mapped(Path::new("no directory")).1
    }

    /// What is not as it was.
    pub fn changed(&self, directory: &Path, unmapped: bool) -> Option<String> {
        let now = World::of(directory);
        let names = |world: &World| world.files.keys().cloned().collect::<Vec<_>>();
        if names(self) != names(&now) {
            return Some(format!(
                "the names are {:?} and were {:?}",
                names(&now),
                names(self)
            ));
        }
        for (was, is) in self.files.values().zip(now.files.values()) {
            if (was.inode, was.mode, was.links) != (is.inode, is.mode, is.links) {
                return Some("it is another file".to_owned());
            }
            if was.bytes != is.bytes {
                return Some(format!("the file {}", difference(&was.bytes, &is.bytes)));
            }
            if is.room > was.room + slack(directory) {
                return Some(format!(
                    "the file has room for {} bytes, and had {}",
                    is.room, was.room
                ));
            }
        }
        if self.descriptors != now.descriptors {
            return Some(format!(
                "{} descriptors were {}",
                now.descriptors, self.descriptors
            ));
        }
        if unmapped && (&self.mappings, self.memory) != (&now.mappings, now.memory) {
            return Some(format!(
                "{} KiB {:?} are mapped, and were {} KiB {:?}",
                now.memory, now.mappings, self.memory, self.mappings
            ));
        }
        None
    }

    /// What is left of the directory's files in this process, and how much more than so much memory it has. Some of it may
    /// go on another thread, in its time.
    pub fn left(directory: &Path, memory: Option<usize>) -> Option<String> {
        let begun = std::time::Instant::now();
        loop {
            // Looked at first, as it takes less than the address space, which the unmapping must have to itself.
            let mut left = (descriptors(directory), 0, 0);
            if let (0, Some(memory)) = (left.0, memory) {
                let (mappings, now) = mapped(directory);
                left = (0, mappings.len(), now.saturating_sub(memory));
            }
            if left == (0, 0, 0) {
                return None;
            }
            if begun.elapsed().as_secs() > 5 {
                return Some(format!(
                    "in the end (descriptors, mappings, more KiB) are {left:?}"
                ));
            }
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
    }
}

/// Where two contents differ.
pub fn difference(expected: &[u8], found: &[u8]) -> String {
    let at = expected
        .iter()
        .zip(found)
        .position(|(one, other)| one != other);
    match at {
        Some(at) => format!("has {} at {at} instead of {}", found[at], expected[at]),
        None => format!("has {} bytes instead of {}", found.len(), expected.len()),
    }
}

fn files(directory: &Path) -> BTreeMap<String, Held> {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    let held = entries.map(|entry| {
        let metadata = entry.metadata().unwrap();
        let held = Held {
            inode: metadata.ino(),
            mode: metadata.mode(),
            links: metadata.nlink(),
            bytes: std::fs::read(entry.path()).unwrap(),
            room: metadata.blocks() * 512,
        };
        (entry.file_name().into_string().unwrap(), held)
    });
    held.collect()
}

/// How many descriptors this process has of what is or was in the directory.
fn descriptors(directory: &Path) -> usize {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.starts_with(directory)).count()
}

/// What is mapped of it: permissions, offset and size. And the address space of reservations, in KiB: memory of no file that can
/// only be read, as threads and heaps have none.
fn mapped(directory: &Path) -> (Vec<String>, usize) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let name = directory.to_str().unwrap();
    let (mut mappings, mut memory) = (Vec::new(), 0);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (start, end) = words.next().unwrap().split_once('-').unwrap();
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        let size = number(end) - number(start);
        let (permissions, offset) = (words.next().unwrap(), words.next().unwrap());
        match words.nth(2) {
            Some(path) if path.starts_with(name) => {
                mappings.push(format!("{permissions} {offset} {size}"));
            }
            None if permissions == "r--p" => memory += size,
            _ => {}
        }
    }
    (mappings, memory >> 10)
}
