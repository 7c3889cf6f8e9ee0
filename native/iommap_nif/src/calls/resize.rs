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

/// `ensure_size(Handle, Bytes)`
pub fn ensure_size<'a>(env: Env<'a>, [handle, least]: [Term<'a>; 2], wait: Wait) -> Answer<'a> {
    let handle = resource::decode_handle(handle)?;
    let [least] = term::naturals([least])?;
    Ok(answer::ok(env, handle.ensure_size(wait, least)?))
}

/// `remap(Handle)`
pub fn remap<'a>(env: Env<'a>, [handle]: [Term<'a>; 1], _wait: Wait) -> Answer<'a> {
    let size = resource::decode_handle(handle)?.remap()?;
    Ok(answer::ok(env, size))
}
