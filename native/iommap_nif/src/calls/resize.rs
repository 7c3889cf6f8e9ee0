//! Changes the size of a mapping.

use crate::answer::{self, Answer};
use crate::{atoms, resource, term};
use iommap_core::Wait;
use rustler::{Env, Term};

/// `truncate(Handle, Size)`
pub fn truncate<'a>(env: Env<'a>, [handle, size]: [Term<'a>; 2], _wait: Wait) -> Answer<'a> {
    let handle = resource::decode_handle(handle)?;
    let [size] = term::naturals([size])?;
    handle.truncate(size)?;
    Ok(atoms::ok().to_term(env))
}

/// `remap(Handle)`
pub fn remap<'a>(env: Env<'a>, [handle]: [Term<'a>; 1], _wait: Wait) -> Answer<'a> {
    let size = resource::decode_handle(handle)?.remap()?;
    Ok(answer::ok(env, size))
}
