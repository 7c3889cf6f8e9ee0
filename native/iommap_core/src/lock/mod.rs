//! A reader-writer lock whose readers write nothing that they share.
//!
//! A shared lock word makes readers wait for each other's cache line, and its locked instruction keeps a processor
//! from overlapping the cache misses of successive calls. So while nobody writes, the lock is *biased to readers*. Fast
//! path: store the lock's address in the thread's own record, by a plain store, then re-check the bias. A writer, which is
//! rare then, takes the inner lock, revokes the bias, makes every thread pass a memory barrier (`membarrier(2)`), and waits
//! until no record names the lock. While only one thread uses the lock, and writes, it is *biased to that thread*, which then
//! reads and writes by the fast path; any other reader or writer revokes that. While the lock is unbiased
//! everybody uses the plain reader-writer lock inside. The field knows this as `percpu_rw_semaphore` and as BRAVO (Dice and
//! Kogan).
//!
//! ```text
//! unbiased --a reader, after BIAS_THRESHOLD reads without a write (after FIRST_READS of a new lock)--> biased to readers
//! unbiased --a writer, after BIAS_THRESHOLD writes of its thread and nothing else--> biased to that thread
//! biased to readers --a writer--> draining, biased to a thread --anybody else--> draining
//! draining --no record names the lock--> unbiased
//! ```
//!
//! Invariants:
//! - A writer either holds the inner lock for writing, with the lock unbiased and no record that names it; or is on the fast
//!   path, and saw the lock biased to its thread after its store.
//! - A reader either is on the fast path, and saw the lock biased to readers or to its thread after its store; or holds the
//!   inner lock for reading, with the lock not biased to any one thread, and nobody on the fast path from when it was.
//! - Either the barrier of the revoker comes before the re-check of the fast path, which then sees "unbiased" and takes its
//!   store back; or it comes after, and then the record is seen to name the lock.
//! - The lock is biased only by a holder of the inner lock that is inside: to readers by a reader, to one thread by that
//!   thread as a writer.
//! - `draining` is set before the bias is revoked, and until someone has passed a barrier after that and has seen that no
//!   record names the lock. Each thread that finds it set does so itself.
//!
//! Where the system has no such barrier the lock stays unbiased, and is a plain reader-writer lock.
//! `test/loom` tries this very source under all interleavings of a few threads with two or three preemptions; `tests/lock_model.rs`, a
//! model of it, longer ones, store buffers included; `tests/thread_data_model.rs` those with threads that have no record yet.

use crate::platform::thread;
use crate::sync::{
    compiler_fence, spin_loop, AtomicBool, AtomicPtr, AtomicU32, Ordering, RwLock, RwLockReadGuard,
    RwLockWriteGuard,
};
use crate::thread_data::ThreadData;
use std::ops::{Deref, DerefMut};
use std::ptr;

/// How many calls of one kind in a row bias the lock: so many that their savings pay for one barrier.
const BIAS_THRESHOLD: u32 = if cfg!(loom) { 2 } else { 256 };

/// How many reads a new lock takes before it is biased: who reads a few times and is gone needs no barrier.
const FIRST_READS: u32 = if cfg!(loom) { 1 } else { 8 };

/// Stands for every reader where a thread's data is expected.
const READERS: *mut ThreadData = ptr::without_provenance_mut(1);

/// The lock. See the module's text.
pub struct Lock<T> {
    /// Whose fast path it is: nobody's (null), `READERS`, or one thread's.
    bias: AtomicPtr<ThreadData>,
    draining: AtomicBool,
    /// Reads since the last write, while unbiased.
    reads: AtomicU32,
    /// The thread of the last write, and its writes since anybody else came; under the inner lock.
    writer: AtomicPtr<ThreadData>,
    writes: AtomicU32,
    inner: RwLock<T>,
}

/// The right to read: by the fast path, or by the inner lock.
pub struct ReadGuard<'a, T> {
    value: &'a T,
    _fast: Option<FastGuard>,
    _inner: Option<RwLockReadGuard<'a, T>>,
}

/// The right to read and write: by the fast path, or by the inner lock.
pub struct WriteGuard<'a, T> {
    value: &'a mut T,
    _fast: Option<FastGuard>,
    _inner: Option<RwLockWriteGuard<'a, T>>,
}

/// The lock, held by the fast path.
struct FastGuard(&'static ThreadData);

impl Drop for FastGuard {
    #[inline]
    fn drop(&mut self) {
        self.0.fast_lock.store(ptr::null_mut(), Ordering::Release);
    }
}

impl<T> Lock<T> {
    /// An unlocked lock around the value.
    pub fn new(value: T) -> Lock<T> {
        Lock {
            bias: AtomicPtr::new(ptr::null_mut()),
            draining: AtomicBool::new(false),
            reads: AtomicU32::new(BIAS_THRESHOLD - FIRST_READS),
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

    /// Takes the fast path, if the lock is biased to this thread, or to readers and that is enough (`to_readers`).
    #[inline(always)]
    fn try_fast(&self, to_readers: bool) -> Option<FastGuard> {
        let thread = ThreadData::current();
        let is_biased =
            |bias: *mut ThreadData| ptr::eq(bias, thread) || to_readers && ptr::eq(bias, READERS);
        if !is_biased(self.bias.load(Ordering::Relaxed))
            || !thread.fast_lock.load(Ordering::Relaxed).is_null()
        {
            return None;
        }
        #[cfg(test)]
        tests::before_the_store();
        thread.fast_lock.store(self.address(), Ordering::Relaxed);
        let guard = FastGuard(thread);
        // The processor may still delay the store past the look; the barrier of the revoker makes up for that.
        compiler_fence(Ordering::SeqCst);
        is_biased(self.bias.load(Ordering::Acquire)).then_some(guard)
    }

    /// For a short read by a thread that must not wait: `None` if it would have to.
    #[inline(always)]
    pub fn try_read(&self) -> Option<ReadGuard<'_, T>> {
        match self.try_fast(true) {
            Some(guard) => Some(ReadGuard {
                // SAFETY: by the invariants no writer is inside while this guard lives.
                value: unsafe { &*self.inner.data_ptr() },
                _fast: Some(guard),
                _inner: None,
            }),
            None => self.try_read_slow(),
        }
    }

    #[cold]
    fn try_read_slow(&self) -> Option<ReadGuard<'_, T>> {
        let inner = spin_until(|| self.inner.try_read())?;
        self.revoke_writer_bias();
        self.try_drain().then(|| self.read_guard(inner))
    }

    /// For a read by a thread that may wait, however long it takes.
    pub fn read(&self) -> ReadGuard<'_, T> {
        let inner = self.inner.read();
        self.revoke_writer_bias();
        self.wait_until_drained();
        self.read_guard(inner)
    }

    /// Called by a reader that is inside.
    fn read_guard<'a>(&self, inner: RwLockReadGuard<'a, T>) -> ReadGuard<'a, T> {
        if !self.writer.load(Ordering::Relaxed).is_null() {
            self.writer.store(ptr::null_mut(), Ordering::Relaxed);
        }
        if self.bias.load(Ordering::Relaxed).is_null()
            && self.reads.fetch_add(1, Ordering::Relaxed) >= BIAS_THRESHOLD
            && thread::has_barrier()
        {
            self.bias.store(READERS, Ordering::Release);
        }
        ReadGuard {
            // SAFETY: the guard, which goes where the reference goes, holds the lock for reading.
            value: unsafe { &*self.inner.data_ptr() },
            _fast: None,
            _inner: Some(inner),
        }
    }

    /// For a short write by a thread that must not wait: `None` if it would have to.
    #[inline(always)]
    pub fn try_write(&self) -> Option<WriteGuard<'_, T>> {
        match self.try_fast(false) {
            Some(guard) => Some(WriteGuard {
                // SAFETY: by the invariants nobody else is inside while this guard of a lock biased to one thread lives.
                value: unsafe { &mut *self.inner.data_ptr() },
                _fast: Some(guard),
                _inner: None,
            }),
            None => self.try_write_slow(),
        }
    }

    #[cold]
    fn try_write_slow(&self) -> Option<WriteGuard<'_, T>> {
        let inner = spin_until(|| self.inner.try_write())?;
        self.revoke_bias();
        if !self.try_drain() {
            return None;
        }
        let writing = self.write_guard(inner);
        self.bias_to_writer();
        Some(writing)
    }

    /// For a write by a thread that may wait.
    pub fn write(&self) -> WriteGuard<'_, T> {
        let inner = self.inner.write();
        self.revoke_bias();
        self.wait_until_drained();
        self.write_guard(inner)
    }

    /// Called by a writer that is inside.
    fn write_guard<'a>(&self, inner: RwLockWriteGuard<'a, T>) -> WriteGuard<'a, T> {
        self.reads.store(0, Ordering::Relaxed);
        WriteGuard {
            // SAFETY: the guard, which goes where the reference goes, holds the lock for writing.
            value: unsafe { &mut *self.inner.data_ptr() },
            _fast: None,
            _inner: Some(inner),
        }
    }

    /// Called by a writer that is inside and would not wait: biases the lock to its thread after enough of its writes.
    fn bias_to_writer(&self) {
        let mine = ptr::from_ref(ThreadData::current()).cast_mut();
        if !ptr::eq(self.writer.load(Ordering::Relaxed), mine) {
            self.writer.store(mine, Ordering::Relaxed);
            self.writes.store(0, Ordering::Relaxed);
            return;
        }
        let writes = self.writes.load(Ordering::Relaxed) + 1;
        self.writes.store(writes, Ordering::Relaxed);
        if writes >= BIAS_THRESHOLD && thread::has_barrier() {
            self.writes.store(0, Ordering::Relaxed);
            self.bias.store(mine, Ordering::Release);
        }
    }

    /// Called by a writer with the inner lock: nobody takes the fast path from now on.
    fn revoke_bias(&self) {
        self.revoke_bias_unless_to(ptr::null_mut());
    }

    /// Called by a reader with the inner lock: no writer takes the fast path from now on.
    fn revoke_writer_bias(&self) {
        self.revoke_bias_unless_to(READERS);
    }

    fn revoke_bias_unless_to(&self, some: *mut ThreadData) {
        let bias = self.bias.load(Ordering::Acquire);
        if !bias.is_null() && !ptr::eq(bias, some) {
            self.draining.store(true, Ordering::Relaxed);
            // Another reader may have revoked it meanwhile, and a third biased it to readers.
            let (nobody, success) = (ptr::null_mut(), Ordering::AcqRel);
            let _ = self
                .bias
                .compare_exchange(bias, nobody, success, Ordering::Acquire);
            self.writer.store(ptr::null_mut(), Ordering::Relaxed);
        }
    }

    /// Called with the inner lock, after revoking: waits for about a microsecond until no record names the lock. Whether that
    /// is so.
    fn try_drain(&self) -> bool {
        !self.draining.load(Ordering::Acquire) || {
            thread::barrier();
            spin_until(|| self.try_finish_drain().then_some(())).is_some()
        }
    }

    fn wait_until_drained(&self) {
        if !self.draining.load(Ordering::Acquire) {
            return;
        }
        thread::barrier();
        let mut round = 0;
        while !self.try_finish_drain() {
            thread::backoff(round);
            round += 1;
        }
    }

    /// Called after a barrier after revoking: ends the draining if no record names the lock; whether it did. A record that is
    /// claimed behind the look is of a thread that finds the bias revoked: see `thread_data`.
    fn try_finish_drain(&self) -> bool {
        let here = self.address();
        let empty =
            !ThreadData::all().any(|thread| thread.fast_lock.load(Ordering::Acquire) == here);
        if empty {
            self.draining.store(false, Ordering::Release);
        }
        empty
    }
}

/// Most holders of the lock copy a few bytes and are gone: trying for about a microsecond costs less than waiting in
/// any other way.
#[inline(always)]
fn spin_until<R>(attempt: impl Fn() -> Option<R>) -> Option<R> {
    const ATTEMPTS: u32 = if cfg!(loom) { 2 } else { 32 };
    (0..ATTEMPTS).find_map(|_| {
        let done = attempt();
        if done.is_none() {
            spin_loop();
        }
        done
    })
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.value
    }
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.value
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.value
    }
}

#[cfg(test)]
mod tests;
