//! The feature `valgrind`: what stands between the API and the front, so that valgrind's tools know every block.
//!
//! - A block is announced with the size that was asked for. The [`TAIL`] behind it, and what its class rounds up, may
//!   not be touched: memcheck reports the first byte beyond the end.
//! - A freed block is out of bounds from the call on, wherever it is meanwhile. What the allocator itself writes to it
//!   (the links of the classic front) it writes quietly.
//! - The last word of the tail has the block's size, or [`FREED`]: `usable_size` tells no more than was asked for, and
//!   a block that is freed twice is reported by memcheck and then left alone.
//! - The last [`KEPT`] blocks that a thread freed are not used again yet, as a block's next life hides what its former
//!   owner does to it. `collect` and the thread's end let them go.
//! - No place of the allocator's tables that is out of use holds a block's address (`wipe`), as the leak check takes
//!   every address that it finds for a use.
//!
//! Of the feature `hardened`, if both are on, only the random choice of blocks is left: memcheck knows the rest better.

pub use super::*;
use crate::pool::Arena;
use core::cell::Cell;
use core::ptr;
use theap_arch::valgrind;

/// Blocks of a thread that wait before they are used again.
const KEPT: usize = 256;
/// The largest of them, tail included.
const LARGEST_KEPT: usize = 4 << 10;
/// The size of a freed block, of which there can be none.
const FREED: usize = usize::MAX;

/// Blocks that were freed and are not to be used yet. Zero is valid: none.
pub struct Kept {
    blocks: [*mut u8; KEPT],
    /// The oldest.
    next: usize,
}

/// Where the size of a block of so many bytes is noted.
fn note(block: *const u8, whole: usize) -> *mut usize {
    block
        .wrapping_add(whole - size_of::<usize>())
        .cast_mut()
        .cast()
}

/// # Safety
/// `block` has `whole` bytes that nobody gives back meanwhile.
unsafe fn size_of_block(block: *const u8, whole: usize) -> usize {
    // SAFETY: the last word of the block.
    valgrind::quietly(|| unsafe { note(block, whole).read() })
}

/// # Safety
/// As for `size_of_block`, and the block is the caller's.
unsafe fn set_size(block: *mut u8, whole: usize, size: usize) {
    // SAFETY: the last word of the block.
    valgrind::quietly(|| unsafe { note(block, whole).write(size) });
}

/// Announces what the front gave. Null stays null.
fn begin(block: *mut u8, size: usize, zero: bool) -> *mut u8 {
    if !block.is_null() {
        let whole = whole_size(block);
        // SAFETY: a new block of the caller's.
        unsafe { set_size(block, whole, size) };
        valgrind::allocated(block, size, whole, zero);
    }
    block
}

/// A block that does not lie where a node's part of the heap begins, if there is another: that address stands in the
/// tables as long as the heap lives.
fn within(take: impl Fn() -> *mut u8, config: &Config) -> *mut u8 {
    let first = take();
    let at = first as usize;
    let begins = |arena: &Arena| {
        arena.contains(at) && arena.part(arena.node_of_slot(arena.slot_of(at))).0 == at
    };
    if !existing_arena().is_some_and(begins) {
        return first;
    }
    let other = take();
    if other.is_null() {
        return first;
    }
    // SAFETY: nobody has seen the block.
    unsafe { super::free(first, config) };
    other
}

/// As [`super::alloc`].
pub fn alloc(size: usize, config: &Config) -> *mut u8 {
    let whole = size.saturating_add(TAIL);
    begin(within(|| super::alloc(whole, config), config), size, false)
}

/// Nothing is at hand that need not be announced.
pub fn alloc_cached(_size: usize) -> *mut u8 {
    ptr::null_mut()
}

/// As [`super::alloc_aligned`].
pub fn alloc_aligned(size: usize, align: usize, config: &Config) -> *mut u8 {
    let whole = size.saturating_add(TAIL);
    let take = || super::alloc_aligned(whole, align, config);
    begin(within(take, config), size, false)
}

/// As [`super::alloc_zeroed`].
pub fn alloc_zeroed(size: usize, align: usize, config: &Config) -> *mut u8 {
    let whole = size.saturating_add(TAIL);
    let zero = Cell::new(false);
    let block = match classes::class_for(whole, align) {
        Some(_) => alloc_aligned(size, align, config),
        None => {
            let take = || {
                let (run, is_zero) = alloc_run(whole, align, config);
                zero.set(is_zero);
                run
            };
            begin(within(take, config), size, zero.get())
        }
    };
    if !block.is_null() && !zero.get() {
        // SAFETY: a new block of at least `size` bytes.
        unsafe { theap_arch::clear(block, size) };
    }
    block
}

/// As [`super::usable_size`], but no more than was asked for.
pub fn usable_size(block: *const u8) -> usize {
    match whole_size(block) {
        0 => 0,
        // SAFETY: a block's memory, as far as that is known.
        whole => unsafe { size_of_block(block, whole) }.min(whole - TAIL),
    }
}

/// As [`super::free`]; a block that was freed before stays so.
///
/// # Safety
/// `block` is null or a live block of the heap, and nobody uses it any more.
pub unsafe fn free(block: *mut u8, config: &Config) {
    if block.is_null() {
        return;
    }
    valgrind::freed(block);
    let whole = whole_size(block);
    // SAFETY: the caller's promise, passed on.
    unsafe {
        if whole == 0 {
            return super::free(block, config);
        }
        if size_of_block(block, whole) == FREED {
            return;
        }
        set_size(block, whole, FREED);
        let head = slot::get();
        if whole <= LARGEST_KEPT
            && !is_none(head)
            && let Some(front) = front(head, config)
        {
            super::free(front.delay(block), config);
        } else {
            super::free(block, config);
        }
    }
}

/// As [`super::free_sized`]; debug builds compare the size.
///
/// # Safety
/// As for `free`.
pub unsafe fn free_sized(block: *mut u8, size: usize, config: &Config) {
    #[cfg(debug_assertions)]
    slow::check_size(block, size.saturating_add(TAIL));
    let _ = size;
    // SAFETY: the caller's promise.
    unsafe { free(block, config) };
}

/// As [`super::resize`], but pages are never moved: what does not stay in place is copied.
///
/// # Safety
/// As for `free`; `align` is the block's.
pub unsafe fn resize(
    block: *mut u8,
    _old: usize,
    new: usize,
    align: usize,
    config: &Config,
) -> *mut u8 {
    let old = usable_size(block);
    // SAFETY: the caller's promise; the new block has `new` bytes, and is another one.
    unsafe {
        if stays(block, old, new, align) {
            let whole = whole_size(block);
            valgrind::resized(block, old, new, whole);
            set_size(block, whole, new);
            return block;
        }
        let moved = alloc_aligned(new, align, config);
        if !moved.is_null() {
            ptr::copy_nonoverlapping(block, moved, old.min(new));
            free(block, config);
        }
        moved
    }
}

/// Whether the block can have the new size where it is; a run has it then.
fn stays(block: *mut u8, old: usize, new: usize, align: usize) -> bool {
    let (was, is) = (old + TAIL, new.saturating_add(TAIL));
    match (
        classes::class_for(was, align),
        classes::class_for(is, align),
    ) {
        // memcheck knows no resizing to nothing.
        (Some(was), Some(is)) => was == is && new > 0,
        (None, None) if is <= isize::MAX as usize => existing_arena().is_some_and(|arena| {
            arena
                .run_at(block as usize)
                .is_some_and(|(slot, _)| arena.resize_run(slot, is))
        }),
        _ => false,
    }
}

impl Front {
    /// Takes a freed block for the one that has waited longest, or for null.
    fn delay(&mut self, block: *mut u8) -> *mut u8 {
        let at = self.kept.next;
        self.kept.next = (at + 1) % KEPT;
        core::mem::replace(&mut self.kept.blocks[at], block)
    }

    /// Returns the blocks that wait to the spans.
    pub(super) fn release_kept(&mut self) {
        for at in 0..KEPT {
            let out = core::mem::replace(&mut self.kept.blocks[at], ptr::null_mut());
            if !out.is_null() {
                self.heap.give(&[out]);
            }
        }
    }
}
