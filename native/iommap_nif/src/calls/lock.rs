//! Locks pages in memory, and unlocks them.

use crate::answer::Answer;
use crate::{atoms, resource, term};
use iommap_core::Wait;
use rustler::{Env, Term};

/// `lock(Handle, Offset, Length)`
pub fn lock<'a>(env: Env<'a>, [handle, offset, length]: [Term<'a>; 3], _wait: Wait) -> Answer<'a> {
    let handle = resource::decode_handle(handle)?;
    let [offset, length] = term::naturals([offset, length])?;
    handle.lock_range(offset, length)?;
    Ok(atoms::ok().to_term(env))
}

/// `unlock(Handle, Offset, Length)`
pub fn unlock<'a>(
    env: Env<'a>,
    [handle, offset, length]: [Term<'a>; 3],
    _wait: Wait,
) -> Answer<'a> {
    let handle = resource::decode_handle(handle)?;
    let [offset, length] = term::naturals([offset, length])?;
    handle.unlock_range(offset, length)?;
    Ok(atoms::ok().to_term(env))
}
