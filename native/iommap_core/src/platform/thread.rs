//! Threads: starting them, waiting for them, and a memory barrier on all of them.
//!
//! | | Linux | macOS | FreeBSD | OpenBSD |
//! |---|---|---|---|---|
//! | barrier on all threads | membarrier | none: readers lock | none | none |

#[cfg(target_os = "linux")]
use std::sync::OnceLock;
use std::thread::{Builder, JoinHandle};

/// Starts a thread; `None` if the system has no room for one.
pub fn start(name: &str, body: impl FnOnce() + Send + 'static) -> Option<JoinHandle<()>> {
    without_signals(|| Builder::new().name(name.into()).spawn(body).ok())
}

/// Runs something with all signals blocked; threads started inside inherit that.
pub fn without_signals<T>(run: impl FnOnce() -> T) -> T {
    // SAFETY: an all-zero set is a valid value; the calls change this thread's mask only, and change it back.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let result = run();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        result
    }
}

/// Whether `barrier` works here.
pub fn has_barrier() -> bool {
    #[cfg(target_os = "linux")]
    {
        static REGISTERED: OnceLock<bool> = OnceLock::new();
        const MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED: i32 = 1 << 4;
        *REGISTERED.get_or_init(|| {
            // SAFETY: registers the intent to use the barrier.
            unsafe {
                libc::syscall(
                    libc::SYS_membarrier,
                    MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED,
                    0,
                    0,
                ) == 0
            }
        })
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// Makes every running thread of this process pass a full memory barrier before it returns. Only after
/// `has_barrier` said yes.
pub fn barrier() {
    #[cfg(target_os = "linux")]
    {
        const MEMBARRIER_CMD_GLOBAL: i32 = 1;
        const MEMBARRIER_CMD_PRIVATE_EXPEDITED: i32 = 1 << 3;
        // The slow one is for a process that was forbidden the fast one since it registered.
        let done = [MEMBARRIER_CMD_PRIVATE_EXPEDITED, MEMBARRIER_CMD_GLOBAL]
            .into_iter()
            // SAFETY: a barrier.
            .any(|command| unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 });
        assert!(done, "a barrier that was there does not go away");
    }
    #[cfg(not(target_os = "linux"))]
    unreachable!("there is no barrier here");
}

/// The processor is told that this is a waiting loop; every so often the thread gives its time away.
pub fn backoff(round: u32) {
    match round {
        0..=63 => std::hint::spin_loop(),
        64..=127 => std::thread::yield_now(),
        _ => std::thread::sleep(std::time::Duration::from_micros(50)),
    }
}
