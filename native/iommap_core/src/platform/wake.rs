//! Wakes a thread from a signal handler.
//!
//! | | Linux | macOS | FreeBSD | OpenBSD |
//! |---|---|---|---|---|
//! | a wake-up | eventfd | a pipe | a pipe | a pipe |

use super::syscall::retried;
use crate::error::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// What a thread waits for: any number of wake-ups before it looks are one.
pub struct Wake {
    reader: OwnedFd,
    #[cfg(not(target_os = "linux"))]
    writer: OwnedFd,
}

impl Wake {
    /// Makes one (`eventfd(2)`, or `pipe(2)`), close-on-exec, and never waited for by who writes.
    #[cfg(target_os = "linux")]
    pub fn new() -> Result<Wake, Error> {
        // SAFETY: makes a descriptor, which is ours alone.
        unsafe {
            let fd = retried(|| libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?;
            Ok(Wake {
                reader: OwnedFd::from_raw_fd(fd),
            })
        }
    }

    /// Makes one (`eventfd(2)`, or `pipe(2)`), close-on-exec, and never waited for by who writes.
    #[cfg(not(target_os = "linux"))]
    pub fn new() -> Result<Wake, Error> {
        let mut fds = [0; 2];
        // SAFETY: makes two descriptors, which are ours alone.
        let wake = unsafe {
            retried(|| libc::pipe(fds.as_mut_ptr()))?;
            Wake {
                reader: OwnedFd::from_raw_fd(fds[0]),
                writer: OwnedFd::from_raw_fd(fds[1]),
            }
        };
        for fd in fds {
            // SAFETY: sets flags of our own descriptors.
            unsafe {
                retried(|| libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC))?;
                retried(|| libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK))?;
            }
        }
        Ok(wake)
    }

    /// The descriptor for `wake`.
    pub fn descriptor(&self) -> RawFd {
        #[cfg(target_os = "linux")]
        return self.reader.as_raw_fd();
        #[cfg(not(target_os = "linux"))]
        self.writer.as_raw_fd()
    }

    /// Waits until there was a wake-up since the last time (`poll(2)`).
    pub fn wait(&self) {
        let fd = self.reader.as_raw_fd();
        let mut waited_for = libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let mut read = [0u8; 512];
        // SAFETY: polls one descriptor, and reads what is there to the buffer.
        unsafe {
            let _ = retried(|| libc::poll(&mut waited_for, 1, -1));
            libc::read(fd, read.as_mut_ptr().cast(), read.len());
        }
    }
}

/// Wakes who waits (`write(2)`). Async-signal-safe, and waits for nothing: what is full wakes anyway.
pub fn wake(descriptor: RawFd) {
    let one = 1u64;
    // SAFETY: writes eight bytes.
    unsafe { libc::write(descriptor, (&raw const one).cast(), 8) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn many_wake_ups_before_a_look_are_one_and_none_is_lost() {
        static LOOKS: AtomicU32 = AtomicU32::new(0);
        let wake_up = Wake::new().unwrap();
        let descriptor = wake_up.descriptor();
        // More than a pipe holds.
        (0..100_000).for_each(|_| wake(descriptor));
        wake_up.wait();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..100 {
                    wake_up.wait();
                    LOOKS.fetch_add(1, Ordering::SeqCst);
                }
            });
            while LOOKS.load(Ordering::SeqCst) < 100 {
                let before = LOOKS.load(Ordering::SeqCst);
                wake(descriptor);
                while LOOKS.load(Ordering::SeqCst) == before {
                    std::thread::yield_now();
                }
            }
        });
    }
}
