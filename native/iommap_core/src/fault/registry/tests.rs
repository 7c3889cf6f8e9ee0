//! The registry's own tests.

use super::*;
use crate::platform;

/// Addresses that no memory of this process has, a gap after each range. Nothing is ever read there.
fn range(thread: usize, number: usize) -> (usize, usize) {
    const LENGTH: usize = 1 << 16;
    let first = (1 << 60) + (thread << 40);
    (first + 2 * number * LENGTH, LENGTH)
}

fn entry(start: usize, length: usize) -> Entry {
    Entry {
        start,
        length,
        origin: 0,
        extent: (start, length),
        unit: platform::page_size(),
        fd: None,
        writable: false,
    }
}

#[test]
fn a_range_grows_in_place_and_is_found_all_the_while() {
    // What was found before is found while the end moves, and what is new once it has moved.
    let (start, length) = range(9, 0);
    let page = platform::page_size();
    let slot = register(&entry(start, page));
    let grown = AtomicUsize::new(page);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for length in (2 * page..=length).step_by(page) {
                slot.extend(length);
                grown.store(length, Ordering::Release);
            }
        });
        while grown.load(Ordering::Acquire) < length {
            let end = start + grown.load(Ordering::Acquire);
            assert!(find(start).is_some() && find(end - 1).is_some());
        }
    });
    assert!(find(start + length - 1).is_some() && find(start + length).is_none());
    drop(slot);
    assert!(find(start).is_none());
}

#[test]
fn who_holds_a_mapping_finds_it_while_thousands_come_and_go() {
    // Every look-up of a live range finds its slot, and no look-up finds one where none ever was.
    const LIVE: usize = 300;
    view_began();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                let register = |number| {
                    let (start, length) = range(thread, number);
                    (start, register(&entry(start, length)))
                };
                let mut live: Vec<_> = (0..LIVE).map(register).collect();
                for round in 0..4 * LIVE {
                    let (start, slot) = &live[round * 7 % LIVE];
                    let start = *start;
                    let (_, length) = range(0, 0);
                    for address in [start, start + length / 2, start + length - 1] {
                        assert!(
                            find(address).is_some_and(|found| ptr::eq(found.key(), slot.key()))
                        );
                    }
                    assert!(find(start + length).is_none() && find(start - 1).is_none());
                    assert_eq!(intact(start + 5, length - 5), Some(true));
                    let replaced = &mut live[round * 13 % LIVE];
                    let start = replaced.0;
                    *replaced = register(LIVE + round);
                    assert!(find(start).is_none());
                }
            });
        }
    });
    view_ended();
}
