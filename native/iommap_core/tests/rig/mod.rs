//! Real files, handles on them, and OS processes of one test's own.

#![allow(dead_code)] // each test uses a part of it

use iommap_core::{Access, Data, Error, Handle, Options, Segment, View, Wait};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

/// The page size.
pub fn page() -> usize {
    iommap_core::page_size()
}

/// A directory of the test's own, gone with it.
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn new() -> Scratch {
        Scratch(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A path in it, of nothing yet.
    pub fn nothing(&self) -> PathBuf {
        self.0.path().join("nothing")
    }

    /// A file of so many bytes, all different enough.
    pub fn file(&self, size: usize) -> PathBuf {
        let path = self.0.path().join("file");
        std::fs::write(&path, pattern(size)).unwrap();
        path
    }
}

/// Bytes of which no two pages are alike, however large a page is, and none is 0.
pub fn pattern(size: usize) -> Vec<u8> {
    (0..size)
        .map(|index| ((index + index / 4096) % 251 + 1) as u8)
        .collect()
}

/// What the file holds, asked by `read(2)`.
pub fn contents(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

/// Changes the file's size through a descriptor that has nothing to do with any handle.
pub fn set_size(path: &Path, size: usize) {
    OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(size as u64)
        .unwrap();
}

/// Changes the file's size in another OS process.
pub fn truncated_by_another_process(path: &Path, size: usize) {
    let status = Command::new("truncate")
        .arg("-s")
        .arg(size.to_string())
        .arg(path)
        .status();
    assert!(status.unwrap().success());
}

/// A handle whose views hold the mapping as the VM's do.
pub type AHandle = Handle<Arc<View>>;

pub fn open(path: &Path, options: Options) -> Result<AHandle, Error> {
    Handle::open(&CString::new(path.as_os_str().as_bytes()).unwrap(), options)
}

pub fn open_for(path: &Path, access: Access) -> AHandle {
    open(path, Options::new(access)).unwrap()
}

/// A private mapping, to read and write.
pub fn open_private(path: &Path) -> AHandle {
    let options = Options {
        private: true,
        ..Options::new(Access::ReadWrite)
    };
    open(path, options).unwrap()
}

pub fn pread_as(handle: &AHandle, wait: Wait, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
    handle.pread(wait, offset, length, |length| Some(vec![0xaa; length]))
}

pub fn pread(handle: &AHandle, offset: usize, length: usize) -> Result<Vec<u8>, Error> {
    pread_as(handle, Wait::Blocking, offset as u64, length as u64)
}

pub fn pwrite_as(handle: &AHandle, wait: Wait, offset: u64, bytes: &[u8]) -> Result<(), Error> {
    handle.pwrite(wait, offset, Data::new(&[bytes.into()]).unwrap())
}

pub fn pwrite_segments(handle: &AHandle, offset: usize, segments: &[Segment]) -> Result<(), Error> {
    handle.pwrite(Wait::Blocking, offset as u64, Data::new(segments).unwrap())
}

pub fn pwrite(handle: &AHandle, offset: usize, bytes: &[u8]) -> Result<(), Error> {
    pwrite_as(handle, Wait::Blocking, offset as u64, bytes)
}

/// A zero-copy binary, as the VM would hold it.
pub struct Shown {
    _alive: Arc<View>,
    address: usize,
    length: usize,
}

/// The view of a range.
pub fn show(handle: &AHandle, offset: usize, length: usize) -> Result<Shown, Error> {
    handle.region(Wait::Blocking, offset as u64, length as u64, |region| {
        Shown {
            _alive: region.keeper().clone(),
            address: region.address() as usize,
            length: region.length(),
        }
    })
}

impl Shown {
    pub fn segment(&self) -> Segment<'_> {
        // SAFETY: the mapping is kept alive.
        unsafe { Segment::new(self.address as *const u8, self.length) }
    }

    pub fn address(&self) -> usize {
        self.address
    }

    /// The byte at an offset, read as foreign code would: by a plain access outside any guard.
    pub fn byte(&self, offset: usize) -> u8 {
        assert!(offset < self.length);
        // SAFETY: the mapping is kept alive; the byte may change at any time, so it is read as volatile.
        unsafe { std::ptr::read_volatile((self.address + offset) as *const u8) }
    }

    pub fn bytes(&self) -> Vec<u8> {
        (0..self.length).map(|offset| self.byte(offset)).collect()
    }

    /// What `intact` says of a part of it.
    pub fn intact(&self, offset: usize, length: usize) -> Option<bool> {
        iommap_core::intact(self.address + offset, length)
    }
}

/// Waits until something holds that other threads or the kernel bring about.
pub fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(
            begun.elapsed().as_secs() < 30,
            "waited in vain until {what}"
        );
        std::thread::yield_now();
    }
}

/// A line of /proc/self/maps for each piece of address space that names the file.
#[cfg(target_os = "linux")]
pub fn maps_of(path: &Path) -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let name = path.to_str().unwrap();
    maps.lines()
        .filter(|line| line.contains(name))
        .map(str::to_owned)
        .collect()
}

/// While it is kept, nobody else on this machine, in whichever root file system, changes a limit that all have in common, or needs
/// it to stay. The suites of Common Test take the same lock.
#[cfg(target_os = "linux")]
pub fn alone() -> Option<File> {
    // SAFETY: asks who we are.
    let user = unsafe { libc::getuid() };
    let path = format!("/dev/shm/iommap-tests-{user}.lock");
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .ok()?;
    // SAFETY: the descriptor is the file's.
    let status = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) };
    assert_eq!(status, 0);
    Some(file)
}

const INSIDE: &str = "IOMMAP_TEST_INSIDE";

/// Runs a test in an OS process of its own, so that its signal handlers and limits are nobody else's.
pub fn in_its_own_process<F: FnOnce()>(body: F) {
    if let Some(output) = in_another_process(body) {
        let said = String::from_utf8_lossy(&output.stdout);
        let passed = output.status.success() && said.contains("1 passed");
        assert!(
            passed,
            "{}\n{said}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        std::io::stderr().write_all(&output.stderr).unwrap();
    }
}

/// Runs something that ends its process by that signal.
pub fn ends_by<F: FnOnce()>(signal: i32, body: F) {
    if let Some(output) = in_another_process(body) {
        assert_eq!(output.status.signal(), Some(signal), "{:?}", output.status);
    }
}

/// Nothing in the other process. The test's name is in the type's name of its body.
fn in_another_process<F: FnOnce()>(body: F) -> Option<Output> {
    let name = std::any::type_name::<F>().trim_end_matches("::{{closure}}");
    let (_, name) = name.split_once("::").unwrap();
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == name) {
        body();
        std::io::stdout().flush().unwrap();
        return None;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, name)
        .output();
    Some(output.unwrap())
}

/// Whether qemu's user emulation runs this process, and the test needs what that lacks: then it says so.
pub fn lacking_in_qemu(what: &str) -> bool {
    // The one name of the program that qemu does not replace.
    let program = std::fs::read_link("/proc/thread-self/exe").unwrap_or_default();
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let emulated = name.starts_with("qemu-");
    if emulated {
        skip(&format!("qemu's user emulation has no {what}"));
    }
    emulated
}

/// Says why a test does nothing, past the harness, which shows what is printed by failed tests only.
pub fn skip(why: &str) {
    let thread = std::thread::current();
    let inside = std::env::var(INSIDE).ok();
    let test = inside.as_deref().or(thread.name()).unwrap_or("a test");
    let note = format!("skipped: {test}: {why}\n");
    std::io::stderr().write_all(note.as_bytes()).unwrap();
}

/// Forbids this thread, and those that it starts, the barrier that the lock is built on.
#[cfg(target_os = "linux")]
pub fn forbid_membarrier() {
    let instruction = |code: u32, jump_if_not: u8, value: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: jump_if_not,
        k: value,
    };
    let refuse = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    // The number of the call is the first word of what a filter is given.
    let mut filter = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        instruction(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            1,
            libc::SYS_membarrier as u32,
        ),
        instruction(libc::BPF_RET | libc::BPF_K, 0, refuse),
        instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the filter is read during the call only; the query asks which barriers there are.
    let (set, refused) = unsafe {
        (
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0,
            libc::syscall(libc::SYS_membarrier, 0, 0, 0) == -1,
        )
    };
    let error = std::io::Error::last_os_error();
    assert!(set && refused, "membarrier goes on to work: {error}");
    assert_eq!(error.raw_os_error(), Some(libc::ENOSYS));
}

/// A file system of its own, which nobody else sees.
pub struct Disk(Scratch);

impl Disk {
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

#[cfg(target_os = "linux")]
impl Drop for Disk {
    fn drop(&mut self) {
        let target = CString::new(self.path().as_os_str().as_bytes()).unwrap();
        // SAFETY: takes away what `small_disk` mounted.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}

/// A file system of so many bytes. It needs a process of the test's own, and root: without, it says so, and gives
/// nothing.
pub fn small_disk(size: usize) -> Option<Disk> {
    memory_disk(&format!("size={size}"))
}

/// A tmpfs with such options, as `small_disk`.
#[cfg(target_os = "linux")]
pub fn memory_disk(options: &str) -> Option<Disk> {
    let disk = Scratch::new();
    let target = CString::new(disk.path().as_os_str().as_bytes()).unwrap();
    let options = CString::new(options).unwrap();
    let private = libc::MS_REC | libc::MS_PRIVATE;
    let (nothing, tmpfs) = (std::ptr::null(), c"tmpfs".as_ptr());
    // SAFETY: changes what this process alone sees as mounted; all strings end with a NUL.
    let mounted = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(nothing, c"/".as_ptr(), nothing, private, nothing.cast()) == 0
            && libc::mount(tmpfs, target.as_ptr(), tmpfs, 0, options.as_ptr().cast()) == 0
    };
    if !mounted {
        let error = std::io::Error::last_os_error();
        skip(&format!("mounting needs root ({error})"));
    }
    mounted.then(|| Disk(disk))
}

/// Nothing: only Linux mounts a file system that one process alone sees.
#[cfg(not(target_os = "linux"))]
pub fn memory_disk(_options: &str) -> Option<Disk> {
    skip("this system has no file system for one process");
    None
}

/// Has the system refuse calls to this thread, and to those that it starts: each by its number, with an errno; only with
/// one of these bits in its third argument, if there are any.
#[cfg(target_os = "linux")]
pub fn refuse(calls: &[(libc::c_long, u32, i32)]) {
    const NUMBER: u32 = 0;
    const THIRD_ARGUMENT: u32 = 32;
    let step = |code: u32, jump_if_not: u8, value: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: jump_if_not,
        k: value,
    };
    let (load, give) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_RET | libc::BPF_K,
    );
    let jump = |how: u32| libc::BPF_JMP | how | libc::BPF_K;
    let mut filter = vec![];
    for (number, bits, errno) in calls {
        let refused = step(give, 0, libc::SECCOMP_RET_ERRNO | *errno as u32);
        filter.push(step(load, 0, NUMBER));
        if *bits == 0 {
            filter.push(step(jump(libc::BPF_JEQ), 1, *number as u32));
        } else {
            filter.push(step(jump(libc::BPF_JEQ), 3, *number as u32));
            filter.push(step(load, 0, THIRD_ARGUMENT));
            filter.push(step(jump(libc::BPF_JSET), 1, *bits));
        }
        filter.push(refused);
    }
    filter.push(step(give, 0, libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the filter is read during the call only.
    let set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
    };
    assert!(set, "{}", std::io::Error::last_os_error());
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
type Resource = libc::__rlimit_resource_t;
#[cfg(all(target_os = "linux", not(target_env = "gnu")))]
type Resource = libc::c_int;

/// Leaves the process only so much more address space than it has. What the limit was.
#[cfg(target_os = "linux")]
pub fn limit_address_space(more: u64) -> libc::rlimit {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmSize:"))
        .unwrap();
    let has: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    limit(libc::RLIMIT_AS, has * 1024 + more)
}

/// Sets a limit of this process. What it was.
#[cfg(target_os = "linux")]
pub fn limit(resource: Resource, to: u64) -> libc::rlimit {
    // SAFETY: fills the struct it is given, and sets a limit of this process.
    unsafe {
        let mut before = std::mem::zeroed();
        libc::getrlimit(resource, &mut before);
        let limit = libc::rlimit {
            rlim_cur: to,
            ..before
        };
        assert_eq!(libc::setrlimit(resource, &limit), 0);
        before
    }
}

/// Maps a shared page, which is never merged with its neighbours, if the system lets it.
#[cfg(target_os = "linux")]
pub fn map_a_page() -> bool {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: the system chooses an address where nothing is.
    unsafe {
        libc::mmap(std::ptr::null_mut(), page(), libc::PROT_NONE, flags, -1, 0) != libc::MAP_FAILED
    }
}
