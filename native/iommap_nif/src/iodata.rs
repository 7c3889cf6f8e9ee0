//! Iodata as the segments it consists of. Binaries stay where they are, and only single bytes, which are nowhere yet, are
//! gathered; and very many short segments are flattened as they come, so that the list of them does not outgrow the data.
//!
//! A list may name its parts again and again: 60 cells can be 2^60 parts. `iommap.erl` has measured it when it comes here,
//! and the call has seen that so many bytes fit into the mapping: so what is made of it here takes about as much memory as
//! the mapping has bytes, at most. How many parts have no bytes nobody knows, so a walk ends with the process that waits for it.

use crate::answer::Stop;
use crate::image;
use crate::term::{self, BadArgument, Env, Term};
use iommap_core::{Data, Error};
use smallvec::SmallVec;

/// How many list cells are visited without waiting; less if each may have to be looked up among many mappings.
const MAX_CELLS_NON_BLOCKING: usize = 2048;

/// So many segments are flattened to one, if they are `SMALL` on the average: a segment is of 16 bytes itself.
const MANY: usize = 1 << 16;
const SMALL: usize = 64;

/// How many list cells are visited before it is asked whether the process lives on.
const CELLS_A_LOOK: usize = 256;

/// The segments, in order. Valid as long as the call runs.
#[derive(Default)]
pub struct Segments {
    segments: SmallVec<[libc::iovec; 32]>,
    /// The single bytes of lists. A segment of them has its offset here for an address until `relocate`.
    bytes: Vec<u8>,
    from_bytes: SmallVec<[usize; 8]>,
    /// The bytes of segments that were flattened.
    flat: Vec<Vec<u8>>,
    /// What is not flattened any more.
    done: Lengths,
    /// Whether any segment is a copy that the VM made of a part of a binary that may be a view.
    pub copied: bool,
}

/// How long the lists of `Segments` were.
#[derive(Default)]
struct Lengths {
    segments: usize,
    bytes: usize,
    from_bytes: usize,
}

impl Segments {
    /// Fills in the segments of the term; no more than so many list cells of it if `non_blocking`. Gives `Fault` if what was
    /// flattened is of a view that lost its file.
    pub fn collect(
        &mut self,
        env: Env,
        term: Term,
        has_views: bool,
        non_blocking: bool,
    ) -> Result<(), Stop> {
        let most = match (non_blocking, has_views) {
            (true, true) => MAX_CELLS_NON_BLOCKING / iommap_core::look_up_cost(),
            (true, false) => MAX_CELLS_NON_BLOCKING,
            (false, _) => usize::MAX,
        };
        self.walk(env, term, most, has_views)?;
        self.relocate(0);
        Ok(())
    }

    /// As the guard takes them.
    pub fn as_slice(&self) -> &[libc::iovec] {
        &self.segments
    }

    fn walk(&mut self, env: Env, term: Term, most: usize, has_views: bool) -> Result<(), Stop> {
        let mut tails: SmallVec<[Term; 16]> = SmallVec::new();
        let mut cells = 0;
        let mut at = term;
        loop {
            if let Some((head, tail)) = term::list_cell(env, at) {
                cells += 1;
                if cells > most {
                    return Err(Error::WouldBlock.into());
                }
                if cells % CELLS_A_LOOK == 0 {
                    self.pause(env, has_views)?;
                }
                if let Some(binary) = term::binary(env, head) {
                    self.copied |= has_views && term::is_copied(env, head, &binary);
                    self.push(binary);
                    at = tail;
                } else if let Some(byte) = term::byte(env, head) {
                    self.push_byte(byte);
                    at = tail;
                } else {
                    tails.push(tail);
                    at = head;
                }
                continue;
            }
            // The end of a list: empty, or a binary; or the whole, if that is a binary.
            if !term::is_empty_list(env, at) {
                let binary = term::binary(env, at).ok_or(BadArgument)?;
                self.copied |= has_views && term::is_copied(env, at, &binary);
                self.push(binary);
            }
            match tails.pop() {
                Some(tail) => at = tail,
                None => return Ok(()),
            }
        }
    }

    /// What is to be done now and then in a long walk.
    #[cold]
    fn pause(&mut self, env: Env, has_views: bool) -> Result<(), Stop> {
        if !term::is_alive(env) {
            return Err(Stop::Raise); // nobody hears it
        }
        if self.segments.len() - self.done.segments >= MANY {
            let many = &self.segments[self.done.segments..];
            let length: usize = many.iter().map(|segment| segment.iov_len).sum();
            if length / many.len() <= SMALL {
                self.flatten(has_views)?;
            }
            self.done = Lengths {
                segments: self.segments.len(),
                bytes: self.bytes.len(),
                from_bytes: self.from_bytes.len(),
            };
        }
        self.reserve().map_err(|()| Error::NO_MEMORY.into())
    }

    /// Finds memory for what the next cells may add, which would end the VM if it were found wanting only then.
    fn reserve(&mut self) -> Result<(), ()> {
        let ends = CELLS_A_LOOK + 1; // lists may end in a binary
        self.segments
            .try_reserve(CELLS_A_LOOK + ends)
            .map_err(|_| ())?;
        self.from_bytes.try_reserve(CELLS_A_LOOK).map_err(|_| ())?;
        self.bytes.try_reserve(CELLS_A_LOOK).map_err(|_| ())
    }

    /// Makes one segment of those that are not done. Zeros that stand where a view lost its file are not data: the views
    /// among them are asked about before and after.
    fn flatten(&mut self, has_views: bool) -> Result<(), Error> {
        self.relocate(self.done.from_bytes);
        let many = &self.segments[self.done.segments..];
        let views = has_views && many.iter().any(|one| image::intact(one).is_some());
        let is_lost = || views && many.iter().any(|one| image::intact(one) == Some(false));
        if is_lost() {
            return Err(Error::Fault);
        }
        // SAFETY: the segments are binaries of the call's arguments, or bytes that were gathered here.
        let segments = unsafe { term::segments(many) };
        let bytes = iommap_core::flatten(Data::new(segments).ok_or(Error::NO_MEMORY)?)?;
        if is_lost() {
            return Err(Error::Fault);
        }
        self.segments.truncate(self.done.segments);
        self.bytes.truncate(self.done.bytes);
        self.from_bytes.truncate(self.done.from_bytes);
        self.segments.push(libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        });
        self.flat.push(bytes);
        Ok(())
    }

    fn push(&mut self, segment: libc::iovec) {
        if segment.iov_len > 0 {
            self.segments.push(segment);
        }
    }

    fn push_byte(&mut self, byte: u8) {
        let last = self.segments.len().wrapping_sub(1);
        if self
            .from_bytes
            .last()
            .is_some_and(|index| *index == last && last >= self.done.segments)
        {
            self.segments[last].iov_len += 1;
        } else {
            self.from_bytes.push(self.segments.len());
            self.segments.push(libc::iovec {
                iov_base: std::ptr::without_provenance_mut(self.bytes.len()),
                iov_len: 1,
            });
        }
        self.bytes.push(byte);
    }

    /// The bytes do not move any more: their segments get their addresses, from that one on.
    fn relocate(&mut self, first: usize) {
        for index in &self.from_bytes[first..] {
            let segment = &mut self.segments[*index];
            let offset = segment.iov_base.addr();
            segment.iov_base = self.bytes[offset..].as_ptr().cast_mut().cast();
        }
    }
}
