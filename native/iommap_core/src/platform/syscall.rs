//! Calls the system again when a signal interrupted it (EINTR).

use crate::error::Error;

/// Calls the system, and again when it was interrupted by a signal.
pub fn retried(mut call: impl FnMut() -> i32) -> Result<i32, Error> {
    loop {
        let done = call();
        if done >= 0 {
            return Ok(done);
        }
        match Error::last() {
            Error::System(libc::EINTR) => {}
            error => return Err(error),
        }
    }
}
