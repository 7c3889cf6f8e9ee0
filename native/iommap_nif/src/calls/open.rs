//! Opening and closing.

use crate::answer::{self, Answer, Stop};
use crate::atoms::atoms;
use crate::resource;
use crate::term::{BadArgument, Env, Term};
use iommap_core::{Access, Handle, Options, Wait};
use rustler::NifResult;
use std::ffi::CString;

/// `open_nif(Path :: binary(), Mode, [Option :: atom()], Size)`, as `iommap.erl` has checked and sorted them.
pub fn open(env: Env, arguments: &[Term], _wait: Wait) -> Answer {
    let &[path, mode, flags, size] = arguments else {
        return Err(Stop::Raise);
    };
    let marker = ();
    // SAFETY: the environment is the running call's, and the marker does not outlive the call.
    let safe_env = unsafe { rustler::Env::new(&marker, env) };
    // SAFETY: terms of this environment.
    let term = |raw| unsafe { rustler::Term::new(safe_env, raw) };
    let decoded: NifResult<_> = (|| {
        let path: rustler::Binary = term(path).decode()?;
        let flags: Vec<rustler::Term> = term(flags).decode()?;
        Ok((path, flags, term(size).decode::<u64>()?))
    })();
    let (path, flags, size) = decoded.map_err(|_| Stop::Raise)?;
    let path = CString::new(path.as_slice()).map_err(|_| Stop::Raise)?;
    assert!(!cfg!(feature = "unknown_abi") || path.as_c_str() != c"panic on purpose");
    let is_set = |flag| flags.iter().any(|set| set.as_c_arg() == flag);

    let handle = Handle::open(
        &path,
        Options {
            access: access(mode)?,
            private: is_set(atoms().private),
            create: is_set(atoms().create),
            truncate: is_set(atoms().truncate),
            size,
            lock: is_set(atoms().lock),
            populate: is_set(atoms().populate),
            nocache: is_set(atoms().nocache),
        },
    )?;
    Ok(answer::ok(env, resource::encode_handle(env, handle)))
}

fn access(mode: Term) -> Result<Access, BadArgument> {
    let atoms = atoms();
    match mode {
        mode if mode == atoms.read => Ok(Access::Read),
        mode if mode == atoms.write => Ok(Access::Write),
        mode if mode == atoms.read_write => Ok(Access::ReadWrite),
        _ => Err(BadArgument),
    }
}

/// `close(Handle)`
pub fn close(env: Env, arguments: &[Term], _wait: Wait) -> Answer {
    resource::decode_handle(env, arguments[0])?.close()?;
    Ok(atoms().ok)
}
