//! A reader-writer lock whose readers write nothing that they share.
//!
//! A shared lock word makes readers wait for each other's cache line, and its locked instruction keeps a processor
//! from overlapping the cache misses of successive reads. So while nobody writes, the lock is *open*: a short reader
//! sits down in a seat of its own (one per thread, written with plain stores) and looks whether the lock is still
//! open; the writer, who is rare then, pays: it takes the lock, closes it, makes every thread pass a memory barrier
//! (`membarrier(2)`), and waits until no seat is taken for this lock. While the lock is closed everybody uses
//! the plain reader-writer lock inside. After `QUIET` reads with no write between them a reader opens it again.
//!
//! ```text
//! closed --a reader, after QUIET reads without a write--> open --a writer--> draining --seats empty--> closed
//! ```
//!
//! Invariants:
//! - A writer holds the inner lock for writing, with the lock closed and no seat taken for it.
//! - A seated reader saw the lock open after it sat down. Either the writer's barrier comes before that look, and
//!   then the reader sees "closed" and stands up; or it comes after, and then the writer sees the seat taken.
//! - The lock is opened only by a reader that holds the inner lock for reading, so never while a writer is inside.
//!
//! Where the system has no such barrier the lock stays closed, and is a plain reader-writer lock.
//! `tests/lock_model.rs` tries every interleaving, store buffers included.

use crate::place::Place;
use crate::platform;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::ops::{Deref, DerefMut};
use std::ptr;
use std::sync::atomic::{compiler_fence, AtomicBool, AtomicU32, Ordering};

/// How many reads without a write between them open the lock: so many that their savings pay for one barrier.
const QUIET: u32 = 256;

/// The lock. See the module's text.
pub struct Lock<T> {
    open: AtomicBool,
    /// Written only under the inner lock for writing.
    draining: AtomicBool,
    /// Reads since the last write; counted only while closed.
    quiet: AtomicU32,
    inner: RwLock<T>,
}

/// The right to read: by a taken seat, or by the inner lock.
pub struct Reading<'a, T> {
    value: &'a T,
    seat: Option<&'static Place>,
    _inner: Option<RwLockReadGuard<'a, T>>,
}

/// The right to read and write.
pub struct Writing<'a, T>(RwLockWriteGuard<'a, T>);

impl<T> Lock<T> {
    /// An unlocked lock around the value.
    pub fn new(value: T) -> Lock<T> {
        Lock {
            open: AtomicBool::new(platform::has_barrier()),
            draining: AtomicBool::new(false),
            quiet: AtomicU32::new(0),
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

    /// For a short read by a thread that must not wait: `None` if it would have to.
    #[inline(always)]
    pub fn try_read(&self) -> Option<Reading<'_, T>> {
        match self.sit_down() {
            Some(seat) => Some(Reading {
                // SAFETY: by the invariant no writer is inside while this seat is taken.
                value: unsafe { &*self.inner.data_ptr() },
                seat: Some(seat),
                _inner: None,
            }),
            None => self.try_read_inner(),
        }
    }

    /// The seat of this thread, taken for this lock, if the lock is open.
    #[inline(always)]
    fn sit_down(&self) -> Option<&'static Place> {
        let seat = Place::mine();
        if !self.open.load(Ordering::Relaxed) || !seat.reading.load(Ordering::Relaxed).is_null() {
            return None;
        }
        seat.reading.store(self.address(), Ordering::Relaxed);
        // The processor may still delay the store past the look; the writer's barrier makes up for that.
        compiler_fence(Ordering::SeqCst);
        if self.open.load(Ordering::Acquire) {
            return Some(seat);
        }
        seat.reading.store(ptr::null_mut(), Ordering::Release);
        None
    }

    #[cold]
    fn try_read_inner(&self) -> Option<Reading<'_, T>> {
        let inner = persist(|| self.inner.try_read())?;
        Some(self.counted(inner))
    }

    /// For a read by a thread that may wait, however long it takes.
    pub fn read(&self) -> Reading<'_, T> {
        self.counted(self.inner.read())
    }

    fn counted<'a>(&self, inner: RwLockReadGuard<'a, T>) -> Reading<'a, T> {
        if !self.open.load(Ordering::Relaxed)
            && self.quiet.fetch_add(1, Ordering::Relaxed) >= QUIET
            && platform::has_barrier()
        {
            self.open.store(true, Ordering::Release);
        }
        Reading {
            // SAFETY: the guard, which goes where the reference goes, holds the lock for reading.
            value: unsafe { &*self.inner.data_ptr() },
            seat: None,
            _inner: Some(inner),
        }
    }

    /// For a short write by a thread that must not wait: `None` if it would have to.
    #[inline]
    pub fn try_write(&self) -> Option<Writing<'_, T>> {
        let inner = persist(|| self.inner.try_write())?;
        self.close();
        persist(|| self.drained().then_some(()))?;
        Some(Writing(inner))
    }

    /// For a write by a thread that may wait.
    pub fn write(&self) -> Writing<'_, T> {
        let inner = self.inner.write();
        self.close();
        let mut round = 0;
        while !self.drained() {
            platform::relax(round);
            round += 1;
        }
        Writing(inner)
    }

    /// Called with the inner lock held for writing.
    #[inline]
    fn close(&self) {
        if self.quiet.load(Ordering::Relaxed) != 0 {
            self.quiet.store(0, Ordering::Relaxed);
        }
        if self.open.load(Ordering::Relaxed) {
            self.open.store(false, Ordering::SeqCst);
            self.draining.store(true, Ordering::Relaxed);
            platform::barrier();
        }
    }

    /// Called with the inner lock held for writing, after `close`.
    #[inline]
    fn drained(&self) -> bool {
        if !self.draining.load(Ordering::Relaxed) {
            return true;
        }
        let here = self.address();
        let drained = !Place::all().any(|seat| seat.reading.load(Ordering::Acquire) == here);
        if drained {
            self.draining.store(false, Ordering::Relaxed);
        }
        drained
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

impl<T> Drop for Reading<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(seat) = self.seat {
            seat.reading.store(ptr::null_mut(), Ordering::Release);
        }
    }
}

impl<T> Deref for Writing<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Writing<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// So many reads that the lock opens.
    fn open<T>(lock: &Lock<T>) {
        (0..=QUIET + 1).for_each(|_| drop(lock.read()));
        assert_eq!(lock.open.load(Ordering::Relaxed), platform::has_barrier());
    }

    #[test]
    fn nobody_sees_half_a_write_in_millions_of_operations() {
        // Readers and writers of all four kinds, the lock opening and closing all the while.
        const WRITES: usize = 150_000;
        let lock = Lock::new([0usize; 8]);
        let (writers, seated, others) = (
            AtomicUsize::new(2),
            AtomicUsize::new(0),
            AtomicUsize::new(0),
        );
        std::thread::scope(|scope| {
            for patient in [false, true] {
                let (lock, writers) = (&lock, &writers);
                scope.spawn(move || {
                    for round in 0..WRITES {
                        let at_once = if patient { None } else { lock.try_write() };
                        let mut value = at_once.unwrap_or_else(|| lock.write());
                        assert!(value.iter().all(|word| *word == value[0]));
                        let next = value[0] + 1;
                        value.iter_mut().for_each(|word| *word = next);
                        drop(value);
                        if round % 64 == 0 {
                            open_or_busy(lock);
                        }
                    }
                    writers.fetch_sub(1, Ordering::Relaxed);
                });
            }
            for _ in 0..2 {
                scope.spawn(|| {
                    while writers.load(Ordering::Relaxed) > 0 {
                        for _ in 0..100 {
                            let Some(value) = lock.try_read() else {
                                continue;
                            };
                            let kind = if value.seat.is_some() {
                                &seated
                            } else {
                                &others
                            };
                            kind.fetch_add(1, Ordering::Relaxed);
                            assert!(value.iter().all(|word| *word == value[0]));
                        }
                        let value = lock.read();
                        assert!(value.iter().all(|word| *word == value[0]));
                    }
                });
            }
        });
        assert_eq!(lock.read()[0], 2 * WRITES, "a write was lost");
        let seated = seated.into_inner();
        assert!(
            seated > 1000 || !platform::has_barrier(),
            "{seated} seated, {others:?} not"
        );
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
        assert_eq!(reading.seat.is_some(), platform::has_barrier());
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
    fn a_thread_reads_under_two_locks_at_once() {
        // It has one seat: the second lock is taken the other way.
        let (one, two) = (Lock::new(1), Lock::new(2));
        let (first, second) = (one.try_read().unwrap(), two.try_read().unwrap());
        assert!(second.seat.is_none());
        assert!(two.try_write().is_none() && one.try_write().is_none());
        drop((first, second));
        assert!(two.try_write().is_some() && one.try_write().is_some());
    }
}
