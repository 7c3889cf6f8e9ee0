//! The system's clock, and the times of files.

use super::syscall::retried;
use crate::error::Error;
use std::os::fd::RawFd;

/// The system's time that only goes forward, in ticks of about a sixteenth of a second.
pub fn ticks() -> u32 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC_COARSE;
    #[cfg(target_os = "freebsd")]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC_FAST;
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes the timespec it is given.
    unsafe { libc::clock_gettime(CLOCK, &mut now) };
    ((now.tv_sec as u32) << 4).wrapping_add((now.tv_nsec >> 26) as u32)
}

/// The system's time that only goes forward, in nanoseconds, for all of the process.
pub fn nanoseconds() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes the timespec it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Sets the file's time of modification to now (`futimens(2)`); that of access too where the file is another user's.
pub fn set_mtime(fd: RawFd) -> Result<(), Error> {
    let time = |nanoseconds| libc::timespec {
        tv_sec: 0,
        tv_nsec: nanoseconds,
    };
    let modified = [time(libc::UTIME_OMIT), time(libc::UTIME_NOW)];
    // SAFETY: reads two times, or none.
    match retried(|| unsafe { libc::futimens(fd, modified.as_ptr()) }) {
        // Only the owner may set one of them; who may write may set both.
        Err(Error::System(libc::EPERM)) => {
            // SAFETY: as above.
            retried(|| unsafe { libc::futimens(fd, std::ptr::null()) })?;
        }
        done => {
            done?;
        }
    }
    Ok(())
}
