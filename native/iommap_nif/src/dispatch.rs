//! Runs a call, on its process's normal scheduler or on a dirty I/O scheduler.
//!
//! Calls that always wait start on a dirty I/O scheduler (the table in `entry` tells). All others start on the normal
//! scheduler, with `Wait::NonBlocking`, and finish there if nothing could make them wait. Else the body stops with
//! `WouldBlock`, having done nothing, and the same call is made again on a dirty I/O scheduler, with `Wait::Blocking`.
//! A call has to wait if
//!
//! - the handle's lock is taken (`Handle::reading`, `Handle::writing`);
//! - the copy is longer than `NON_BLOCKING_MAX`, or its data has too many list cells (`iodata`), or is a view, or takes
//!   long to inspect (`calls::write`);
//! - the pages are not known to be in memory (`Part::is_ready_to_read`, `WritablePart::is_ready_to_write`).
//!
//! A copy on a normal scheduler is charged to the process's time slice.

use crate::answer::{self, Answer, Stop};
use crate::atoms;
use rustler::sys::{self, ErlNifEnv, ERL_NIF_TERM};
use rustler::{Atom, Env, Term};
use std::cell::Cell;
use std::ffi::{c_int, CStr};
use std::panic::{catch_unwind, AssertUnwindSafe};

/// `ERL_NIF_DIRTY_JOB_IO_BOUND`.
pub const DIRTY_IO: c_int = 2;

/// An entry point, as the VM calls it.
pub type Entry = unsafe extern "C" fn(*mut ErlNifEnv, c_int, *const ERL_NIF_TERM) -> ERL_NIF_TERM;

/// A call, as `enter` needs to know it besides its body.
pub struct Call {
    /// The NIF's name.
    pub name: &'static CStr,
    /// Its place in the table.
    pub number: usize,
    /// The entry point that may wait.
    pub dirty_io: Entry,
}

/// Runs a call: builds its environment and terms, calls the body, makes the answer. A panic is raised as `nif_panicked`.
///
/// # Safety
///
/// The VM gave the environment, which is live until this returns, and `N` arguments of it.
#[inline(always)]
pub unsafe fn enter<const N: usize>(
    call: &'static Call,
    body: impl for<'a> FnOnce(Env<'a>, [Term<'a>; N]) -> Answer<'a>,
    env: *mut ErlNifEnv,
    argv: *const ERL_NIF_TERM,
) -> ERL_NIF_TERM {
    let answered = catch_unwind(AssertUnwindSafe(move || {
        let lifetime = ();
        // SAFETY: the environment is live as long as the call runs, and so longer than `lifetime`, which is no other's.
        let env = unsafe { Env::new(&lifetime, env) };
        // SAFETY: the caller's promise.
        let arguments = std::array::from_fn(|index| unsafe { Term::new(env, *argv.add(index)) });
        match body(env, arguments) {
            Ok(term) => term.as_c_arg(),
            // SAFETY: the caller's promise.
            Err(stop) => unsafe { stopped(call, stop, env, N as c_int, argv) },
        }
    }));
    // SAFETY: the environment is live.
    answered.unwrap_or_else(|_| unsafe { raise(env, atoms::nif_panicked()) })
}

/// Makes the answer of a call that stopped.
///
/// # Safety
///
/// The arguments are the running call's.
#[cold]
unsafe fn stopped(
    call: &Call,
    stop: Stop,
    env: Env,
    argc: c_int,
    argv: *const ERL_NIF_TERM,
) -> ERL_NIF_TERM {
    match stop {
        Stop::Raise => raise_badarg(env),
        Stop::Error(reason) => answer::error(env, reason).as_c_arg(),
        Stop::System(errno) => answer::system_error(env, errno).as_c_arg(),
        Stop::WouldBlock(reason) => {
            iommap_core::count(reason, 1);
            // SAFETY: the caller's promise.
            unsafe { schedule(call, env, argc, argv) }
        }
        // SAFETY: the caller's promise.
        Stop::Foreign(image) => unsafe { image.call(call.number, env.as_c_arg(), argc, argv) }
            .unwrap_or_else(|| raise_badarg(env)),
    }
}

/// Makes the call again on a dirty I/O scheduler (`enif_schedule_nif`).
///
/// # Safety
///
/// The arguments are the running call's.
unsafe fn schedule(call: &Call, env: Env, argc: c_int, argv: *const ERL_NIF_TERM) -> ERL_NIF_TERM {
    let name = call.name.as_ptr().cast();
    // SAFETY: the caller's promise; the entry point takes as many arguments as this call.
    unsafe { sys::enif_schedule_nif(env.as_c_arg(), name, DIRTY_IO, call.dirty_io, argc, argv) }
}

fn raise_badarg(env: Env) -> ERL_NIF_TERM {
    // SAFETY: the environment is the running call's.
    unsafe { sys::enif_make_badarg(env.as_c_arg()) }
}

/// Raises an exception.
///
/// # Safety
///
/// The environment is the running call's.
#[cold]
unsafe fn raise(env: *mut ErlNifEnv, reason: Atom) -> ERL_NIF_TERM {
    // SAFETY: the caller's promise.
    unsafe { sys::enif_raise_exception(env, reason.as_c_arg()) }
}

/// The speed of a copy, in bytes a nanosecond: rather too slow than too fast.
const BYTES_A_NANOSECOND: usize = 8;
/// One percent of a time slice, in nanoseconds.
const PERCENT: usize = 10_000;

/// Charges a copy on a normal scheduler to the time slice (`enif_consume_timeslice`). A short copy costs less than the
/// smallest charge, so costs add up per scheduler until they are worth one.
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
    consume_percent(env, (owed / PERCENT).min(100) as c_int);
}

/// Charges so many percent of a time slice, from 1 to 100.
#[inline]
pub fn consume_percent(env: Env, percent: c_int) {
    // SAFETY: the environment is the running call's.
    unsafe { sys::enif_consume_timeslice(env.as_c_arg(), percent) };
}
