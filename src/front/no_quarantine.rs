//! A build without the feature `hardened`, or with the feature `valgrind`, keeps no block in
//! quarantine.
#![allow(unsafe_code)] // Has the signature of its twin.

use crate::geometry::ClassId;
use crate::heap::Heap;

/// There is no quarantine.
pub struct Quarantine;

impl Quarantine {
    /// There is nothing to release.
    #[inline(always)]
    pub fn release(&mut self, _heap: &mut Heap) {}

    /// No block is held.
    #[inline(always)]
    pub fn count(&self, _class: ClassId) -> usize {
        0
    }
}

/// Leaves the link in the block.
///
/// # Safety
/// Nothing is asked for.
#[inline(always)]
pub unsafe fn poison_link(_block: *mut u8) {}

/// Whether the block is held back after its free: none is.
pub fn is_held_back(_block: usize) -> bool {
    false
}
