//! The twin of `lives` without the feature `hardened`: nothing is known about the lives of blocks.

use super::Metadata;
use crate::geometry::{ClassId, SpanId};

/// No bits.
pub struct Lives;

impl Metadata {
    /// Nothing is known, and nothing is forgotten.
    #[inline(always)]
    pub fn forget_lives(&self, _span: SpanId, _class: ClassId) {}
}
