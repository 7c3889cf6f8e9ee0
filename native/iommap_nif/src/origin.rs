//! Where data that a call was given comes from: the one place that asks whether it is a view that lost its file.
//!
//! Zeros that stand where a view lost its file are not data. So who reads data that may come from a view asks about it, after
//! the reading: what was lost before counts then too.

use crate::{image, term};
use iommap_core::Segment;
use rustler::Term;

/// Where bytes come from; of several, what is told of the later counts for all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// They lie in no mapping, and do not for as long as the call runs.
    #[default]
    Plain,
    /// They lie in a mapping: to read them may have to wait for the disk.
    View,
    /// They are a copy that the VM made to show them, of a place that cannot be known, and which may be a view.
    Copied,
}

impl Origin {
    /// The origin of a binary, whose bytes are shown there.
    #[inline]
    pub fn of(term: Term, bytes: &Segment) -> Origin {
        if image::has_views() {
            Origin::looked_up(term, bytes)
        } else {
            Origin::Plain
        }
    }

    fn looked_up(term: Term, bytes: &Segment) -> Origin {
        if term::is_copied(term, bytes) {
            Origin::Copied
        } else if image::intact(bytes).is_some() {
            Origin::View
        } else {
            Origin::Plain
        }
    }

    /// Whether any of these bytes, which are of this origin, were lost. Of a copy all views are asked about, which may take
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
