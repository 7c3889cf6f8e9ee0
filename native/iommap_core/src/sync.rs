//! The parts that the lock and the residency cache are made of. `test/loom` builds them of others, whose interleavings it can try.

pub use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use std::hint::spin_loop;
pub use std::sync::atomic::{
    compiler_fence, AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering,
};
