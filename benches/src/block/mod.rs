//! A block from a contender, as an owned value, so that patterns, workloads and rows are safe code.
//!
//! Invariant: an `Aligned<A, ALIGN>` is live memory of `size` bytes from the one allocator of type
//! `A`, allocated with the alignment `ALIGN` (contenders have no state of their own: all values of
//! the type are the same heap). Dropping a block leaks it; `give` frees it.
//!
//! `slots.rs` has sets of blocks, `shelf.rs` those that no contender sees, `unwritten.rs` blocks
//! that nobody writes to, `probe.rs` the proof that every run must pass.
#![allow(unsafe_code)] // calls `GlobalAlloc` and writes through what it returned

mod probe;
mod shelf;
mod slots;
mod unwritten;

use std::alloc::Layout;
use std::hint::black_box;
use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::contender::Contender;
use crate::error::Error;

pub(crate) use probe::{prove, prove_global};
pub(crate) use shelf::Shelf;
pub(crate) use slots::{Slot, empty_slots, free_proved, prove_all};
pub(crate) use unwritten::Unwritten;

/// Bytes between two writes of [`Block::touch_pages`]: the smallest page of x86_64.
const PAGE: usize = 4096;

/// Live memory from contender `A`, asked for with the alignment 1, so that no peer has to leave its
/// plain path for sizes below an alignment.
pub(crate) type Block<A> = Aligned<A, 1>;

/// Live memory from contender `A`, asked for with an alignment of `ALIGN` bytes, a power of two.
pub(crate) struct Aligned<A, const ALIGN: usize> {
    start: NonNull<u8>,
    size: usize,
    from: PhantomData<fn() -> A>,
}

// SAFETY: a block is plain memory with one owner, and `Contender` requires that any thread may free
// what another allocated.
unsafe impl<A, const ALIGN: usize> Send for Aligned<A, ALIGN> {}

impl<A: Contender, const ALIGN: usize> Aligned<A, ALIGN> {
    /// Allocates `size` bytes (at least 1) and writes `mark` to the first.
    #[inline(always)]
    pub(crate) fn take(a: &A, size: usize, mark: u8) -> Result<Self, Error> {
        debug_assert!(size > 0);
        // SAFETY: `alloc` asks for a size other than 0. The callers pass sizes from a `Sizes`,
        // which holds no 0, or constants that are not 0.
        let start = unsafe { a.alloc(layout(size, ALIGN)) };
        Self::hold(start, size, mark)
    }

    /// Allocates `size` bytes (at least 1) that are zero and writes `mark` to the first.
    #[inline(always)]
    pub(crate) fn take_zeroed(a: &A, size: usize, mark: u8) -> Result<Self, Error> {
        debug_assert!(size > 0);
        // SAFETY: as in `take`, the callers pass no 0.
        let start = unsafe { a.alloc_zeroed(layout(size, ALIGN)) };
        Self::hold(start, size, mark)
    }

    /// The block that begins at `start`, as the allocator returned it, with `mark` in its first
    /// byte.
    #[inline(always)]
    fn hold(start: *mut u8, size: usize, mark: u8) -> Result<Self, Error> {
        match NonNull::new(black_box(start)) {
            Some(start) => {
                // SAFETY: `start` is the first of `size >= 1` bytes just allocated.
                unsafe { start.write(mark) };
                Ok(Self {
                    start,
                    size,
                    from: PhantomData,
                })
            }
            None => Err(exhausted::<A>(size)),
        }
    }

    /// Frees the block.
    #[inline(always)]
    pub(crate) fn give(self, a: &A) {
        // SAFETY: by the type's invariant the block is live memory of `A` with this layout, and
        // `self` ends here.
        unsafe { a.dealloc(self.start.as_ptr(), layout(self.size, ALIGN)) }
    }

    /// Writes `mark` to the first byte `times` times.
    #[inline(always)]
    pub(crate) fn hammer(&mut self, mark: u8, times: usize) {
        for _ in 0..times {
            // SAFETY: `start` is the first byte of the live block that `self` owns.
            unsafe { self.start.write_volatile(mark) };
        }
    }

    /// Writes one byte in every page of the block.
    #[inline(always)]
    pub(crate) fn touch_pages(&mut self, mark: u8) {
        for offset in (0..self.size).step_by(PAGE).chain([self.size - 1]) {
            // SAFETY: `offset < size`, so the byte is in the live block that `self` owns.
            unsafe { self.start.add(offset).write_volatile(mark) };
        }
    }

    /// Reads the first byte, as a consumer of the block would.
    #[inline(always)]
    pub(crate) fn mark(&self) -> u8 {
        // SAFETY: `start` is the first byte of the live block that `self` owns; `hold` has written
        // it.
        unsafe { self.start.read_volatile() }
    }

    /// The bytes that were asked for.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Fails unless `a` proves that this block is its own.
    pub(crate) fn prove(&self, a: &A) -> Result<(), Error> {
        if a.owns(self.start, self.size) && self.start.addr().get().is_multiple_of(ALIGN) {
            return Ok(());
        }
        let (start, size) = (self.start, self.size);
        let found = format!("a block of {size} bytes at {start:p} is not in its memory");
        Err(Error::Foreign {
            allocator: A::NAME,
            found,
        })
    }
}

#[inline(always)]
const fn layout(size: usize, align: usize) -> Layout {
    // SAFETY: every `ALIGN` of this crate is a power of two (1, 64, 4096), and sizes are at most
    // `Sizes::MAX`, far below `isize::MAX`.
    unsafe { Layout::from_size_align_unchecked(size, align) }
}

#[cold]
#[inline(never)]
fn exhausted<A: Contender>(size: usize) -> Error {
    Error::Exhausted {
        allocator: A::NAME,
        size,
    }
}
