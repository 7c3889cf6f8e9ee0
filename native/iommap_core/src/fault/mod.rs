//! Faults: copies that survive them, the signal handler, and which mapping lost what.

#[allow(unsafe_code)] // calls the C guard
pub mod guard;
#[allow(unsafe_code)] // installs the C handler
pub mod handler;
mod key;
mod lost;
#[allow(unsafe_code)] // follows leaked pointers, replaces pages
pub mod registry;
