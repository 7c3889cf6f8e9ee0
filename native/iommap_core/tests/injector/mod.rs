//! Fails one system call of a piece of code: the n-th, with any errno.
//!
//! The code runs on a thread of its own under a seccomp filter that hands each system call to a supervisor
//! (`SECCOMP_RET_USER_NOTIF`, seccomp_unotify(2)). The supervisor lets it continue or answers it with an errno. So the
//! calls are counted as the kernel sees them, whichever function of whichever library makes them.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

/// The supervisor allocates nothing while the code runs, which may hold the allocator's lock: longer code is cut here.
const MOST_CALLS: usize = 4096;

/// One system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    pub number: i64,
    pub arguments: [u64; 6],
}

/// Whether a call is of some kind.
pub type Which = fn(&Call) -> bool;

/// What fails, and what happens meanwhile.
#[derive(Clone, Copy, Default)]
pub struct Plan<'a> {
    /// The call that fails once, counted from 0, and its errno.
    pub nth: Option<(usize, i32)>,
    /// What this system cannot do at all: these calls fail each time.
    pub lacks: Option<(Which, i32)>,
    /// What another process does just before a call.
    pub meanwhile: Option<(usize, &'a (dyn Fn() + Sync))>,
}

impl Plan<'_> {
    /// Whether no blocks can be allocated before they are needed.
    pub fn lacks_fallocate(&self) -> bool {
        let fallocate = Call {
            number: libc::SYS_fallocate,
            arguments: [0; 6],
        };
        self.lacks.is_some_and(|(which, _)| which(&fallocate))
    }
}

/// What was seen.
#[derive(Debug)]
pub struct Report {
    /// The calls, in order.
    pub calls: Vec<Call>,
    /// Whether the n-th call came.
    pub hit: bool,
    /// Whether a descriptor whose close failed was closed again: by then it may be somebody else's.
    pub closed_twice: bool,
}

// Of linux/seccomp.h: not every libc crate has them.
const NOTIF_RECV: u32 = 0xc050_2100;
const NOTIF_SEND: u32 = 0xc018_2101;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;

/// Calls that cannot fail, or that say nothing about the code under test. (mprotect makes the allocator's memory longer, now and then;
/// the library makes spares by it, and goes on without.)
const PASSED: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_mprotect,
    libc::SYS_nanosleep,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
];

/// The errnos that a call plausibly fails with.
const ERRNOS: &[(&str, i64, &[i32])] = {
    use libc::*;
    &[
        (
            "openat",
            SYS_openat,
            &[EINTR, EACCES, EMFILE, ENOMEM, ENOSPC, EROFS],
        ),
        (
            "openat2",
            SYS_openat2,
            &[EINTR, EACCES, EMFILE, ENOMEM, ENOSPC, ENOSYS],
        ),
        (
            "fallocate",
            SYS_fallocate,
            &[EINTR, ENOSPC, EIO, EDQUOT, EFBIG, EOPNOTSUPP],
        ),
        (
            "ftruncate",
            SYS_ftruncate,
            &[EINTR, EIO, EFBIG, EPERM, ENOSPC],
        ),
        ("mmap", SYS_mmap, &[ENOMEM, EAGAIN, EACCES, ENODEV]),
        ("mremap", SYS_mremap, &[ENOMEM, EAGAIN]),
        ("munmap", SYS_munmap, &[ENOMEM]),
        ("madvise", SYS_madvise, &[ENOMEM, EAGAIN, EINVAL, EIO]),
        ("mlock", SYS_mlock, &[ENOMEM, EPERM, EAGAIN]),
        ("mlock2", SYS_mlock2, &[ENOMEM, EPERM, EAGAIN]),
        ("munlock", SYS_munlock, &[ENOMEM, EPERM]),
        ("mincore", SYS_mincore, &[ENOMEM, EAGAIN]),
        ("msync", SYS_msync, &[EIO, ENOMEM, EBUSY]),
        ("fstat", SYS_fstat, &[EIO, ENOMEM, ESTALE]),
        ("newfstatat", SYS_newfstatat, &[EIO, ENOMEM, ESTALE]),
        ("statx", SYS_statx, &[EIO, ENOMEM, ENOSYS, ESTALE]),
        ("fstatfs", SYS_fstatfs, &[EIO, ENOSYS]),
        ("lseek", SYS_lseek, &[EINVAL, EIO]),
        ("pread64", SYS_pread64, &[EINTR, EIO]),
        ("pwrite64", SYS_pwrite64, &[EINTR, EIO, ENOSPC]),
        ("read", SYS_read, &[EINTR, EIO]),
        ("write", SYS_write, &[EINTR, EIO, ENOSPC]),
        ("fcntl", SYS_fcntl, &[EINVAL, EMFILE]),
        ("dup", SYS_dup, &[EMFILE]),
        (
            "linkat",
            SYS_linkat,
            &[EEXIST, ENOENT, ENOSPC, EIO, EPERM, EXDEV, EMLINK],
        ),
        ("unlinkat", SYS_unlinkat, &[EACCES, EIO, EBUSY]),
        (
            "renameat2",
            SYS_renameat2,
            &[EACCES, EEXIST, EINVAL, ENOSPC],
        ),
        ("readlinkat", SYS_readlinkat, &[EINVAL, EIO, EACCES]),
        ("getdents64", SYS_getdents64, &[EIO]),
        ("fchmod", SYS_fchmod, &[EPERM, EIO]),
        ("utimensat", SYS_utimensat, &[EPERM, EIO, EROFS]),
        ("fsync", SYS_fsync, &[EINTR, EIO, ENOSPC]),
        ("fdatasync", SYS_fdatasync, &[EINTR, EIO, ENOSPC]),
        (
            "sync_file_range",
            SYS_sync_file_range,
            &[EIO, ENOSPC, ENOSYS],
        ),
        ("close", SYS_close, &[EINTR, EIO, ENOSPC, EDQUOT]),
        ("membarrier", SYS_membarrier, &[EPERM, ENOSYS]),
        ("prlimit64", SYS_prlimit64, &[EPERM, ENOSYS]),
        ("rt_sigaction", SYS_rt_sigaction, &[EINVAL]),
        ("clone3", SYS_clone3, &[EAGAIN, ENOSYS]),
        ("clone", SYS_clone, &[EAGAIN]),
        ("getcwd", SYS_getcwd, &[ENOENT]),
    ]
};

/// Of a call that is not in the table.
const ANY_ERRNOS: &[i32] = &[libc::EIO, libc::ENOMEM, libc::EPERM, libc::ENOSYS];

impl Call {
    pub fn errnos(&self) -> Vec<i32> {
        let known = ERRNOS.iter().find(|(_, number, _)| *number == self.number);
        let mut errnos = known.map_or(ANY_ERRNOS, |(_, _, errnos)| errnos).to_vec();
        if self.makes_an_unnamed_file() {
            // Before Linux 3.11, and file systems that have none.
            errnos.extend([libc::EISDIR, libc::EOPNOTSUPP]);
        }
        errnos
    }

    pub fn makes_an_unnamed_file(&self) -> bool {
        let flags = self.arguments[2] as i32;
        self.number == libc::SYS_openat && flags & libc::O_TMPFILE == libc::O_TMPFILE
    }

    pub fn zeroes_a_range(&self) -> bool {
        let zeroes = libc::FALLOC_FL_ZERO_RANGE as u64;
        self.number == libc::SYS_fallocate && self.arguments[1] & zeroes != 0
    }

    pub fn name(&self) -> String {
        let known = ERRNOS.iter().find(|(_, number, _)| *number == self.number);
        known.map_or_else(
            || format!("system call {}", self.number),
            |(name, _, _)| (*name).to_owned(),
        )
    }
}

/// Runs the code, and fails what the plan says. Threads that the code starts must have been started before: they would be
/// under the filter, too.
pub fn run<R: Send>(plan: Plan, code: impl FnOnce() -> R + Send) -> (R, Report) {
    let armed = &AtomicBool::new(false);
    let (send, receive) = mpsc::sync_channel(1);
    std::thread::scope(|scope| {
        let supervisor = scope.spawn(move || {
            let (listener, thread) = receive.recv().unwrap();
            Supervisor::new(listener, thread, plan, armed).serve()
        });
        let worker = scope.spawn(move || {
            // SAFETY: asks for the number of this thread.
            let thread = unsafe { libc::gettid() };
            send.send((listen_to_this_thread(), thread)).unwrap();
            armed.store(true, Ordering::SeqCst);
            let result = code();
            armed.store(false, Ordering::SeqCst);
            result
        });
        let result = worker.join();
        let report = supervisor.join().unwrap();
        (
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            report,
        )
    })
}

/// Hands the system calls of this thread to the one who holds what this gives.
fn listen_to_this_thread() -> OwnedFd {
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for number in PASSED {
        let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        filter.push(libc::sock_filter {
            jf: 1,
            ..statement(equal, *number as u32)
        });
        filter.push(statement(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ALLOW,
        ));
    }
    filter.push(statement(libc::BPF_RET | libc::BPF_K, RET_USER_NOTIF));
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the filter is read during the call only; the descriptor is new and nobody else's.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let listener = libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        );
        assert!(
            listener >= 0,
            "no listener: {}",
            std::io::Error::last_os_error()
        );
        OwnedFd::from_raw_fd(listener as RawFd)
    }
}

/// Whether the system can hand system calls to a supervisor.
pub fn is_possible() -> bool {
    let mut sizes = [0u16; 3];
    // SAFETY: fills the three numbers.
    unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_NOTIF_SIZES,
            0,
            sizes.as_mut_ptr(),
        ) == 0
    }
}

fn statement(code: u32, value: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k: value,
    }
}

struct Supervisor<'a> {
    listener: OwnedFd,
    thread: i32,
    plan: Plan<'a>,
    armed: &'a AtomicBool,
    report: Report,
    /// Stands where a descriptor was whose close failed.
    trap: Option<RawFd>,
    nothing: std::fs::File,
}

impl<'a> Supervisor<'a> {
    fn new(
        listener: OwnedFd,
        thread: i32,
        plan: Plan<'a>,
        armed: &'a AtomicBool,
    ) -> Supervisor<'a> {
        let calls = Vec::with_capacity(MOST_CALLS);
        Supervisor {
            listener,
            thread,
            plan,
            armed,
            report: Report {
                calls,
                hit: false,
                closed_twice: false,
            },
            trap: None,
            nothing: std::fs::File::open("/dev/null").unwrap(),
        }
    }

    /// Answers until the thread has ended, and those that it started.
    fn serve(mut self) -> Report {
        while let Some((id, thread, call)) = self.next() {
            let errno = if thread == self.thread && self.armed.load(Ordering::SeqCst) {
                self.judge(call)
            } else {
                None
            };
            self.answer(id, errno);
        }
        if let Some(trap) = self.trap {
            // SAFETY: the trap is ours, unless somebody closed it.
            self.report.closed_twice = unsafe { libc::close(trap) } != 0;
        }
        self.report
    }

    /// The errno of the call, if it is to fail.
    fn judge(&mut self, call: Call) -> Option<i32> {
        assert!(self.report.calls.len() < MOST_CALLS, "too many calls");
        let index = self.report.calls.len();
        self.report.calls.push(call);
        if let Some((_, act)) = self.plan.meanwhile.filter(|(when, _)| *when == index) {
            act();
        }
        let lacking = self
            .plan
            .lacks
            .and_then(|(lacks, errno)| lacks(&call).then_some(errno));
        let nth = self
            .plan
            .nth
            .and_then(|(nth, errno)| (nth == index).then_some(errno));
        self.report.hit |= nth.is_some();
        let errno = nth.or(lacking)?;
        if call.number == libc::SYS_close {
            self.close(call.arguments[0] as RawFd);
        }
        Some(errno)
    }

    /// A close that fails has closed (close(2)). Whoever closes again then closes what stands there now.
    fn close(&mut self, fd: RawFd) {
        // SAFETY: does for the thread what it asked for; the number is free then, and becomes ours.
        unsafe { libc::dup3(self.nothing.as_raw_fd(), fd, libc::O_CLOEXEC) };
        self.trap = Some(fd);
    }

    fn next(&self) -> Option<(u64, i32, Call)> {
        loop {
            let mut ready = libc::pollfd {
                fd: self.listener.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: an all-zero notification is what the call wants to fill.
            unsafe {
                libc::poll(&mut ready, 1, -1);
                if ready.revents & libc::POLLIN == 0 && ready.revents & libc::POLLHUP != 0 {
                    return None;
                }
                let mut seen: libc::seccomp_notif = std::mem::zeroed();
                let listener = self.listener.as_raw_fd();
                if libc::ioctl(listener, NOTIF_RECV as _, &raw mut seen) == 0 {
                    let call = Call {
                        number: seen.data.nr.into(),
                        arguments: seen.data.args,
                    };
                    return Some((seen.id, seen.pid as i32, call));
                }
            }
        }
    }

    fn answer(&self, id: u64, errno: Option<i32>) {
        let response = libc::seccomp_notif_resp {
            id,
            val: 0,
            error: errno.map_or(0, |errno| -errno),
            flags: if errno.is_some() {
                0
            } else {
                libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32
            },
        };
        // SAFETY: the response is read during the call only. The thread may be gone, which is well.
        unsafe {
            libc::ioctl(
                self.listener.as_raw_fd(),
                NOTIF_SEND as _,
                &raw const response,
            )
        };
    }
}
