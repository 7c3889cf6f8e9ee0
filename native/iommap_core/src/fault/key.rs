//! The range of a slot, under a sequence lock: the slot's owner changes it, the signal handler reads it at any moment.
//!
//! The field knows this as a seqlock (`seqcount_t` in Linux; Boehm, "Can Seqlocks Get Along With Programming Language Memory
//! Models?"): an odd sequence is of a change that is on its way, and a reader believes what it read between two equal even ones.
//! Unlike a usual reader this one never tries again: what changes under it is not the slot that it looks for.
//! `tests/registry_model.rs` tries every interleaving.

use std::sync::atomic::{fence, AtomicU32, AtomicUsize, Ordering};

/// Which addresses a mapping has.
pub struct Key {
    sequence: AtomicU32,
    pub start: AtomicUsize,
    pub end: AtomicUsize,
}

impl Key {
    pub const fn new() -> Key {
        Key {
            sequence: AtomicU32::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
        }
    }

    /// Only the owner of the slot calls this, so there is one change at a time.
    pub fn change(&self, start: usize, end: usize, store: impl FnOnce()) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence
            .store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        store();
        self.start.store(start, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
        self.sequence
            .store(sequence.wrapping_add(2), Ordering::Release);
    }

    pub fn holds(&self, address: usize) -> bool {
        let sequence = self.sequence.load(Ordering::Acquire);
        let start = self.start.load(Ordering::Relaxed);
        let end = self.end.load(Ordering::Relaxed);
        address >= start && address < end && !self.changed_since(sequence)
    }

    /// The range, empty if it is being changed, and its sequence.
    pub fn range(&self) -> (u32, usize, usize) {
        let sequence = self.sequence.load(Ordering::Acquire);
        let start = self.start.load(Ordering::Relaxed);
        let end = self.end.load(Ordering::Relaxed);
        if self.changed_since(sequence) {
            (sequence, 0, 0)
        } else {
            (sequence, start, end)
        }
    }

    /// Whether what was read after that sequence may be of two ranges.
    pub fn changed_since(&self, sequence: u32) -> bool {
        fence(Ordering::Acquire);
        sequence % 2 != 0 || self.sequence.load(Ordering::Relaxed) != sequence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_not_believed_while_it_changes_nor_after() {
        // Whoever began to look before, or looks meanwhile, finds nothing.
        let key = Key::new();
        key.change(10, 20, || ());
        let (sequence, start, end) = key.range();
        assert_eq!((start, end), (10, 20));
        assert!(key.holds(10) && key.holds(19) && !key.holds(9) && !key.holds(20));
        assert!(!key.changed_since(sequence));
        key.change(10, 20, || {
            assert!(!key.holds(10) && key.changed_since(sequence));
            let (odd, start, end) = key.range();
            assert!(start == end && key.changed_since(odd));
        });
        assert!(key.holds(10) && key.changed_since(sequence));
    }
}
