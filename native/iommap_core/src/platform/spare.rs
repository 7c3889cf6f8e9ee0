//! Entries of the system's map that are kept to be given up at the limit of mappings (`vm.max_map_count`).

use crate::platform::memory::{map_zero_pages, page_size, NO_RESERVE};
use crate::platform::time::nanoseconds;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::OnceLock;

/// Pieces of address space that are kept: a process beyond its limit of mappings is refused even one that takes
/// the place of another. What is given up may be taken by any other thread of the process that maps something, so a piece
/// is many entries of the system's map, and there are a few pieces.
static SPARES: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];

/// The entries of a piece: each is a page. Eight threads that ask for mappings all the time often take 16 of them before the one that
/// gave them up has its own.
const ENTRIES: usize = 64;

/// The spares of an image of this library, as later images use them: one process keeps these few entries, however many images were
/// loaded.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Spares {
    keep: extern "C" fn(),
    give_up: extern "C" fn() -> c_int,
}

impl Spares {
    /// The spares of this image.
    pub const fn own() -> Spares {
        Spares {
            keep: keep_own,
            give_up: give_up_own,
        }
    }
}

/// The spares that this image uses, if not its own.
static FOLLOWED: OnceLock<Spares> = OnceLock::new();

/// From now on this image uses the spares of another one, which was loaded before.
pub fn follow(spares: Spares) {
    FOLLOWED.get_or_init(|| spares);
}

fn spares() -> Spares {
    FOLLOWED.get().copied().unwrap_or(Spares::own())
}

/// Maps the spares that are not there. Async-signal-safe.
pub fn keep() {
    (spares().keep)();
}

extern "C" fn keep_own() {
    for spare in &SPARES {
        if spare.load(Ordering::Relaxed) == 0 {
            if let Some(made) = make() {
                let kept = spare.compare_exchange(0, made, Ordering::AcqRel, Ordering::Relaxed);
                if kept.is_err() {
                    unmap(made);
                }
            }
        }
    }
}

fn make() -> Option<usize> {
    // Shared memory is never merged with its neighbours, nor are pages with others of another protection.
    let flags = libc::MAP_SHARED | libc::MAP_ANON | NO_RESERVE;
    let length = ENTRIES * page_size();
    // SAFETY: maps pages that nobody ever accesses.
    unsafe {
        let spare = libc::mmap(ptr::null_mut(), length, libc::PROT_NONE, flags, -1, 0);
        if spare == libc::MAP_FAILED {
            return None;
        }
        for entry in (1..ENTRIES).step_by(2) {
            // At the limit a piece is fewer entries.
            libc::mprotect(
                spare.byte_add(entry * page_size()),
                page_size(),
                libc::PROT_READ,
            );
        }
        Some(spare as usize)
    }
}

fn unmap(spare: usize) {
    // SAFETY: the pages were mapped by `make`, and the thread that has their address has it alone.
    unsafe { libc::munmap(spare as *mut c_void, ENTRIES * page_size()) };
}

/// Gives a spare up, if there is one. Async-signal-safe.
fn give_up() -> bool {
    (spares().give_up)() != 0
}

extern "C" fn give_up_own() -> c_int {
    let spare = SPARES
        .iter()
        .map(|spare| spare.swap(0, Ordering::AcqRel))
        .find(|&spare| spare != 0);
    c_int::from(spare.map(unmap).is_some())
}

/// Replaces a whole reservation by zero pages where the system refuses any other mapping: a spare makes room for that, and the
/// pieces that the reservation consisted of make room for another spare. Where other threads of the process take all of
/// that, this one waits for them to give something back. Async-signal-safe.
///
/// One thread does so at a time; others wait, as the room that it makes could be theirs.
///
/// # Safety
///
/// As for `map_zero_pages`.
pub unsafe fn replace_at_the_limit(base: usize, length: usize, writable: bool) -> bool {
    const NANOSECONDS: u64 = 10_000_000_000;
    static BUSY: AtomicBool = AtomicBool::new(false);
    while BUSY.swap(true, Ordering::Acquire) {
        yield_now();
    }
    let deadline = nanoseconds() + NANOSECONDS;
    let replaced = loop {
        let made_room = give_up();
        // SAFETY: the caller's promise.
        if unsafe { map_zero_pages(base, length, writable) } {
            break true;
        }
        if !made_room {
            if nanoseconds() > deadline {
                break false;
            }
            yield_now();
        }
    };
    keep();
    BUSY.store(false, Ordering::Release);
    replaced
}

/// `sched_yield(2)`, which is async-signal-safe where Rust's own need not be. Not a sleep: the one who sleeps is never the first
/// to see that an entry came free.
fn yield_now() {
    // SAFETY: gives the rest of the thread's time away.
    unsafe { libc::sched_yield() };
}
