//! The limit of the harness: an allocator that pops pointers from an array and pushes them back.
//!
//! The null allocator knows neither size classes nor threads. It can run only rows that write to
//! the first bytes of a block and nowhere else: its blocks stand as far apart as the row's mean
//! size says, so that they take the cache lines and pages of a perfect packing, and blocks above
//! the mean overlap.
#![allow(unsafe_code)] // an allocator

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr::{NonNull, null_mut};

use super::Contender;

/// Blocks beyond those of the row, for the probes before and after the row.
const SPARE: usize = 64;

/// The allocator that does nothing but hand out pointers.
pub struct Null(UnsafeCell<State>);

struct State {
    free: Vec<*mut u8>,
    memory: Vec<u8>,
}

// SAFETY: whoever made the `Null` promised that no two threads use it at once (`Null::new`).
unsafe impl Sync for Null {}

impl Null {
    /// A null allocator without memory; [`Contender::expect`] gives it some.
    ///
    /// # Safety
    /// No two threads may use the allocator at once. [`Contender::ONE_THREAD`] holds for rows and
    /// workloads.
    pub const unsafe fn new() -> Self {
        Self(UnsafeCell::new(State {
            free: Vec::new(),
            memory: Vec::new(),
        }))
    }
}

// SAFETY: this holds as far as the rows of `HitPath` look, which use only the first bytes of a
// block: those are distinct for all live blocks (`expect` spaces them), and `alloc` returns null
// when there are no more.
unsafe impl GlobalAlloc for Null {
    #[inline(always)]
    unsafe fn alloc(&self, _layout: Layout) -> *mut u8 {
        // SAFETY: one thread uses the allocator (the promise of `Null::new`), and no reference
        // outlives a call.
        unsafe { (*self.0.get()).free.pop().unwrap_or(null_mut()) }
    }

    #[inline(always)]
    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        // SAFETY: one thread uses the allocator (the promise of `Null::new`). The array has room:
        // it was made with all blocks in it, and `dealloc`'s caller returns each block once.
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
    const ONE_THREAD: bool = true;

    fn owns(&self, block: NonNull<u8>, _size: usize) -> bool {
        // SAFETY: one thread uses the allocator (the promise of `Null::new`), and no reference
        // outlives a call.
        let memory = unsafe { &(*self.0.get()).memory };
        memory.as_ptr_range().contains(&block.as_ptr().cast_const())
    }

    fn expect(&self, blocks: usize, mean: usize) {
        let spacing = mean.next_multiple_of(16);
        let mut memory = vec![0; (blocks + SPARE) * spacing];
        let starts = memory.chunks_exact_mut(spacing).rev();
        let free = starts.map(<[u8]>::as_mut_ptr).collect();
        // SAFETY: one thread uses the allocator (the promise of `Null::new`), and `Row::run` calls
        // this before the row allocates anything, so no block of the old memory is live.
        unsafe { *self.0.get() = State { free, memory } }
    }
}
