//! The entry points of a build without the features `hardened` and `valgrind`: those of `hit` and
//! `resize`, and the ones that only this build has.
#![allow(unsafe_code)] // Reads and writes the head behind the thread's slot.

use super::free::free_slow;
use super::head::{magazine, place_of_tiny, pop, slot};
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
        // SAFETY: the slot's own value, and a tiny size.
        unsafe { pop(slot::get(), place_of_tiny(size)) }
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
    let head = slot::get();
    // SAFETY: the slot's own value, whose `sized` is a tiny size; the block is as this function's
    // Safety section has it.
    unsafe {
        if size > (*head).sized {
            return free_by_kind(block, setup);
        }
        if !theap_arch::push(magazine(head, place_of_tiny(size)), block) {
            free_slow(block, setup);
        }
    }
}

/// Does what [`free`] does, once in the program instead of wherever a block is freed.
///
/// # Safety
/// The conditions of [`free`].
#[inline(never)]
unsafe fn free_by_kind(block: *mut u8, setup: &Setup) {
    // SAFETY: this function's own Safety section.
    unsafe { free(block, setup) };
}

/// Bytes that the user of a block may use; 0 for what is no block of the heap, as far as that is
/// known.
pub fn usable_size(block: *const u8) -> usize {
    whole_size(block)
}
