//! Everything that differs between systems: a real implementation or a stated fallback for each. The tables at the heads of
//! the files say which.

pub mod anonymous;
pub mod descriptor;
pub mod file;
pub mod file_system;
pub mod io;
pub mod memory;
pub mod name;
pub mod page_cache;
pub mod spare;
pub mod syscall;
pub mod thread;
pub mod time;
pub mod wake;

pub use memory::page_size;
