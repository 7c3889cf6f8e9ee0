//! Advice to the system: write changes back, expect this use of a range.

use crate::answer::{Answer, Stop};
use crate::{atoms, resource, term};
use iommap_core::{Hint, Wait};
use rustler::{Env, Term};

/// `sync(Handle, sync | async)`
pub fn sync<'a>(env: Env<'a>, [handle, mode]: [Term<'a>; 2], _wait: Wait) -> Answer<'a> {
    let handle = resource::decode_handle(handle)?;
    handle.sync(is_async(mode)?)?;
    Ok(atoms::ok().to_term(env))
}

/// `sync(Handle, Offset, Length, sync | async)`
pub fn sync_range<'a>(
    env: Env<'a>,
    [handle, offset, length, mode]: [Term<'a>; 4],
    _wait: Wait,
) -> Answer<'a> {
    let handle = resource::decode_handle(handle)?;
    let [offset, length] = term::naturals([offset, length])?;
    handle.sync_range(offset, length, is_async(mode)?)?;
    Ok(atoms::ok().to_term(env))
}

fn is_async(mode: Term) -> Result<bool, Stop> {
    if atoms::sync() == mode {
        Ok(false)
    } else if atoms::async_() == mode {
        Ok(true)
    } else {
        Err(Stop::Error(atoms::badarg()))
    }
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
        (atoms::hugepage(), Hint::HugePage),
        (atoms::nohugepage(), Hint::NoHugePage),
        (atoms::collapse(), Hint::Collapse),
        (atoms::populate_read(), Hint::PopulateRead),
        (atoms::populate_write(), Hint::PopulateWrite),
        (atoms::cold(), Hint::Cold),
        (atoms::pageout(), Hint::PageOut),
        (atoms::dontdump(), Hint::DontDump),
        (atoms::dodump(), Hint::DoDump),
        (atoms::dontfork(), Hint::DontFork),
        (atoms::dofork(), Hint::DoFork),
    ];
    let hint = hints.into_iter().find(|(atom, _)| *atom == term);
    hint.map(|(_, hint)| hint).ok_or(Stop::Raise)
}
