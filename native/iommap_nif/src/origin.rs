//! The origin of data that a call was given: the one place that asks whether it is a view that lost its file.
//!
//! Zeros that stand where a view lost its file are not data. So a call that reads data of a view asks about it before, to
//! do nothing with what is lost already, and again after.

use crate::{image, term};
use iommap_core::Segment;
use rustler::Term;

/// The origin of bytes. That of several binaries together is the greatest of theirs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// They lie in no mapping, and in none as long as the call runs.
    #[default]
    Plain,
    /// Some lie in a mapping: reading them may wait for the disk.
    View,
    /// Some are a copy that the VM made to show them, from a place that cannot be known: it may be a view.
    Copied,
}

impl Origin {
    /// Finds the origin of a binary, whose bytes are those.
    #[inline]
    pub fn of(term: Term, bytes: &Segment) -> Origin {
        if image::has_views() {
            Origin::look_up(term, bytes)
        } else {
            Origin::Plain
        }
    }

    /// Finds it where there are views: looks the bytes up among all mappings of all images.
    pub fn look_up(term: Term, bytes: &Segment) -> Origin {
        if term::is_copied(term, bytes) {
            Origin::Copied
        } else if image::is_mapped(bytes) {
            Origin::View
        } else {
            Origin::Plain
        }
    }

    /// Tells whether any of these bytes, of this origin, were lost. For a copy all mappings are asked, which may take
    /// long.
    #[inline]
    pub fn is_lost(self, segments: &[Segment]) -> bool {
        self != Origin::Plain && self.is_any_lost(segments)
    }

    fn is_any_lost(self, segments: &[Segment]) -> bool {
        let is_lost = |segment| image::intact(segment) == Some(false);
        segments.iter().any(is_lost) || self == Origin::Copied && !image::all_intact()
    }
}
