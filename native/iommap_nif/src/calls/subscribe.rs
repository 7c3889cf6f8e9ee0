//! Subscribes a process to what is lost.

use crate::answer::{Answer, Stop};
use crate::{atoms, image};
use iommap_core::Wait;
use rustler::{Env, Term};

/// `subscribe()`
pub fn subscribe<'a>(env: Env<'a>, []: [Term<'a>; 0], _wait: Wait) -> Answer<'a> {
    change(env, true)
}

/// `unsubscribe()`
pub fn unsubscribe<'a>(env: Env<'a>, []: [Term<'a>; 0], _wait: Wait) -> Answer<'a> {
    change(env, false)
}

fn change(env: Env, on: bool) -> Answer {
    match image::subscribe(env, on) {
        0 => Ok(atoms::ok().to_term(env)),
        errno => Err(Stop::System(errno)),
    }
}
