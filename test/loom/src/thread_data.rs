//! The records of the threads. How they are claimed is not tried here (`tests/thread_data_model.rs` does): each thread has its own
//! from the beginning.

use crate::sync::{AtomicPtr, Ordering};
use std::cell::Cell;
use std::ptr;

/// How many threads there are at most.
pub const THREADS: usize = 4;

/// The record of one thread; nobody else writes to it.
pub struct ThreadData {
    pub fast_lock: AtomicPtr<()>,
}

loom::lazy_static! {
    static ref RECORDS: [ThreadData; THREADS] = std::array::from_fn(|_| ThreadData {
        fast_lock: AtomicPtr::new(ptr::null_mut()),
    });
}

loom::thread_local! {
    static CURRENT: Cell<usize> = Cell::new(0);
}

impl ThreadData {
    /// Gives this thread the record of that number; 0 is that of who claims none.
    pub fn claim(number: usize) {
        CURRENT.with(|current| current.set(number));
    }

    pub fn current() -> &'static ThreadData {
        &RECORDS[CURRENT.with(Cell::get)]
    }

    pub fn all() -> impl Iterator<Item = &'static ThreadData> {
        RECORDS.iter()
    }

    /// Whether no thread holds a lock by the fast path.
    pub fn all_idle() -> bool {
        ThreadData::all().all(|thread| thread.fast_lock.load(Ordering::Relaxed).is_null())
    }
}
