//! The calls: arguments in, answer out.
//!
//! The order of checks is the contract's: what raises comes before what is answered, and that before the state of the
//! handle, which the core looks at.

use crate::answer::{self, Answer, Stop};
use crate::atoms::atoms;
use crate::ffi::{self, BadArgument, Env, NewBinary, Number, Term};
use crate::image;
use crate::iodata::Segments;
use crate::object::{self, ViewReference};
use crate::schedule::{self, Entry};
use iommap_core::{Access, Error, Handle, Hint, Options, Range, Wait};
use rustler::{Encoder, NifResult};
use std::ffi::{c_int, CStr, CString};
use std::panic::{catch_unwind, AssertUnwindSafe};

/// What `enter` must know of a call besides its body.
pub struct Call {
    /// The NIF's name.
    pub name: &'static CStr,
    /// Its place in the table.
    pub number: usize,
    /// The entry point that may wait.
    pub dirty_io: Entry,
}

/// Does a call: the way in from the VM, and the only way out. No panic passes.
///
/// # Safety
///
/// The VM gave the environment and `argc` arguments.
#[inline(always)]
pub unsafe fn enter(
    call: &'static Call,
    body: impl FnOnce(Env, &[Term]) -> Answer,
    env: Env,
    argc: c_int,
    argv: *const Term,
) -> Term {
    // SAFETY: the caller's promise.
    let arguments = unsafe { std::slice::from_raw_parts(argv, argc as usize) };
    let answered = catch_unwind(AssertUnwindSafe(|| match body(env, arguments) {
        Ok(term) => term,
        // SAFETY: the caller's promise.
        Err(stop) => unsafe { stopped(call, stop, env, argc, argv) },
    }));
    answered.unwrap_or_else(|_| ffi::raise(env, atoms().nif_panicked))
}

/// The answer of a call that stopped.
///
/// # Safety
///
/// The arguments are the running call's.
#[cold]
unsafe fn stopped(call: &Call, stop: Stop, env: Env, argc: c_int, argv: *const Term) -> Term {
    match stop {
        Stop::Raise => ffi::raise_badarg(env),
        Stop::ErrorBadarg => answer::badarg(env),
        // SAFETY: the caller's promise.
        Stop::Error(Error::WouldBlock) => unsafe {
            schedule::dirty_io(env, call.name, call.dirty_io, argc, argv)
        },
        Stop::Error(error) => answer::error(env, error),
        // SAFETY: the caller's promise.
        Stop::Foreign(image) => unsafe { image.call(call.number, env, argc, argv) }
            .unwrap_or_else(|| ffi::raise_badarg(env)),
    }
}

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
    Ok(answer::ok(env, object::encode_handle(env, handle)))
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
    object::decode_handle(env, arguments[0])?.close()?;
    Ok(atoms().ok)
}

/// `pread(Handle, Offset, Length)`
#[inline(always)]
pub fn pread(env: Env, arguments: &[Term], wait: Wait) -> Answer {
    let handle = object::decode_handle(env, arguments[0])?;
    let [offset, length] = naturals(env, [arguments[1], arguments[2]])?;
    let binary = handle.pread(wait, offset, length, |length| {
        NewBinary::allocate(env, length)
    })?;
    if wait == Wait::NonBlocking {
        schedule::consume_timeslice(env, length as usize);
    }
    Ok(answer::ok(env, binary.term(env)))
}

/// `pwrite_nif(Handle, Offset, Data)`: `Data` is iodata of at most `LONG` bytes, as `iommap.erl` has measured it.
#[inline(always)]
pub fn pwrite(env: Env, arguments: &[Term], wait: Wait) -> Answer {
    let handle = object::decode_handle(env, arguments[0])?;
    let [offset] = naturals(env, [arguments[1]])?;
    handle.prefetch(offset, 1);
    pwrite_data(env, handle, offset, arguments[2], wait)
}

/// `pwrite_nif(Handle, Offset, Data, Size)`: the same of data of `Size` bytes, more than `LONG`.
///
/// Only the VM knows the size of a binary without looking at its bytes, and to show a NIF bytes that begin inside a byte it
/// copies the binary. So long data is checked first, and then looked at where that may take long.
pub fn pwrite_long(env: Env, arguments: &[Term], wait: Wait) -> Answer {
    let handle = object::decode_handle(env, arguments[0])?;
    let data = arguments[2];
    let [offset, size] = naturals(env, [arguments[1], arguments[3]])?;
    handle.prefetch(offset, 1);
    handle.check_pwrite(wait, offset, usize::try_from(size).unwrap_or(usize::MAX))?;
    if wait == Wait::NonBlocking && (ffi::is_list(env, data) || ffi::is_unaligned(env, data)) {
        return Err(Error::WouldBlock.into());
    }
    pwrite_data(env, handle, offset, data, wait)
}

#[inline(always)]
fn pwrite_data(
    env: Env,
    handle: &object::ErlangHandle,
    offset: u64,
    data: Term,
    wait: Wait,
) -> Answer {
    let has_views = image::has_views();
    match ffi::binary(env, data) {
        Some(binary) => {
            let source = Source {
                has_views,
                copied: has_views && ffi::is_copied(env, data, &binary),
            };
            pwrite_segments(env, handle, offset, &[binary], source, wait)
        }
        None => {
            let mut segments = Segments::default();
            segments.collect(env, data, has_views, wait == Wait::NonBlocking)?;
            let source = Source {
                has_views,
                copied: segments.copied,
            };
            pwrite_segments(env, handle, offset, segments.as_slice(), source, wait)
        }
    }
}

/// Where data may have come from.
#[derive(Clone, Copy)]
struct Source {
    /// There are views.
    has_views: bool,
    /// Some segments are copies that the VM made of we do not know what.
    copied: bool,
}

/// Zeros that stand where a view lost its file are not data: a write with any is `sigbus`.
#[inline(always)]
fn pwrite_segments(
    env: Env,
    handle: &object::ErlangHandle,
    offset: u64,
    segments: &[libc::iovec],
    Source { has_views, copied }: Source,
    wait: Wait,
) -> Answer {
    // A segment that lies in no mapping now lies in none for as long as the call runs.
    let views = has_views && segments.iter().any(|one| image::intact(one).is_some());
    if (views || copied) && wait == Wait::NonBlocking {
        return Err(Error::WouldBlock.into()); // views are read where reading may wait, and all asked about where that may
    }
    let is_lost = || {
        let lost = |segment| image::intact(segment) == Some(false);
        views && segments.iter().any(lost) || copied && !image::all_intact()
    };
    let add = |length: usize, segment: &libc::iovec| length.saturating_add(segment.iov_len);
    let length = segments.iter().fold(0, add);
    if segments.len() > 1 {
        handle.prefetch(offset, length);
    }
    if is_lost() {
        handle.check_pwrite(wait, offset, length)?;
        return Err(Error::Fault.into());
    }
    // SAFETY: the segments are binaries of the call's arguments, or gathered bytes that live as long as this call.
    let segments_of_call = unsafe { ffi::segments(segments) };
    handle.pwrite(wait, offset, segments_of_call)?;
    if is_lost() {
        return Err(Error::Fault.into());
    }
    if wait == Wait::NonBlocking {
        schedule::consume_timeslice(env, length);
    }
    Ok(atoms().ok)
}

/// `region_binary(Handle, Offset, Length)`
#[inline(always)]
pub fn region_binary(env: Env, arguments: &[Term], wait: Wait) -> Answer {
    let handle = object::decode_handle(env, arguments[0])?;
    let [offset, length] = naturals(env, [arguments[1], arguments[2]])?;
    let show = |view: &ViewReference, address, length| view.binary(env, address, length);
    let binary = handle.region(wait, offset, length, ViewReference::keep, show)?;
    Ok(answer::ok(env, binary))
}

/// `sync(Handle, sync | async)`
pub fn sync(env: Env, arguments: &[Term], _wait: Wait) -> Answer {
    let handle = object::decode_handle(env, arguments[0])?;
    let asynchronously = match arguments[1] {
        mode if mode == atoms().sync => false,
        mode if mode == atoms().async_ => true,
        _ => return Err(Stop::ErrorBadarg),
    };
    handle.sync(asynchronously)?;
    Ok(atoms().ok)
}

/// `truncate(Handle, Size)`
pub fn truncate(env: Env, arguments: &[Term], _wait: Wait) -> Answer {
    let handle = object::decode_handle(env, arguments[0])?;
    let [size] = naturals(env, [arguments[1]])?;
    handle.truncate(size)?;
    Ok(atoms().ok)
}

/// `advise(Handle, Offset, Length, Hint)`
pub fn advise(env: Env, arguments: &[Term], _wait: Wait) -> Answer {
    let handle = object::decode_handle(env, arguments[0])?;
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

/// `position(Handle)`
pub fn position(env: Env, arguments: &[Term], wait: Wait) -> Answer {
    let size = object::decode_handle(env, arguments[0])?.position(wait)?;
    Ok(answer::ok(env, ffi::unsigned(env, size as u64)))
}

/// `remap(Handle)`
pub fn remap(env: Env, arguments: &[Term], _wait: Wait) -> Answer {
    let size = object::decode_handle(env, arguments[0])?.remap()?;
    Ok(answer::ok(env, ffi::unsigned(env, size as u64)))
}

/// `info(Handle)`
pub fn info(env: Env, arguments: &[Term], wait: Wait) -> Answer {
    let info = object::decode_handle(env, arguments[0])?.info(wait)?;
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

/// `intact_nif(Binary, Offset, Length, Size)`: `Binary` is of `Size` bytes, as `iommap.erl` has measured it. A range that
/// is not inside raises, as it does in `binary:part/3`.
pub fn intact(env: Env, arguments: &[Term], wait: Wait) -> Answer {
    let natural = |term| match ffi::number(env, term)? {
        Number::Natural(number) => Ok(number),
        Number::Negative => Err(BadArgument),
    };
    let (offset, length) = (natural(arguments[1])?, natural(arguments[2])?);
    let size = usize::try_from(natural(arguments[3])?).map_err(|_| Stop::Raise)?;
    let range = Range::checked(offset, length, size).map_err(|_| Stop::Raise)?;
    let intact = !image::has_views() || is_intact(env, arguments[0], range, size, wait)?;
    Ok(if intact {
        atoms().true_
    } else {
        atoms().false_
    })
}

fn is_intact(env: Env, term: Term, range: Range, size: usize, wait: Wait) -> Result<bool, Stop> {
    // Where the bytes of a copy came from cannot be known, so all mappings are asked about, which may take long.
    let all_intact = || match wait {
        Wait::NonBlocking => Err(Error::WouldBlock.into()),
        Wait::Blocking => Ok(image::all_intact()),
    };
    if size as u64 > ffi::LONG && ffi::is_unaligned(env, term) {
        return all_intact();
    }
    let binary = ffi::binary(env, term).ok_or(BadArgument)?;
    if ffi::is_copied(env, term, &binary) {
        return all_intact();
    }
    let part = libc::iovec {
        iov_base: binary.iov_base.wrapping_byte_add(range.offset()),
        iov_len: range.length(),
    };
    Ok(image::intact(&part).unwrap_or(true))
}

/// `image_nif()`: the newest image, for the `load` of the next one.
pub fn image(env: Env, _arguments: &[Term], _wait: Wait) -> Answer {
    Ok(ffi::unsigned(env, image::newest()))
}

#[inline]
fn naturals<const N: usize>(env: Env, terms: [Term; N]) -> Result<[u64; N], Stop> {
    let mut naturals = [0; N];
    let mut negative = false;
    for (natural, term) in naturals.iter_mut().zip(terms) {
        match ffi::number(env, term)? {
            Number::Natural(number) => *natural = number,
            Number::Negative => negative = true,
        }
    }
    if negative {
        Err(Stop::ErrorBadarg)
    } else {
        Ok(naturals)
    }
}
