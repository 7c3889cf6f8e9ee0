//! The Erlang face of iommap: terms, resources and schedulers. Makes no system call of its own.
//!
//! The way of a call is down: the table in `entry` names it, `dispatch` says where it runs, `calls` decodes the arguments and
//! makes the answer, `iommap_core` does it. `unsafe` lives in the rooms that talk to the VM, and is refused elsewhere.

#![deny(unsafe_code)]

mod answer;
mod atoms;
mod calls;
#[allow(unsafe_code)] // asks the VM to call again
mod dispatch;
#[allow(unsafe_code)] // entered by the VM
mod entry;
mod errno;
#[allow(unsafe_code)] // other images' tables
mod image;
mod iodata;
mod origin;
#[allow(unsafe_code)] // resources
mod resource;
#[allow(unsafe_code)] // terms and binaries
mod term;
