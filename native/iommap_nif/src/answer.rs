//! What a call answers, and why it may not: the one place that makes `{ok, _}` and `{error, _}`.

use crate::atoms::atoms;
use crate::errno;
use crate::image::Image;
use crate::term::{self, BadArgument, Env, Term};
use iommap_core::Error;

/// What the body of a call gives.
pub type Answer = Result<Term, Stop>;

/// Why a call has no answer of its own.
pub enum Stop {
    /// The exception `badarg`.
    Raise,
    /// `{error, badarg}`.
    ErrorBadarg,
    /// `{error, Reason}`; or, if it would have to wait, the call is made again where it may.
    Error(Error),
    /// The handle is another image's, which does the call.
    Foreign(&'static Image),
}

impl Stop {
    /// The handle is another image's, or of one that we do not understand.
    pub fn foreign(image: Option<&'static Image>) -> Stop {
        image.map_or(Stop::Raise, Stop::Foreign)
    }
}

impl From<BadArgument> for Stop {
    fn from(_: BadArgument) -> Stop {
        Stop::Raise
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Error(error)
    }
}

/// `{ok, Term}`.
#[inline]
pub fn ok(env: Env, term: Term) -> Term {
    term::pair(env, atoms().ok, term)
}

/// `{error, badarg}`.
#[cold]
pub fn badarg(env: Env) -> Term {
    term::pair(env, atoms().error, atoms().badarg)
}

/// `{error, Reason}`.
#[cold]
pub fn error(env: Env, error: Error) -> Term {
    let reason = match error {
        Error::Closed => atoms().closed,
        Error::OutOfBounds => atoms().out_of_bounds,
        Error::Fault => atoms().sigbus,
        Error::WouldBlock => term::atom(env, "eagain"),
        Error::System(errno) => term::atom(env, &errno::name(errno)),
    };
    term::pair(env, atoms().error, reason)
}
