//! A thread's data: which lock it holds by the fast path, for the others of that lock, and what it copies, for the signal
//! handler.

use crate::fault::guard;
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The data of one thread; nobody else writes to it. It has cache lines of its own.
#[repr(align(128))]
pub struct ThreadData {
    /// The lock that this thread holds by the fast path, by its address. See `lock`.
    pub fast_lock: AtomicPtr<()>,
    /// What the guard knows of this thread.
    pub guarded: guard::Thread,
    next: AtomicPtr<ThreadData>,
}

/// The data of all threads. It is never freed: there is one for each scheduler thread.
static THREADS: AtomicPtr<ThreadData> = AtomicPtr::new(ptr::null_mut());

thread_local! {
    static CURRENT: Cell<Option<&'static ThreadData>> = const { Cell::new(None) };
}

impl ThreadData {
    /// The data of this thread.
    #[inline(always)]
    pub fn current() -> &'static ThreadData {
        match CURRENT.get() {
            Some(data) => data,
            None => ThreadData::register(),
        }
    }

    #[cold]
    fn register() -> &'static ThreadData {
        let data: &'static ThreadData = Box::leak(Box::new(ThreadData {
            fast_lock: AtomicPtr::new(ptr::null_mut()),
            guarded: guard::Thread::current(),
            next: AtomicPtr::new(ptr::null_mut()),
        }));
        let new = ptr::from_ref(data).cast_mut();
        let mut head = THREADS.load(Ordering::Relaxed);
        loop {
            data.next.store(head, Ordering::Relaxed);
            match THREADS.compare_exchange_weak(head, new, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        CURRENT.set(Some(data));
        data
    }

    /// The data of all threads.
    pub fn all() -> impl Iterator<Item = &'static ThreadData> {
        // SAFETY: it is leaked, so a linked one lives for ever.
        let data =
            |pointer: &AtomicPtr<ThreadData>| unsafe { pointer.load(Ordering::SeqCst).as_ref() };
        std::iter::successors(data(&THREADS), move |last| data(&last.next))
    }
}
