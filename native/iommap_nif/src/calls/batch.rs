//! Reads and writes of several ranges in one call.

use crate::answer::{self, Answer, Stop};
use crate::iodata::{self, Iodata, Segments};
use crate::origin::Origin;
use crate::resource::{self, ErlangHandle};
use crate::term::{self, BinaryBuffer};
use crate::{atoms, dispatch};
use iommap_core::{Counter, Data, Error, Segment, Span, Wait};
use rustler::{Env, Term};

/// The most elements of a list that are looked at without waiting.
const MAX_ELEMENTS_NON_BLOCKING: usize = 512;

/// An element takes as much of a time slice as the copy of so many bytes: its page may have to be asked about.
const BYTES_AN_ELEMENT: usize = 1024;

/// `pread(Handle, [{Offset, Length}])`
pub fn pread<'a>(env: Env<'a>, [handle, list]: [Term<'a>; 2], wait: Wait) -> Answer<'a> {
    let handle = resource::decode_handle(handle)?;
    let spans = elements(handle, list, wait, |numbers| (numbers, ()))?.spans;
    let binaries = handle.pread_all(wait, &spans, |length| match wait {
        Wait::NonBlocking => BinaryBuffer::allocate(env, length),
        Wait::Blocking => BinaryBuffer::allocate_one_of_many(env, length),
    })?;
    consume_timeslice(env, &spans, wait);
    let list = binaries
        .into_iter()
        .rfold(Term::list_new_empty(env), |list, binary| {
            list.list_prepend(binary.term(env))
        });
    Ok(answer::ok(env, list))
}

/// `pwrite_all_nif(Handle, [{Offset, Size, Data}])`: `Size` is that of the data, as `iommap.erl` has measured it.
pub fn pwrite<'a>(env: Env<'a>, [handle, list]: [Term<'a>; 2], wait: Wait) -> Answer<'a> {
    let handle = resource::decode_handle(handle)?;
    let Elements { spans, rests } = elements(handle, list, wait, |[offset, size, data]| {
        ([offset, size], data)
    })?;
    match pwrite_checked(handle, &spans, &rests, wait) {
        Ok(()) => {
            consume_timeslice(env, &spans, wait);
            Ok(atoms::ok().to_term(env))
        }
        Err((written, stop)) => answer::error_after(env, written, stop),
    }
}

/// Writes, after a look at whether it may: what is not permitted or does not fit is not inspected.
fn pwrite_checked(
    handle: &ErlangHandle,
    spans: &[Span],
    data: &[Term],
    wait: Wait,
) -> Result<(), (usize, Stop)> {
    let none = |stop: Stop| (0, stop);
    handle
        .check_pwrite_all(wait, spans)
        .map_err(|error| none(error.into()))?;
    if wait == Wait::NonBlocking && total(spans) > term::LONG as u64 {
        return Err(none(Stop::WouldBlock(Counter::MovedLength))); // long to inspect, as `pwrite_long` says
    }
    AllData::collect(data, wait)
        .map_err(none)?
        .pwrite(handle, spans, wait)
}

/// The data of all writes of a call.
struct AllData<'a> {
    each: Vec<Collected<'a>>,
    origin: Origin,
}

/// The data of one.
enum Collected<'a> {
    Binary([Segment<'a>; 1]),
    Iodata(Box<Iodata<'a>>),
}

impl<'a> AllData<'a> {
    fn collect(terms: &[Term<'a>], wait: Wait) -> Result<AllData<'a>, Stop> {
        let mut each = with_room(terms.len())?;
        let mut origin = Origin::default();
        let mut cells = iodata::most_cells(wait);
        for term in terms {
            each.push(match term::binary(*term) {
                Some(binary) => {
                    origin = origin.max(Origin::of(*term, &binary));
                    Collected::Binary([binary])
                }
                None => {
                    let mut iodata = Box::<Iodata>::default();
                    cells = iodata.collect_at_most(cells, *term)?;
                    origin = origin.max(iodata.origin());
                    Collected::Iodata(iodata)
                }
            });
        }
        Ok(AllData { each, origin })
    }

    /// Writes the data, and tells of an error how many were written whole.
    fn pwrite(
        &self,
        handle: &ErlangHandle,
        spans: &[Span],
        wait: Wait,
    ) -> Result<(), (usize, Stop)> {
        if self.origin != Origin::Plain && wait == Wait::NonBlocking {
            return Err((0, Stop::WouldBlock(Counter::MovedPages))); // as in `pwrite_segments`
        }
        let mut memory = self.memory().map_err(|error| (0, error.into()))?;
        let writes = self
            .writes(spans, &mut memory)
            .map_err(|error| (0, error.into()))?;
        if self.first_lost(&writes).is_some() {
            return Err((0, Error::Fault.into()));
        }
        let done = handle.pwrite_all(wait, &writes);
        let lost = self.first_lost(&writes);
        match (done, lost) {
            (Ok(()), None) => Ok(()),
            (Err((written, error)), None) => Err((written, error.into())),
            (Ok(()), Some(lost)) => Err((lost, Error::Fault.into())),
            (Err((written, _)), Some(lost)) => Err((lost.min(written), Error::Fault.into())),
        }
    }

    /// Memory for `writes` to put the segments of lists together.
    fn memory<'s>(&self) -> Result<Vec<Segments<'s>>, Error> {
        let is_iodata = |data: &&Collected| matches!(data, Collected::Iodata(_));
        let count = self.each.iter().filter(is_iodata).count();
        let mut memory = with_room(count)?;
        memory.resize_with(count, Segments::new);
        Ok(memory)
    }

    fn writes<'s: 'm, 'm>(
        &'s self,
        spans: &[Span],
        memory: &'m mut [Segments<'s>],
    ) -> Result<Vec<(u64, Data<'m>)>, Error> {
        let mut memory = memory.iter_mut();
        let mut writes = with_room(spans.len())?;
        for ((offset, _), data) in spans.iter().zip(&self.each) {
            let segments: &[Segment] = match data {
                Collected::Binary(binary) => binary,
                // Never refused: there is memory for each.
                Collected::Iodata(iodata) => {
                    iodata.segments(memory.next().ok_or(Error::NO_MEMORY)?)?
                }
            };
            writes.push((*offset, Data::new(segments).ok_or(Error::OutOfBounds)?));
        }
        Ok(writes)
    }

    /// Finds the first that is of a view which lost its file.
    fn first_lost(&self, writes: &[(u64, Data)]) -> Option<usize> {
        if self.origin == Origin::Plain {
            return None;
        }
        let is_lost = |(_, data): &(u64, Data)| self.origin.is_lost(data.segments());
        writes.iter().position(is_lost)
    }
}

/// A list, taken apart.
struct Elements<T> {
    spans: Vec<Span>,
    rests: Vec<T>,
}

/// Decodes a list of tuples, which `split` takes apart: an offset and a length, and the rest. Something malformed anywhere raises
/// before something negative anywhere is answered. The processor is told of each range as soon as it is known: their lines of the
/// cache come together, while the rest of the list is decoded.
#[inline(always)]
fn elements<'a, const N: usize, T>(
    handle: &ErlangHandle,
    list: Term<'a>,
    wait: Wait,
    split: impl Fn([Term<'a>; N]) -> ([Term<'a>; 2], T),
) -> Result<Elements<T>, Stop> {
    let (mut spans, mut rests) = (Vec::new(), Vec::new());
    let (mut at, mut negative) = (list, false);
    while let Some((element, tail)) = term::list_cell(at) {
        if spans.len() == MAX_ELEMENTS_NON_BLOCKING && wait == Wait::NonBlocking {
            return Err(Stop::WouldBlock(Counter::MovedLength));
        }
        let (numbers, rest) = split(term::tuple(element).ok_or(Stop::Raise)?);
        let [offset, length] = term::naturals_or_negative(numbers, &mut negative)?;
        handle.prefetch(offset);
        push(&mut spans, (offset, length))?;
        push(&mut rests, rest)?;
        at = tail;
    }
    if !at.is_empty_list() {
        return Err(Stop::Raise);
    }
    term::not_negative(negative)?;
    Ok(Elements { spans, rests })
}

/// Pushes, or gives an error if there is no memory for it.
#[inline]
fn push<T>(all: &mut Vec<T>, one: T) -> Result<(), Error> {
    all.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
    all.push(one);
    Ok(())
}

/// Reserves memory: a push without any would end the VM.
fn with_room<T>(count: usize) -> Result<Vec<T>, Error> {
    let mut all = Vec::new();
    all.try_reserve_exact(count).map_err(|_| Error::NO_MEMORY)?;
    Ok(all)
}

/// The sum of the lengths, which saturates: so much fits into no mapping.
fn total(spans: &[Span]) -> u64 {
    let lengths = spans.iter().map(|(_, length)| *length);
    lengths.fold(0, u64::saturating_add)
}

fn consume_timeslice(env: Env, spans: &[Span], wait: Wait) {
    if wait == Wait::NonBlocking {
        let elements = spans.len() * BYTES_AN_ELEMENT;
        dispatch::consume_timeslice(env, total(spans) as usize + elements);
    }
}
