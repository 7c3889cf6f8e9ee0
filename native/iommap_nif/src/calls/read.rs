//! Reading: copies.

use super::naturals;
use crate::answer::{self, Answer};
use crate::term::{Env, NewBinary, Term};
use crate::{dispatch, resource};
use iommap_core::Wait;

/// `pread(Handle, Offset, Length)`
#[inline(always)]
pub fn pread(env: Env, arguments: &[Term], wait: Wait) -> Answer {
    let handle = resource::decode_handle(env, arguments[0])?;
    let [offset, length] = naturals(env, [arguments[1], arguments[2]])?;
    let binary = handle.pread(wait, offset, length, |length| {
        NewBinary::allocate(env, length)
    })?;
    if wait == Wait::NonBlocking {
        dispatch::consume_timeslice(env, length as usize);
    }
    Ok(answer::ok(env, binary.term(env)))
}
