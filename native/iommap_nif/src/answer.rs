//! The answer of a call, or the reason that it has none: the one place that makes `{ok, _}` and `{error, _}`.

use crate::image::Image;
use crate::{atoms, errno};
use iommap_core::{Counter, Error};
use rustler::{Atom, Encoder, Env, Term};
use std::ffi::c_int;

/// The result of a call's body.
pub type Answer<'a> = Result<Term<'a>, Stop>;

/// The reason that a call has no answer of its own.
pub enum Stop {
    /// The exception `badarg`.
    Raise,
    /// The call would have to wait, and is made again on a dirty I/O scheduler. Counted so.
    WouldBlock(Counter),
    /// `{error, Reason}`.
    Error(Atom),
    /// `{error, Reason}` for an errno.
    System(c_int),
    /// The handle is that image's, which does the call.
    Foreign(&'static Image),
}

impl From<rustler::Error> for Stop {
    /// Raises for an argument of the wrong kind.
    fn from(_: rustler::Error) -> Stop {
        Stop::Raise
    }
}

impl From<Error> for Stop {
    // Out of the way of the hot calls: inside, it makes a write of 8 bytes 4 ns slower (of 67, November 2026).
    #[cold]
    fn from(error: Error) -> Stop {
        match error {
            Error::Closed => Stop::Error(atoms::closed()),
            Error::OutOfBounds => Stop::Error(atoms::out_of_bounds()),
            Error::Fault => Stop::Error(atoms::sigbus()),
            Error::WouldBlock => Stop::WouldBlock(Counter::MovedPages),
            Error::Contended => Stop::WouldBlock(Counter::MovedLock),
            Error::TooLong => Stop::WouldBlock(Counter::MovedLength),
            Error::System(errno) => Stop::System(errno),
        }
    }
}

/// Makes `{ok, Value}`.
#[inline]
pub fn ok(env: Env, value: impl Encoder) -> Term {
    (atoms::ok(), value).encode(env)
}

/// Makes `{error, Reason}`.
#[cold]
pub fn error(env: Env, reason: Atom) -> Term {
    (atoms::error(), reason).encode(env)
}

/// Makes `{error, {Count, Reason}}` where a call would have answered `{error, Reason}`.
#[cold]
pub fn error_after<'a>(env: Env<'a>, count: usize, stop: Stop) -> Answer<'a> {
    let reason = match stop {
        Stop::Error(reason) => reason,
        Stop::System(errno) => errno::atom(env, errno),
        stop => return Err(stop),
    };
    Ok((atoms::error(), (count, reason)).encode(env))
}

/// Makes `{error, Reason}` for an errno.
#[cold]
pub fn system_error(env: Env, errno: c_int) -> Term {
    error(env, errno::atom(env, errno))
}
