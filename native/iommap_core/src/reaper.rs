//! Unmapping what takes long, away from the thread that found it unused.
//!
//! The last reference to a mapping goes wherever garbage is collected, and that is on a scheduler. Unmapping a populated
//! gigabyte takes milliseconds; closing a file of a hung server may take for ever.

use crate::mapping::Mapping;
use crate::thread;
use std::sync::mpsc::{channel, Sender};
use std::sync::{Arc, OnceLock};

/// Lets a reference go; if it is the last, the mapping is unmapped: at once if that is quick, else on a thread of ours.
pub fn release(mapping: Arc<Mapping>) {
    let Some(mapping) = Arc::into_inner(mapping) else {
        return;
    };
    if !mapping.is_slow_to_unmap() {
        return;
    }
    if let Some(sender) = queue() {
        // Should the thread be gone, the mapping comes back in the error and is unmapped here.
        let _ = sender.send(mapping);
    }
}

fn queue() -> Option<&'static Sender<Mapping>> {
    static QUEUE: OnceLock<Option<Sender<Mapping>>> = OnceLock::new();
    QUEUE
        .get_or_init(|| {
            let (sender, receiver) = channel::<Mapping>();
            let unmap_all = move || receiver.iter().for_each(drop);
            thread::start("iommap_unmap", unmap_all).map(|_| sender)
        })
        .as_ref()
}
