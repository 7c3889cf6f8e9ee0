use super::*;
use platform::page_size;

const GROUP: usize = 16;

/// A stamp of half a minute ago.
fn old(cache: &Residency) -> Stamp {
    Stamp(cache.stamp().0.wrapping_sub(500))
}

fn range(offset: usize, length: usize) -> Range {
    Range::checked(offset as u64, length as u64, usize::MAX).unwrap()
}

#[test]
fn only_what_was_inserted_is_contained() {
    let cache = Residency::new(1 << 30, 1000, 1);
    let stamp = cache.stamp();
    cache.insert(range(31 * page_size(), 2 * page_size()), stamp);
    assert!(cache.contains(range(31 * page_size(), 2 * page_size())));
    assert!(cache.contains(range(31 * page_size() + 5, page_size())));
    assert!(!cache.contains(range(30 * page_size(), 2 * page_size())));
    assert!(!cache.contains(range(32 * page_size(), page_size() + 1)));
}

#[test]
fn a_block_is_contained_if_all_of_its_pages_were_inserted() {
    let cache = Residency::new(1 << 40, 1000, 16);
    let block = cache.block_size();
    assert_eq!(block, 16 * page_size());
    cache.insert(
        range(page_size(), 2 * block - 2 * page_size()),
        cache.stamp(),
    );
    assert!(!cache.contains(range(page_size(), 1)));
    assert!(!cache.contains(range(block + page_size(), 1)));
    cache.insert(range(page_size(), 2 * block), cache.stamp());
    assert!(cache.contains(range(block, block)));
    assert!(!cache.contains(range(block - 1, 1)) && !cache.contains(range(2 * block, 1)));
}

#[test]
fn a_block_is_as_old_as_it_was_when_its_neighbour_is_inserted() {
    let cache = Residency::new(1 << 20, 1000, 1);
    let now = cache.stamp();
    let later = |ticks: u32| Stamp(now.0.wrapping_add(ticks));
    cache.insert(range(0, page_size()), now);
    cache.insert(range(page_size(), page_size()), later(900));
    assert!(cache.holds(0, 0b11, later(1000)));
    assert!(!cache.holds(0, 0b01, later(1001)));
    // What is too old is not kept by it either.
    cache.insert(range(2 * page_size(), page_size()), later(1001));
    assert!(cache.holds(0, 0b100, later(1001)) && !cache.holds(0, 0b01, later(1001)));
}

#[test]
fn regions_that_share_an_entry_are_told_apart() {
    let cache = Residency::new(1 << 40, 1000, 1);
    let apart = MOST_ENTRIES * cache.region_size();
    cache.insert(range(0, page_size()), cache.stamp());
    assert!(!cache.contains(range(apart, page_size())));
    cache.insert(range(apart, page_size()), cache.stamp());
    assert!(!cache.contains(range(0, page_size())));
}

#[test]
fn an_answer_to_a_question_before_invalidating_is_not_believed_after() {
    let cache = Residency::new(1 << 20, 1000, 1);
    let stamp = cache.stamp();
    cache.invalidate();
    cache.insert(range(0, page_size()), stamp);
    assert!(!cache.contains(range(0, page_size())));
    cache.insert(range(0, page_size()), cache.stamp());
    assert!(cache.contains(range(0, page_size())));
}

#[test]
fn an_entry_ends_after_its_lifetime() {
    let cache = Residency::new(1 << 20, 2, 1);
    cache.insert(range(0, page_size()), cache.stamp());
    let begun = clock::ticks();
    while clock::ticks().wrapping_sub(begun) <= 3 {
        std::thread::yield_now();
    }
    assert!(!cache.contains(range(0, page_size())));
}

#[test]
fn a_renewal_keeps_exactly_the_blocks_that_still_hold() {
    // Asked about in runs; what was never inserted is not renewed, nor what was invalidated.
    let still = |held: u32| {
        move |run: Range| {
            (run.offset() / page_size()..run.end() / page_size()).all(|page| held >> page & 1 == 1)
        }
    };
    for inserted in [u32::MAX, 1, 1 << 31, 0x8000_0001, 0x0ff0_f00f, 0xaaaa_aaaa] {
        for held in [
            u32::MAX,
            0,
            0x0000_ffff,
            0x00ff_0ff0,
            0x5555_5555,
            0x7fff_ffff,
        ] {
            let cache = Residency::new(1 << 20, 0, 1).renewable(1000, GROUP * BLOCKS);
            let bit = |bits: u32, page: usize| bits >> page & 1 == 1;
            for page in (0..32).filter(|page| bit(inserted, *page)) {
                cache.insert(range(page * page_size(), page_size()), old(&cache));
            }
            let first = inserted.trailing_zeros() as usize;
            let renewed = cache.renew(range(first * page_size(), 10), still(held));
            assert_eq!(renewed, bit(held, first), "{inserted:x} {held:x}");
            let wanted = inserted & held;
            assert_eq!(blocks(cache.entries[0].load(Ordering::Relaxed)), wanted);
            cache.invalidate();
            assert!(!cache.renew(range(0, page_size()), still(u32::MAX)));
        }
    }
}

#[test]
fn full_regions_beside_each_other_are_renewed_by_one_question() {
    let cache = Residency::new(1 << 30, 0, 1).renewable(1000, GROUP * BLOCKS);
    let region = cache.region_size();
    let group = GROUP * region;
    let later = |cache: &Residency| Stamp(cache.stamp().0.wrapping_add(500));
    let holds = |number: usize| {
        let (entry, tag) = cache.entry(number);
        fresh(entry.load(Ordering::Relaxed), tag, later(&cache), 500)
    };
    cache.insert(range(0, 3 * group), old(&cache));
    let asked = std::cell::RefCell::new(Vec::new());
    let ask = |answer: fn(Range) -> bool| {
        let asked = &asked;
        move |run: Range| {
            asked.borrow_mut().push((run.offset(), run.length()));
            answer(run)
        }
    };
    assert!(cache.renew(range(group + 5 * region + 9, 64), ask(|_| true)));
    assert_eq!(asked.take(), [(group, group)]);
    assert!((GROUP..2 * GROUP).all(holds));
    assert!(!holds(GROUP - 1) && !holds(2 * GROUP));
    // Where one page of all does not hold, only the region is renewed that was asked for.
    assert!(cache.renew(
        range(7 * region, 1),
        ask(|run| run.end() < 9 * page_size() * BLOCKS)
    ));
    assert_eq!(asked.take(), [(0, group), (7 * region, region)]);
    assert!(holds(7) && !holds(6) && !holds(8));
    // Of a range that touches many, the group is asked about once, and what is fresh by then not again.
    cache.insert(range(0, group), old(&cache));
    assert!(cache.renew(range(0, group), ask(|_| true)));
    assert_eq!(asked.take(), [(0, group)]);
    assert!(cache.renew(range(3, region), ask(|_| true)));
    assert_eq!(asked.take(), []);
    cache.insert(range(2 * group, group), old(&cache));
    assert!(cache.renew(
        range(2 * group, 2 * region),
        ask(|run| run.length() <= BLOCKS * page_size())
    ));
    assert_eq!(
        asked.take(),
        [
            (2 * group, group),
            (2 * group, region),
            (2 * group + region, region)
        ]
    );
    // And no more once something does not hold.
    cache.insert(range(2 * group, group), old(&cache));
    assert!(!cache.renew(range(2 * group, group), ask(|_| false)));
    assert!(asked
        .take()
        .iter()
        .all(|(offset, length)| *length == group || *offset < 2 * group + region));
    // Nor is more asked about where one is not full.
    let lacking = Residency::new(1 << 30, 0, 1).renewable(1000, GROUP * BLOCKS);
    lacking.insert(range(0, group - page_size()), old(&lacking));
    assert!(lacking.renew(range(3 * region, 1), ask(|_| true)));
    assert_eq!(asked.take(), [(3 * region, region)]);
    // Nor of regions that are longer than what is asked about at once.
    let huge = Residency::new(1 << 40, 0, 16).renewable(1000, BLOCKS);
    huge.insert(range(0, huge.region_size()), old(&huge));
    assert!(!huge.renew_full(range(5, 1), ask(|_| true)));
    assert!(huge.renew(range(5, 1), ask(|_| true)));
    assert_eq!(asked.take(), [(0, huge.region_size())]);
    // A small mapping's regions have less entries than are asked about at once.
    let small = Residency::new(region, 0, 1).renewable(1000, GROUP * BLOCKS);
    small.insert(range(0, region), old(&small));
    assert!(small.renew(range(5, 1), ask(|_| true)));
    assert_eq!(asked.take(), [(0, region)]);
}

#[test]
fn what_is_inserted_in_an_ended_entry_keeps_the_blocks_that_still_hold() {
    // Only those that were there, and are not inserted now; none of an entry that cannot be renewed.
    let cache = Residency::new(1 << 20, 2, 1).renewable(1000, GROUP * BLOCKS);
    let now = cache.stamp();
    let later = |ticks: u32| Stamp(now.0.wrapping_add(ticks));
    let still = |held: u32| {
        move |run: Range| {
            (run.offset() / page_size()..run.end() / page_size()).all(|page| held >> page & 1 == 1)
        }
    };
    let page = |number: usize| range(number * page_size(), page_size());
    for number in [0, 1, 5] {
        cache.insert(page(number), now);
    }
    cache.insert_and_renew(page(7), later(3), still(0b0101_1110));
    assert!(cache.holds(0, 0b1000_0010, later(3)));
    assert!(!cache.holds(0, 0b1, later(3)) && !cache.holds(0, 0b10_0000, later(3)));
    assert!(!cache.holds(0, 0b100, later(3)));
    cache.insert_and_renew(page(8), later(1004), |_| {
        panic!("asked about what is too old")
    });
    assert!(!cache.holds(0, 0b10, later(1004)));
    cache.invalidate();
    let after = Stamp(cache.stamp().0.wrapping_add(1004));
    cache.insert_and_renew(page(9), after, |_| panic!("asked about what is invalid"));
    assert!(cache.holds(0, 1 << 9, after) && !cache.holds(0, 1 << 8, after));
}

#[test]
fn a_huge_mapping_costs_no_more_than_a_big_one() {
    assert_eq!(
        Residency::new(page_size() << 17, 1, 1).entries.len(),
        Residency::new(page_size() << 34, 1, 1).entries.len()
    );
    assert_eq!(Residency::new(1, 1, 1).entries.len(), 1);
}

/// The invariant under every order of two threads' steps: one inserts, one invalidates; after the invalidating is
/// over, nothing that was asked before it is contained.
#[test]
fn no_order_of_steps_lets_an_old_answer_outlive_invalidating() {
    for invalidate_after in 0..=2 {
        let cache = Residency::new(1 << 20, 1000, 1);
        let mut stamp = None;
        for step in 0..=2 {
            if step == invalidate_after {
                cache.invalidate();
            }
            match step {
                0 => stamp = Some(cache.stamp()),
                1 => cache.insert(range(0, page_size()), stamp.unwrap()),
                _ => {}
            }
        }
        let inserted_after_invalidating = invalidate_after == 0;
        assert_eq!(
            cache.contains(range(0, page_size())),
            inserted_after_invalidating
        );
    }
}
