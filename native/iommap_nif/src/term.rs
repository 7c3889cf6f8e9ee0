//! Terms and binaries, straight over the VM's C functions: what the hot calls need, without an allocation or a check
//! more. The rest of the crate uses rustler.

use iommap_core::{Buffer, Segment};
use rustler::sys::{self, ErlNifBinary, ErlNifEnv, ErlNifTermType, ERL_NIF_TERM};
use std::ffi::{c_char, c_uint};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr::NonNull;

/// The environment of the call that runs; only ever made by the entry points, from what the VM gave them.
pub type Env = *mut ErlNifEnv;
/// A term.
pub type Term = ERL_NIF_TERM;

/// A call was given something that is not of the right kind: the exception `badarg`.
#[derive(Debug, Clone, Copy)]
pub struct BadArgument;

/// An integer as the calls take them.
#[derive(Debug, Clone, Copy)]
pub enum Number {
    /// Not negative.
    Natural(u64),
    /// The answer is `{error, badarg}`, unless something else raises.
    Negative,
}

// The functions of this file take the environment of the running call, which is live, and terms of it.

/// The atom of that name.
pub fn atom(env: Env, name: &str) -> Term {
    // SAFETY: the environment is live; name and length belong together.
    unsafe { sys::enif_make_atom_len(env, name.as_ptr().cast::<c_char>(), name.len()) }
}

fn is_integer(env: Env, term: Term) -> bool {
    // SAFETY: the environment is live.
    let kind = unsafe { sys::enif_term_type(env, term) };
    matches!(kind, ErlNifTermType::ERL_NIF_TERM_TYPE_INTEGER)
}

/// An offset, a length or a size.
#[inline]
pub fn number(env: Env, term: Term) -> Result<Number, BadArgument> {
    let mut number = 0;
    // SAFETY: the environment is live; the number is written only on success.
    if unsafe { sys::enif_get_uint64(env, term, &mut number) } != 0 {
        return Ok(Number::Natural(number));
    }
    odd_number(env, term)
}

#[cold]
fn odd_number(env: Env, term: Term) -> Result<Number, BadArgument> {
    // SAFETY: the environment is live.
    let negative = unsafe { sys::enif_compare(term, sys::enif_make_int64(env, 0)) < 0 };
    if is_integer(env, term) && negative {
        Ok(Number::Negative)
    } else {
        Err(BadArgument)
    }
}

/// A byte of an iolist.
#[inline]
pub fn byte(env: Env, term: Term) -> Option<u8> {
    let mut number: c_uint = 0;
    // SAFETY: the environment is live; the number is written only on success.
    let got = unsafe { sys::enif_get_uint(env, term, &mut number) };
    if got == 0 {
        return None;
    }
    u8::try_from(number).ok()
}

/// Head and tail of a list that is not empty.
#[inline]
pub fn list_cell(env: Env, term: Term) -> Option<(Term, Term)> {
    let (mut head, mut tail) = (0, 0);
    // SAFETY: the environment is live; both are written on success.
    let got = unsafe { sys::enif_get_list_cell(env, term, &mut head, &mut tail) };
    (got != 0).then_some((head, tail))
}

/// Whether it is a list.
pub fn is_list(env: Env, term: Term) -> bool {
    // SAFETY: the environment is live.
    unsafe { sys::enif_is_list(env, term) != 0 }
}

/// Whether it is the empty list.
#[inline]
pub fn is_empty_list(env: Env, term: Term) -> bool {
    // SAFETY: the environment is live.
    unsafe { sys::enif_is_empty_list(env, term) != 0 }
}

/// Where a binary's bytes are, for as long as the call runs. They may lie in a mapping: nobody makes a slice of them.
#[inline]
pub fn binary(env: Env, term: Term) -> Option<libc::iovec> {
    let mut binary = MaybeUninit::<ErlNifBinary>::uninit();
    // SAFETY: the environment is live; the struct is filled on success.
    unsafe {
        if sys::enif_inspect_binary(env, term, binary.as_mut_ptr()) == 0 {
            return None;
        }
        let binary = binary.assume_init();
        Some(libc::iovec {
            iov_base: binary.data.cast(),
            iov_len: binary.size,
        })
    }
}

/// More bytes than the VM may copy on a normal scheduler just to show them: that takes up to 3 ns a byte.
pub const LONG: u64 = 1 << 16;

/// Whether those bytes are a copy of the binary's: the VM makes one, to a new place each time, to show a binary that does
/// not begin at a whole byte of the one it is a part of.
pub fn is_copied(env: Env, term: Term, bytes: &libc::iovec) -> bool {
    if bytes.iov_len as u64 > LONG {
        return is_unaligned(env, term);
    }
    binary(env, term).is_some_and(|again| again.iov_base != bytes.iov_base)
}

/// Whether the VM has to copy the binary, which is of more than `LONG` bytes, to show it. Looks at the first bytes alone: a
/// part that is longer than those that the VM copies on its own (64 bytes) begins at the same bit.
pub fn is_unaligned(env: Env, term: Term) -> bool {
    const PART: usize = 128;
    // SAFETY: the environment is live, and the binary longer than its part.
    let part = unsafe { sys::enif_make_sub_binary(env, term, 0, PART) };
    binary(env, part).is_some_and(|bytes| is_copied(env, part, &bytes))
}

/// Whether the process that called lives on, and wants the answer.
pub fn is_alive(env: Env) -> bool {
    // SAFETY: the environment is that of the running call, which is on this thread.
    unsafe { sys::enif_is_current_process_alive(env) != 0 }
}

/// As the core takes segments.
///
/// # Safety
///
/// Each is readable as long as the slice lives; pages that their file no longer backs are allowed.
pub unsafe fn segments(bytes: &[libc::iovec]) -> &[Segment<'_>] {
    // SAFETY: a segment is an `iovec` (`repr(transparent)`); the rest is the caller's promise.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
}

/// A binary that is being made: first its memory, then, once it is filled, its term.
pub struct NewBinary {
    data: NonNull<u8>,
    length: usize,
    made: Made,
}

enum Made {
    /// The VM made the term together with the memory: on the process's heap if it is small.
    Term(Term),
    /// Memory that may be refused, and is released unless it becomes a term. (A box: it is large, and rare.)
    Memory(Box<ErlNifBinary>),
}

impl NewBinary {
    /// Memory for so many bytes; `None` if there is none.
    #[inline]
    pub fn allocate(env: Env, length: usize) -> Option<NewBinary> {
        if length > iommap_core::NON_BLOCKING_MAX {
            return NewBinary::allocate_long(length);
        }
        let mut term = 0;
        // SAFETY: the environment is live. The VM ends itself rather than fail here, but would have to be out of
        // memory for this little.
        let data = unsafe { sys::enif_make_new_binary(env, length, &mut term) };
        Some(NewBinary {
            data: NonNull::new(data)?,
            length,
            made: Made::Term(term),
        })
    }

    #[cold]
    fn allocate_long(length: usize) -> Option<NewBinary> {
        let mut binary = MaybeUninit::<ErlNifBinary>::uninit();
        // SAFETY: the struct is filled on success.
        let binary = unsafe {
            if sys::enif_alloc_binary(length, binary.as_mut_ptr()) == 0 {
                return None;
            }
            binary.assume_init()
        };
        Some(NewBinary {
            data: NonNull::new(binary.data)?,
            length,
            made: Made::Memory(Box::new(binary)),
        })
    }

    /// The term, once the bytes are there.
    #[inline]
    pub fn term(self, env: Env) -> Term {
        let mut this = ManuallyDrop::new(self);
        match &mut this.made {
            Made::Term(term) => *term,
            Made::Memory(binary) => {
                // SAFETY: the environment is live; the binary becomes the term's. The box is taken once, as `this` is not
                // dropped.
                unsafe {
                    let term = sys::enif_make_binary(env, &mut **binary);
                    std::ptr::drop_in_place(binary);
                    term
                }
            }
        }
    }
}

impl Drop for NewBinary {
    #[inline]
    fn drop(&mut self) {
        if let Made::Memory(binary) = &mut self.made {
            // SAFETY: allocated by `allocate_long`, and made no term.
            unsafe { sys::enif_release_binary(&mut **binary) };
        }
    }
}

// SAFETY: the VM gave so much writable memory, which stays until the call ends or, if it is no term yet, until it is released.
unsafe impl Buffer for NewBinary {
    #[inline]
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.data.as_ptr()
    }

    #[inline]
    fn len(&self) -> usize {
        self.length
    }
}

/// `{A, B}`.
#[inline]
pub fn pair(env: Env, first: Term, second: Term) -> Term {
    let both = [first, second];
    // SAFETY: the environment is live; the array has two terms.
    unsafe { sys::enif_make_tuple_from_array(env, both.as_ptr(), 2) }
}

/// The exception `badarg`.
#[cold]
pub fn raise_badarg(env: Env) -> Term {
    // SAFETY: the environment is live.
    unsafe { sys::enif_make_badarg(env) }
}

/// An exception.
#[cold]
pub fn raise(env: Env, reason: Term) -> Term {
    // SAFETY: the environment is live.
    unsafe { sys::enif_raise_exception(env, reason) }
}

/// A number that may exceed a small integer.
pub fn unsigned(env: Env, number: u64) -> Term {
    // SAFETY: the environment is live.
    unsafe { sys::enif_make_uint64(env, number) }
}
