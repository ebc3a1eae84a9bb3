//! The twin of `lives` without the feature `hardened`: nothing is known about the lives of blocks.
#![allow(unsafe_code)] // Has the twin's signature.

use super::Metadata;
use crate::geometry::{ClassId, SpanId};
use core::ops::Range;

/// No bits.
pub struct Lives;

impl Metadata {
    /// Nothing is known, and nothing is forgotten.
    ///
    /// # Safety
    /// No condition; the twin has one.
    #[inline(always)]
    pub unsafe fn forget_uses(&self, _span: SpanId, _blocks: Range<usize>) {}

    /// Nothing is known, and nothing is forgotten.
    ///
    /// # Safety
    /// No condition; the twin has one.
    #[inline(always)]
    pub unsafe fn forget_lives(&self, _span: SpanId, _class: ClassId) {}
}
