//! Threads of our own. They inherit a mask of all signals: the VM's signals are for the VM's threads.

use crate::platform;
use std::thread::{Builder, JoinHandle};

/// Starts a thread; `None` if the system has no room for one.
pub fn start(name: &str, body: impl FnOnce() + Send + 'static) -> Option<JoinHandle<()>> {
    platform::without_signals(|| Builder::new().name(name.into()).spawn(body).ok())
}
