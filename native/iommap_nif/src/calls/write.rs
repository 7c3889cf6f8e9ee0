//! Writing.

use super::naturals;
use crate::answer::Answer;
use crate::atoms::atoms;
use crate::iodata::Segments;
use crate::term::{self, Env, Term};
use crate::{dispatch, image, resource};
use iommap_core::{Data, Error, Wait};

/// `pwrite_nif(Handle, Offset, Data)`: `Data` is iodata of at most `LONG` bytes, as `iommap.erl` has measured it.
#[inline(always)]
pub fn pwrite(env: Env, arguments: &[Term], wait: Wait) -> Answer {
    let handle = resource::decode_handle(env, arguments[0])?;
    let [offset] = naturals(env, [arguments[1]])?;
    handle.prefetch(offset, 1);
    pwrite_data(env, handle, offset, arguments[2], wait)
}

/// `pwrite_nif(Handle, Offset, Data, Size)`: the same of data of `Size` bytes, more than `LONG`.
///
/// Only the VM knows the size of a binary without looking at its bytes, and to show a NIF bytes that begin inside a byte it
/// copies the binary. So long data is checked first, and then looked at where that may take long.
pub fn pwrite_long(env: Env, arguments: &[Term], wait: Wait) -> Answer {
    let handle = resource::decode_handle(env, arguments[0])?;
    let data = arguments[2];
    let [offset, size] = naturals(env, [arguments[1], arguments[3]])?;
    handle.prefetch(offset, 1);
    handle.check_pwrite(wait, offset, usize::try_from(size).unwrap_or(usize::MAX))?;
    if wait == Wait::NonBlocking && (term::is_list(env, data) || term::is_unaligned(env, data)) {
        return Err(Error::WouldBlock.into());
    }
    pwrite_data(env, handle, offset, data, wait)
}

#[inline(always)]
fn pwrite_data(
    env: Env,
    handle: &resource::ErlangHandle,
    offset: u64,
    data: Term,
    wait: Wait,
) -> Answer {
    let has_views = image::has_views();
    match term::binary(env, data) {
        Some(binary) => {
            let source = Source {
                has_views,
                copied: has_views && term::is_copied(env, data, &binary),
            };
            pwrite_segments(env, handle, offset, &[binary], source, wait)
        }
        None => {
            let mut segments = Segments::default();
            segments.collect(env, data, has_views, wait == Wait::NonBlocking)?;
            let source = Source {
                has_views,
                copied: segments.copied,
            };
            pwrite_segments(env, handle, offset, segments.as_slice(), source, wait)
        }
    }
}

/// Where data may have come from.
#[derive(Clone, Copy)]
struct Source {
    /// There are views.
    has_views: bool,
    /// Some segments are copies that the VM made of we do not know what.
    copied: bool,
}

/// Zeros that stand where a view lost its file are not data: a write with any is `sigbus`.
#[inline(always)]
fn pwrite_segments(
    env: Env,
    handle: &resource::ErlangHandle,
    offset: u64,
    segments: &[libc::iovec],
    Source { has_views, copied }: Source,
    wait: Wait,
) -> Answer {
    // A segment that lies in no mapping now lies in none for as long as the call runs.
    let views = has_views && segments.iter().any(|one| image::intact(one).is_some());
    if (views || copied) && wait == Wait::NonBlocking {
        return Err(Error::WouldBlock.into()); // views are read where reading may wait, and all asked about where that may
    }
    let is_lost = || {
        let lost = |segment| image::intact(segment) == Some(false);
        views && segments.iter().any(lost) || copied && !image::all_intact()
    };
    let add = |length: usize, segment: &libc::iovec| length.saturating_add(segment.iov_len);
    let length = segments.iter().fold(0, add);
    if segments.len() > 1 {
        handle.prefetch(offset, length);
    }
    if is_lost() {
        handle.check_pwrite(wait, offset, length)?;
        return Err(Error::Fault.into());
    }
    // SAFETY: the segments are binaries of the call's arguments, or gathered bytes that live as long as this call.
    let segments_of_call = unsafe { term::segments(segments) };
    let data = Data::new(segments_of_call).ok_or(Error::OutOfBounds)?;
    handle.pwrite(wait, offset, data)?;
    if is_lost() {
        return Err(Error::Fault.into());
    }
    if wait == Wait::NonBlocking {
        dispatch::consume_timeslice(env, length);
    }
    Ok(atoms().ok)
}
