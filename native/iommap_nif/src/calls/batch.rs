//! Reads and writes of several ranges in one call.

use crate::answer::{self, Answer, Stop};
use crate::iodata::{Iodata, Segments};
use crate::origin::Origin;
use crate::resource::{self, ErlangHandle};
use crate::term::{self, BinaryBuffer};
use crate::{atoms, dispatch};
use iommap_core::{Data, Error, Segment, Span, Wait, NON_BLOCKING_MAX};
use rustler::{Encoder, Env, Term};

/// The most elements of a list that are looked at without waiting.
const MAX_ELEMENTS_NON_BLOCKING: usize = 2048;

/// The most of them whose data is a list: each is walked through some thousand cells without waiting.
const MAX_LISTS_NON_BLOCKING: usize = 16;

/// `pread(Handle, [{Offset, Length}])`
pub fn pread<'a>(env: Env<'a>, [handle, list]: [Term<'a>; 2], wait: Wait) -> Answer<'a> {
    let handle = resource::decode_handle(handle)?;
    let (spans, _) = elements(list, wait, |[offset, length]| ([offset, length], ()))?;
    let total = total(&spans);
    // A binary that the VM makes with its term cannot be refused, which many of them may have to be.
    let binaries = handle.pread_all(wait, &spans, |length| {
        if total > NON_BLOCKING_MAX as u64 {
            BinaryBuffer::allocate_or_refuse(length)
        } else {
            BinaryBuffer::allocate(env, length)
        }
    })?;
    if wait == Wait::NonBlocking {
        dispatch::consume_timeslice(env, total as usize);
    }
    let mut terms = Vec::new();
    terms
        .try_reserve_exact(binaries.len())
        .map_err(|_| Error::NO_MEMORY)?;
    terms.extend(binaries.into_iter().map(|binary| binary.term(env)));
    Ok(answer::ok(env, terms.as_slice().encode(env)))
}

/// `pwrite_all_nif(Handle, [{Offset, Size, Data}])`: `Size` is that of the data, as `iommap.erl` has measured it.
pub fn pwrite<'a>(env: Env<'a>, [handle, list]: [Term<'a>; 2], wait: Wait) -> Answer<'a> {
    let handle = resource::decode_handle(handle)?;
    match pwrite_elements(env, handle, list, wait) {
        Ok(()) => Ok(atoms::ok().to_term(env)),
        Err((written, stop)) => answer::error_after(env, written, stop),
    }
}

fn pwrite_elements<'a>(
    env: Env<'a>,
    handle: &ErlangHandle,
    list: Term<'a>,
    wait: Wait,
) -> Result<(), (usize, Stop)> {
    let nothing_written = |stop| (0, stop);
    let (spans, data) = elements(list, wait, |[offset, size, data]| ([offset, size], data))
        .map_err(nothing_written)?;
    let total = total(&spans);
    handle
        .check_pwrite_all(wait, &spans)
        .map_err(|error| (0, error.into()))?;
    let lists = data.iter().filter(|data| data.is_list()).count();
    let is_long = total > term::LONG as u64 || lists > MAX_LISTS_NON_BLOCKING;
    if is_long && wait == Wait::NonBlocking {
        return Err((0, Stop::WouldBlock));
    }
    let data = Elements::collect(&data, wait).map_err(nothing_written)?;
    data.pwrite(handle, &spans, wait)?;
    if wait == Wait::NonBlocking {
        dispatch::consume_timeslice(env, total as usize);
    }
    Ok(())
}

/// The data of several writes.
struct Elements<'a> {
    each: Vec<Element<'a>>,
    origin: Origin,
}

enum Element<'a> {
    Binary([Segment<'a>; 1]),
    Iodata(Box<Iodata<'a>>),
}

impl<'a> Elements<'a> {
    fn collect(terms: &[Term<'a>], wait: Wait) -> Result<Elements<'a>, Stop> {
        let mut each = Vec::new();
        each.try_reserve_exact(terms.len())
            .map_err(|_| Error::NO_MEMORY)?;
        let mut origin = Origin::default();
        for term in terms {
            each.push(match term::binary(*term) {
                Some(binary) => {
                    origin = origin.max(Origin::of(*term, &binary));
                    Element::Binary([binary])
                }
                None => {
                    let mut iodata = Box::<Iodata>::default();
                    iodata.collect(*term, wait)?;
                    origin = origin.max(iodata.origin());
                    Element::Iodata(iodata)
                }
            });
        }
        Ok(Elements { each, origin })
    }

    fn pwrite(
        &self,
        handle: &ErlangHandle,
        spans: &[Span],
        wait: Wait,
    ) -> Result<(), (usize, Stop)> {
        if self.origin != Origin::Plain && wait == Wait::NonBlocking {
            return Err((0, Stop::WouldBlock)); // reading a view may wait, and so may asking about all
        }
        let lists = self.each.iter().filter(|each| each.is_iodata()).count();
        let mut memory: Vec<Segments> = (0..lists).map(|_| Segments::new()).collect();
        let data = self.data(&mut memory).map_err(|error| (0, error.into()))?;
        let lost = || {
            data.iter()
                .position(|data| self.origin.is_lost(data.segments()))
        };
        if lost().is_some() {
            return Err((0, Error::Fault.into()));
        }
        let writes: Vec<_> = spans.iter().map(|(offset, _)| *offset).zip(data.iter().copied()).collect();
        let written = handle.pwrite_all(wait, &writes);
        match lost() {
            Some(first) => Err((first, Error::Fault.into())),
            None => written.map_err(|(count, error)| (count, error.into())),
        }
    }

    /// The data of each as segments, put together in `memory` where it is a list.
    fn data<'s, 'm: 's>(&'s self, memory: &'m mut [Segments<'s>]) -> Result<Vec<Data<'s>>, Error> {
        let mut memory = memory.iter_mut();
        let segments = |element: &'s Element<'a>| -> Result<&'s [Segment<'s>], Error> {
            match element {
                Element::Binary(binary) => Ok(binary),
                // Never `None`: there is memory for each.
                Element::Iodata(iodata) => memory
                    .next()
                    .map_or(Err(Error::NO_MEMORY), |memory| iodata.segments(memory)),
            }
        };
        self.each
            .iter()
            .map(segments)
            .map(|segments| Data::new(segments?).ok_or(Error::OutOfBounds))
            .collect()
    }
}

impl Element<'_> {
    fn is_iodata(&self) -> bool {
        matches!(self, Element::Iodata(_))
    }
}

/// Decodes a list of tuples: of each an offset, a length, and the rest. What is malformed anywhere raises before what is
/// negative anywhere is answered.
fn elements<'a, const N: usize, T>(
    list: Term<'a>,
    wait: Wait,
    split: impl Fn([Term<'a>; N]) -> ([Term<'a>; 2], T),
) -> Result<(Vec<Span>, Vec<T>), Stop> {
    let length = list.list_length()?;
    if length > MAX_ELEMENTS_NON_BLOCKING && wait == Wait::NonBlocking {
        return Err(Stop::WouldBlock);
    }
    let (mut spans, mut rests) = (Vec::new(), Vec::new());
    spans
        .try_reserve_exact(length)
        .and_then(|()| rests.try_reserve_exact(length))
        .map_err(|_| Error::NO_MEMORY)?;
    let (mut at, mut negative) = (list, false);
    while let Some((element, tail)) = term::list_cell(at) {
        let (numbers, rest) = split(term::tuple(element).ok_or(Stop::Raise)?);
        let [offset, length] = term::naturals_or_negative(numbers, &mut negative)?;
        spans.push((offset, length));
        rests.push(rest);
        at = tail;
    }
    if negative {
        return Err(Stop::Error(atoms::badarg()));
    }
    Ok((spans, rests))
}

/// The sum of the lengths, which saturates: what is so long fits into no mapping.
fn total(spans: &[Span]) -> u64 {
    spans
        .iter()
        .fold(0, |total: u64, (_, length)| total.saturating_add(*length))
}
