//! What the residency cache promises, under every interleaving of those who ask the kernel and insert its answer, of who drops
//! pages and invalidates, and of who relies on what the cache contains.

use iommap_loom::model;
use iommap_loom::platform::page_size;
use iommap_loom::range::Range;
use iommap_loom::residency::Residency;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

/// The first pages of a mapping, which share an entry of its cache.
struct Mapping {
    cache: Residency,
    /// Which of them the kernel has in memory; it orders those who ask and those who drop.
    resident: Mutex<[bool; 2]>,
    invalidated: AtomicBool,
}

impl Mapping {
    fn new() -> Arc<Mapping> {
        Arc::new(Mapping {
            cache: Residency::new(2 * page_size(), 1000, 1),
            resident: Mutex::new([true; 2]),
            invalidated: AtomicBool::new(false),
        })
    }

    /// Asks about a page, and inserts the answer.
    fn ask(&self, page: usize) {
        let stamp = self.cache.stamp();
        let resident = self.resident.lock().unwrap()[page];
        if resident {
            self.cache.insert(page_range(page), stamp);
        }
    }

    /// Drops all pages, invalidates, and tells of it.
    fn drop_pages(&self) {
        *self.resident.lock().unwrap() = [false; 2];
        self.cache.invalidate();
        self.invalidated.store(true, Ordering::Release);
    }

    fn contains(&self, page: usize) -> bool {
        self.cache.contains(page_range(page))
    }

    /// Has the pages that the cache contains renewed if the kernel still has them.
    fn renew(&self, page: usize) -> bool {
        self.cache.renew(page_range(page), |run| {
            let resident = self.resident.lock().unwrap();
            (0..2).all(|page| !run.overlaps(page_range(page)) || resident[page])
        })
    }
}

fn page_range(page: usize) -> Range {
    Range::between(page * page_size(), (page + 1) * page_size())
}

fn spawn(
    mapping: &Arc<Mapping>,
    body: impl Fn(&Mapping) + Send + Sync + 'static,
) -> thread::JoinHandle<()> {
    let mapping = Arc::clone(mapping);
    thread::spawn(move || body(&mapping))
}

/// Who hears that pages were dropped and invalidated relies on none of them from then on.
fn relies_on_nothing_once_invalidated(mapping: &Mapping) {
    if mapping.invalidated.load(Ordering::Acquire) {
        assert!(!mapping.contains(0) && !mapping.contains(1));
    }
}

#[test]
fn what_was_dropped_and_invalidated_is_not_believed() {
    model(3, || {
        let mapping = Mapping::new();
        let others = [
            spawn(&mapping, |mapping| mapping.ask(0)),
            spawn(&mapping, |mapping| mapping.ask(1)),
            spawn(&mapping, Mapping::drop_pages),
        ];
        relies_on_nothing_once_invalidated(&mapping);
        for other in others {
            other.join().unwrap();
        }
        relies_on_nothing_once_invalidated(&mapping);
    });
}

#[test]
fn what_was_dropped_and_invalidated_is_not_renewed() {
    model(3, || {
        let mapping = Mapping::new();
        mapping.ask(0);
        mapping.ask(1);
        let others = [
            spawn(&mapping, |mapping| {
                mapping.renew(1);
            }),
            spawn(&mapping, Mapping::drop_pages),
        ];
        relies_on_nothing_once_invalidated(&mapping);
        for other in others {
            other.join().unwrap();
        }
        relies_on_nothing_once_invalidated(&mapping);
        assert!(!mapping.renew(0) && !mapping.renew(1));
    });
}

#[test]
fn what_is_contained_was_asked_about() {
    model(3, || {
        let mapping = Mapping::new();
        let asking = spawn(&mapping, |mapping| mapping.ask(0));
        assert!(!mapping.contains(1));
        asking.join().unwrap();
        assert!(mapping.contains(0) && !mapping.contains(1));
    });
}
