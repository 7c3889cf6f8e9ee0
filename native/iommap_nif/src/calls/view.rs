//! Reading without a copy.

use super::naturals;
use crate::answer::{self, Answer, Stop};
use crate::atoms::atoms;
use crate::image;
use crate::resource::{self, ViewReference};
use crate::term::{self, BadArgument, Env, Number, Term};
use iommap_core::{Error, Range, Wait};

/// `region_binary(Handle, Offset, Length)`
#[inline(always)]
pub fn region_binary(env: Env, arguments: &[Term], wait: Wait) -> Answer {
    let handle = resource::decode_handle(env, arguments[0])?;
    let [offset, length] = naturals(env, [arguments[1], arguments[2]])?;
    let show = |view: &ViewReference, address, length| view.binary(env, address, length);
    let binary = handle.region(wait, offset, length, ViewReference::keep, show)?;
    Ok(answer::ok(env, binary))
}

/// `intact_nif(Binary, Offset, Length, Size)`: `Binary` is of `Size` bytes, as `iommap.erl` has measured it. A range that
/// is not inside raises, as it does in `binary:part/3`.
pub fn intact(env: Env, arguments: &[Term], wait: Wait) -> Answer {
    let natural = |term| match term::number(env, term)? {
        Number::Natural(number) => Ok(number),
        Number::Negative => Err(BadArgument),
    };
    let (offset, length) = (natural(arguments[1])?, natural(arguments[2])?);
    let size = usize::try_from(natural(arguments[3])?).map_err(|_| Stop::Raise)?;
    let range = Range::checked(offset, length, size).map_err(|_| Stop::Raise)?;
    let intact = !image::has_views() || is_intact(env, arguments[0], range, size, wait)?;
    Ok(if intact {
        atoms().true_
    } else {
        atoms().false_
    })
}

fn is_intact(env: Env, term: Term, range: Range, size: usize, wait: Wait) -> Result<bool, Stop> {
    // Where the bytes of a copy came from cannot be known, so all mappings are asked about, which may take long.
    let all_intact = || match wait {
        Wait::NonBlocking => Err(Error::WouldBlock.into()),
        Wait::Blocking => Ok(image::all_intact()),
    };
    if size as u64 > term::LONG && term::is_unaligned(env, term) {
        return all_intact();
    }
    let binary = term::binary(env, term).ok_or(BadArgument)?;
    if term::is_copied(env, term, &binary) {
        return all_intact();
    }
    let part = libc::iovec {
        iov_base: binary.iov_base.wrapping_byte_add(range.offset()),
        iov_len: range.length(),
    };
    Ok(image::intact(&part).unwrap_or(true))
}
