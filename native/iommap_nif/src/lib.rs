//! The Erlang face of iommap: terms, resources and schedulers. Makes no system call of its own.
//!
//! A call goes down: `entry` has it in its table, `dispatch` runs it on one scheduler or another, `calls` decodes the
//! arguments and encodes the answer, `iommap_core` does the work. `unsafe` is allowed in the rooms that call the VM's C
//! functions, and refused in all others.

#![deny(unsafe_code)]

mod answer;
mod atoms;
mod calls;
#[allow(unsafe_code)] // receives calls, schedules them again
mod dispatch;
#[allow(unsafe_code)] // called by the VM
mod entry;
mod errno;
#[allow(unsafe_code)] // follows other images' tables
mod image;
mod iodata;
mod origin;
#[allow(unsafe_code)] // allocates and destroys resources
mod resource;
#[allow(unsafe_code)] // sends messages
mod subscribers;
#[allow(unsafe_code)] // inspects and allocates binaries
mod term;
