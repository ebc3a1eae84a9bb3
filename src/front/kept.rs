//! The delay of the feature `valgrind`: a thread cache keeps the blocks that its thread freed
//! last, and clears the places of its arrays that are out of use.
#![allow(unsafe_code)] // Writes arrays through raw pointers.

use super::cache::ThreadCache;
use crate::geometry::ClassId;
use crate::heap::Heap;
use core::ptr;

/// Blocks of a thread that wait before they are used again.
const KEPT: usize = 256;

/// Blocks that were freed and are not to be used yet. Zero is valid: none.
pub struct Kept {
    blocks: [*mut u8; KEPT],
    /// The oldest.
    next: usize,
}

impl Kept {
    /// Takes a freed block for the one that has waited longest, or for null.
    pub fn delay(&mut self, block: *mut u8) -> *mut u8 {
        let at = self.next;
        self.next = (at + 1) % KEPT;
        core::mem::replace(&mut self.blocks[at], block)
    }

    /// Returns the blocks that wait to the spans.
    pub fn release(&mut self, heap: &mut Heap) {
        for block in &mut self.blocks {
            let out = core::mem::replace(block, ptr::null_mut());
            if !out.is_null() {
                // SAFETY: what waits here is free.
                unsafe { heap.give(&[out]) };
            }
        }
    }
}

impl ThreadCache {
    /// Clears the places of the class's array above its top: what they held last may be a live
    /// block's address, which is to be where the program has it and nowhere else.
    pub fn wipe(&mut self, class: ClassId) {
        let held = self.held(class);
        // SAFETY: the array has all its places in the cache's memory, as no array grows beyond them
        // with this feature, and this thread alone uses them.
        unsafe {
            let top = self.magazine(class).top;
            core::slice::from_raw_parts_mut(top, self.array_places(class) - held)
                .fill(ptr::null_mut());
        }
    }
}
