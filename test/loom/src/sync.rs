//! The parts of `src/sync.rs`, as `loom` has them.

pub use loom::hint::spin_loop;
pub use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::cell::UnsafeCell;
use std::marker::PhantomData;

/// The light one of two fences.
pub fn compiler_fence(_: Ordering) {
    loom::sync::atomic::fence(Ordering::SeqCst);
}

/// `parking_lot`'s, as far as the lock needs it.
pub struct RwLock<T> {
    lock: loom::sync::RwLock<()>,
    value: UnsafeCell<T>,
}

// SAFETY: as for any lock around the value.
unsafe impl<T: Send + Sync> Sync for RwLock<T> {}

pub struct RwLockReadGuard<'a, T>(loom::sync::RwLockReadGuard<'a, ()>, PhantomData<&'a T>);

pub struct RwLockWriteGuard<'a, T>(loom::sync::RwLockWriteGuard<'a, ()>, PhantomData<&'a mut T>);

impl<T> RwLock<T> {
    pub fn new(value: T) -> RwLock<T> {
        RwLock {
            lock: loom::sync::RwLock::new(()),
            value: UnsafeCell::new(value),
        }
    }

    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    pub fn data_ptr(&self) -> *mut T {
        self.value.get()
    }

    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        RwLockReadGuard(self.lock.read().unwrap(), PhantomData)
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        RwLockWriteGuard(self.lock.write().unwrap(), PhantomData)
    }

    pub fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        let guard = self.lock.try_read().ok()?;
        Some(RwLockReadGuard(guard, PhantomData))
    }

    pub fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
        let guard = self.lock.try_write().ok()?;
        Some(RwLockWriteGuard(guard, PhantomData))
    }
}
