//! Iodata as segments. Binaries stay where they are; single bytes, which lie nowhere yet, are gathered; and very many
//! short segments are flattened as they come, so that the list of them does not outgrow the data.
//!
//! A list may name its parts again and again: 60 cells can be 2^60 parts. `iommap.erl` has measured it when it comes
//! here, and the call has checked that so many bytes fit into the mapping: so the segments and bytes made here take
//! about as much memory as the mapping has bytes, at most. But any number of parts may be empty, so a walk ends with
//! its process.

use crate::answer::Stop;
use crate::origin::Origin;
use crate::{image, term};
use iommap_core::{Counter, Data, Error, Segment, Wait};
use rustler::{Env, Term};
use smallvec::SmallVec;

/// The most list cells that are visited without waiting; fewer if each may have to be looked up among many mappings.
const MAX_CELLS_NON_BLOCKING: usize = 2048;

/// Gives how many list cells may be visited.
pub fn most_cells(wait: Wait) -> usize {
    match wait {
        Wait::NonBlocking if image::has_views() => {
            MAX_CELLS_NON_BLOCKING / iommap_core::look_up_cost()
        }
        Wait::NonBlocking => MAX_CELLS_NON_BLOCKING,
        Wait::Blocking => usize::MAX,
    }
}

/// So many segments are flattened to one, if they are `SMALL` on the average. (A segment itself takes 16 bytes.)
const MANY: usize = 1 << 16;
const SMALL: usize = 64;

/// The list cells that are visited between two pauses of the walk.
const CELLS_A_PAUSE: usize = 256;

/// Segments, in order.
pub type Segments<'a> = SmallVec<[Segment<'a>; 32]>;

/// Iodata, taken apart.
#[derive(Default)]
pub struct Iodata<'a> {
    /// An empty one keeps the place of bytes that were gathered or flattened.
    segments: Segments<'a>,
    /// The single bytes of lists, and where those that follow one another belong.
    bytes: Vec<u8>,
    runs: SmallVec<[Run; 8]>,
    /// The bytes of segments that were flattened, and which segment keeps their place.
    flat: Vec<(usize, Vec<u8>)>,
    done: Done,
    /// There may be views among it.
    has_views: bool,
    origin: Origin,
}

/// Single bytes that follow one another, and which segment keeps their place.
struct Run {
    place: usize,
    offset: usize,
    length: usize,
}

/// The lengths of the lists up to which nothing is flattened any more.
#[derive(Default)]
struct Done {
    segments: usize,
    bytes: usize,
    runs: usize,
}

impl<'a> Iodata<'a> {
    /// Walks the term, through a limited number of list cells if it must not wait. Gives `Fault` if data was flattened
    /// that is of a view that lost its file.
    #[inline(never)] // a write of one binary, which needs none of it, has its registers back
    pub fn collect(&mut self, term: Term<'a>, wait: Wait) -> Result<(), Stop> {
        self.collect_at_most(most_cells(wait), term)?;
        Ok(())
    }

    /// The same through so many list cells at most, of which it tells how many are left.
    pub fn collect_at_most(&mut self, most: usize, term: Term<'a>) -> Result<usize, Stop> {
        self.has_views = image::has_views();
        self.walk(term, most)
    }

    /// Gives the origin of all binaries together.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Gives all segments; puts them together in `memory` if bytes were gathered.
    pub fn segments<'s, 'm>(
        &'s self,
        memory: &'m mut Segments<'s>,
    ) -> Result<&'m [Segment<'s>], Error> {
        if self.runs.is_empty() && self.flat.is_empty() {
            return Ok(&self.segments);
        }
        self.put_together(&Done::default(), memory)?;
        for (place, bytes) in &self.flat {
            memory[*place] = bytes.as_slice().into();
        }
        Ok(memory)
    }

    /// Puts together the segments that are not done.
    fn put_together<'s>(&'s self, done: &Done, memory: &mut Segments<'s>) -> Result<(), Error> {
        let segments = &self.segments[done.segments..];
        memory
            .try_reserve_exact(segments.len())
            .map_err(|_| Error::NO_MEMORY)?;
        memory.extend_from_slice(segments);
        let memory = memory.as_mut_slice();
        for run in &self.runs[done.runs..] {
            let bytes = &self.bytes[run.offset..run.offset + run.length];
            memory[run.place - done.segments] = bytes.into();
        }
        Ok(())
    }

    fn walk(&mut self, term: Term<'a>, most: usize) -> Result<usize, Stop> {
        let mut tails: SmallVec<[Term; 16]> = SmallVec::new();
        let mut cells = 0;
        let mut at = term;
        loop {
            if let Some((head, tail)) = term::list_cell(at) {
                cells += 1;
                if cells > most {
                    return Err(Stop::WouldBlock(Counter::MovedLength));
                }
                if cells % CELLS_A_PAUSE == 0 {
                    self.pause(term.get_env())?;
                }
                if let Some(binary) = term::binary(head) {
                    self.push(head, binary);
                    at = tail;
                } else if let Some(byte) = term::byte(head) {
                    self.push_byte(byte);
                    at = tail;
                } else {
                    tails.push(tail);
                    at = head;
                }
                continue;
            }
            // A list ends in an empty one, or in a binary.
            if !at.is_empty_list() {
                self.push(at, term::binary(at).ok_or(Stop::Raise)?);
            }
            match tails.pop() {
                Some(tail) => at = tail,
                None => return Ok(most - cells),
            }
        }
    }

    /// Pauses a long walk: ends it if the process is dead, flattens, and reserves memory for the next cells.
    #[cold]
    fn pause(&mut self, env: Env) -> Result<(), Stop> {
        if !term::is_alive(env) {
            return Err(Stop::Raise); // reaches no process
        }
        if self.segments.len() - self.done.segments >= MANY {
            if let Some(bytes) = self.flattened()? {
                self.segments.truncate(self.done.segments);
                self.bytes.truncate(self.done.bytes);
                self.runs.truncate(self.done.runs);
                self.flat.push((self.segments.len(), bytes));
                self.segments.push(Segment::from(&[][..]));
            }
            self.done = Done {
                segments: self.segments.len(),
                bytes: self.bytes.len(),
                runs: self.runs.len(),
            };
        }
        self.reserve().map_err(|()| Error::NO_MEMORY.into())
    }

    /// Reserves memory for the next cells: a push without memory would end the VM.
    fn reserve(&mut self) -> Result<(), ()> {
        let ends = CELLS_A_PAUSE + 1; // lists may end in a binary
        self.segments
            .try_reserve(CELLS_A_PAUSE + ends)
            .map_err(|_| ())?;
        self.runs.try_reserve(CELLS_A_PAUSE).map_err(|_| ())?;
        self.bytes.try_reserve(CELLS_A_PAUSE).map_err(|_| ())
    }

    /// Copies the segments that are not done together, if they are small. Views among them are asked about here, as
    /// their bytes are told from others only by their place; copies at the end, by the caller.
    fn flattened(&self) -> Result<Option<Vec<u8>>, Error> {
        let mut segments = Segments::new();
        self.put_together(&self.done, &mut segments)?;
        let data = Data::new(&segments).ok_or(Error::OutOfBounds)?;
        if data.length() / segments.len() > SMALL {
            return Ok(None);
        }
        let views = self.origin.min(Origin::View);
        if views.is_lost(&segments) {
            return Err(Error::Fault);
        }
        let bytes = iommap_core::flatten(data)?;
        if views.is_lost(&segments) {
            return Err(Error::Fault);
        }
        Ok(Some(bytes))
    }

    #[inline(always)]
    fn push(&mut self, term: Term, binary: Segment<'a>) {
        if binary.length() > 0 {
            if self.has_views {
                self.origin = self.origin.max(Origin::look_up(term, &binary));
            }
            self.segments.push(binary);
        }
    }

    #[inline(always)]
    fn push_byte(&mut self, byte: u8) {
        let (place, offset) = (self.segments.len(), self.bytes.len());
        self.bytes.push(byte);
        match self.runs.last_mut() {
            Some(run) if run.place + 1 == place && run.place >= self.done.segments => {
                run.length += 1;
            }
            _ => {
                self.runs.push(Run {
                    place,
                    offset,
                    length: 1,
                });
                self.segments.push(Segment::from(&[][..]));
            }
        }
    }
}
