//! The entry points of the feature `valgrind`, which tell valgrind's tools of every block.
//!
//! - A block is announced with the size that was asked for. The [`TAIL`] behind it, and what its
//!   class rounds up, may not be touched: memcheck reports the first byte beyond the end.
//! - A freed block is out of bounds from the call on, wherever it is meanwhile. What the allocator
//!   itself writes to it (the links of the classic front) it writes quietly.
//! - The last word of the tail has the block's size, or [`FREED`]: `usable_size` tells no more than
//!   was asked for, and a block that is freed twice is reported by memcheck and then left alone.
//! - The last blocks that a thread freed are not used again yet (`kept`), as a block's next life
//!   hides what its former owner does to it. `collect` and the thread's end let them go.
//! - No place of the allocator's tables that is out of use holds a block's address (`wipe`), as the
//!   leak check takes every address that it finds for a use.
//!
//! Of the feature `hardened`, if both are on, only the random choice of blocks is left: memcheck
//! knows the rest better.
#![allow(unsafe_code)] // Reads and writes the tails of blocks.

use super::handle::Handle;
use super::hit;
use super::runs::{alloc_run, is_absurd};
use super::setup::Setup;
use super::sizes::{check_size, whole_size};
use crate::classes;
use crate::pool::Arena;
use crate::pool::global::existing_arena;
use core::cell::Cell;
use core::ptr;
use theap_arch::valgrind;

/// Bytes at a block's end that are not the user's.
pub const TAIL: usize = 16;
/// The largest block, tail included, that waits before it is used again.
const LARGEST_KEPT: usize = 4 << 10;
/// The size of a freed block, of which there can be none.
const FREED: usize = usize::MAX;

/// Where the size of a block of `whole` bytes is noted.
fn note(block: *const u8, whole: usize) -> *mut usize {
    block
        .wrapping_add(whole - size_of::<usize>())
        .cast_mut()
        .cast()
}

/// The size that was noted in a block.
///
/// # Safety
/// `block` has `whole` bytes that nobody gives back meanwhile.
unsafe fn size_of_block(block: *const u8, whole: usize) -> usize {
    // SAFETY: the block's last word (this function's own Safety section).
    valgrind::quietly(|| unsafe { note(block, whole).read() })
}

/// Notes a block's size.
///
/// # Safety
/// The conditions of [`size_of_block`], and the block is the caller's.
unsafe fn set_size(block: *mut u8, whole: usize, size: usize) {
    // SAFETY: the block's last word (this function's own Safety section).
    valgrind::quietly(|| unsafe { note(block, whole).write(size) });
}

/// Announces a new block. Null stays null.
///
/// # Safety
/// `block` is null, or a block or run that the plain front has just given to the caller.
unsafe fn begin(block: *mut u8, size: usize, zero: bool) -> *mut u8 {
    if !block.is_null() {
        let whole = whole_size(block);
        // SAFETY: a new block of the caller's (this function's own Safety section).
        unsafe { set_size(block, whole, size) };
        valgrind::allocated(block, size, whole, zero);
    }
    block
}

/// A block that does not lie where a node's part of the range begins, if there is another: the
/// address of that beginning stands in the tables as long as the heap lives.
fn within(take: impl Fn() -> *mut u8, setup: &Setup) -> *mut u8 {
    let first = take();
    let at = first as usize;
    let begins = |arena: &Arena| {
        arena.addresses().contains(at)
            && arena
                .addresses()
                .part(arena.addresses().node_of(arena.addresses().slot_of(at)))
                .0
                == at
    };
    if !existing_arena().is_some_and(begins) {
        return first;
    }
    let other = take();
    if other.is_null() {
        return first;
    }
    // SAFETY: nobody has seen the block.
    unsafe { hit::free(first, setup) };
    other
}

/// Like [`hit::alloc`].
pub fn alloc(size: usize, setup: &Setup) -> *mut u8 {
    let whole = size.saturating_add(TAIL);
    // SAFETY: the plain front's new block.
    unsafe { begin(within(|| hit::alloc(whole, setup), setup), size, false) }
}

/// Nothing is at hand that need not be announced.
pub fn alloc_cached(_size: usize) -> *mut u8 {
    ptr::null_mut()
}

/// Like [`hit::alloc_aligned`].
pub fn alloc_aligned(size: usize, align: usize, setup: &Setup) -> *mut u8 {
    let whole = size.saturating_add(TAIL);
    let take = || hit::alloc_aligned(whole, align, setup);
    // SAFETY: the plain front's new block.
    unsafe { begin(within(take, setup), size, false) }
}

/// Like [`hit::alloc_aligned`]; the block reads zero.
pub fn alloc_zeroed(size: usize, align: usize, setup: &Setup) -> *mut u8 {
    let whole = size.saturating_add(TAIL);
    let zero = Cell::new(false);
    let block = match classes::class_for(whole, align) {
        Some(_) => alloc_aligned(size, align, setup),
        None => {
            let take = || {
                let (run, is_zero) = alloc_run(whole, align, setup);
                zero.set(is_zero);
                run
            };
            let run = within(take, setup);
            // SAFETY: the plain front's new run.
            unsafe { begin(run, size, zero.get()) }
        }
    };
    if !block.is_null() && !zero.get() {
        // SAFETY: a new block of at least `size` bytes.
        unsafe { theap_arch::clear(block, size) };
    }
    block
}

/// Bytes that the user of a block may use: as many as were asked for. 0 for what is no block of the
/// heap, as far as that is known.
pub fn usable_size(block: *const u8) -> usize {
    match whole_size(block) {
        0 => 0,
        // SAFETY: the tables say that a block or run of `whole` bytes begins here, so the memory is
        // mapped.
        whole => unsafe { size_of_block(block, whole) }.min(whole - TAIL),
    }
}

/// Like [`hit::free`]; a block that was freed before stays so.
///
/// # Safety
/// `block` is null or a live block of the heap, and nobody uses it any more.
pub unsafe fn free(block: *mut u8, setup: &Setup) {
    if block.is_null() {
        return;
    }
    valgrind::freed(block);
    let whole = whole_size(block);
    // SAFETY: this function's own Safety section; the step only changes two fields.
    unsafe {
        if whole == 0 {
            return hit::free(block, setup);
        }
        if size_of_block(block, whole) == FREED {
            return;
        }
        set_size(block, whole, FREED);
        let out = match Handle::existing() {
            Some(cache) if whole <= LARGEST_KEPT => cache.step(|cache| {
                let arena = cache.arena();
                cache.kept.delay(block, arena)
            }),
            _ => block,
        };
        hit::free(out, setup);
    }
}

/// Like [`free`]; debug builds compare the size.
///
/// # Safety
/// The conditions of `free`.
pub unsafe fn free_sized(block: *mut u8, size: usize, setup: &Setup) {
    check_size(block, size.saturating_add(TAIL));
    // SAFETY: this function's own Safety section.
    unsafe { free(block, setup) };
}

/// Like [`super::resize::resize`], but pages are never moved: what does not stay in place is
/// copied.
///
/// # Safety
/// The conditions of `free`; `align` is the block's.
pub unsafe fn resize(
    block: *mut u8,
    _old: usize,
    new: usize,
    align: usize,
    setup: &Setup,
) -> *mut u8 {
    let old = usable_size(block);
    // SAFETY: this function's own Safety section; the new block has `new` bytes, and is another
    // one.
    unsafe {
        if stays(block, old, new, align) {
            let whole = whole_size(block);
            valgrind::resized(block, old, new, whole);
            set_size(block, whole, new);
            return block;
        }
        let moved = alloc_aligned(new, align, setup);
        if moved.is_null() && stay(block, new) {
            return block;
        }
        if !moved.is_null() {
            ptr::copy_nonoverlapping(block, moved, old.min(new));
            free(block, setup);
        }
        moved
    }
}

/// Keeps a block that cannot be moved for lack of memory, if it has `new` bytes; else the answer is
/// false. The arena notes that a block may be larger than the size says with which it is freed.
///
/// # Safety
/// `block` is a live block of the heap.
pub unsafe fn stay(block: *mut u8, new: usize) -> bool {
    let whole = whole_size(block);
    let Some(arena) = existing_arena().filter(|_| new.saturating_add(TAIL) <= whole) else {
        return false;
    };
    arena.policy().set_outsized();
    // memcheck knows no resizing to nothing.
    let new = new.max(1);
    valgrind::resized(block, usable_size(block), new, whole);
    // SAFETY: this function's own Safety section.
    unsafe { set_size(block, whole, new) };
    true
}

/// Whether the block can have the new size where it is; a run has it then.
///
/// # Safety
/// `block` is a live block of the heap with `old` bytes for its user.
unsafe fn stays(block: *mut u8, old: usize, new: usize, align: usize) -> bool {
    let (was, is) = (old + TAIL, new.saturating_add(TAIL));
    match (
        classes::class_for(was, align),
        classes::class_for(is, align),
    ) {
        // memcheck knows no resizing to nothing.
        (Some(was), Some(is)) => was == is && new > 0,
        (None, None) if !is_absurd(is, align) => existing_arena().is_some_and(|arena| {
            arena
                .addresses()
                .run_at(block as usize)
                .is_some_and(|slot| {
                    // SAFETY: the block is the caller's, as this function's Safety section has it.
                    unsafe { arena.runs().resize(slot, is) }
                })
        }),
        _ => false,
    }
}
