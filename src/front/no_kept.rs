//! Without the feature `valgrind`, freed blocks need not wait, and places out of use keep what they
//! held.

use crate::front::cache::ThreadCache;
use crate::geometry::ClassId;
use crate::heap::Heap;

/// No block is kept.
pub struct Kept;

impl Kept {
    /// There is nothing to release.
    #[inline(always)]
    pub fn release(&mut self, _heap: &mut Heap) {}

    /// No block is held.
    #[inline(always)]
    pub fn count(&self, _class: ClassId) -> usize {
        0
    }
}

impl ThreadCache {
    /// Leaves the places as they are.
    #[inline(always)]
    pub fn wipe(&mut self, _class: ClassId) {}
}
