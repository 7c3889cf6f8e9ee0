//! Files, pages and faults: the part of iommap that knows no Erlang.
//!
//! The way of a call is down: `handle` takes the lock, `mapping` checks the range, `fault::guard` copies. No two files or rooms
//! import each other (`native/check_imports`). `unsafe` lives in the rooms that touch memory or the system, and is refused
//! elsewhere.

#![deny(unsafe_code)]

#[allow(unsafe_code)] // promises what callers promised of their memory
mod buffer;
mod clock;
mod device;
mod error;
mod fault;
mod file;
mod handle;
mod listing;
#[allow(unsafe_code)] // lends a value out under its own proof of exclusion
mod lock;
mod mapping;
mod options;
#[allow(unsafe_code)] // calls the system
mod platform;
mod range;
mod range_map;
#[allow(unsafe_code)] // maps and unmaps
mod reservation;
mod residency;
mod stats;
mod sync;
#[allow(unsafe_code)] // follows leaked pointers
mod thread_data;
mod unmapper;
mod update;

pub use buffer::{Buffer, Data, Segment};
pub use device::{Device, OpenMode, Status, Whence};
pub use error::Error;
pub use fault::guard::flatten;
pub use fault::handler::{follow, Handler};
pub use fault::registry::{all_intact, has_views, intact, look_up_cost, watch, watcher};
pub use file::opening::Source;
pub use handle::read::Region;
pub use handle::{Handle, Span, Wait, NON_BLOCKING_MAX};
pub use listing::{list, now, take_faulted, Info};
pub use mapping::view::View;
pub use options::{Access, Hint, Options, Window};
pub use platform::page_size;
pub use platform::thread::start as start_thread;
pub use platform::wake::Wake;
pub use range::Range;
pub use stats::{count, counts, Counter, COUNTERS};
pub use unmapper::waiting as unmaps_waiting;
pub use update::Update;
