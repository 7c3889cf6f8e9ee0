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
    let mut negative = false;
    let [offset] = term::naturals_or_negative([offset], &mut negative)?;
    handle.prefetch(offset);
    let [length] = term::naturals_or_negative([length], &mut negative)?;
    term::not_negative(negative)?;
    if wait == Wait::Blocking {
        let allocate = |length| BinaryBuffer::allocate(env, length);
        let binary = handle.pread(wait, offset, length, allocate)?;
        return Ok(answer::ok(env, binary.term(env)));
    }
    // The answer is made before its bytes are there: what comes behind the copy keeps the processor from the next call's.
    let mut answer = None;
    let allocate = |length| {
        let binary = BinaryBuffer::allocate(env, length)?;
        answer = binary.early_term(env).map(|term| answer::ok(env, term));
        Some(binary)
    };
    let binary = handle.pread(wait, offset, length, allocate)?;
    dispatch::consume_timeslice(env, length as usize);
    Ok(answer.unwrap_or_else(|| answer::ok(env, binary.term(env))))
}
