//! A view: keeps a mapping alive for the zero-copy binaries that show it.

use super::Mapping;
use crate::fault::registry;
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
