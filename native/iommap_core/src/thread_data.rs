//! The record of each thread, for the others: which lock it holds by the fast path (`lock`), and for the signal handler: what it
//! copies (`c_src/guard.c`).
//!
//! There is one list, of blocks of records, and C has it: a thread claims the first record without an owner, and no record is
//! ever freed. So the records that have an owner are always the first ones, and a look over them ends at the first that has none.
//!
//! A record may be claimed behind that look. Its thread is not on the fast path of a lock that is drained: it claimed the record
//! after every one before had an owner, and read or wrote the very word (an owner, or the link to the next block) in which the
//! look found nobody. Had it done so before the drainer's barrier on all threads reached it, the look, which comes after, would
//! have found somebody. So the barrier came before, and the thread's re-check of the bias, which comes later yet, sees what the
//! drainer stored before the barrier: that the lock is not biased any more. `tests/thread_data_model.rs` tries every
//! interleaving of this, and shows that the order of the accesses to an owner does not matter for it.
//!
//! A later thread may have the `pthread_self()` of one that ended, and so its record. Nothing is left in it by then:
//! `fast_lock` is null as the guard of a lock is dropped by its thread, and no copy outlives its call.

use std::cell::Cell;
use std::mem::{offset_of, size_of};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// The record of one thread; nobody else writes to it. It has cache lines of its own. `struct iommap_thread` in `c_src/guard.h`.
#[repr(C, align(128))]
pub struct ThreadData {
    owner: AtomicUsize,
    /// The guard's.
    _armed: AtomicPtr<()>,
    /// The signal handler's.
    _passing_to: AtomicPtr<()>,
    /// The lock that this thread holds by the fast path, by its address. See `lock`.
    pub fast_lock: AtomicPtr<()>,
}

const _: () = assert!(offset_of!(ThreadData, fast_lock) == 3 * size_of::<*const ()>());
const _: () = assert!(size_of::<ThreadData>() == 128);

/// `struct iommap_threads` in `c_src/guard.h`.
#[repr(C)]
struct Block {
    records: [ThreadData; 64],
    next: AtomicPtr<Block>,
}

extern "C" {
    static iommap_guard_threads: Block;
    fn iommap_guard_thread() -> *const ThreadData;
}

thread_local! {
    static CURRENT: Cell<Option<&'static ThreadData>> = const { Cell::new(None) };
}

impl ThreadData {
    /// The record of this thread.
    #[inline(always)]
    pub fn current() -> &'static ThreadData {
        match CURRENT.get() {
            Some(data) => data,
            None => ThreadData::register(),
        }
    }

    #[cold]
    fn register() -> &'static ThreadData {
        // SAFETY: finds or claims a record, which is never freed.
        let data = unsafe { iommap_guard_thread().as_ref() };
        // Only without memory, where Rust would end the VM anyway; a panic ends the call.
        let data = data.expect("there is memory for a thread's record");
        CURRENT.set(Some(data));
        data
    }

    /// The records of all threads that have one.
    pub fn all() -> impl Iterator<Item = &'static ThreadData> {
        // SAFETY: C's list begins here.
        let first = unsafe { &*ptr::addr_of!(iommap_guard_threads) };
        // SAFETY: a block that was linked lives for ever.
        let next = |block: &&'static Block| unsafe { block.next.load(Ordering::Acquire).as_ref() };
        std::iter::successors(Some(first), next)
            .flat_map(|block| &block.records)
            .take_while(|data| data.owner.load(Ordering::Acquire) != 0)
    }
}
