//! Changes of a block's size: in place where the class stays or a run's neighbours are free, by
//! moving a run's pages where it has whole SuperSlabs, else by copying.
//!
//! To make a block smaller never fails: where there is no memory for a smaller block, the block
//! stays as it is, larger than its owner knows ([`stay`]).
#![allow(unsafe_code)] // Copies blocks and moves pages.

use super::handle::Handle;
use super::hit::{alloc_aligned, free};
use super::limits;
use super::runs::{alloc_run, is_absurd};
use super::setup::Setup;
use super::sizes::whole_size;
use crate::classes;
use crate::contract::Act;
use crate::geometry::{SLOT, SUPER};
use crate::pool::global::existing_arena;
use core::ptr;

/// Changes the size of a block that was allocated with `old` bytes and this alignment. Null if
/// there is no memory; the old block then stays. It is never null if the block has `new` bytes.
///
/// # Safety
/// `block` is a live block of the heap, allocated with `old` and `align`.
pub unsafe fn resize(
    block: *mut u8,
    old: usize,
    new: usize,
    align: usize,
    setup: &Setup,
) -> *mut u8 {
    match (
        classes::class_for(old, align),
        classes::class_for(new, align),
    ) {
        (Some(was), Some(is)) if was == is => return block,
        (None, None) => {
            // SAFETY: this function's own Safety section; both sizes are runs'.
            if let Some(moved) = unsafe { resize_run(block, new, align, setup) } {
                return moved;
            }
        }
        _ => {}
    }
    let mut moved = alloc_aligned(new, align, setup);
    // SAFETY: this function's own Safety section.
    if moved.is_null() && unsafe { stay(block, new) } {
        // What a run has given up may be enough.
        if classes::class_for(old, align).is_none() {
            moved = alloc_aligned(new, align, setup);
        }
        if moved.is_null() {
            return block;
        }
    }
    if !moved.is_null() {
        // SAFETY: two different live blocks of at least these sizes.
        unsafe {
            ptr::copy_nonoverlapping(block, moved, old.min(new));
            free(block, setup);
        }
    }
    moved
}

/// Keeps a block that cannot be moved for lack of memory, if it has `new` bytes; else the answer is
/// false. A run gives up the slots that it no longer needs. The arena notes that a block may be
/// larger than the size says with which it is freed.
///
/// # Safety
/// `block` is a live block of the heap.
#[cold]
pub unsafe fn stay(block: *mut u8, new: usize) -> bool {
    let Some(arena) = existing_arena() else {
        return false;
    };
    if whole_size(block) < new {
        return false;
    }
    if let Some(slot) = arena.addresses().run_at(block as usize) {
        // To cut a run needs nothing from anybody.
        // SAFETY: the run is the caller's, who gives up what is cut off.
        unsafe { arena.runs().resize(slot, new) };
    }
    arena.policy().set_outsized();
    true
}

/// Changes a run in place, or moves its pages; `None` if it must be copied (or there is no memory).
///
/// # Safety
/// The conditions of [`resize`], and the block is a run.
unsafe fn resize_run(block: *mut u8, new: usize, align: usize, setup: &Setup) -> Option<*mut u8> {
    let cache = Handle::mine(setup)?;
    let arena = cache.arena();
    if is_absurd(new, align) {
        return Some(ptr::null_mut());
    }
    if !arena.addresses().contains(block as usize) {
        let outside = arena.runs().outside();
        cache.note_act(Act::Resize(new));
        // SAFETY: the run is the caller's, who gets the new address.
        let moved = unsafe { outside.resize(block as usize, new, align) };
        limits::heed_growth();
        return moved;
    }
    let slot = arena.addresses().run_at(block as usize)?;
    // SAFETY: the run is the caller's, and what is cut off is given up by the call.
    let (old, resized) = unsafe {
        (
            arena.runs().len(slot) * SLOT,
            arena.runs().resize(slot, new),
        )
    };
    if resized {
        // One that moves is noted as an allocation and a free.
        cache.note_act(Act::Resize(new));
        count_kept(cache, old.min(new));
        return Some(block);
    }
    if old < 2 * SUPER || !(block as usize).is_multiple_of(SUPER) {
        return None;
    }
    let (moved, _) = alloc_run(new, align.max(SUPER), setup);
    if moved.is_null() {
        return Some(ptr::null_mut());
    }
    // A run grows here (a smaller one is cut in place), so the old contents fit. What lies outside
    // of the range has no SuperSlabs.
    let is_inside = arena.addresses().contains(moved as usize);
    let whole = if is_inside { old / SUPER * SUPER } else { 0 };
    // SAFETY: two different runs of the caller's of at least `old` bytes, each at a SuperSlab's
    // start where a whole one is moved.
    unsafe {
        if arena
            .runs()
            .move_supers(block as usize, moved as usize, whole)
            .is_err()
        {
            return Some(ptr::null_mut());
        }
        ptr::copy_nonoverlapping(block.add(whole), moved.add(whole), old - whole);
        free(block, setup);
    }
    count_kept(cache, whole);
    Some(moved)
}

/// Counts bytes of a run that were not copied.
fn count_kept(cache: Handle, bytes: usize) {
    // SAFETY: the step writes a counter.
    unsafe { cache.step(|cache| cache.heap.counters.run_bytes_kept.add(bytes as u64)) };
}
