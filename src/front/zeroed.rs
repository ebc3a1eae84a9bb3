//! Allocation of zeroed memory. Blocks and runs that read zero already, as nobody has used them
//! since the kernel gave their pages, are not cleared.
#![allow(unsafe_code)] // Clears new blocks.

use super::handle::Handle;
use super::hit::pop_or;
use super::limits;
use super::runs::alloc_run;
use super::setup::Setup;
use crate::classes::{self, CLASSES};
use crate::contract::Act;
use crate::geometry::ClassId;

/// From this size on a zeroed block is taken from memory that reads zero already where there is
/// such, as clearing costs more than the way to the span.
const TAKE_FRESH: u32 = 32 << 10;

/// Allocates `size` zeroed bytes at a multiple of `align`, a power of two. Null if there is no
/// memory.
pub fn alloc_zeroed(size: usize, align: usize, setup: &Setup) -> *mut u8 {
    let Some(class) = classes::class_for(size, align) else {
        let (block, zero) = alloc_run(size, align, setup);
        if !block.is_null() && !zero {
            // SAFETY: a new run of at least `size` bytes.
            unsafe { theap_arch::clear(block, size) };
        }
        return block;
    };
    if CLASSES[class.index()].size >= TAKE_FRESH
        && let Some(block) = take_fresh(class, setup)
    {
        return limits::leave(block, 0);
    }
    let block = pop_or(class.index(), setup);
    if !block.is_null() {
        // SAFETY: a new block of at least `size` bytes.
        unsafe { theap_arch::clear(block, size) };
    }
    block
}

/// A block that reads zero; `None` if warm blocks are at hand or no span has one.
fn take_fresh(class: ClassId, setup: &Setup) -> Option<*mut u8> {
    let cache = Handle::mine(setup)?;
    // SAFETY: the step calls only the heap and the arena.
    let fresh = unsafe {
        cache.step(|cache| {
            if cache.held(class) > 0 || !cache.lists[class.index()].is_empty() {
                return None;
            }
            cache.take_fresh(class)
        })
    };
    if fresh.is_some() {
        cache.note_act(Act::Allocate(CLASSES[class.index()].size as usize));
    }
    fresh
}
