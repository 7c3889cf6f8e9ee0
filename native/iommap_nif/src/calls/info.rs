//! What a handle tells of itself, and this image.

use crate::answer::{self, Answer, Stop};
use crate::atoms::atoms;
use crate::term::{self, Env, Term};
use crate::{image, resource};
use iommap_core::{Access, Wait};
use rustler::Encoder;

/// `position(Handle)`
pub fn position(env: Env, arguments: &[Term], wait: Wait) -> Answer {
    let size = resource::decode_handle(env, arguments[0])?.position(wait)?;
    Ok(answer::ok(env, term::unsigned(env, size as u64)))
}

/// `info(Handle)`
pub fn info(env: Env, arguments: &[Term], wait: Wait) -> Answer {
    let info = resource::decode_handle(env, arguments[0])?.info(wait)?;
    let atoms = atoms();
    let mode = match info.access {
        Access::Read => atoms.read,
        Access::Write => atoms.write,
        Access::ReadWrite => atoms.read_write,
    };
    let sharing = if info.private {
        atoms.private
    } else {
        atoms.shared
    };
    let boolean = |value| if value { atoms.true_ } else { atoms.false_ };
    let marker = ();
    // SAFETY: the environment is the running call's, and the marker does not outlive the call.
    let safe_env = unsafe { rustler::Env::new(&marker, env) };
    // SAFETY: terms of this environment.
    let term = |raw| unsafe { rustler::Term::new(safe_env, raw) };
    let map = rustler::Term::map_from_pairs(
        safe_env,
        &[
            (term(atoms.size), info.size.encode(safe_env)),
            (term(atoms.mode), term(mode)),
            (term(atoms.sharing), term(sharing)),
            (term(atoms.locked), term(boolean(info.locked))),
            (term(atoms.faulted), term(boolean(info.faulted))),
            (
                term(atoms.page_size),
                iommap_core::page_size().encode(safe_env),
            ),
        ],
    );
    let map = map.map_err(|_| Stop::Raise)?.as_c_arg();
    Ok(answer::ok(env, map))
}

/// `image_nif()`: the newest image, for the `load` of the next one.
pub fn image(env: Env, _arguments: &[Term], _wait: Wait) -> Answer {
    Ok(term::unsigned(env, image::newest()))
}
