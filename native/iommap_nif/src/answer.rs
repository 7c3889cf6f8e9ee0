//! What a call answers, and why it may not: the one place that makes `{ok, _}` and `{error, _}`.

use crate::image::Image;
use crate::{atoms, errno};
use iommap_core::Error;
use rustler::{Atom, Encoder, Env, Term};
use std::ffi::c_int;

/// What the body of a call gives.
pub type Answer<'a> = Result<Term<'a>, Stop>;

/// Why a call has no answer of its own.
pub enum Stop {
    /// The exception `badarg`.
    Raise,
    /// The call would have to wait: it is made again where it may.
    WouldBlock,
    /// `{error, Reason}`.
    Error(Atom),
    /// `{error, Reason}` for an errno.
    System(c_int),
    /// The handle is another image's, which does the call.
    Foreign(&'static Image),
}

impl From<rustler::Error> for Stop {
    /// An argument is of the wrong kind.
    fn from(_: rustler::Error) -> Stop {
        Stop::Raise
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        match error {
            Error::Closed => Stop::Error(atoms::closed()),
            Error::OutOfBounds => Stop::Error(atoms::out_of_bounds()),
            Error::Fault => Stop::Error(atoms::sigbus()),
            Error::WouldBlock => Stop::WouldBlock,
            Error::System(errno) => Stop::System(errno),
        }
    }
}

/// `{ok, Value}`.
#[inline]
pub fn ok(env: Env, value: impl Encoder) -> Term {
    (atoms::ok(), value).encode(env)
}

/// `{error, Reason}`.
#[cold]
pub fn error(env: Env, reason: Atom) -> Term {
    (atoms::error(), reason).encode(env)
}

/// `{error, Reason}` for an errno.
#[cold]
pub fn system_error(env: Env, errno: c_int) -> Term {
    error(env, errno::atom(env, errno))
}
