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

    /// Tells how the references are counted to what holds this, of which the handle has one, and each view has one.
    pub fn counted(&self, count: impl Fn() -> Option<usize> + Send + 'static) {
        if let Some(mapping) = &self.0 {
            mapping.listing().count_references(Some(Box::new(count)));
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        registry::view_ended();
        if let Some(mapping) = self.0.take() {
            mapping.listing().count_references(None);
            mapping.release();
        }
    }
}
