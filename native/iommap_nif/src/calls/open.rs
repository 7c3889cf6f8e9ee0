//! Opens and closes handles.

use crate::answer::{self, Answer, Stop};
use crate::resource::{self, ErlangHandle};
use crate::{atoms, term};
use iommap_core::{Access, Handle, Options, Source, Wait, Window};
use rustler::{Atom, Env, Term};
use std::ffi::c_int;

/// `open_nif(Path :: binary() | {fd, integer()} | anonymous, Mode, [Flag :: atom()], [{Key :: atom(), Number}])`, as `iommap.erl`
/// has checked and sorted them, but for a NUL in the path, which raises. Of two numbers of one key the first one counts.
pub fn open<'a>(
    env: Env<'a>,
    [source, mode, flags, numbers]: [Term<'a>; 4],
    _wait: Wait,
) -> Answer<'a> {
    let flags: Vec<Atom> = flags.decode()?;
    let numbers: Vec<(Atom, u64)> = numbers.decode()?;
    let is_set = |flag| flags.contains(&flag);
    let number = |wanted| {
        let found = numbers.iter().find(|(key, _)| *key == wanted);
        found.map(|(_, number)| *number)
    };

    let options = Options::new(decode_access(mode)?);
    let permissions = number(atoms::permissions()).map(|number| number as u32);
    let options = Options {
        private: is_set(atoms::private()),
        create: is_set(atoms::create()),
        truncate: is_set(atoms::truncate()),
        size: number(atoms::size()).unwrap_or(0),
        lock: is_set(atoms::lock()),
        populate: is_set(atoms::populate()),
        nocache: is_set(atoms::nocache()),
        follow: is_set(atoms::follow()),
        permissions: permissions.unwrap_or(options.permissions),
        window: Window {
            offset: number(atoms::offset()).unwrap_or(0),
            length: number(atoms::length()),
        },
        reserve: number(atoms::reserve()).unwrap_or(0),
        ..options
    };
    let handle = open_source(source, options)?;
    Ok(answer::ok(env, resource::encode_handle(env, handle)))
}

fn open_source(source: Term, options: Options) -> Result<ErlangHandle, Stop> {
    if let Ok((kind, fd)) = source.decode::<(Atom, c_int)>() {
        assert!(kind == atoms::fd(), "iommap.erl knows no other");
        return Ok(Handle::open(Source::Descriptor(fd), options)?);
    }
    if atoms::anonymous() == source {
        return Ok(Handle::open(Source::Anonymous, options)?);
    }
    let path = term::path(source)?;
    assert!(!cfg!(feature = "unknown_abi") || path.as_c_str() != c"panic on purpose");
    Ok(Handle::open(&path, options)?)
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
