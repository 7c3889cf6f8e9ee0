//! Reads without a copy: makes views, and tells whether one is intact.

use crate::answer::{self, Answer, Stop};
use crate::origin::Origin;
use crate::{image, resource, term};
use iommap_core::{Counter, Range, Region, Wait};
use rustler::{Encoder, Env, Term};

/// `region_binary(Handle, Offset, Length)`
#[inline(always)]
pub fn region_binary<'a>(
    env: Env<'a>,
    [handle, offset, length]: [Term<'a>; 3],
    wait: Wait,
) -> Answer<'a> {
    let handle = resource::decode_handle(handle)?;
    let [offset, length] = term::naturals([offset, length])?;
    let encode = |region: Region<_>| resource::encode_region(env, region);
    let binary = handle.region(wait, offset, length, encode)?;
    Ok(answer::ok(env, binary))
}

/// `backed_region_nif(Handle, Offset, Length)`: the view that `iommap.erl` gives to the function of `with_view`.
#[inline(always)]
pub fn backed_region<'a>(
    env: Env<'a>,
    [handle, offset, length]: [Term<'a>; 3],
    wait: Wait,
) -> Answer<'a> {
    let handle = resource::decode_handle(handle)?;
    let [offset, length] = term::naturals([offset, length])?;
    handle.prefetch(offset.wrapping_add(length).wrapping_sub(1)); // the byte that is looked at
    let encode = |region: Region<_>| resource::encode_region(env, region);
    let binary = handle.backed_region(wait, offset, length, encode)?;
    Ok(answer::ok(env, binary))
}

/// `is_known_intact_nif(Handle, Offset, View)`: whether a view that `backed_region_nif` has given needs no question of `intact`.
pub fn is_known_intact<'a>(
    env: Env<'a>,
    [handle, offset, view]: [Term<'a>; 3],
    _wait: Wait,
) -> Answer<'a> {
    let handle = resource::decode_handle(handle)?;
    let view = term::binary(view).ok_or(Stop::Raise)?;
    let is_intact = handle.is_known_intact(offset.decode()?, &view);
    Ok(is_intact.encode(env))
}

/// `intact_nif(Binary, Offset, Length, Size)`: `Binary` is of `Size` bytes, as `iommap.erl` has measured it. A range that
/// is not inside raises, as it does in `binary:part/3`.
pub fn intact<'a>(
    env: Env<'a>,
    [binary, offset, length, size]: [Term<'a>; 4],
    wait: Wait,
) -> Answer<'a> {
    let (offset, length, size) = (offset.decode()?, length.decode()?, size.decode()?);
    let range = Range::checked(offset, length, size).map_err(|_| Stop::Raise)?;
    let is_lost = image::has_views() && is_lost(binary, range, size, wait)?;
    Ok((!is_lost).encode(env))
}

fn is_lost(binary: Term, range: Range, size: usize, wait: Wait) -> Result<bool, Stop> {
    // A long binary that begins inside a byte is not shown: that would take long, and only make a copy.
    let (origin, part) = if size > term::LONG && term::is_unaligned(binary) {
        (Origin::Copied, None)
    } else {
        let bytes = term::binary(binary).ok_or(Stop::Raise)?;
        let part = bytes.part(range.offset(), range.length());
        (Origin::look_up(binary, &bytes), part)
    };
    if origin == Origin::Copied && wait == Wait::NonBlocking {
        return Err(Stop::WouldBlock(Counter::MovedLength));
    }
    Ok(origin.is_lost(part.as_slice()))
}
