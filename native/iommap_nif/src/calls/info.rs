//! Facts about a handle, and about the images.

use crate::answer::{self, Answer};
use crate::{atoms, image, resource, term};
use iommap_core::{Access, Info, Wait};
use rustler::{Atom, Encoder, Env, Term};
use std::os::unix::ffi::OsStrExt;

/// `position(Handle)`
pub fn position<'a>(env: Env<'a>, [handle]: [Term<'a>; 1], wait: Wait) -> Answer<'a> {
    let size = resource::decode_handle(handle)?.position(wait)?;
    Ok(answer::ok(env, size))
}

/// `info(Handle)`
pub fn info<'a>(env: Env<'a>, [handle]: [Term<'a>; 1], wait: Wait) -> Answer<'a> {
    let info = resource::decode_handle(handle)?.info(wait)?;
    Ok(answer::ok(env, encode(env, &info)))
}

/// Makes the map of what is told of a mapping.
pub fn encode<'a>(env: Env<'a>, info: &Info) -> Term<'a> {
    let mode = match info.access {
        Access::Read => atoms::read(),
        Access::Write => atoms::write(),
        Access::ReadWrite => atoms::read_write(),
    };
    let sharing = if info.private {
        atoms::private()
    } else {
        atoms::shared()
    };
    let undefined = || atoms::undefined().encode(env);
    let views = info.views.map_or_else(undefined, |views| views.encode(env));
    let path = info.path.as_ref().map_or_else(undefined, |path| {
        term::binary_of(env, path.as_os_str().as_bytes())
    });
    let pairs = [
        (atoms::size(), info.size.encode(env)),
        (atoms::mode(), mode.encode(env)),
        (atoms::sharing(), sharing.encode(env)),
        (atoms::locked(), info.locked.encode(env)),
        (atoms::faulted(), info.faulted.encode(env)),
        (atoms::page_size(), iommap_core::page_size().encode(env)),
        (atoms::path(), path),
        (atoms::offset(), info.offset.encode(env)),
        (atoms::views(), views),
        (atoms::descriptor(), info.descriptor.encode(env)),
    ];
    // Never: no key is there twice.
    Term::map_from_pairs(env, &pairs).expect("keys differ")
}

/// `stats()`: the counts of all images.
pub fn stats<'a>(env: Env<'a>, []: [Term<'a>; 0], _wait: Wait) -> Answer<'a> {
    // In the order of `iommap_core::Counter`; then the gauge.
    let names: [Atom; image::STATS] = [
        atoms::moved_lock(),
        atoms::moved_length(),
        atoms::moved_pages(),
        atoms::pages_fetched(),
        atoms::faults(),
        atoms::zero_pages(),
        atoms::unmaps_waiting(),
    ];
    let mut counts = [0; image::STATS];
    image::images().for_each(|image| image.add_counts(&mut counts));
    let pairs: Vec<(Atom, u64)> = names.into_iter().zip(counts).collect();
    Ok(Term::map_from_pairs(env, &pairs)?)
}

/// `resident(Handle, Offset, Length)`
pub fn resident<'a>(
    env: Env<'a>,
    [handle, offset, length]: [Term<'a>; 3],
    _wait: Wait,
) -> Answer<'a> {
    let handle = resource::decode_handle(handle)?;
    let [offset, length] = term::naturals([offset, length])?;
    Ok(answer::ok(env, handle.resident(offset, length)?))
}

/// `image_nif()`: the newest image, for the `load` of the next one.
pub fn image<'a>(env: Env<'a>, []: [Term<'a>; 0], _wait: Wait) -> Answer<'a> {
    Ok(image::newest().encode(env))
}
