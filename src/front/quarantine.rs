//! The quarantine of the feature `hardened`: blocks that were freed and are not to be used yet. A
//! freed block changes places with a random one, and that one goes on. Blocks that leave must still
//! be filled with poison.
#![allow(unsafe_code)] // Compares and writes the contents of free blocks.

use super::hardened::{POISON, check_poison};
use crate::classes::CLASS_COUNT;
use crate::geometry::ClassId;
use crate::heap::Heap;
use crate::pool::global::existing_arena;
use crate::pool::{Arena, BlockId, Location};
use core::ptr;
use theap_arch::valgrind;

/// Blocks in a thread's quarantine.
const KEPT: usize = 256;

/// The blocks in quarantine. Zero is valid: none.
pub struct Quarantine {
    blocks: [*mut u8; KEPT],
    /// The number of these blocks by class.
    counts: [u16; CLASS_COUNT],
}

impl Quarantine {
    /// Takes a freed block for another one, or for null.
    ///
    /// # Safety
    /// `block` is a free block that was filled with poison, and the caller's; the quarantine is of
    /// the heap's thread.
    pub unsafe fn exchange(&mut self, block: *mut u8, heap: &Heap) -> *mut u8 {
        let at = heap.choice.below(KEPT);
        let out = core::mem::replace(&mut self.blocks[at], block);
        if let Some(class) = class_of(block, heap.arena()) {
            self.counts[class.index()] += 1;
        }
        if let Some(class) = class_of(out, heap.arena()) {
            self.counts[class.index()] -= 1;
        }
        // SAFETY: the block comes from the quarantine, into which this function's Safety section
        // lets only such.
        unsafe { check(out, heap.arena()) };
        out
    }

    /// The number of blocks of the class.
    pub fn count(&self, class: ClassId) -> usize {
        usize::from(self.counts[class.index()])
    }

    /// Returns the blocks in quarantine to the spans.
    pub fn release(&mut self, heap: &mut Heap) {
        self.counts = [0; CLASS_COUNT];
        for block in &mut self.blocks {
            let out = core::mem::replace(block, ptr::null_mut());
            if !out.is_null() {
                // SAFETY: the block comes from the quarantine, into which `exchange` lets only
                // such.
                unsafe {
                    check(out, heap.arena());
                    heap.give(&[out]);
                }
            }
        }
    }
}

/// The class of a block in quarantine; `None` for null.
fn class_of(block: *mut u8, arena: &Arena) -> Option<ClassId> {
    match arena.addresses().locate(block as usize) {
        Location::Block(part) => Some(part.class),
        Location::Run(_) | Location::Free | Location::Foreign => None,
    }
}

/// Ends the process if somebody has written to a block in quarantine. Null is ignored.
///
/// # Safety
/// `block` is null, or a free block that was filled with poison, and this thread's.
unsafe fn check(block: *mut u8, arena: &Arena) {
    if let Some(id) = BlockId::at(arena.addresses(), block as usize) {
        // SAFETY: this function's own Safety section.
        unsafe { check_poison(arena, block, id.size) };
    }
}

/// Writes poison where the link of a block was.
///
/// # Safety
/// The block is free and this thread's.
pub unsafe fn poison_link(block: *mut u8) {
    // SAFETY: the first word of a free block of this thread's (this function's own Safety section).
    valgrind::quietly(|| unsafe { block.cast::<u64>().write(POISON) });
}

/// Whether the block is no live one as far as the API is concerned: in quarantine, or in a
/// magazine. For a report.
pub fn is_held_back(block: usize) -> bool {
    existing_arena()
        .and_then(|arena| {
            let id = BlockId::at(arena.addresses(), block)?;
            Some(!arena.metadata().is_live(id))
        })
        .unwrap_or(false)
}
