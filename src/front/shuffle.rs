//! The random order of the feature `hardened`.
#![allow(unsafe_code)] // Makes a slice of an array.

use super::cache::ThreadCache;

impl ThreadCache {
    /// Puts `count` blocks from `base` on in random order.
    ///
    /// # Safety
    /// The pointers lie there, and are the caller's alone.
    pub unsafe fn shuffle(&self, base: *mut *mut u8, count: usize) {
        // SAFETY: this function's own Safety section.
        let blocks = unsafe { core::slice::from_raw_parts_mut(base, count) };
        self.heap.choice.shuffle(blocks);
    }
}
