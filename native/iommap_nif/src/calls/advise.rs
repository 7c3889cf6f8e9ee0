//! Advice to the system: write changes back, expect this use of a range.

use crate::answer::{Answer, Stop};
use crate::{atoms, resource, term};
use iommap_core::{Hint, Wait};
use rustler::{Env, Term};

/// `sync(Handle, sync | async)`
pub fn sync<'a>(env: Env<'a>, [handle, mode]: [Term<'a>; 2], _wait: Wait) -> Answer<'a> {
    let handle = resource::decode_handle(handle)?;
    let asynchronously = if atoms::sync() == mode {
        false
    } else if atoms::async_() == mode {
        true
    } else {
        return Err(Stop::Error(atoms::badarg()));
    };
    handle.sync(asynchronously)?;
    Ok(atoms::ok().to_term(env))
}

/// `advise(Handle, Offset, Length, Hint)`
pub fn advise<'a>(
    env: Env<'a>,
    [handle, offset, length, hint]: [Term<'a>; 4],
    _wait: Wait,
) -> Answer<'a> {
    let handle = resource::decode_handle(handle)?;
    let hint = decode_hint(hint)?;
    let [offset, length] = term::naturals([offset, length])?;
    handle.advise(offset, length, hint)?;
    Ok(atoms::ok().to_term(env))
}

fn decode_hint(term: Term) -> Result<Hint, Stop> {
    let hints = [
        (atoms::normal(), Hint::Normal),
        (atoms::random(), Hint::Random),
        (atoms::sequential(), Hint::Sequential),
        (atoms::willneed(), Hint::WillNeed),
        (atoms::dontneed(), Hint::DontNeed),
    ];
    let hint = hints.into_iter().find(|(atom, _)| *atom == term);
    hint.map(|(_, hint)| hint).ok_or(Stop::Raise)
}
