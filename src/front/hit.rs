//! The hit paths: malloc and free in most cases. Allocation takes the class from the size and pops;
//! a free takes the class from the slot's class byte and pushes. There is no lock, no atomic
//! operation, no look at a span, and no check of the owner: a block of any thread goes into the
//! magazine and finds its span in the drain.
//!
//! One compare tells a foreign pointer and a block of another NUMA node from one that may go into a
//! magazine. What misses goes to `refill`, `free` and `runs`.
#![allow(unsafe_code)] // Reads and writes the head behind the thread's slot.

use super::free::free_slow;
use super::head::{magazine, place_of_class, place_of_tiny, pop, slot};
use super::refill::alloc_class;
use super::runs::alloc_run;
use super::setup::Setup;
use crate::classes;
use crate::geometry::{ClassId, SLOT};
use core::sync::atomic::Ordering;

/// Allocates `size` bytes at a multiple of 16. Null if there is no memory.
#[inline(always)]
pub fn alloc(size: usize, setup: &Setup) -> *mut u8 {
    if size > theap_arch::TINY_MAX {
        // SAFETY: the size is not tiny.
        return unsafe { alloc_mid(size, setup) };
    }
    // SAFETY: the slot's own value, and a tiny size.
    let block = unsafe { pop(slot::get(), place_of_tiny(size)) };
    if block.is_null() {
        return alloc_missed(size, setup);
    }
    block
}

/// Allocates a block of a tiny size that the magazine does not have. The arguments are the
/// caller's, so that a hit need not move them out of the way.
#[cold]
#[inline(never)]
fn alloc_missed(size: usize, setup: &Setup) -> *mut u8 {
    let class = ClassId::new(theap_arch::class_of_tiny(size));
    // SAFETY: the slot's own value.
    unsafe { alloc_class(slot::get(), class, setup) }
}

/// Allocates a block of a larger size.
///
/// # Safety
/// The size is above [`theap_arch::TINY_MAX`].
#[inline(never)]
unsafe fn alloc_mid(size: usize, setup: &Setup) -> *mut u8 {
    // The class of such a size needs no test for small ones.
    // SAFETY: this function's own Safety section.
    unsafe { core::hint::assert_unchecked(size > theap_arch::TINY_MAX) };
    if size <= theap_arch::CLASSED_MAX {
        pop_or(theap_arch::class_of(size), setup)
    } else {
        alloc_run(size, SLOT, setup).0
    }
}

/// Allocates `size` bytes at a multiple of `align`, a power of two.
#[inline(never)]
pub fn alloc_aligned(size: usize, align: usize, setup: &Setup) -> *mut u8 {
    if align <= 16 {
        return alloc(size, setup);
    }
    match classes::class_for(size, align) {
        Some(class) => pop_or(class.index(), setup),
        None => alloc_run(size, align, setup).0,
    }
}

/// A block of the class with this index from its magazine, else from the heap. The index is a bare
/// number up to the miss: making a [`ClassId`] of it would cost the hit path an instruction.
#[inline(always)]
pub fn pop_or(class: usize, setup: &Setup) -> *mut u8 {
    let head = slot::get();
    // SAFETY: the slot's own value, and the place of a class.
    let block = unsafe { pop(head, place_of_class(class)) };
    if !block.is_null() {
        return block;
    }
    // SAFETY: the slot's own value.
    unsafe { alloc_class(head, ClassId::new(class), setup) }
}

/// Frees a block of unknown size. Null is ignored.
///
/// # Safety
/// `block` is null or a live block of the heap, and nobody uses it any more. What is caught
/// otherwise is caught behind the miss or in the drain, with a message and an abort.
#[inline(always)]
pub unsafe fn free(block: *mut u8, setup: &Setup) {
    let head = slot::get();
    // SAFETY: the slot's own value; `kinds` has a byte for each slot of the home part, and every
    // class byte has a magazine.
    unsafe {
        let at = (block as usize).wrapping_sub((*head).home_part);
        if at < (*head).home_bytes {
            let kind = (*(*head).kinds.add(at / SLOT)).load(Ordering::Relaxed);
            if theap_arch::push(magazine(head, kind.into()), block) {
                return;
            }
        }
    }
    // SAFETY: the block is as this function's Safety section has it.
    unsafe { free_slow(block, setup) };
}
