//! The parts that a mapping has lost.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The parts of a mapping that zero pages were put under: everything from `from` on, and single pages before it.
pub struct Lost {
    from: AtomicUsize,
    pages: [AtomicUsize; Lost::PAGES],
    count: AtomicUsize,
}

impl Lost {
    /// A page more than these moves `from`: then more counts as lost than is, never less.
    pub const PAGES: usize = 32;

    pub const fn new() -> Lost {
        Lost {
            from: AtomicUsize::new(usize::MAX),
            pages: [const { AtomicUsize::new(usize::MAX) }; Lost::PAGES],
            count: AtomicUsize::new(0),
        }
    }

    pub fn clear(&self) {
        self.from.store(usize::MAX, Ordering::Relaxed);
        for page in &self.pages {
            page.store(usize::MAX, Ordering::Relaxed);
        }
        self.count.store(0, Ordering::Relaxed);
    }

    pub fn add_from(&self, offset: usize) {
        self.from.fetch_min(offset, Ordering::Release);
    }

    pub fn add_page(&self, offset: usize) {
        let known = self
            .pages
            .iter()
            .any(|page| page.load(Ordering::Relaxed) == offset);
        if known {
            return;
        }
        match self.pages.get(self.count.fetch_add(1, Ordering::Relaxed)) {
            Some(page) => page.store(offset, Ordering::Release),
            None => self.add_from(offset.min(self.first_page())),
        }
    }

    fn first_page(&self) -> usize {
        self.pages.iter().fold(usize::MAX, |first, page| {
            first.min(page.load(Ordering::Relaxed))
        })
    }

    /// Whether any of the bytes from `start` to before `end` is lost; pages are of `unit` bytes.
    pub fn touches(&self, start: usize, end: usize, unit: usize) -> bool {
        end > self.from.load(Ordering::Acquire)
            || self.pages.iter().any(|page| {
                let page = page.load(Ordering::Acquire);
                page != usize::MAX && page < end && start < page + unit
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform;

    #[test]
    fn what_is_lost_is_never_less_than_was_told() {
        // Single pages first, then, when there are more than can be told apart, all from the first one on.
        let page = platform::page_size();
        let lost = Lost::new();
        let touches = |start, end| lost.touches(start, end, page);
        let told = [9, 3, 3, 70, 5];
        for number in told {
            lost.add_page(number * page);
        }
        for number in 0..100 {
            let touched = touches(number * page, (number + 1) * page);
            assert_eq!(touched, told.contains(&number), "page {number}");
        }
        assert!(!touches(4 * page, 5 * page) && touches(4 * page, 5 * page + 1));
        (100..100 + Lost::PAGES).for_each(|number| lost.add_page(number * page));
        assert!((3..200).all(|number| touches(number * page, number * page + 1)));
        assert!(!touches(0, 3 * page));
        lost.clear();
        assert!(!touches(0, usize::MAX));
        lost.add_from(5 * page);
        lost.add_from(7 * page);
        assert!(touches(5 * page, 5 * page + 1) && !touches(0, 5 * page));
    }
}
