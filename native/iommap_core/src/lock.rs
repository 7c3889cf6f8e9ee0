//! A reader-writer lock whose readers write nothing that they share.
//!
//! A shared lock word makes readers wait for each other's cache line, and its locked instruction keeps a processor
//! from overlapping the cache misses of successive calls. So while nobody writes, the lock is *open to readers*: a short
//! reader sits down in a seat of its own (one per thread, written with plain stores) and looks whether the lock is still
//! open; whoever writes, who is rare then, pays: it takes the lock, closes it, makes every thread pass a memory barrier
//! (`membarrier(2)`), and waits until no seat is taken for this lock. While only one thread uses the lock, and writes, it is
//! *open to that thread*, which then reads and writes by sitting down; whoever else comes, reader or writer, pays. While
//! the lock is closed everybody uses the plain reader-writer lock inside.
//!
//! ```text
//! closed --a reader, after QUIET reads without a write--> open to readers --a writer--> draining --seats empty--> closed
//! closed --a writer, after QUIET writes of its thread and nothing else--> open to it --anybody else--> draining
//! ```
//!
//! Invariants:
//! - A writer either holds the inner lock for writing, with the lock closed and no seat taken for it; or is seated, and saw
//!   the lock open to its thread after it sat down.
//! - A reader either is seated, and saw the lock open to readers or to its thread after it sat down; or holds the inner
//!   lock for reading, with the lock not open to any one thread, and nobody seated from when it was.
//! - Either the barrier of whoever closes comes before the look of whoever sits down, who then sees "closed" and stands up;
//!   or it comes after, and then the seat is seen taken.
//! - The lock is opened only by who holds the inner lock and is inside: to readers by a reader, to one thread by that
//!   thread as a writer.
//! - `draining` is set before the lock is closed, and until someone has passed a barrier after that and has seen the seats
//!   empty. Whoever finds it set does so itself.
//!
//! Where the system has no such barrier the lock stays closed, and is a plain reader-writer lock.
//! `tests/lock_model.rs` tries every interleaving, store buffers included.

use crate::place::Place;
use crate::platform;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::ops::{Deref, DerefMut};
use std::ptr;
use std::sync::atomic::{compiler_fence, AtomicBool, AtomicPtr, AtomicU32, Ordering};

/// How many calls of one kind in a row open the lock: so many that their savings pay for one barrier.
const QUIET: u32 = 256;

/// Stands for every reader where a place is expected.
const READERS: *mut Place = ptr::without_provenance_mut(1);

/// The lock. See the module's text.
pub struct Lock<T> {
    /// Who may sit down: nobody (null), `READERS`, or the thread of a place.
    open: AtomicPtr<Place>,
    draining: AtomicBool,
    /// Reads since the last write, while closed.
    reads: AtomicU32,
    /// The thread of the last write, and its writes since anybody else came; under the inner lock.
    writer: AtomicPtr<Place>,
    writes: AtomicU32,
    inner: RwLock<T>,
}

/// The right to read: by a taken seat, or by the inner lock.
pub struct Reading<'a, T> {
    value: &'a T,
    _seat: Option<Seat>,
    _inner: Option<RwLockReadGuard<'a, T>>,
}

/// The right to read and write: by a taken seat, or by the inner lock.
pub struct Writing<'a, T> {
    value: &'a mut T,
    _seat: Option<Seat>,
    _inner: Option<RwLockWriteGuard<'a, T>>,
}

/// A taken seat.
struct Seat(&'static Place);

impl Drop for Seat {
    #[inline]
    fn drop(&mut self) {
        self.0.reading.store(ptr::null_mut(), Ordering::Release);
    }
}

impl<T> Lock<T> {
    /// An unlocked lock around the value.
    pub fn new(value: T) -> Lock<T> {
        let to = if platform::has_barrier() {
            READERS
        } else {
            ptr::null_mut()
        };
        Lock {
            open: AtomicPtr::new(to),
            draining: AtomicBool::new(false),
            reads: AtomicU32::new(0),
            writer: AtomicPtr::new(ptr::null_mut()),
            writes: AtomicU32::new(0),
            inner: RwLock::new(value),
        }
    }

    /// The value, when nobody else can have the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }

    fn address(&self) -> *mut () {
        ptr::from_ref(self).cast_mut().cast()
    }

    /// The seat of this thread, taken for this lock, if the lock is open to it: always to its own thread, and to all if
    /// `to_readers`.
    #[inline(always)]
    fn sit_down(&self, to_readers: bool) -> Option<Seat> {
        let place = Place::mine();
        let is_open =
            |open: *mut Place| ptr::eq(open, place) || to_readers && ptr::eq(open, READERS);
        if !is_open(self.open.load(Ordering::Relaxed))
            || !place.reading.load(Ordering::Relaxed).is_null()
        {
            return None;
        }
        place.reading.store(self.address(), Ordering::Relaxed);
        let seat = Seat(place);
        // The processor may still delay the store past the look; the barrier of whoever closes makes up for that.
        compiler_fence(Ordering::SeqCst);
        is_open(self.open.load(Ordering::Acquire)).then_some(seat)
    }

    /// For a short read by a thread that must not wait: `None` if it would have to.
    #[inline(always)]
    pub fn try_read(&self) -> Option<Reading<'_, T>> {
        match self.sit_down(true) {
            Some(seat) => Some(Reading {
                // SAFETY: by the invariants no writer is inside while this seat is taken.
                value: unsafe { &*self.inner.data_ptr() },
                _seat: Some(seat),
                _inner: None,
            }),
            None => self.try_read_inner(),
        }
    }

    #[cold]
    fn try_read_inner(&self) -> Option<Reading<'_, T>> {
        let inner = persist(|| self.inner.try_read())?;
        self.close_to_one();
        self.is_drained().then(|| self.counted(inner))
    }

    /// For a read by a thread that may wait, however long it takes.
    pub fn read(&self) -> Reading<'_, T> {
        let inner = self.inner.read();
        self.close_to_one();
        self.wait_until_drained();
        self.counted(inner)
    }

    /// Called by a reader that is inside.
    fn counted<'a>(&self, inner: RwLockReadGuard<'a, T>) -> Reading<'a, T> {
        if !self.writer.load(Ordering::Relaxed).is_null() {
            self.writer.store(ptr::null_mut(), Ordering::Relaxed);
        }
        if self.open.load(Ordering::Relaxed).is_null()
            && self.reads.fetch_add(1, Ordering::Relaxed) >= QUIET
            && platform::has_barrier()
        {
            self.open.store(READERS, Ordering::Release);
        }
        Reading {
            // SAFETY: the guard, which goes where the reference goes, holds the lock for reading.
            value: unsafe { &*self.inner.data_ptr() },
            _seat: None,
            _inner: Some(inner),
        }
    }

    /// For a short write by a thread that must not wait: `None` if it would have to.
    #[inline(always)]
    pub fn try_write(&self) -> Option<Writing<'_, T>> {
        match self.sit_down(false) {
            Some(seat) => Some(Writing {
                // SAFETY: by the invariants nobody else is inside while this seat is taken for a lock open to one.
                value: unsafe { &mut *self.inner.data_ptr() },
                _seat: Some(seat),
                _inner: None,
            }),
            None => self.try_write_inner(),
        }
    }

    #[cold]
    fn try_write_inner(&self) -> Option<Writing<'_, T>> {
        let inner = persist(|| self.inner.try_write())?;
        self.close();
        if !self.is_drained() {
            return None;
        }
        let writing = self.alone(inner);
        self.favour();
        Some(writing)
    }

    /// For a write by a thread that may wait.
    pub fn write(&self) -> Writing<'_, T> {
        let inner = self.inner.write();
        self.close();
        self.wait_until_drained();
        self.alone(inner)
    }

    /// Called by a writer that is inside.
    fn alone<'a>(&self, inner: RwLockWriteGuard<'a, T>) -> Writing<'a, T> {
        self.reads.store(0, Ordering::Relaxed);
        Writing {
            // SAFETY: the guard, which goes where the reference goes, holds the lock for writing.
            value: unsafe { &mut *self.inner.data_ptr() },
            _seat: None,
            _inner: Some(inner),
        }
    }

    /// Called by a writer that is inside and would not wait: opens the lock to its thread after enough of its writes.
    fn favour(&self) {
        let mine = ptr::from_ref(Place::mine()).cast_mut();
        if !ptr::eq(self.writer.load(Ordering::Relaxed), mine) {
            self.writer.store(mine, Ordering::Relaxed);
            self.writes.store(0, Ordering::Relaxed);
            return;
        }
        let writes = self.writes.load(Ordering::Relaxed) + 1;
        self.writes.store(writes, Ordering::Relaxed);
        if writes >= QUIET && platform::has_barrier() {
            self.writes.store(0, Ordering::Relaxed);
            self.open.store(mine, Ordering::Release);
        }
    }

    /// Called by a writer with the inner lock: nobody sits down from now on.
    fn close(&self) {
        self.close_unless_to(ptr::null_mut());
    }

    /// Called by a reader with the inner lock: no writer sits down from now on.
    fn close_to_one(&self) {
        self.close_unless_to(READERS);
    }

    fn close_unless_to(&self, some: *mut Place) {
        let open = self.open.load(Ordering::Acquire);
        if !open.is_null() && !ptr::eq(open, some) {
            self.draining.store(true, Ordering::Relaxed);
            // Another reader may have closed it meanwhile, and a third opened it to readers.
            let (nobody, success) = (ptr::null_mut(), Ordering::AcqRel);
            let _ = self
                .open
                .compare_exchange(open, nobody, success, Ordering::Acquire);
            self.writer.store(ptr::null_mut(), Ordering::Relaxed);
        }
    }

    /// Called with the inner lock, after closing: whether nobody is seated any more, which is seen soon or not at all.
    fn is_drained(&self) -> bool {
        !self.draining.load(Ordering::Acquire) || {
            platform::barrier();
            persist(|| self.is_empty().then_some(())).is_some()
        }
    }

    fn wait_until_drained(&self) {
        if !self.draining.load(Ordering::Acquire) {
            return;
        }
        platform::barrier();
        let mut round = 0;
        while !self.is_empty() {
            platform::relax(round);
            round += 1;
        }
    }

    /// Called after a barrier after closing.
    fn is_empty(&self) -> bool {
        let here = self.address();
        let empty = !Place::all().any(|place| place.reading.load(Ordering::Acquire) == here);
        if empty {
            self.draining.store(false, Ordering::Release);
        }
        empty
    }
}

/// Most holders of the lock copy a few bytes and are gone: trying for about a microsecond costs less than waiting in
/// any other way.
#[inline(always)]
fn persist<R>(attempt: impl Fn() -> Option<R>) -> Option<R> {
    const ATTEMPTS: u32 = 32;
    (0..ATTEMPTS).find_map(|_| {
        let done = attempt();
        if done.is_none() {
            std::hint::spin_loop();
        }
        done
    })
}

impl<T> Deref for Reading<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.value
    }
}

impl<T> Deref for Writing<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.value
    }
}

impl<T> DerefMut for Writing<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    /// So many reads that the lock opens to readers.
    fn open<T>(lock: &Lock<T>) {
        (0..=QUIET + 1).for_each(|_| drop(lock.read()));
        let to = lock.open.load(Ordering::Relaxed);
        assert_eq!(ptr::eq(to, READERS), platform::has_barrier());
    }

    /// So many writes that the lock opens to this thread.
    fn open_to_this_thread<T>(lock: &Lock<T>) {
        (0..=QUIET + 1).for_each(|_| drop(lock.try_write().unwrap()));
        let to = lock.open.load(Ordering::Relaxed);
        assert_eq!(ptr::eq(to, Place::mine()), platform::has_barrier());
    }

    #[test]
    fn nobody_sees_half_a_write_in_hundreds_of_thousands() {
        // Readers and writers of all kinds, the lock opening to readers and to either writer, and closing, all the while;
        // and on until there was enough of each.
        const WRITES: usize = 150_000;
        const SEATED: usize = 1000;
        let lock = Lock::new([0usize; 8]);
        let writers = AtomicUsize::new(2);
        let [writes, seated, seated_writes] = [const { AtomicUsize::new(0) }; 3];
        let enough = |count: &AtomicUsize| {
            count.load(Ordering::Relaxed) >= SEATED || !platform::has_barrier()
        };
        std::thread::scope(|scope| {
            for patience in [1000, 10] {
                let (lock, enough) = (&lock, &enough);
                let (writers, writes, seated) = (&writers, &writes, &seated);
                let seated_writes = &seated_writes;
                scope.spawn(move || {
                    for round in 1.. {
                        if round > WRITES {
                            if enough(seated) && enough(seated_writes) {
                                break;
                            }
                            if !enough(seated) {
                                std::thread::sleep(Duration::from_millis(1));
                            }
                        }
                        let tried = (round % patience > 0).then(|| lock.try_write()).flatten();
                        let mut value = tried.unwrap_or_else(|| lock.write());
                        if value._seat.is_some() {
                            seated_writes.fetch_add(1, Ordering::Relaxed);
                        }
                        assert!(value.iter().all(|word| *word == value[0]));
                        let next = value[0] + 1;
                        value.iter_mut().for_each(|word| *word = next);
                        drop(value);
                        writes.fetch_add(1, Ordering::Relaxed);
                        if round % 2048 == 0 {
                            open_or_busy(lock);
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
                            if value._seat.is_some() {
                                seated.fetch_add(1, Ordering::Relaxed);
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

    /// Reads until the lock is open, or somebody writes.
    fn open_or_busy<T>(lock: &Lock<T>) {
        (0..=QUIET + 1).for_each(|_| drop(lock.try_read()));
    }

    #[test]
    fn a_writer_waits_for_a_seated_reader_also_when_another_gave_up_before() {
        // That seats were not empty yet is not forgotten when the one who found it does not wait.
        let lock = Lock::new(0);
        open(&lock);
        let reading = lock.try_read().unwrap();
        assert_eq!(reading._seat.is_some(), platform::has_barrier());
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
    fn everybody_waits_for_a_seated_writer_also_when_another_gave_up_before() {
        // Readers and writers; and what the seated writer wrote is what they see.
        let lock = Lock::new(0);
        open_to_this_thread(&lock);
        let mut writing = lock.try_write().unwrap();
        assert_eq!(writing._seat.is_some(), platform::has_barrier());
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
    fn the_thread_that_the_lock_is_open_to_also_reads_and_waits() {
        // In every way there is, without waiting for itself.
        let lock = Lock::new(0);
        open_to_this_thread(&lock);
        assert_eq!(
            lock.try_read().unwrap()._seat.is_some(),
            platform::has_barrier()
        );
        *lock.write() = 1;
        open_to_this_thread(&lock);
        assert_eq!(*lock.read(), 1);
    }

    #[test]
    fn a_thread_reads_under_two_locks_at_once() {
        // It has one seat: the second lock is taken the other way.
        let (one, two) = (Lock::new(1), Lock::new(2));
        let (first, second) = (one.try_read().unwrap(), two.try_read().unwrap());
        assert!(second._seat.is_none());
        assert!(two.try_write().is_none() && one.try_write().is_none());
        drop((first, second));
        assert!(two.try_write().is_some() && one.try_write().is_some());
    }
}
