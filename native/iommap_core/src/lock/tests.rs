//! The lock's own tests.

use super::*;
use std::cell::Cell;
use std::sync::atomic::AtomicUsize;
use std::sync::Arc;
use std::time::Duration;

thread_local! {
    static BEFORE_THE_STORE: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) };
}

/// Does what a test wants done between this thread's look at the bias and its store.
pub(super) fn before_the_store() {
    if let Some(act) = BEFORE_THE_STORE.take() {
        act();
    }
}

/// So many reads that the lock is biased to readers.
fn bias_to_readers<T>(lock: &Lock<T>) {
    (0..=BIAS_THRESHOLD + 1).for_each(|_| drop(lock.read()));
    let to = lock.bias.load(Ordering::Relaxed);
    assert_eq!(ptr::eq(to, READERS), thread::has_barrier());
}

/// So many writes that the lock is biased to this thread.
fn bias_to_this_thread<T>(lock: &Lock<T>) {
    (0..=BIAS_THRESHOLD + 1).for_each(|_| drop(lock.try_write().unwrap()));
    let to = lock.bias.load(Ordering::Relaxed);
    assert_eq!(ptr::eq(to, ThreadData::current()), thread::has_barrier());
}

#[test]
fn nobody_sees_half_a_write_in_hundreds_of_thousands() {
    // Readers and writers of all kinds, the bias going to readers and to either writer, and revoked, all the while;
    // and on until there was enough of each.
    const WRITES: usize = 150_000;
    const FAST: usize = 1000;
    let lock = Lock::new([0usize; 8]);
    let writers = AtomicUsize::new(2);
    let [writes, fast, fast_writes] = [const { AtomicUsize::new(0) }; 3];
    let enough =
        |count: &AtomicUsize| count.load(Ordering::Relaxed) >= FAST || !thread::has_barrier();
    std::thread::scope(|scope| {
        for patience in [1000, 10] {
            let (lock, enough) = (&lock, &enough);
            let (writers, writes, fast) = (&writers, &writes, &fast);
            let fast_writes = &fast_writes;
            scope.spawn(move || {
                for round in 1.. {
                    if round > WRITES {
                        if enough(fast) && enough(fast_writes) {
                            break;
                        }
                        if !enough(fast) {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                    }
                    let tried = (round % patience > 0).then(|| lock.try_write()).flatten();
                    let mut value = tried.unwrap_or_else(|| lock.write());
                    if value._fast.is_some() {
                        fast_writes.fetch_add(1, Ordering::Relaxed);
                    }
                    assert!(value.iter().all(|word| *word == value[0]));
                    let next = value[0] + 1;
                    value.iter_mut().for_each(|word| *word = next);
                    drop(value);
                    writes.fetch_add(1, Ordering::Relaxed);
                    if round % 2048 == 0 {
                        bias_or_busy(lock);
                    }
                }
                writers.fetch_sub(1, Ordering::Relaxed);
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                while writers.load(Ordering::Relaxed) > 0 {
                    for _ in 0..1000 {
                        let Some(value) = lock.try_read() else {
                            continue;
                        };
                        if value._fast.is_some() {
                            fast.fetch_add(1, Ordering::Relaxed);
                        }
                        assert!(value.iter().all(|word| *word == value[0]));
                    }
                    let value = lock.read();
                    assert!(value.iter().all(|word| *word == value[0]));
                    drop(value);
                    std::thread::sleep(Duration::from_micros(200));
                }
            });
        }
    });
    assert_eq!(lock.read()[0], writes.into_inner(), "a write was lost");
}

/// Reads until the lock is biased, or somebody writes.
fn bias_or_busy<T>(lock: &Lock<T>) {
    (0..=BIAS_THRESHOLD + 1).for_each(|_| drop(lock.try_read()));
}

#[test]
fn a_writer_waits_for_a_fast_reader_also_when_another_gave_up_before() {
    // That records named the lock is not forgotten when the one who found it does not wait.
    let lock = Lock::new(0);
    bias_to_readers(&lock);
    let reading = lock.try_read().unwrap();
    assert_eq!(reading._fast.is_some(), thread::has_barrier());
    std::thread::scope(|scope| {
        let tried = scope.spawn(|| lock.try_write().is_none());
        assert!(tried.join().unwrap());
        let writer = scope.spawn(|| *lock.write() = 1);
        for _ in 0..100 {
            std::thread::yield_now();
            assert_eq!(*reading, 0);
        }
        drop(reading);
        writer.join().unwrap();
    });
    assert_eq!(*lock.read(), 1);
}

#[test]
fn everybody_waits_for_a_fast_writer_also_when_another_gave_up_before() {
    // Readers and writers; and what the writer on the fast path wrote is what they see.
    let lock = Lock::new(0);
    bias_to_this_thread(&lock);
    let mut writing = lock.try_write().unwrap();
    assert_eq!(writing._fast.is_some(), thread::has_barrier());
    std::thread::scope(|scope| {
        let tried = scope.spawn(|| lock.try_read().is_none() && lock.try_write().is_none());
        assert!(tried.join().unwrap());
        let reader = scope.spawn(|| *lock.read());
        let writer = scope.spawn(|| *lock.write() += 1);
        for value in 1..=100 {
            std::thread::yield_now();
            *writing = value;
        }
        drop(writing);
        assert!((100..=101).contains(&reader.join().unwrap()));
        writer.join().unwrap();
    });
    assert_eq!(*lock.read(), 101);
}

#[test]
fn who_comes_first_waits_for_a_fast_holder() {
    // A reader and a writer that may wait, and that nobody came before. (One that does not wait has a moment to show it.)
    let waits = |lock: &Lock<u32>, enter: &(dyn Fn() + Sync), leave: &dyn Fn()| {
        let entered = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                enter();
                entered.store(true, Ordering::Relaxed);
            });
            for _ in 0..50 {
                std::thread::sleep(Duration::from_millis(1));
                assert!(!entered.load(Ordering::Relaxed));
            }
            leave();
        });
        assert!(lock.try_write().is_some());
    };
    let lock = Lock::new(0);
    let read = || drop(lock.read());
    let write = || *lock.write() += 1;
    let enters: [&(dyn Fn() + Sync); 2] = [&read, &write];
    for enter in enters {
        bias_to_this_thread(&lock);
        let writing = Cell::new(Some(lock.try_write().unwrap()));
        waits(&lock, enter, &|| drop(writing.take()));
    }
    bias_to_readers(&lock);
    let reading = Cell::new(Some(lock.try_read().unwrap()));
    waits(&lock, &write, &|| drop(reading.take()));
}

#[test]
fn a_bias_that_is_revoked_under_a_reader_lets_nobody_in() {
    // Between its look at the bias and its store a writer came and was inside: the reader looks again, and takes the slow path.
    let lock = Arc::new(Lock::new(0));
    bias_to_readers(&lock);
    let writer = lock.clone();
    BEFORE_THE_STORE.set(Some(Box::new(|| {
        std::thread::spawn(move || *writer.write() = 1)
            .join()
            .unwrap();
    })));
    let reading = lock.try_read().unwrap();
    assert!(reading._fast.is_none());
    assert_eq!(*reading == 1, thread::has_barrier());
}

#[test]
fn the_thread_that_the_lock_is_biased_to_also_reads_and_waits() {
    // In every way there is, without waiting for itself.
    let lock = Lock::new(0);
    bias_to_this_thread(&lock);
    assert_eq!(
        lock.try_read().unwrap()._fast.is_some(),
        thread::has_barrier()
    );
    *lock.write() = 1;
    bias_to_this_thread(&lock);
    assert_eq!(*lock.read(), 1);
}

#[test]
fn a_thread_reads_under_two_locks_at_once() {
    // It has one fast path: the second lock is taken the other way.
    let (one, two) = (Lock::new(1), Lock::new(2));
    bias_to_readers(&one);
    bias_to_readers(&two);
    let (first, second) = (one.try_read().unwrap(), two.try_read().unwrap());
    assert_eq!(first._fast.is_some(), thread::has_barrier());
    assert!(second._fast.is_none());
    assert!(two.try_write().is_none() && one.try_write().is_none());
    drop((first, second));
    assert!(two.try_write().is_some() && one.try_write().is_some());
}

#[test]
fn a_writer_waits_for_a_fast_reader_whatever_the_number_of_its_thread() {
    // A hundred threads live at once, so that their records are of more than one block; the one with the last record reads.
    const THREADS: usize = 100;
    let lock = Lock::new(0);
    bias_to_readers(&lock);
    let barrier = std::sync::Barrier::new(THREADS + 1);
    let last = AtomicUsize::new(0);
    let tried = std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mine = ThreadData::current();
                barrier.wait();
                let place = ThreadData::all().position(|data| ptr::eq(data, mine));
                let place = place.unwrap_or(usize::MAX);
                last.fetch_max(place, Ordering::Relaxed);
                barrier.wait();
                let reading = (place == last.load(Ordering::Relaxed)).then(|| lock.try_read());
                barrier.wait();
                barrier.wait();
                drop(reading);
            });
        }
        for _ in 0..3 {
            barrier.wait();
        }
        let tried = lock.try_write().is_some();
        barrier.wait();
        tried
    });
    assert!(!tried, "a fast reader was overlooked");
    assert!((THREADS - 1..usize::MAX).contains(&last.into_inner()));
    assert!(lock.try_write().is_some());
}

#[test]
fn a_lock_that_was_read_a_few_times_only_is_taken_without_a_barrier() {
    // Nothing is revoked, so nothing is drained: until it was read more often, when it is biased to readers.
    let lock = Lock::new(());
    let is_biased = || !lock.bias.load(Ordering::Relaxed).is_null();
    for _ in 0..FIRST_READS {
        drop(lock.try_read().unwrap());
        assert!(!is_biased());
    }
    drop(lock.read());
    assert_eq!(is_biased(), thread::has_barrier());
    drop(lock.write());
    assert!(!is_biased());
}
