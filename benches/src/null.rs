//! The limit of the harness: an allocator that pops pointers from an array and pushes them back.
//!
//! It has neither classes nor threads and is usable on rows alone that write only to where a block starts: the blocks
//! stand as far apart as the row's mean size says, so that they take the cache lines and pages that a perfect packing
//! would, and larger ones overlap.
#![allow(unsafe_code)] // an allocator, of a kind

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr::{NonNull, null_mut};

use crate::Contender;

/// Blocks beyond those of the row, for the proofs around it.
const SPARE: usize = 64;

/// The allocator that does nothing.
pub struct Null(UnsafeCell<State>);

struct State {
    free: Vec<*mut u8>,
    memory: Vec<u8>,
}

// SAFETY: only rows of one thread run on it ([`crate::Category::HitPath`]).
unsafe impl Sync for Null {}

impl Null {
    /// One without memory; [`Contender::expect`] gives it some.
    pub const fn new() -> Self {
        Self(UnsafeCell::new(State {
            free: Vec::new(),
            memory: Vec::new(),
        }))
    }
}

impl Default for Null {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: as far as the rows look at it: pointers are distinct, and null where there are no more.
unsafe impl GlobalAlloc for Null {
    #[inline(always)]
    unsafe fn alloc(&self, _layout: Layout) -> *mut u8 {
        // SAFETY: one thread, and no reference outlives a call.
        unsafe { (*self.0.get()).free.pop().unwrap_or(null_mut()) }
    }

    #[inline(always)]
    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        // SAFETY: as above; there are never more free blocks than at first, for which there is room.
        unsafe {
            let free = &mut (*self.0.get()).free;
            let len = free.len();
            free.as_mut_ptr().add(len).write(block);
            free.set_len(len + 1);
        }
    }
}

impl Contender for Null {
    const NAME: &'static str = "null";

    fn owns(&self, block: NonNull<u8>, _size: usize) -> bool {
        // SAFETY: one thread, and no reference outlives a call.
        let memory = unsafe { &(*self.0.get()).memory };
        memory.as_ptr_range().contains(&block.as_ptr().cast_const())
    }

    fn expect(&self, blocks: usize, mean: usize) {
        let spacing = mean.next_multiple_of(16);
        let mut memory = vec![0; (blocks + SPARE) * spacing];
        let starts = memory.chunks_exact_mut(spacing).rev();
        let free = starts.map(<[u8]>::as_mut_ptr).collect();
        // SAFETY: one thread, and no block is out yet.
        unsafe { *self.0.get() = State { free, memory } }
    }
}
