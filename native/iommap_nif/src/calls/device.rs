//! Devices, for `iommap_file`, which has checked the arguments. Errors are those of OTP's raw files.

use crate::answer::{self, Answer, Stop};
use crate::origin::Origin;
use crate::resource::{self, HandleReference};
use crate::term::{self, BinaryBuffer};
use crate::{atoms, dispatch};
use iommap_core::{
    Access, Buffer, Counter, Data, Device, Error, Hint, OpenMode, Segment, Wait, Whence,
};
use rustler::{Atom, Encoder, Env, Term};
use std::cell::Cell;

/// `device_open_nif(Path, Access, [append | exclusive | sync])`
pub fn open<'a>(env: Env<'a>, [path, access, flags]: [Term<'a>; 3], _wait: Wait) -> Answer<'a> {
    let flags: Vec<Atom> = flags.decode()?;
    let access: Atom = access.decode()?;
    let path = term::path(path)?;
    let mode = OpenMode {
        access: if access == atoms::read() {
            Access::Read
        } else if access == atoms::write() {
            Access::Write
        } else {
            Access::ReadWrite
        },
        append: flags.contains(&atoms::append()),
        exclusive: flags.contains(&atoms::exclusive()),
        sync: flags.contains(&atoms::sync()),
    };
    let device = Device::open(&path, mode).map_err(as_a_file)?;
    Ok(answer::ok(env, resource::encode_device(env, device)))
}

/// `device_from_nif(Handle)`
pub fn from<'a>(env: Env<'a>, [handle]: [Term<'a>; 1], _wait: Wait) -> Answer<'a> {
    let device = Device::of_handle(HandleReference::keep(handle)?)?;
    Ok(answer::ok(env, resource::encode_device(env, device)))
}

/// `device_close_nif(Device)`
pub fn close<'a>(env: Env<'a>, [device]: [Term<'a>; 1], _wait: Wait) -> Answer<'a> {
    done(env, resource::decode_device(device)?.close())
}

/// `device_pread_nif(Device, Offset, Length)`
#[inline(always)]
pub fn pread<'a>(env: Env<'a>, [device, offset, length]: [Term<'a>; 3], wait: Wait) -> Answer<'a> {
    let device = resource::decode_device(device)?;
    let [offset] = term::naturals([offset])?;
    device.prefetch(offset);
    let [length] = term::naturals([length])?;
    // As `read::pread` does it. Of several binaries that are made, the last but need not be the one that is read.
    let answer = Cell::new(None);
    let allocate = |length| {
        let binary = BinaryBuffer::allocate(env, length)?;
        let early = binary.early_term(env);
        answer.set(early.map(|term| (term.as_c_arg(), answer::ok(env, term))));
        Some(binary)
    };
    let read = device.pread(wait, offset, length, allocate);
    if let (Ok(Some(binary)), Some((term, answer))) = (&read, answer.get()) {
        let is_of = |early: Term| early.as_c_arg() == term;
        if wait == Wait::NonBlocking && binary.early_term(env).is_some_and(is_of) {
            dispatch::consume_timeslice(env, binary.len());
            return Ok(answer);
        }
    }
    bytes(env, wait, read)
}

/// `device_read_nif(Device, Length)`
pub fn read<'a>(env: Env<'a>, [device, length]: [Term<'a>; 2], wait: Wait) -> Answer<'a> {
    let device = resource::decode_device(device)?;
    let [length] = term::naturals([length])?;
    let allocate = |length| BinaryBuffer::allocate(env, length);
    bytes(env, wait, device.read(wait, length, allocate))
}

/// `device_read_line_nif(Device)`
pub fn read_line<'a>(env: Env<'a>, [device]: [Term<'a>; 1], wait: Wait) -> Answer<'a> {
    let device = resource::decode_device(device)?;
    let allocate = |length| BinaryBuffer::allocate(env, length);
    bytes(env, wait, device.read_line(wait, allocate))
}

#[inline(always)]
fn bytes<'a>(
    env: Env<'a>,
    wait: Wait,
    read: Result<Option<BinaryBuffer<'a>>, Error>,
) -> Answer<'a> {
    let Some(binary) = read.map_err(as_a_file)? else {
        return Ok(atoms::eof().to_term(env));
    };
    if wait == Wait::NonBlocking {
        dispatch::consume_timeslice(env, binary.len());
    }
    Ok(answer::ok(env, binary.term(env)))
}

/// `device_pwrite_nif(Device, Offset, Binary)`; `device_pwrite_long_nif`, if showing the binary may take long
pub fn pwrite<'a>(env: Env<'a>, [device, offset, data]: [Term<'a>; 3], wait: Wait) -> Answer<'a> {
    let device = resource::decode_device(device)?;
    let [offset] = term::naturals([offset])?;
    write_binary(env, wait, data, |data| device.pwrite(wait, offset, data))
}

/// `device_write_nif(Device, Binary)`; `device_write_long_nif`, if showing the binary may take long
pub fn write<'a>(env: Env<'a>, [device, data]: [Term<'a>; 2], wait: Wait) -> Answer<'a> {
    let device = resource::decode_device(device)?;
    write_binary(env, wait, data, |data| device.write(wait, data))
}

fn write_binary<'a>(
    env: Env<'a>,
    wait: Wait,
    term: Term<'a>,
    write: impl FnOnce(Data) -> Result<(), Error>,
) -> Answer<'a> {
    let segments: [Segment; 1] = [term::binary(term).ok_or(Stop::Raise)?];
    let origin = Origin::of(term, &segments[0]);
    if origin != Origin::Plain && wait == Wait::NonBlocking {
        return Err(Stop::WouldBlock(Counter::MovedPages)); // reading a view may wait
    }
    let data = Data::new(&segments).ok_or(Stop::Raise)?;
    if origin.is_lost(&segments) {
        return Err(Stop::Error(atoms::efault()));
    }
    write(data).map_err(as_a_file)?;
    if origin.is_lost(&segments) {
        return Err(Stop::Error(atoms::efault()));
    }
    if wait == Wait::NonBlocking {
        dispatch::consume_timeslice(env, data.length());
    }
    Ok(atoms::ok().to_term(env))
}

/// `device_position_nif(Device, bof | cur | eof, Offset)`
pub fn position<'a>(
    env: Env<'a>,
    [device, whence, offset]: [Term<'a>; 3],
    wait: Wait,
) -> Answer<'a> {
    let device = resource::decode_device(device)?;
    let whence = if atoms::bof() == whence {
        Whence::Start
    } else if atoms::cur() == whence {
        Whence::Current
    } else {
        Whence::End
    };
    let at = device.seek(wait, whence, offset.decode()?);
    Ok(answer::ok(env, at.map_err(as_a_file)?))
}

/// `device_truncate_nif(Device)`
pub fn truncate<'a>(env: Env<'a>, [device]: [Term<'a>; 1], _wait: Wait) -> Answer<'a> {
    done(env, resource::decode_device(device)?.truncate())
}

/// `device_sync_nif(Device, DataOnly)`
pub fn sync<'a>(env: Env<'a>, [device, data_only]: [Term<'a>; 2], _wait: Wait) -> Answer<'a> {
    done(
        env,
        resource::decode_device(device)?.sync(data_only.decode()?),
    )
}

/// `device_allocate_nif(Device, Offset, Length)`
pub fn allocate<'a>(
    env: Env<'a>,
    [device, offset, length]: [Term<'a>; 3],
    _wait: Wait,
) -> Answer<'a> {
    let device = resource::decode_device(device)?;
    let [offset, length] = term::naturals([offset, length])?;
    done(env, device.allocate(offset, length))
}

/// `device_advise_nif(Device, Offset, Length, Hint)`
pub fn advise<'a>(
    env: Env<'a>,
    [device, offset, length, hint]: [Term<'a>; 4],
    _wait: Wait,
) -> Answer<'a> {
    let device = resource::decode_device(device)?;
    let [offset, length] = term::naturals([offset, length])?;
    let hints = [
        (atoms::random(), Hint::Random),
        (atoms::sequential(), Hint::Sequential),
        (atoms::willneed(), Hint::WillNeed),
        (atoms::dontneed(), Hint::DontNeed),
    ];
    let found = hints.into_iter().find(|(atom, _)| *atom == hint);
    let hint = found.map_or(Hint::Normal, |(_, hint)| hint);
    done(env, device.advise(offset, length, hint))
}

/// `device_info_nif(Device)`: the fields of `#file_info{}` as a list, with times in seconds
pub fn info<'a>(env: Env<'a>, [device]: [Term<'a>; 1], _wait: Wait) -> Answer<'a> {
    let status = resource::decode_device(device)?
        .status()
        .map_err(as_a_file)?;
    let kind = if status.is_device {
        atoms::device()
    } else {
        atoms::regular()
    };
    let access = match (status.readable, status.writable) {
        (true, true) => atoms::read_write(),
        (true, false) => atoms::read(),
        (false, true) => atoms::write(),
        (false, false) => atoms::none(),
    };
    let fields = [
        status.size.encode(env),
        kind.encode(env),
        access.encode(env),
        status.accessed.encode(env),
        status.modified.encode(env),
        status.changed.encode(env),
        status.mode.encode(env),
        status.links.encode(env),
        // As wide as OTP's raw files tell them.
        (status.device as u32).encode(env),
        (status.device_of as u32).encode(env),
        (status.inode as u32).encode(env),
        status.user.encode(env),
        status.group.encode(env),
    ];
    Ok(answer::ok(env, fields.as_slice()))
}

fn done(env: Env, done: Result<(), Error>) -> Answer {
    done.map_err(as_a_file)?;
    Ok(atoms::ok().to_term(env))
}

/// The reason as a raw file has it.
#[cold]
fn as_a_file(error: Error) -> Stop {
    match error {
        Error::Closed | Error::OutOfBounds => Stop::Error(atoms::einval()),
        Error::Fault => Stop::Error(atoms::eio()),
        error => error.into(),
    }
}
