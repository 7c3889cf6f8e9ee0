//! The calls: arguments in, answer out.
//!
//! The order of checks is the contract's: arguments that raise, then arguments that are answered, then the state of the
//! handle, which the core checks.

pub mod advise;
pub mod atomics;
pub mod batch;
pub mod device;
pub mod info;
pub mod list;
pub mod lock;
pub mod open;
pub mod read;
pub mod resize;
pub mod subscribe;
pub mod view;
pub mod write;
