//! The twin of `lives` without the feature `hardened`: nothing is known about the lives of blocks.
#![allow(unsafe_code)] // Has the twin's signature.

use super::Metadata;
use crate::geometry::{ClassId, SpanId};

/// No bits.
pub struct Lives;

impl Metadata {
    /// Nothing is known, and nothing is forgotten.
    ///
    /// # Safety
    /// No condition; the twin has one.
    #[inline(always)]
    pub unsafe fn forget_lives(&self, _span: SpanId, _class: ClassId) {}
}
