//! Reads by copying.

use crate::answer::{self, Answer};
use crate::term::{self, BinaryBuffer};
use crate::{dispatch, resource};
use iommap_core::Wait;
use rustler::{Env, Term};

/// `pread(Handle, Offset, Length)`
#[inline(always)]
pub fn pread<'a>(env: Env<'a>, [handle, offset, length]: [Term<'a>; 3], wait: Wait) -> Answer<'a> {
    let handle = resource::decode_handle(handle)?;
    let [offset, length] = term::naturals([offset, length])?;
    let allocate = |length| BinaryBuffer::allocate(env, length);
    let binary = handle.pread(wait, offset, length, allocate)?;
    if wait == Wait::NonBlocking {
        dispatch::consume_timeslice(env, length as usize);
    }
    Ok(answer::ok(env, binary.term(env)))
}
