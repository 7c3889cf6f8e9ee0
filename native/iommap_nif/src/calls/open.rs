//! Opens and closes handles.

use crate::answer::{self, Answer, Stop};
use crate::{atoms, resource};
use iommap_core::{Access, Handle, Options, Wait};
use rustler::{Atom, Binary, Env, Term};
use std::ffi::CString;

/// `open_nif(Path :: binary(), Mode, [Flag :: atom()], [{Key :: atom(), Number}])`, as `iommap.erl` has checked and sorted
/// them: of two numbers of one key the first one counts.
pub fn open<'a>(
    env: Env<'a>,
    [path, mode, flags, numbers]: [Term<'a>; 4],
    _wait: Wait,
) -> Answer<'a> {
    let path: Binary = path.decode()?;
    let flags: Vec<Atom> = flags.decode()?;
    let numbers: Vec<(Atom, u64)> = numbers.decode()?;
    let path = CString::new(path.as_slice()).map_err(|_| Stop::Raise)?;
    assert!(!cfg!(feature = "unknown_abi") || path.as_c_str() != c"panic on purpose");
    let is_set = |flag| flags.contains(&flag);
    let number = |wanted| {
        let found = numbers.iter().find(|(key, _)| *key == wanted);
        found.map(|(_, number)| *number)
    };

    let handle = Handle::open(
        &path,
        Options {
            access: decode_access(mode)?,
            private: is_set(atoms::private()),
            create: is_set(atoms::create()),
            truncate: is_set(atoms::truncate()),
            size: number(atoms::size()).unwrap_or(0),
            lock: is_set(atoms::lock()),
            populate: is_set(atoms::populate()),
            nocache: is_set(atoms::nocache()),
            reserve: number(atoms::reserve()).unwrap_or(0),
        },
    )?;
    Ok(answer::ok(env, resource::encode_handle(env, handle)))
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
