//! What the system is told of a range: write it back, expect this of it.

use super::naturals;
use crate::answer::{Answer, Stop};
use crate::atoms::atoms;
use crate::resource;
use crate::term::{BadArgument, Env, Term};
use iommap_core::{Hint, Wait};

/// `sync(Handle, sync | async)`
pub fn sync(env: Env, arguments: &[Term], _wait: Wait) -> Answer {
    let handle = resource::decode_handle(env, arguments[0])?;
    let asynchronously = match arguments[1] {
        mode if mode == atoms().sync => false,
        mode if mode == atoms().async_ => true,
        _ => return Err(Stop::ErrorBadarg),
    };
    handle.sync(asynchronously)?;
    Ok(atoms().ok)
}

/// `advise(Handle, Offset, Length, Hint)`
pub fn advise(env: Env, arguments: &[Term], _wait: Wait) -> Answer {
    let handle = resource::decode_handle(env, arguments[0])?;
    let hint = hint(arguments[3])?;
    let [offset, length] = naturals(env, [arguments[1], arguments[2]])?;
    handle.advise(offset, length, hint)?;
    Ok(atoms().ok)
}

fn hint(hint: Term) -> Result<Hint, BadArgument> {
    let atoms = atoms();
    match hint {
        hint if hint == atoms.normal => Ok(Hint::Normal),
        hint if hint == atoms.random => Ok(Hint::Random),
        hint if hint == atoms.sequential => Ok(Hint::Sequential),
        hint if hint == atoms.willneed => Ok(Hint::WillNeed),
        hint if hint == atoms.dontneed => Ok(Hint::DontNeed),
        _ => Err(BadArgument),
    }
}
