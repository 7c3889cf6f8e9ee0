//! Writes iodata.

use crate::answer::{Answer, Stop};
use crate::iodata::{Iodata, Segments};
use crate::origin::Origin;
use crate::resource::{self, ErlangHandle};
use crate::{atoms, dispatch, image, term};
use iommap_core::{Counter, Data, Error, Segment, Wait};
use rustler::{Env, Term};

/// `pwrite_nif(Handle, Offset, Data)`: `Data` is iodata of at most `LONG` bytes, as `iommap.erl` has measured it.
#[inline(always)]
pub fn pwrite<'a>(env: Env<'a>, [handle, offset, data]: [Term<'a>; 3], wait: Wait) -> Answer<'a> {
    let handle = resource::decode_handle(handle)?;
    let [offset] = term::naturals([offset])?;
    handle.prefetch(offset);
    pwrite_data(env, handle, offset, data, wait)
}

/// `pwrite_short_nif(Handle, Offset, Data)`: the same of little data, in few list cells. The VM gathers it, while none of it can be
/// a view: that takes half the time of taking it apart.
#[inline(always)]
pub fn pwrite_short<'a>(
    env: Env<'a>,
    [handle, offset, data]: [Term<'a>; 3],
    wait: Wait,
) -> Answer<'a> {
    let handle = resource::decode_handle(handle)?;
    let [offset] = term::naturals([offset])?;
    handle.prefetch(offset);
    if image::has_views() {
        return pwrite_data(env, handle, offset, data, wait);
    }
    let gathered = term::gathered(data).ok_or(Stop::Raise)?;
    pwrite_segments(env, handle, offset, &[gathered], Origin::Plain, wait)
}

/// `pwrite_nif(Handle, Offset, Data, Size)`: the same of data of `Size` bytes, more than `LONG`.
///
/// The VM alone knows the size of a binary without showing its bytes, and it copies a binary that begins inside a byte
/// to show it. So long data is checked first, and then inspected on a dirty I/O scheduler.
pub fn pwrite_long<'a>(
    env: Env<'a>,
    [handle, offset, data, size]: [Term<'a>; 4],
    wait: Wait,
) -> Answer<'a> {
    let handle = resource::decode_handle(handle)?;
    let [offset, size] = term::naturals([offset, size])?;
    handle.prefetch(offset);
    handle.check_pwrite(wait, offset, usize::try_from(size).unwrap_or(usize::MAX))?;
    if wait == Wait::NonBlocking && (data.is_list() || term::is_unaligned(data)) {
        return Err(Stop::WouldBlock(Counter::MovedLength));
    }
    pwrite_data(env, handle, offset, data, wait)
}

#[inline(always)]
fn pwrite_data<'a>(
    env: Env<'a>,
    handle: &ErlangHandle,
    offset: u64,
    data: Term<'a>,
    wait: Wait,
) -> Answer<'a> {
    match term::binary(data) {
        Some(binary) => {
            let origin = Origin::of(data, &binary);
            pwrite_segments(env, handle, offset, &[binary], origin, wait)
        }
        None => {
            let mut iodata = Iodata::default();
            iodata.collect(data, wait)?;
            let mut memory = Segments::new();
            let segments = iodata.segments(&mut memory)?;
            pwrite_segments(env, handle, offset, segments, iodata.origin(), wait)
        }
    }
}

#[inline(always)]
fn pwrite_segments<'a>(
    env: Env<'a>,
    handle: &ErlangHandle,
    offset: u64,
    segments: &[Segment],
    origin: Origin,
    wait: Wait,
) -> Answer<'a> {
    if origin != Origin::Plain && wait == Wait::NonBlocking {
        // Reading a view may wait, and so may asking about all.
        return Err(Stop::WouldBlock(Counter::MovedPages));
    }
    let data = Data::new(segments).ok_or(Error::OutOfBounds)?;
    if origin.is_lost(segments) {
        handle.check_pwrite(wait, offset, data.length())?;
        return Err(Error::Fault.into());
    }
    handle.pwrite(wait, offset, data)?;
    if origin.is_lost(segments) {
        return Err(Error::Fault.into());
    }
    if wait == Wait::NonBlocking {
        dispatch::consume_timeslice(env, data.length());
    }
    Ok(atoms::ok().to_term(env))
}
