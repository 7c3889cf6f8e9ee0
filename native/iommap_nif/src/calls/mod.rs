//! The calls: arguments in, answer out.
//!
//! The order of checks is the contract's: what raises comes before what is answered, and that before the state of the
//! handle, which the core looks at.

pub mod advise;
pub mod info;
pub mod open;
pub mod read;
pub mod resize;
pub mod view;
pub mod write;
