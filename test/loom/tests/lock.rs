//! What the lock promises, under the interleavings of a few threads. The value is a cell that `loom` watches: two that are inside at
//! the same time, one of them to write, are a failure, and so is a reader that does not see what a writer before it wrote.

use iommap_loom::lock::Lock;
use iommap_loom::model;
use iommap_loom::thread_data::ThreadData;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

type Cell = UnsafeCell<usize>;

/// How often a thread that must not wait tries again, having let others run.
const ATTEMPTS: usize = 2;

/// So many calls of a thread that bias a lock, and one by the fast path.
const MANY: usize = 4;

fn value(cell: &Cell) -> usize {
    // SAFETY: the lock allows reading; loom watches whether it is right.
    cell.with(|value| unsafe { *value })
}

fn increment(cell: &mut Cell) {
    // SAFETY: the lock allows writing; loom watches whether it is right.
    cell.with_mut(|value| unsafe { *value += 1 });
}

/// A lock that its first thread has made biased to readers.
fn biased_to_readers() -> Arc<Lock<Cell>> {
    let lock = Arc::new(Lock::new(Cell::new(0)));
    (0..MANY).for_each(|_| drop(lock.try_read().unwrap()));
    lock
}

/// A lock that is biased to its first thread, which wrote `MANY` times.
fn biased_to_a_writer() -> Arc<Lock<Cell>> {
    let lock = Arc::new(Lock::new(Cell::new(0)));
    (0..MANY).for_each(|_| increment(&mut lock.try_write().unwrap()));
    lock
}

/// Runs something in a thread with the record of that number.
fn spawn<R: 'static>(
    record: usize,
    lock: &Arc<Lock<Cell>>,
    body: impl Fn(&Lock<Cell>) -> R + 'static,
) -> thread::JoinHandle<R> {
    let lock = Arc::clone(lock);
    thread::spawn(move || {
        ThreadData::claim(record);
        body(&lock)
    })
}

fn join<const N: usize>(threads: [thread::JoinHandle<()>; N]) {
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Reads without waiting, if it can.
fn try_read(lock: &Lock<Cell>) -> Option<usize> {
    lock.try_read().map(|guard| value(&guard))
}

fn read(lock: &Lock<Cell>) -> usize {
    value(&lock.read())
}

/// Writes; by a way that may wait if it cannot be done without.
fn write(lock: &Lock<Cell>) {
    for _ in 0..ATTEMPTS {
        if let Some(mut guard) = lock.try_write() {
            return increment(&mut guard);
        }
        thread::yield_now();
    }
    increment(&mut lock.write());
}

/// Everybody is gone, and the value is what so many writes make of it.
fn assert_ended(lock: &Lock<Cell>, writes: usize) {
    assert!(ThreadData::all_idle());
    assert_eq!(read(lock), writes);
}

#[test]
fn a_writer_that_waits_and_fast_readers_are_never_inside_together() {
    model(3, || {
        let lock = biased_to_readers();
        let writer = spawn(1, &lock, |lock| increment(&mut lock.write()));
        let reader = spawn(2, &lock, |lock| (try_read(lock), try_read(lock)));
        let before = try_read(&lock);
        writer.join().unwrap();
        let (first, second) = reader.join().unwrap();
        assert!(first.is_none() || second.is_none() || first <= second);
        assert!(before.is_none_or(|value| value <= 1));
        assert_ended(&lock, 1);
    });
}

#[test]
fn a_writer_that_does_not_wait_and_fast_readers_are_never_inside_together() {
    model(3, || {
        let lock = biased_to_readers();
        let writer = spawn(1, &lock, |lock| {
            usize::from(
                lock.try_write()
                    .map(|mut guard| increment(&mut guard))
                    .is_some(),
            )
        });
        let reader = spawn(2, &lock, try_read);
        try_read(&lock);
        let writes = writer.join().unwrap();
        assert!(reader.join().unwrap().is_none_or(|value| value <= writes));
        assert_ended(&lock, writes);
    });
}

#[test]
fn two_writers_on_a_lock_biased_to_readers_are_never_inside_together() {
    model(2, || {
        let lock = biased_to_readers();
        let writers = [1, 2].map(|record| spawn(record, &lock, write));
        try_read(&lock);
        join(writers);
        assert_ended(&lock, 2);
    });
}

#[test]
fn a_fast_writer_and_who_reads_are_never_inside_together() {
    model(3, || {
        let lock = biased_to_a_writer();
        let readers = [
            spawn(1, &lock, try_read),
            spawn(2, &lock, |lock| Some(read(lock))),
        ];
        increment(&mut lock.try_write().unwrap_or_else(|| lock.write()));
        let seen = readers.map(|reader| reader.join().unwrap());
        assert!(seen
            .iter()
            .flatten()
            .all(|value| (MANY..=MANY + 1).contains(value)));
        assert_ended(&lock, MANY + 1);
    });
}

#[test]
fn a_fast_writer_and_others_who_write_are_never_inside_together() {
    model(2, || {
        let lock = biased_to_a_writer();
        let others = [
            spawn(1, &lock, write),
            spawn(2, &lock, |lock| increment(&mut lock.write())),
        ];
        write(&lock);
        join(others);
        assert_ended(&lock, MANY + 3);
    });
}

#[test]
fn a_lock_that_is_biased_again_keeps_out_who_was_on_the_fast_way_before() {
    // The reader revokes the writer's bias, and biases the lock to readers, while the writer may be on its way in.
    model(2, || {
        let lock = biased_to_a_writer();
        let reader = spawn(1, &lock, |lock| {
            (0..MANY).fold(0, |before, _| {
                let now = read(lock);
                assert!(before <= now);
                now
            })
        });
        write(&lock);
        write(&lock);
        assert!(reader.join().unwrap() <= MANY + 2);
        assert_ended(&lock, MANY + 2);
    });
}

#[test]
fn a_reader_on_the_fast_way_sees_what_was_written_before_the_lock_was_biased_again() {
    // The writer revokes the bias, and makes the lock biased to readers again, while the reader looks for the second time.
    model(2, || {
        let lock = biased_to_readers();
        let writer = spawn(1, &lock, |lock| {
            increment(&mut lock.write());
            (0..MANY).for_each(|_| assert_eq!(read(lock), 1));
        });
        assert!(try_read(&lock).is_none_or(|value| value <= 1));
        writer.join().unwrap();
        assert_ended(&lock, 1);
    });
}

#[test]
fn a_reader_that_revokes_late_leaves_the_bias_that_others_came_in_by() {
    // Both readers find the lock biased to the writer. One revokes that, waits until it is drained, makes it biased to readers and
    // comes in by that, before the other revokes. Who writes next waits for it.
    model(2, || {
        let lock = biased_to_a_writer();
        let late = spawn(1, &lock, read);
        let early = spawn(2, &lock, |lock| {
            (0..MANY).for_each(|_| drop(lock.read()));
            try_read(lock)
        });
        assert_eq!(late.join().unwrap(), MANY);
        increment(&mut lock.write());
        let seen = early.join().unwrap();
        assert!(seen.is_none_or(|value| (MANY..=MANY + 1).contains(&value)));
        assert_ended(&lock, MANY + 1);
    });
}

#[test]
fn a_thread_that_reads_under_two_locks_keeps_writers_out_of_both() {
    model(3, || {
        let (one, other) = (biased_to_readers(), biased_to_readers());
        let writers = [spawn(1, &one, write), spawn(2, &other, write)];
        {
            let outer = one.try_read();
            let inner = other.try_read();
            for guard in [inner, outer].iter().flatten() {
                assert!(value(guard) <= 1);
            }
        }
        join(writers);
        assert_ended(&one, 1);
        assert_ended(&other, 1);
    });
}
