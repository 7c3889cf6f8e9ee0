//! Memory that callers bring: a buffer to read into, segments to write from.

use std::marker::PhantomData;

/// Memory to read into: writable, of a length, part of no mapping, and freed when it is dropped.
///
/// # Safety
///
/// - `as_mut_ptr` points to `len` bytes that may be written, initialized or not, for as long as the value lives.
/// - Nobody else reads or writes them meanwhile, and they lie in no mapping of a file.
/// - Both give the same at every call.
pub unsafe trait Buffer {
    /// The first byte.
    fn as_mut_ptr(&mut self) -> *mut u8;

    /// How many bytes there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// SAFETY: a vector owns its bytes, and nothing here changes how many they are.
unsafe impl Buffer for Vec<u8> {
    #[inline]
    fn as_mut_ptr(&mut self) -> *mut u8 {
        Vec::as_mut_ptr(self)
    }

    #[inline]
    fn len(&self) -> usize {
        Vec::len(self)
    }
}

// SAFETY: a slice is writable, and nobody else's as long as it is borrowed.
unsafe impl Buffer for &mut [u8] {
    #[inline]
    fn as_mut_ptr(&mut self) -> *mut u8 {
        <[u8]>::as_mut_ptr(self)
    }

    #[inline]
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }
}

/// Copies bytes to the beginning of a buffer, which is at least as long.
pub fn fill(buffer: &mut impl Buffer, bytes: &[u8]) {
    assert!(bytes.len() <= buffer.len(), "a buffer too short");
    // SAFETY: the buffer is writable for that length, and nobody else's.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.as_mut_ptr(), bytes.len()) }
}

/// The last byte of a buffer that was read into.
#[inline]
pub fn last(buffer: &mut impl Buffer) -> Option<u8> {
    let length = buffer.len();
    // SAFETY: the byte is the buffer's.
    (length > 0).then(|| unsafe { buffer.as_mut_ptr().add(length - 1).read() })
}

/// Bytes to write from: readable for `'a`, but their pages may be lost meanwhile, and others may change them.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Segment<'a>(libc::iovec, PhantomData<&'a [u8]>);

// SAFETY: it is an address and a length, and says of the bytes no more than that they may be read from anywhere.
unsafe impl Send for Segment<'_> {}
// SAFETY: as above.
unsafe impl Sync for Segment<'_> {}

impl<'a> Segment<'a> {
    /// A segment of so many bytes.
    ///
    /// # Safety
    ///
    /// The bytes stay mapped and readable for `'a`; pages that their file no longer backs are allowed.
    #[inline]
    pub const unsafe fn new(address: *const u8, length: usize) -> Segment<'a> {
        let bytes = libc::iovec {
            iov_base: address.cast_mut().cast(),
            iov_len: length,
        };
        Segment(bytes, PhantomData)
    }

    /// The first byte.
    #[inline]
    pub const fn address(&self) -> *const u8 {
        self.0.iov_base.cast_const().cast()
    }

    /// How many bytes there are.
    #[inline]
    pub const fn length(&self) -> usize {
        self.0.iov_len
    }

    /// A part of it; nothing if it does not lie inside.
    pub fn part(self, offset: usize, length: usize) -> Option<Segment<'a>> {
        let end = offset.checked_add(length)?;
        // SAFETY: the part is as readable as the whole.
        (end <= self.length())
            .then(|| unsafe { Segment::new(self.address().wrapping_add(offset), length) })
    }
}

impl<'a> From<&'a [u8]> for Segment<'a> {
    fn from(bytes: &'a [u8]) -> Segment<'a> {
        // SAFETY: a slice is readable for its lifetime.
        unsafe { Segment::new(bytes.as_ptr(), bytes.len()) }
    }
}

/// Segments, one after another, and how many bytes they are together.
#[derive(Clone, Copy)]
pub struct Data<'a> {
    segments: &'a [Segment<'a>],
    length: usize,
}

impl<'a> Data<'a> {
    /// `None` if they overflow: the same large binary may be named often enough.
    #[inline]
    pub fn new(segments: &'a [Segment<'a>]) -> Option<Data<'a>> {
        let length = segments.iter().try_fold(0, |length: usize, segment| {
            length.checked_add(segment.length())
        })?;
        Some(Data { segments, length })
    }

    /// The segments.
    #[inline]
    pub fn segments(self) -> &'a [Segment<'a>] {
        self.segments
    }

    /// How many bytes they are together.
    #[inline]
    pub fn length(self) -> usize {
        self.length
    }

    /// The segments without the first `skipped` bytes.
    pub fn after(self, mut skipped: usize) -> Vec<Segment<'a>> {
        let mut rest = Vec::with_capacity(self.segments.len());
        for segment in self.segments {
            let part = skipped.min(segment.length());
            skipped -= part;
            rest.extend(segment.part(part, segment.length() - part));
        }
        rest
    }

    /// The first `length` bytes of them.
    pub fn first(self, mut length: usize) -> Vec<Segment<'a>> {
        let mut first = Vec::with_capacity(self.segments.len());
        for segment in self.segments {
            let part = length.min(segment.length());
            length -= part;
            first.extend(segment.part(0, part));
        }
        first
    }
}
