//! Reads and writes several ranges under one lock (`pread_all`, `pwrite_all`). All are checked before any byte moves.

use super::{opened, Handle, Wait, NON_BLOCKING_MAX};
use crate::buffer::{Buffer, Data};
use crate::error::Error;
use crate::fault::guard;
use crate::lock::Lock;
use crate::mapping::{Mapping, Part, WritablePart};
use std::cell::Cell;

/// How many parts a call that must not wait asks the system about: each such question may take it ten microseconds.
const MOST_QUESTIONS: usize = 64;

/// An offset and a length, in bytes.
pub type Span = (u64, u64);

impl<V> Handle<V> {
    /// Copies ranges out, each to a buffer that `make` makes, or `None` if there is no memory.
    pub fn pread_all<B: Buffer>(
        &self,
        wait: Wait,
        spans: &[Span],
        make: impl FnMut(usize) -> Option<B>,
    ) -> Result<Vec<B>, Error> {
        match wait {
            Wait::NonBlocking => self.pread_all_non_blocking(spans, make),
            Wait::Blocking => self.pread_all_blocking(spans, make),
        }
    }

    fn pread_all_non_blocking<B: Buffer>(
        &self,
        spans: &[Span],
        mut make: impl FnMut(usize) -> Option<B>,
    ) -> Result<Vec<B>, Error> {
        if total(spans.iter().map(|(_, length)| *length)) > NON_BLOCKING_MAX as u64 {
            return Err(Error::TooLong);
        }
        let reading = self.reading(Wait::NonBlocking)?;
        let mapping = &opened(&reading)?.mapping;
        let parts = self.readable_parts(mapping, spans).map_err(|error| {
            if self.options.follow && error == Error::OutOfBounds {
                Error::WouldBlock // there may be more
            } else {
                error
            }
        })?;
        // Asks about all of them before the first is copied.
        if !all_ready(
            &parts,
            |part| part.is_known_ready_to_read(),
            |part| part.is_ready_to_read(),
        ) {
            return Err(Error::WouldBlock);
        }
        mapping.check_not_faulted()?; // no part may be there to find out
        let mut buffers = with_room(parts.len())?;
        for part in parts {
            let mut buffer = make(part.length()).ok_or(Error::NO_MEMORY)?;
            part.copy_out(&mut buffer)?;
            buffers.push(buffer);
        }
        Ok(buffers)
    }

    fn pread_all_blocking<B: Buffer>(
        &self,
        spans: &[Span],
        make: impl FnMut(usize) -> Option<B>,
    ) -> Result<Vec<B>, Error> {
        let end = |(offset, length): &&Span| offset.saturating_add(*length);
        if let Some((offset, length)) = spans.iter().max_by_key(end) {
            self.follow(*offset, *length)?;
        }
        let prepare = |mapping: &Mapping| {
            let parts = self.readable_parts(mapping, spans)?;
            let mut buffers = allocate(&parts, make)?;
            fetch(&parts, &mut buffers)?;
            Ok(buffers)
        };
        let read = |mapping: &Mapping, mut buffers: Vec<B>| {
            let parts = self.readable_parts(mapping, spans)?;
            copy_out(mapping, &parts, &mut buffers)?;
            Ok(buffers)
        };
        self.two_phase(prepare, Lock::read, read)
    }

    fn readable_parts<'a>(
        &self,
        mapping: &'a Mapping,
        spans: &[Span],
    ) -> Result<Vec<Part<'a>>, Error> {
        self.permit(self.options.access.reads())?;
        let mut parts = with_room(spans.len())?;
        for (offset, length) in spans {
            parts.push(mapping.part(*offset, *length)?);
        }
        Ok(parts)
    }

    /// Copies the data in, in order. An error tells how many were written whole before it: none for every error but `Fault`.
    pub fn pwrite_all(&self, wait: Wait, writes: &[(u64, Data)]) -> Result<(), (usize, Error)> {
        let written = Cell::new(0);
        let done = match wait {
            Wait::NonBlocking => self.pwrite_all_non_blocking(writes, &written),
            Wait::Blocking => self.pwrite_all_blocking(writes, &written),
        };
        done.map_err(|error| (written.get(), error))
    }

    fn pwrite_all_non_blocking(
        &self,
        writes: &[(u64, Data)],
        written: &Cell<usize>,
    ) -> Result<(), Error> {
        if total(writes.iter().map(|(_, data)| data.length() as u64)) > NON_BLOCKING_MAX as u64 {
            return Err(Error::TooLong);
        }
        let writing = self.try_writing()?;
        let mapping = &opened(&writing)?.mapping;
        let parts = writable_parts(mapping, writes)?;
        mapping.check_not_faulted()?; // no part may be there to find out
        if !all_ready(
            &parts,
            |(part, _)| part.is_known_ready_to_write(),
            |(part, _)| part.is_ready_to_write(),
        ) {
            return Err(Error::WouldBlock);
        }
        for (part, data) in parts {
            part.copy_in(data)?;
            written.set(written.get() + 1);
        }
        Ok(())
    }

    /// Checks that writes of so many bytes would be permitted, whatever their data.
    pub fn check_pwrite_all(&self, wait: Wait, spans: &[Span]) -> Result<(), Error> {
        let reading = self.reading(wait)?;
        let mapping = &opened(&reading)?.mapping;
        mapping.writable_part(0, 0)?;
        for (offset, length) in spans {
            mapping.writable_part(*offset, *length)?;
        }
        Ok(())
    }

    fn pwrite_all_blocking(
        &self,
        writes: &[(u64, Data)],
        written: &Cell<usize>,
    ) -> Result<(), Error> {
        let prepare = |mapping: &Mapping| {
            let parts = writable_parts(mapping, writes)?;
            mapping.check_not_faulted()?;
            for (_, data) in writes {
                guard::fault_in_data(*data)?;
            }
            parts.iter().for_each(|(part, _)| part.start_fetch());
            for (part, _) in &parts {
                let _ = part.fault_in_writeable();
            }
            Ok(())
        };
        let write = |mapping: &Mapping, ()| {
            mapping.check_not_faulted()?;
            for (part, data) in writable_parts(mapping, writes)? {
                let stamp = part.write_stamp();
                part.copy_in(data)?;
                part.insert_written(stamp);
                written.set(written.get() + 1);
            }
            Ok(())
        };
        self.two_phase(prepare, Lock::write, write)
    }
}

/// Whether all of them are ready, found out by a bounded number of questions.
fn all_ready<P>(
    parts: &[P],
    is_known_ready: impl Fn(&P) -> bool,
    is_ready: impl Fn(&P) -> bool,
) -> bool {
    let mut questions = 0..MOST_QUESTIONS;
    parts
        .iter()
        .all(|part| is_known_ready(part) || questions.next().is_some() && is_ready(part))
}

/// The sum, which saturates: whatever is so long fits into no mapping.
fn total(lengths: impl Iterator<Item = u64>) -> u64 {
    lengths.fold(0, u64::saturating_add)
}

fn with_room<T>(count: usize) -> Result<Vec<T>, Error> {
    let mut all = Vec::new();
    all.try_reserve_exact(count).map_err(|_| Error::NO_MEMORY)?;
    Ok(all)
}

fn allocate<B>(parts: &[Part], mut make: impl FnMut(usize) -> Option<B>) -> Result<Vec<B>, Error> {
    let mut buffers = with_room(parts.len())?;
    for part in parts {
        buffers.push(make(part.length()).ok_or(Error::NO_MEMORY)?);
    }
    Ok(buffers)
}

/// Brings into memory what is not there: starts to read all of it before it waits for the first.
fn fetch<B: Buffer>(parts: &[Part], buffers: &mut [B]) -> Result<(), Error> {
    let is_cold = |(part, _): &(&Part, &mut B)| !part.is_ready_to_read();
    let mut cold = with_room(parts.len())?;
    cold.extend(parts.iter().zip(buffers).filter(is_cold));
    for (part, _) in &cold {
        part.start_fetch();
    }
    for (part, buffer) in cold {
        part.fetch(buffer);
    }
    Ok(())
}

fn copy_out<B: Buffer>(mapping: &Mapping, parts: &[Part], buffers: &mut [B]) -> Result<(), Error> {
    mapping.check_not_faulted()?; // no part may be there to find out
    for (part, buffer) in parts.iter().zip(buffers) {
        part.copy_out(buffer)?;
    }
    Ok(())
}

fn writable_parts<'m, 'd>(
    mapping: &'m Mapping,
    writes: &[(u64, Data<'d>)],
) -> Result<Vec<(WritablePart<'m>, Data<'d>)>, Error> {
    mapping.writable_part(0, 0)?;
    let mut parts = with_room(writes.len())?;
    for (offset, data) in writes {
        parts.push((mapping.writable_part(*offset, data.length() as u64)?, *data));
    }
    Ok(parts)
}
