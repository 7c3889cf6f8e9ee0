//! What the residency cache promises, under every interleaving of those who ask the kernel and insert its answer, of who drops
//! pages and invalidates, and of who relies on what the cache contains.

use iommap_loom::clock;
use iommap_loom::model;
use iommap_loom::platform::page_size;
use iommap_loom::range::Range;
use iommap_loom::residency::Residency;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

/// Two parts of a mapping: pages, which share an entry of its cache, or regions, which have one each.
struct Mapping {
    cache: Residency,
    /// How long a part is.
    length: usize,
    /// Which of them the kernel has in memory; it orders those who ask and those who drop.
    resident: Mutex<[bool; 2]>,
    invalidated: AtomicBool,
}

impl Mapping {
    fn of_pages() -> Arc<Mapping> {
        Mapping::new(page_size())
    }

    fn of_regions() -> Arc<Mapping> {
        Mapping::new(32 * page_size())
    }

    fn new(length: usize) -> Arc<Mapping> {
        clock::set(1);
        Arc::new(Mapping {
            cache: Residency::new(2 * length, 10, 1).renewable(1000, 64),
            length,
            resident: Mutex::new([true; 2]),
            invalidated: AtomicBool::new(false),
        })
    }

    fn range(&self, part: usize) -> Range {
        Range::between(part * self.length, (part + 1) * self.length)
    }

    /// Asks about a part, and inserts the answer.
    fn ask(&self, part: usize) {
        let stamp = self.cache.stamp();
        let resident = self.resident.lock().unwrap()[part];
        if resident {
            self.cache.insert(self.range(part), stamp);
        }
    }

    /// Drops all pages, invalidates, and tells of it.
    fn drop_pages(&self) {
        *self.resident.lock().unwrap() = [false; 2];
        self.cache.invalidate();
        self.invalidated.store(true, Ordering::Release);
    }

    fn contains(&self, part: usize) -> bool {
        self.cache.contains(self.range(part))
    }

    fn holds(&self, run: Range) -> bool {
        let resident = self.resident.lock().unwrap();
        (0..2).all(|part| !run.overlaps(self.range(part)) || resident[part])
    }

    /// Has what the cache contains renewed if the kernel still has it.
    fn renew(&self, part: usize) -> bool {
        self.cache.renew(self.range(part), |run| self.holds(run))
    }

    /// The same of both regions together.
    fn renew_both(&self, part: usize) -> bool {
        self.cache
            .renew_full(self.range(part), |run| self.holds(run))
    }
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
        let mapping = Mapping::of_pages();
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
        let mapping = Mapping::of_pages();
        mapping.ask(0);
        mapping.ask(1);
        clock::set(100); // ended, and not too old to be renewed
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
fn regions_that_were_dropped_and_invalidated_are_not_renewed_together() {
    model(3, || {
        let mapping = Mapping::of_regions();
        mapping.ask(0);
        mapping.ask(1);
        clock::set(100);
        let others = [
            spawn(&mapping, |mapping| {
                mapping.renew_both(1);
            }),
            spawn(&mapping, |mapping| mapping.ask(0)),
            spawn(&mapping, Mapping::drop_pages),
        ];
        relies_on_nothing_once_invalidated(&mapping);
        for other in others {
            other.join().unwrap();
        }
        relies_on_nothing_once_invalidated(&mapping);
        assert!(!mapping.renew_both(0) && !mapping.renew_both(1));
    });
}

#[test]
fn what_is_contained_was_asked_about() {
    model(3, || {
        let mapping = Mapping::of_pages();
        let asking = spawn(&mapping, |mapping| mapping.ask(0));
        assert!(!mapping.contains(1));
        asking.join().unwrap();
        assert!(mapping.contains(0) && !mapping.contains(1));
    });
}
