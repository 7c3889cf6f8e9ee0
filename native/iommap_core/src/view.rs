//! What keeps a mapping alive for the zero-copy binaries that show it, and what can be asked about their bytes.

use crate::mapping::Mapping;
use crate::registry;
use std::sync::Arc;

/// A reference to a mapping on behalf of its views. Letting it go never waits.
pub struct View(Option<Arc<Mapping>>);

impl View {
    pub(crate) fn new(mapping: Arc<Mapping>) -> View {
        registry::view_began();
        View(Some(mapping))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        registry::view_ended();
        if let Some(mapping) = self.0.take() {
            mapping.release();
        }
    }
}

/// Whether the bytes are what their file held: `false` once zero pages were put under any of them, and while the file
/// ends before them. `None` if they do not lie in a mapping of ours.
#[inline]
pub fn intact(address: *const u8, length: usize) -> Option<bool> {
    registry::intact(address as usize, length)
}

/// Whether any mapping may be shown by a binary.
#[inline]
pub fn has_views() -> bool {
    registry::has_views()
}

/// What `intact` costs at the worst, in the time that it takes with few mappings.
#[inline]
pub fn look_up_cost() -> usize {
    registry::look_up_cost()
}

/// Whether all bytes of all mappings are what their files held.
pub fn all_intact() -> bool {
    registry::all_intact()
}
