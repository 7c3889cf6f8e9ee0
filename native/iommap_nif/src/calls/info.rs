//! Facts about a handle, and about the images.

use crate::answer::{self, Answer, Stop};
use crate::{atoms, image, resource, term};
use iommap_core::{Access, Wait};
use rustler::{Encoder, Env, NewBinary, Term};

/// `position(Handle)`
pub fn position<'a>(env: Env<'a>, [handle]: [Term<'a>; 1], wait: Wait) -> Answer<'a> {
    let size = resource::decode_handle(handle)?.position(wait)?;
    Ok(answer::ok(env, size))
}

/// `info(Handle)`
pub fn info<'a>(env: Env<'a>, [handle]: [Term<'a>; 1], wait: Wait) -> Answer<'a> {
    let handle = resource::decode_handle(handle)?;
    let info = handle.info(wait)?;
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
    let map = Term::map_from_pairs(
        env,
        &[
            (atoms::size(), info.size.encode(env)),
            (atoms::mode(), mode.encode(env)),
            (atoms::sharing(), sharing.encode(env)),
            (atoms::locked(), info.locked.encode(env)),
            (atoms::faulted(), info.faulted.encode(env)),
            (atoms::page_size(), iommap_core::page_size().encode(env)),
        ],
    )?;
    Ok(answer::ok(
        env,
        with_path(map, handle.anonymous_path(wait)?)?,
    ))
}

/// Adds the path of anonymous memory.
fn with_path(map: Term, path: Option<String>) -> Result<Term, Stop> {
    let Some(path) = path else {
        return Ok(map);
    };
    let mut binary = NewBinary::new(map.get_env(), path.len());
    binary.as_mut_slice().copy_from_slice(path.as_bytes());
    Ok(map.map_put(atoms::path(), Term::from(binary))?)
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
