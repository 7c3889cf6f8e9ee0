//! Terms, where rustler is not enough: binaries that may lie in a mapping, and so are never made a Rust slice; numbers
//! that may be negative; list cells without a `rustler::Error` to drop; and the binary that a read makes.

use crate::answer::Stop;
use crate::atoms;
use iommap_core::{Buffer, Data, Error, Segment, NON_BLOCKING_MAX};
use rustler::sys::{self, ErlNifBinary, ERL_NIF_TERM};
use rustler::{Encoder, Env, NewBinary, OwnedBinary, Term, TermType};
use std::ffi::CString;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

/// Decodes offsets, lengths and sizes. One of the wrong kind raises, else a negative one is `{error, badarg}`.
#[inline(always)]
pub fn naturals<const N: usize>(terms: [Term; N]) -> Result<[u64; N], Stop> {
    let mut negative = false;
    let naturals = naturals_or_negative(terms, &mut negative)?;
    not_negative(negative)?;
    Ok(naturals)
}

/// Answers `{error, badarg}` if one was negative.
#[inline(always)]
pub fn not_negative(negative: bool) -> Result<(), Stop> {
    if negative {
        Err(Stop::Error(atoms::badarg()))
    } else {
        Ok(())
    }
}

/// The same, for one of several: tells of a negative one, which is then 0.
#[inline(always)]
pub fn naturals_or_negative<const N: usize>(
    terms: [Term; N],
    negative: &mut bool,
) -> Result<[u64; N], Stop> {
    let mut naturals = [0; N];
    for (natural, term) in naturals.iter_mut().zip(terms) {
        match term.decode() {
            Ok(number) => *natural = number,
            Err(_) if is_negative(term) => *negative = true,
            Err(_) => return Err(Stop::Raise),
        }
    }
    Ok(naturals)
}

/// Takes a tuple of so many elements apart (`enif_get_tuple`).
#[inline]
pub fn tuple<'a, const N: usize>(term: Term<'a>) -> Option<[Term<'a>; N]> {
    let (env, mut arity, mut elements) = (term.get_env(), 0, ptr::null());
    // SAFETY: the term is of a live environment; on success its elements lie there as long as that.
    unsafe {
        if sys::enif_get_tuple(env.as_c_arg(), term.as_c_arg(), &mut arity, &mut elements) == 0
            || arity as usize != N
        {
            return None;
        }
        Some(std::array::from_fn(|index| {
            Term::new(env, *elements.add(index))
        }))
    }
}

#[cold]
fn is_negative(term: Term) -> bool {
    term.get_type() == TermType::Integer && term < 0.encode(term.get_env())
}

/// Finds a binary's bytes (`enif_inspect_binary`), which stay there for as long as the call runs.
#[inline]
pub fn binary(term: Term<'_>) -> Option<Segment<'_>> {
    let mut binary = MaybeUninit::<ErlNifBinary>::uninit();
    // SAFETY: the term is of a live environment; the struct is filled on success, with bytes that live as long as that.
    unsafe {
        let env = term.get_env().as_c_arg();
        if sys::enif_inspect_binary(env, term.as_c_arg(), binary.as_mut_ptr()) == 0 {
            return None;
        }
        let binary = binary.assume_init();
        Some(Segment::new(binary.data, binary.size))
    }
}

/// Gathers iodata (`enif_inspect_iolist_as_binary`): copies it, unless it is one binary, to where it stays as long as the call runs.
/// Takes as long as there are bytes and list cells.
#[inline]
pub fn gathered(term: Term<'_>) -> Option<Segment<'_>> {
    let mut binary = MaybeUninit::<ErlNifBinary>::uninit();
    // SAFETY: as for `binary`.
    unsafe {
        let env = term.get_env().as_c_arg();
        if sys::enif_inspect_iolist_as_binary(env, term.as_c_arg(), binary.as_mut_ptr()) == 0 {
            return None;
        }
        let binary = binary.assume_init();
        Some(Segment::new(binary.data, binary.size))
    }
}

/// Makes a binary of those bytes.
pub fn binary_of<'a>(env: Env<'a>, bytes: &[u8]) -> Term<'a> {
    let mut binary = NewBinary::new(env, bytes.len());
    binary.as_mut_slice().copy_from_slice(bytes);
    binary.into()
}

/// Takes a list that is not empty apart (`enif_get_list_cell`).
#[inline]
pub fn list_cell<'a>(term: Term<'a>) -> Option<(Term<'a>, Term<'a>)> {
    let (env, mut head, mut tail) = (term.get_env(), 0, 0);
    // SAFETY: the term is of a live environment; head and tail are written on success, and of the same.
    unsafe {
        let raw = term.as_c_arg();
        (sys::enif_get_list_cell(env.as_c_arg(), raw, &mut head, &mut tail) != 0)
            .then(|| (Term::new(env, head), Term::new(env, tail)))
    }
}

/// Decodes a byte of an iolist.
#[inline]
pub fn byte(term: Term) -> Option<u8> {
    let mut number = 0;
    // SAFETY: the term is of a live environment; the number is written on success.
    let got =
        unsafe { sys::enif_get_uint(term.get_env().as_c_arg(), term.as_c_arg(), &mut number) };
    if got == 0 {
        return None;
    }
    u8::try_from(number).ok()
}

/// The most bytes that the VM may copy on a normal scheduler just to show them: that takes up to 3 ns a byte.
pub const LONG: usize = 1 << 16;

/// Tells whether those bytes are a copy of the binary's. The VM makes one, to a new place each time, to show a binary
/// that begins inside a byte of the one it is a part of.
pub fn is_copied(term: Term, bytes: &Segment) -> bool {
    if bytes.length() > LONG {
        return is_unaligned(term);
    }
    binary(term).is_some_and(|again| again.address() != bytes.address())
}

/// Tells whether the VM has to copy a binary of more than `LONG` bytes to show it. Inspects the first bytes alone: a
/// part that is longer than those that the VM copies on its own (64 bytes) begins at the same bit.
pub fn is_unaligned(term: Term) -> bool {
    const PART: usize = 128;
    let env = term.get_env();
    // SAFETY: the term is of a live environment, and the binary longer than its part.
    let part = unsafe {
        let part = sys::enif_make_sub_binary(env.as_c_arg(), term.as_c_arg(), 0, PART);
        Term::new(env, part)
    };
    binary(part).is_some_and(|bytes| is_copied(part, &bytes))
}

/// Tells whether the calling process is alive (`enif_is_current_process_alive`).
pub fn is_alive(env: Env) -> bool {
    // SAFETY: the environment is that of the running call, which is on this thread.
    unsafe { sys::enif_is_current_process_alive(env.as_c_arg()) != 0 }
}

/// The longest binary that the VM keeps on a process's heap.
const MAX_ON_HEAP: usize = 64;

/// A binary that is being read into. (What is long is boxed: it is large, and rare.)
pub enum BinaryBuffer<'a> {
    /// The VM made the term together with the memory: on the process's heap if it is small.
    Short {
        memory: NonNull<u8>,
        length: usize,
        term: ERL_NIF_TERM,
        env: PhantomData<Env<'a>>,
    },
    /// Memory that may be refused, and is released unless it becomes a term.
    Long(Box<OwnedBinary>),
}

impl<'a> BinaryBuffer<'a> {
    /// Allocates so many bytes (`enif_make_new_binary`, `enif_alloc_binary`); `None` if there is no memory.
    #[inline]
    pub fn allocate(env: Env<'a>, length: usize) -> Option<BinaryBuffer<'a>> {
        if length > NON_BLOCKING_MAX {
            return BinaryBuffer::allocate_or_refuse(length);
        }
        let mut term = 0;
        // SAFETY: the environment is live. The VM ends itself rather than fail here, but would have to be out of memory
        // for this little.
        let memory = unsafe { sys::enif_make_new_binary(env.as_c_arg(), length, &mut term) };
        Some(BinaryBuffer::Short {
            memory: NonNull::new(memory)?,
            length,
            term,
            env: PhantomData,
        })
    }

    /// The same for one of many, which together may be refused: by `enif_alloc_binary` what does not lie on the heap.
    pub fn allocate_one_of_many(env: Env<'a>, length: usize) -> Option<BinaryBuffer<'a>> {
        if length > MAX_ON_HEAP {
            BinaryBuffer::allocate_or_refuse(length)
        } else {
            BinaryBuffer::allocate(env, length)
        }
    }

    fn allocate_or_refuse(length: usize) -> Option<BinaryBuffer<'a>> {
        Some(BinaryBuffer::Long(Box::new(OwnedBinary::new(length)?)))
    }

    /// The term, if there is one before the bytes are. Nobody else may see it before.
    #[inline]
    pub fn early_term(&self, env: Env<'a>) -> Option<Term<'a>> {
        match self {
            // SAFETY: no two environments have the same lifetime, so the term is of this one.
            BinaryBuffer::Short { term, .. } => Some(unsafe { Term::new(env, *term) }),
            BinaryBuffer::Long(_) => None,
        }
    }

    /// Makes the term, once the bytes are there.
    #[inline]
    pub fn term(self, env: Env<'a>) -> Term<'a> {
        match self {
            // SAFETY: no two environments have the same lifetime, so the term is of this one.
            BinaryBuffer::Short { term, .. } => unsafe { Term::new(env, term) },
            BinaryBuffer::Long(binary) => binary.release(env).to_term(env),
        }
    }
}

// SAFETY: the memory is the VM's, as long as was asked for, and no one else's until the process has a term.
unsafe impl Buffer for BinaryBuffer<'_> {
    #[inline]
    fn as_mut_ptr(&mut self) -> *mut u8 {
        match self {
            BinaryBuffer::Short { memory, .. } => memory.as_ptr(),
            BinaryBuffer::Long(binary) => binary.as_mut_slice().as_mut_ptr(),
        }
    }

    #[inline]
    fn len(&self) -> usize {
        match self {
            BinaryBuffer::Short { length, .. } => *length,
            BinaryBuffer::Long(binary) => binary.as_slice().len(),
        }
    }
}

/// Copies the path, which may be a view, and ends it with a NUL. One that has a NUL inside raises.
pub fn path(path: Term) -> Result<CString, Stop> {
    let path = binary(path).ok_or(Stop::Raise)?;
    let segments = [path, Segment::from(&[0][..])];
    let bytes = iommap_core::flatten(Data::new(&segments).ok_or(Error::OutOfBounds)?)?;
    CString::from_vec_with_nul(bytes).map_err(|_| Stop::Raise)
}
