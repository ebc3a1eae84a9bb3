//! The entry points of a build without the features `hardened` and `valgrind`: those of `hit` and
//! `resize`, and the ones that only this build has.
#![allow(unsafe_code)] // Reads and writes the head behind the thread's slot.

use super::free::free_slow;
use super::head::{FIRST, magazine, pop, slot};
use super::hit::is_home;
use super::setup::Setup;
use super::sizes::{check_size, whole_size};

pub use super::hit::{alloc, alloc_aligned, free};
pub use super::resize::resize;
#[cfg(feature = "allocator-api2")]
pub use super::resize::stay;
pub use super::zeroed::alloc_zeroed;

/// Bytes at a block's end that are not the user's.
pub const TAIL: usize = 0;

/// A block for `size` bytes from its magazine. Null if that has none, or the size is not tiny.
#[inline(always)]
pub fn alloc_cached(size: usize) -> *mut u8 {
    if size <= theap_arch::TINY_MAX {
        // SAFETY: the slot's own value, and an index of the table of classes.
        unsafe { pop(slot::get(), theap_arch::class_of_tiny(size)) }
    } else {
        core::ptr::null_mut()
    }
}

/// Frees a block that was allocated with this size and an alignment of at most 16.
///
/// # Safety
/// The conditions of [`free`], and the size is the block's.
#[inline(always)]
pub unsafe fn free_sized(block: *mut u8, size: usize, setup: &Setup) {
    check_size(block, size);
    if size <= theap_arch::TINY_MAX {
        let head = slot::get();
        // SAFETY: the slot's own value, and an index of the table of classes; the block is as this
        // function's Safety section has it.
        unsafe {
            // Blocks of another node go home by the slow path. Without nodes nothing can be foreign
            // here.
            let home = !cfg!(feature = "numa") || is_home(head, block);
            let magazine = magazine(head, theap_arch::class_of_tiny(size) + FIRST);
            if !(home && theap_arch::push(magazine, block)) {
                free_slow(head, block, setup);
            }
        }
    } else {
        // SAFETY: this function's own Safety section.
        unsafe { free(block, setup) };
    }
}

/// Bytes that the user of a block may use; 0 for what is no block of the heap, as far as that is
/// known.
pub fn usable_size(block: *const u8) -> usize {
    whole_size(block)
}
