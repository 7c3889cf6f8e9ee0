//! How far ahead of a sequential writer pages are made writable, so that it waits for one page in many.
//!
//! The length doubles with each write that had to wait and went on where the last such write, with what was prepared ahead of
//! it, had ended; any other write starts anew, and so does the first after a write-back. So at most as many pages become dirty
//! for nothing as were written in order since then. A guess of several threads: one that is wrong costs time alone.

use crate::platform;
use crate::range::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

const MOST_PAGES: usize = 16;

/// An end where no write begins.
const NOWHERE: usize = usize::MAX;

/// The sequential writer of a mapping.
#[derive(Debug)]
pub struct WriteAhead {
    /// Where what was prepared ends.
    end: AtomicUsize,
    /// How many bytes of that were ahead of the write.
    length: AtomicUsize,
}

impl WriteAhead {
    /// Nothing is prepared.
    pub const fn new() -> WriteAhead {
        WriteAhead {
            end: AtomicUsize::new(NOWHERE),
            length: AtomicUsize::new(0),
        }
    }

    /// What is to be prepared behind whole pages that are written, before `limit`; it may be empty.
    pub fn advance(&self, written: Range, limit: usize) -> Range {
        let page = platform::page_size();
        let prepared = self.end.load(Ordering::Relaxed);
        let goes_on = written.offset() <= prepared && prepared < written.end();
        let length = if goes_on {
            (2 * self.length.load(Ordering::Relaxed)).clamp(page, MOST_PAGES * page)
        } else {
            0
        };
        let end = (written.end() + length).min(limit).max(written.end());
        self.end.store(end, Ordering::Relaxed);
        self.length.store(length, Ordering::Relaxed);
        Range::between(written.end(), end)
    }

    /// The next write starts anew.
    pub fn reset(&self) {
        self.end.store(NOWHERE, Ordering::Relaxed);
    }
}
