//! What can go wrong, with the system's errors as numbers until someone needs their names.

use thiserror::Error;

/// Why an operation did not happen.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The handle was closed.
    #[error("the handle is closed")]
    Closed,
    /// The range reaches beyond the end of the mapping.
    #[error("the range is outside the mapping")]
    OutOfBounds,
    /// The file no longer backs the bytes, or the disk failed under them.
    #[error("the file no longer backs the bytes")]
    Fault,
    /// The call would have to wait for pages that are not known to be in memory, and the caller said that it must not.
    #[error("the call would block")]
    WouldBlock,
    /// The same, for the handle's lock.
    #[error("the handle's lock is taken")]
    Contended,
    /// The same, for as long as the copy takes.
    #[error("the copy is too long to be made without waiting")]
    TooLong,
    /// An errno.
    #[error("system error {0}")]
    System(i32),
}

impl Error {
    /// An argument or a file that cannot be used.
    pub const INVALID: Error = Error::System(libc::EINVAL);
    /// The handle's mode does not permit the operation.
    pub const NO_ACCESS: Error = Error::System(libc::EACCES);
    /// No memory for the result or the mapping.
    pub const NO_MEMORY: Error = Error::System(libc::ENOMEM);

    /// Whether the call was refused because it would have to wait, and has done nothing.
    pub fn would_block(self) -> bool {
        matches!(self, Error::WouldBlock | Error::Contended | Error::TooLong)
    }

    /// The error the last system call of this thread left behind.
    pub fn last() -> Error {
        std::io::Error::last_os_error().into()
    }
}

impl From<std::io::Error> for Error {
    /// Errors that are not the system's own come from argument checks in libraries: they are `EINVAL`.
    fn from(error: std::io::Error) -> Error {
        Error::System(error.raw_os_error().unwrap_or(libc::EINVAL))
    }
}
