//! A thread's place: which lock it reads under, for the writers of that lock, and what it copies, for the signal handler.

use crate::guard;
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The place of one thread; nobody else writes to it. It has cache lines of its own.
#[repr(align(128))]
pub struct Place {
    /// The lock this thread reads under, by its address. See `lock`.
    pub reading: AtomicPtr<()>,
    /// What the guard knows of this thread.
    pub guarded: guard::Thread,
    next: AtomicPtr<Place>,
}

/// All places. A place is never freed: there is one for each scheduler thread.
static PLACES: AtomicPtr<Place> = AtomicPtr::new(ptr::null_mut());

thread_local! {
    static PLACE: Cell<Option<&'static Place>> = const { Cell::new(None) };
}

impl Place {
    /// The place of this thread.
    #[inline(always)]
    pub fn mine() -> &'static Place {
        match PLACE.get() {
            Some(place) => place,
            None => Place::added(),
        }
    }

    #[cold]
    fn added() -> &'static Place {
        let place: &'static Place = Box::leak(Box::new(Place {
            reading: AtomicPtr::new(ptr::null_mut()),
            guarded: guard::Thread::current(),
            next: AtomicPtr::new(ptr::null_mut()),
        }));
        let new = ptr::from_ref(place).cast_mut();
        let mut head = PLACES.load(Ordering::Relaxed);
        loop {
            place.next.store(head, Ordering::Relaxed);
            match PLACES.compare_exchange_weak(head, new, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        PLACE.set(Some(place));
        place
    }

    /// The places of all threads.
    pub fn all() -> impl Iterator<Item = &'static Place> {
        // SAFETY: places are leaked, so a linked one lives for ever.
        let place = |pointer: &AtomicPtr<Place>| unsafe { pointer.load(Ordering::SeqCst).as_ref() };
        std::iter::successors(place(&PLACES), move |last| place(&last.next))
    }
}
