//! Where a call runs.
//!
//! The table in `entry` says where a call starts: what always waits is born on a dirty I/O scheduler, all others start on
//! the normal scheduler of their process, with `Wait::NonBlocking`. There a call finishes if nothing could make it wait, else
//! it answers `WouldBlock`, having done nothing, and the one way out (`enter`) makes the same call again on a dirty
//! I/O scheduler, with `Wait::Blocking`. What could make it wait:
//!
//! - the handle's lock is taken (`Handle::reading`, `Handle::writing`);
//! - the copy is longer than `NON_BLOCKING_MAX`, or its data is of more list cells (`iodata`), or is a view, or takes long to
//!   look at (`calls::write`);
//! - the pages are not known to be in memory (`Mapping::is_ready_to_read`, `Mapping::is_ready_to_write`).
//!
//! What finishes on a normal scheduler is charged to the process's time slice.

use crate::answer::{self, Answer, Stop};
use crate::atoms::atoms;
use crate::term::{self, Env, Term};
use iommap_core::Error;
use rustler::sys::{self, ErlNifEnv};
use std::cell::Cell;
use std::ffi::{c_char, c_int, CStr};
use std::panic::{catch_unwind, AssertUnwindSafe};

/// `ERL_NIF_DIRTY_JOB_IO_BOUND`.
pub const DIRTY_IO: c_int = 2;

/// An entry point, as the VM calls it.
pub type Entry = unsafe extern "C" fn(*mut ErlNifEnv, c_int, *const Term) -> Term;

/// What `enter` must know of a call besides its body.
pub struct Call {
    /// The NIF's name.
    pub name: &'static CStr,
    /// Its place in the table.
    pub number: usize,
    /// The entry point that may wait.
    pub dirty_io: Entry,
}

/// Does a call: the way in from the VM, and the only way out. No panic passes.
///
/// # Safety
///
/// The VM gave the environment and `argc` arguments.
#[inline(always)]
pub unsafe fn enter(
    call: &'static Call,
    body: impl FnOnce(Env, &[Term]) -> Answer,
    env: Env,
    argc: c_int,
    argv: *const Term,
) -> Term {
    // SAFETY: the caller's promise.
    let arguments = unsafe { std::slice::from_raw_parts(argv, argc as usize) };
    let answered = catch_unwind(AssertUnwindSafe(|| match body(env, arguments) {
        Ok(term) => term,
        // SAFETY: the caller's promise.
        Err(stop) => unsafe { stopped(call, stop, env, argc, argv) },
    }));
    answered.unwrap_or_else(|_| term::raise(env, atoms().nif_panicked))
}

/// The answer of a call that stopped.
///
/// # Safety
///
/// The arguments are the running call's.
#[cold]
unsafe fn stopped(call: &Call, stop: Stop, env: Env, argc: c_int, argv: *const Term) -> Term {
    match stop {
        Stop::Raise => term::raise_badarg(env),
        Stop::ErrorBadarg => answer::badarg(env),
        // SAFETY: the caller's promise.
        Stop::Error(Error::WouldBlock) => unsafe {
            dirty_io(env, call.name, call.dirty_io, argc, argv)
        },
        Stop::Error(error) => answer::error(env, error),
        // SAFETY: the caller's promise.
        Stop::Foreign(image) => unsafe { image.call(call.number, env, argc, argv) }
            .unwrap_or_else(|| term::raise_badarg(env)),
    }
}

/// What a copy costs, in bytes a nanosecond: rather too slow than too fast.
const BYTES_A_NANOSECOND: usize = 8;
/// One percent of a time slice, in nanoseconds.
const PERCENT: usize = 10_000;

/// Makes the call again on a dirty I/O scheduler.
///
/// # Safety
///
/// The arguments are the running call's, and `entry` is one that may wait.
#[cold]
pub unsafe fn dirty_io(
    env: Env,
    name: &CStr,
    entry: Entry,
    argc: c_int,
    argv: *const Term,
) -> Term {
    // SAFETY: the caller's promise.
    unsafe {
        sys::enif_schedule_nif(
            env,
            name.as_ptr().cast::<c_char>(),
            DIRTY_IO,
            entry,
            argc,
            argv,
        )
    }
}

/// Charges a copy on a normal scheduler to the time slice. A short copy costs less than the smallest charge, so costs
/// add up per scheduler until they are worth one.
#[inline]
pub fn consume_timeslice(env: Env, bytes: usize) {
    thread_local! {
        static OWED: Cell<usize> = const { Cell::new(0) };
    }
    if bytes < 512 {
        return; // the call itself is charged more than that
    }
    let owed = OWED.get() + bytes / BYTES_A_NANOSECOND;
    if owed < PERCENT {
        OWED.set(owed);
        return;
    }
    OWED.set(owed % PERCENT);
    // SAFETY: the environment is the running call's.
    unsafe { sys::enif_consume_timeslice(env, (owed / PERCENT).min(100) as c_int) };
}
