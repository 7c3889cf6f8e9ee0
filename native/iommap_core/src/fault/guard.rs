//! Copies, and atomic operations, that survive a page that is gone, over the C guard (`c_src/guard.c`).

use crate::buffer::{Data, Segment};
use crate::error::Error;
use crate::stats::{self, Counter};
use crate::thread_data::ThreadData;
use crate::update::Update;
use std::ffi::c_int;

mod c {
    use std::ffi::{c_int, c_void};
    extern "C" {
        pub fn iommap_guard_copy(
            thread: &super::ThreadData,
            to: *mut c_void,
            from: *const c_void,
            length: usize,
        ) -> c_int;
        pub fn iommap_guard_gather(
            thread: &super::ThreadData,
            to: *mut c_void,
            from: *const super::Segment,
            count: usize,
        ) -> c_int;
        pub fn iommap_guard_fault_in_readable(
            thread: &super::ThreadData,
            from: *const c_void,
            length: usize,
        ) -> c_int;
        pub fn iommap_guard_fault_in_writeable(
            thread: &super::ThreadData,
            to: *mut c_void,
            length: usize,
        ) -> c_int;
        pub fn iommap_guard_load(thread: &super::ThreadData, word: *const u64) -> super::Found;
        pub fn iommap_guard_exchange(
            thread: &super::ThreadData,
            word: *mut u64,
            value: u64,
        ) -> super::Found;
        pub fn iommap_guard_add(
            thread: &super::ThreadData,
            word: *mut u64,
            value: u64,
        ) -> super::Found;
        pub fn iommap_guard_and(
            thread: &super::ThreadData,
            word: *mut u64,
            value: u64,
        ) -> super::Found;
        pub fn iommap_guard_or(
            thread: &super::ThreadData,
            word: *mut u64,
            value: u64,
        ) -> super::Found;
        pub fn iommap_guard_xor(
            thread: &super::ThreadData,
            word: *mut u64,
            value: u64,
        ) -> super::Found;
        pub fn iommap_guard_compare_exchange(
            thread: &super::ThreadData,
            word: *mut u64,
            value: u64,
            expected: u64,
        ) -> super::Found;
    }
}

/// Copies `length` bytes; `Fault` if a page on either side is gone, in which case some bytes may have been copied.
///
/// # Safety
///
/// - `from` to `from + length` is mapped and readable, `to` to `to + length` mapped and writable; pages that their
///   file no longer backs are allowed on both sides.
/// - The two do not overlap.
/// - Nobody holds a Rust reference to the bytes of `to`.
#[inline]
pub unsafe fn copy(to: *mut u8, from: *const u8, length: usize) -> Result<(), Error> {
    // SAFETY: the C function copies within the caller's promises.
    done(unsafe { c::iommap_guard_copy(ThreadData::current(), to.cast(), from.cast(), length) })
}

/// Copies the segments one after another to `to`; `Fault` as for `copy`.
///
/// # Safety
///
/// As for `copy`, with `to` writable for the length of the data; but they may overlap.
#[inline]
pub unsafe fn gather(to: *mut u8, data: Data) -> Result<(), Error> {
    // SAFETY: the C function reads the segments and copies within the caller's promises.
    done(unsafe {
        c::iommap_guard_gather(
            ThreadData::current(),
            to.cast(),
            data.segments().as_ptr(),
            data.segments().len(),
        )
    })
}

/// Copies the data to a vector; `Fault` as for `copy`, and an error if there is no memory for it.
pub fn flatten(data: Data) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(data.length())
        .map_err(|_| Error::NO_MEMORY)?;
    // SAFETY: the vector has room for all of it, and nobody else knows of it.
    unsafe {
        gather(bytes.as_mut_ptr(), data)?;
        bytes.set_len(data.length());
    }
    Ok(bytes)
}

/// Brings the pages of a range into memory by reading a byte of each; `Fault` if one is gone.
///
/// # Safety
///
/// The range is mapped and readable; pages that their file no longer backs are allowed.
pub unsafe fn fault_in_readable(from: *const u8, length: usize) -> Result<(), Error> {
    // SAFETY: the C function only reads within the range.
    done(unsafe { c::iommap_guard_fault_in_readable(ThreadData::current(), from.cast(), length) })
}

/// Brings the pages of all its segments into memory; `Fault` if one is gone.
pub fn fault_in_data(data: Data) -> Result<(), Error> {
    data.segments().iter().try_for_each(|segment| {
        // SAFETY: a segment is readable, but for pages that are gone.
        unsafe { fault_in_readable(segment.address(), segment.length()) }
    })
}

/// Makes the pages of a range writable by writing a byte of each, which keeps its value; `Fault` if one is gone.
///
/// It may wait for the file system, and then holds up nobody else: `madvise(MADV_POPULATE_WRITE)` would hold a lock of the
/// whole address space meanwhile.
///
/// # Safety
///
/// The range is mapped and writable; pages that their file no longer backs are allowed.
pub unsafe fn fault_in_writeable(to: *mut u8, length: usize) -> Result<(), Error> {
    // SAFETY: the C function only replaces bytes of the range by themselves, atomically.
    done(unsafe { c::iommap_guard_fault_in_writeable(ThreadData::current(), to.cast(), length) })
}

/// `struct iommap_found` in `c_src/guard.h`.
#[repr(C)]
struct Found {
    value: u64,
    status: c_int,
}

impl Found {
    #[inline(always)]
    fn value(self) -> Result<u64, Error> {
        done(self.status)?;
        Ok(self.value)
    }
}

/// Loads a word, atomically; `Fault` if its page is gone.
///
/// # Safety
///
/// The word is aligned, mapped and readable; a page that its file no longer backs is allowed.
#[inline(always)]
pub unsafe fn load(word: *const u64) -> Result<u64, Error> {
    // SAFETY: the C function only reads the word.
    unsafe { c::iommap_guard_load(ThreadData::current(), word) }.value()
}

/// Updates a word, atomically, and gives what it held before; `Fault` if its page is gone.
///
/// # Safety
///
/// The word is aligned, mapped and writable; a page that its file no longer backs is allowed.
#[inline(always)]
pub unsafe fn update(word: *mut u64, update: Update) -> Result<u64, Error> {
    let thread = ThreadData::current();
    // SAFETY: the C functions read and write the word, and nothing else.
    let found = unsafe {
        match update {
            Update::Exchange(value) => c::iommap_guard_exchange(thread, word, value),
            Update::Add(value) => c::iommap_guard_add(thread, word, value),
            Update::And(value) => c::iommap_guard_and(thread, word, value),
            Update::Or(value) => c::iommap_guard_or(thread, word, value),
            Update::Xor(value) => c::iommap_guard_xor(thread, word, value),
            Update::CompareExchange { expected, new } => {
                c::iommap_guard_compare_exchange(thread, word, new, expected)
            }
        }
    };
    found.value()
}

#[inline]
fn done(status: c_int) -> Result<(), Error> {
    if status == 0 {
        Ok(())
    } else {
        stats::count(Counter::Faults, 1);
        Err(Error::Fault)
    }
}
