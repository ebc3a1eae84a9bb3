//! The delay of the feature `valgrind`: a thread cache keeps the blocks that its thread freed
//! last, and clears the places of its arrays that are out of use.
#![allow(unsafe_code)] // Writes arrays through raw pointers.

use super::cache::ThreadCache;
use crate::classes::CLASS_COUNT;
use crate::geometry::ClassId;
use crate::heap::Heap;
use crate::pool::{Arena, Location};
use core::ptr;

/// Blocks of a thread that wait before they are used again.
const KEPT: usize = 256;

/// Blocks that were freed and are not to be used yet. Zero is valid: none.
pub struct Kept {
    blocks: [*mut u8; KEPT],
    /// The oldest.
    next: usize,
    /// The number of these blocks by class.
    counts: [u16; CLASS_COUNT],
}

/// The class of a block that waits; `None` for null.
fn class_of(block: *mut u8, arena: &Arena) -> Option<ClassId> {
    match arena.addresses().locate(block as usize) {
        Location::Block(part) => Some(part.class),
        Location::Run(_) | Location::Free | Location::Foreign => None,
    }
}

impl Kept {
    /// Takes a freed block for the one that has waited longest, or for null.
    pub fn delay(&mut self, block: *mut u8, arena: &Arena) -> *mut u8 {
        let at = self.next;
        self.next = (at + 1) % KEPT;
        let out = core::mem::replace(&mut self.blocks[at], block);
        if let Some(class) = class_of(block, arena) {
            self.counts[class.index()] += 1;
        }
        if let Some(class) = class_of(out, arena) {
            self.counts[class.index()] -= 1;
        }
        out
    }

    /// The number of blocks of the class.
    pub fn count(&self, class: ClassId) -> usize {
        usize::from(self.counts[class.index()])
    }

    /// Returns the blocks that wait to the spans.
    pub fn release(&mut self, heap: &mut Heap) {
        self.counts = [0; CLASS_COUNT];
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
