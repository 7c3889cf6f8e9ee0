//! Files, pages and faults: the part of iommap that knows no Erlang.
//!
//! The way of a call is down: `handle` takes the lock, `mapping` checks the range, `fault::guard` copies. No two files or rooms
//! import each other (`native/check_imports`). `unsafe` lives in the rooms that touch memory or the system, and is refused
//! elsewhere.

#![deny(unsafe_code)]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("iommap needs a processor of 64 bits: on this one files are longer than addresses");

#[allow(unsafe_code)] // promises what callers promised of their memory
mod buffer;
mod clock;
mod error;
mod fault;
mod file;
mod handle;
#[allow(unsafe_code)] // lends a value out under its own proof of exclusion
mod lock;
mod mapping;
mod options;
#[allow(unsafe_code)] // calls the system
mod platform;
mod range;
#[allow(unsafe_code)] // maps and unmaps
mod reservation;
mod residency;
#[allow(unsafe_code)] // follows leaked pointers
mod thread_data;
mod unmapper;

pub use buffer::{Buffer, Data, Segment};
pub use error::Error;
pub use fault::guard::flatten;
pub use fault::handler::{follow, Handler};
pub use fault::registry::{all_intact, has_views, intact, look_up_cost};
pub use handle::{Handle, Info, Span, Wait, NON_BLOCKING_MAX};
pub use mapping::view::View;
pub use options::{Access, Hint, Options};
pub use platform::page_size;
pub use range::Range;
