//! Iodata as the segments it consists of, never flattened: binaries stay where they are, and only single bytes, which are
//! nowhere yet, are gathered.

use crate::ffi::{self, BadArgument, Env, Term};
use crate::image;
use smallvec::SmallVec;

/// How many list cells are visited without waiting; less if each may have to be looked up among many mappings.
const SHORT: usize = 2048;

/// Why there are no segments.
pub enum Refusal {
    /// It is not iodata.
    NotIodata,
    /// It is long, and the call must not take that long here.
    Long,
}

impl From<BadArgument> for Refusal {
    fn from(_: BadArgument) -> Refusal {
        Refusal::NotIodata
    }
}

/// The segments, in order. Valid as long as the call runs.
#[derive(Default)]
pub struct Segments {
    segments: SmallVec<[libc::iovec; 32]>,
    /// The single bytes of lists. A segment of them has its offset here for an address until `settle`.
    bytes: Vec<u8>,
    from_bytes: SmallVec<[u32; 8]>,
    /// Whether any segment is a copy that the VM made of a part of a binary that may be a view.
    pub copied: bool,
}

impl Segments {
    /// Fills in the segments of the term; no more than so many list cells of it if `at_once`.
    pub fn collect(&mut self, env: Env, term: Term, at_once: bool) -> Result<(), Refusal> {
        let has_views = image::has_views();
        let most = match (at_once, has_views) {
            (true, true) => SHORT / iommap_core::look_up_cost(),
            (true, false) => SHORT,
            (false, _) => usize::MAX,
        };
        self.walk(env, term, most, has_views)?;
        self.settle();
        Ok(())
    }

    /// As the guard takes them.
    pub fn as_slice(&self) -> &[libc::iovec] {
        &self.segments
    }

    fn walk(&mut self, env: Env, term: Term, most: usize, has_views: bool) -> Result<(), Refusal> {
        let mut tails: SmallVec<[Term; 16]> = SmallVec::new();
        let mut cells = 0;
        let mut at = term;
        loop {
            if let Some((head, tail)) = ffi::list_cell(env, at) {
                cells += 1;
                if cells > most {
                    return Err(Refusal::Long);
                }
                if let Some(binary) = ffi::binary(env, head) {
                    self.copied |= has_views && ffi::is_copied(env, head, &binary);
                    self.push(binary);
                    at = tail;
                } else if let Some(byte) = ffi::byte(env, head) {
                    self.push_byte(byte);
                    at = tail;
                } else {
                    tails.push(tail);
                    at = head;
                }
                continue;
            }
            // The end of a list: empty, or a binary; or the whole, if that is a binary.
            if !ffi::is_empty_list(env, at) {
                let binary = ffi::binary(env, at).ok_or(BadArgument)?;
                self.copied |= has_views && ffi::is_copied(env, at, &binary);
                self.push(binary);
            }
            match tails.pop() {
                Some(tail) => at = tail,
                None => return Ok(()),
            }
        }
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
            .is_some_and(|index| *index as usize == last)
        {
            self.segments[last].iov_len += 1;
        } else {
            self.from_bytes.push(self.segments.len() as u32);
            self.segments.push(libc::iovec {
                iov_base: std::ptr::without_provenance_mut(self.bytes.len()),
                iov_len: 1,
            });
        }
        self.bytes.push(byte);
    }

    /// The bytes do not move any more: their segments get their addresses.
    fn settle(&mut self) {
        for index in &self.from_bytes {
            let segment = &mut self.segments[*index as usize];
            let offset = segment.iov_base.addr();
            segment.iov_base = self.bytes[offset..].as_ptr().cast_mut().cast();
        }
    }
}
