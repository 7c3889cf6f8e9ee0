//! Opens and closes handles.

use crate::answer::{self, Answer, Stop};
use crate::{atoms, resource, term};
use iommap_core::{Access, Data, Error, Handle, Options, Segment, Wait};
use rustler::{Atom, Env, Term};
use std::ffi::CString;

/// `open_nif(Path :: binary(), Mode, [Option :: atom()], Size)`, as `iommap.erl` has checked and sorted them, but for a NUL
/// in the path, which raises.
pub fn open<'a>(env: Env<'a>, [path, mode, flags, size]: [Term<'a>; 4], _wait: Wait) -> Answer<'a> {
    let path = decode_path(path)?;
    let flags: Vec<Atom> = flags.decode()?;
    let size = size.decode()?;
    assert!(!cfg!(feature = "unknown_abi") || path.as_c_str() != c"panic on purpose");
    let is_set = |flag| flags.contains(&flag);

    let handle = Handle::open(
        &path,
        Options {
            access: decode_access(mode)?,
            private: is_set(atoms::private()),
            create: is_set(atoms::create()),
            truncate: is_set(atoms::truncate()),
            size,
            lock: is_set(atoms::lock()),
            populate: is_set(atoms::populate()),
            nocache: is_set(atoms::nocache()),
        },
    )?;
    Ok(answer::ok(env, resource::encode_handle(env, handle)))
}

/// Copies the path, which may be a view, and ends it with a NUL. One that has a NUL inside raises.
fn decode_path(path: Term) -> Result<CString, Stop> {
    let path = term::binary(path).ok_or(Stop::Raise)?;
    let segments = [path, Segment::from(&[0][..])];
    let bytes = iommap_core::flatten(Data::new(&segments).ok_or(Error::OutOfBounds)?)?;
    CString::from_vec_with_nul(bytes).map_err(|_| Stop::Raise)
}

fn decode_access(mode: Term) -> Result<Access, Stop> {
    let modes = [
        (atoms::read(), Access::Read),
        (atoms::write(), Access::Write),
        (atoms::read_write(), Access::ReadWrite),
    ];
    let mode = modes.into_iter().find(|(atom, _)| *atom == mode);
    mode.map(|(_, access)| access).ok_or(Stop::Raise)
}

/// `close(Handle)`
pub fn close<'a>(env: Env<'a>, [handle]: [Term<'a>; 1], _wait: Wait) -> Answer<'a> {
    resource::decode_handle(handle)?.close()?;
    Ok(atoms::ok().to_term(env))
}
