//! The lock and the residency cache of the core, their sources as they are, built of parts that `loom` can follow: the
//! interleavings of a few threads are tried that have a few preemptions (`model` says how many), and in each of them every value
//! that the language's memory model lets a load see.
//!
//! The barrier on all threads (`membarrier(2)`), and what it makes of a compiler fence elsewhere, are fences here: whatever comes
//! before the one or behind the other is ordered by either (P1202, asymmetric fences).

#![allow(dead_code)] // the tests need a part of it

#[path = "../../../native/iommap_core/src/lock/mod.rs"]
pub mod lock;
#[path = "../../../native/iommap_core/src/range.rs"]
pub mod range;
#[path = "../../../native/iommap_core/src/residency.rs"]
pub mod residency;
pub mod sync;
pub mod thread_data;

/// Time stands still, but where a test sets it.
pub mod clock {
    use std::cell::Cell;

    thread_local! {
        /// Of a model: its threads are one thread of the system.
        static NOW: Cell<u32> = const { Cell::new(1) };
    }

    pub fn ticks() -> u32 {
        NOW.get()
    }

    pub fn set(ticks: u32) {
        NOW.set(ticks);
    }
}

mod error {
    #[derive(Debug)]
    pub enum Error {
        OutOfBounds,
    }
}

/// What is asked of the system.
pub mod platform {
    /// The size of a page in bytes.
    pub fn page_size() -> usize {
        4096
    }

    /// See `src/platform/thread.rs`.
    pub mod thread {
        use loom::sync::atomic::{fence, Ordering};

        /// There is one.
        pub fn has_barrier() -> bool {
            true
        }

        /// The heavy one of two fences.
        pub fn barrier() {
            fence(Ordering::SeqCst);
        }

        /// Others run first.
        pub fn backoff(_round: u32) {
            loom::thread::yield_now();
        }
    }
}

/// Runs the body under every interleaving with at most so many preemptions; that a thread waits for others is none.
pub fn model(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 100_000;
    builder.check(body);
}
