//! The calls: arguments in, answer out.
//!
//! The order of checks is the contract's: arguments that raise, then arguments that are answered, then the state of the
//! handle, which the core checks.

pub mod advise;
pub mod batch;
pub mod info;
pub mod open;
pub mod read;
pub mod resize;
pub mod view;
pub mod write;
