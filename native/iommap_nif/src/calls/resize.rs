//! Changing the size.

use super::naturals;
use crate::answer::{self, Answer};
use crate::atoms::atoms;
use crate::resource;
use crate::term::{self, Env, Term};
use iommap_core::Wait;

/// `truncate(Handle, Size)`
pub fn truncate(env: Env, arguments: &[Term], _wait: Wait) -> Answer {
    let handle = resource::decode_handle(env, arguments[0])?;
    let [size] = naturals(env, [arguments[1]])?;
    handle.truncate(size)?;
    Ok(atoms().ok)
}

/// `remap(Handle)`
pub fn remap(env: Env, arguments: &[Term], _wait: Wait) -> Answer {
    let size = resource::decode_handle(env, arguments[0])?.remap()?;
    Ok(answer::ok(env, term::unsigned(env, size as u64)))
}
