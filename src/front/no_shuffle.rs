//! Without the feature `hardened`, blocks stay in the order of their addresses.
#![allow(unsafe_code)] // Has the signature of its twin.

use crate::front::cache::ThreadCache;

impl ThreadCache {
    /// Leaves the blocks in their order.
    ///
    /// # Safety
    /// Nothing is asked for.
    #[inline(always)]
    pub unsafe fn shuffle(&self, _base: *mut *mut u8, _count: usize) {}
}
