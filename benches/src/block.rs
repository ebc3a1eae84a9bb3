//! A block from a contender, as an owned value, so that workloads are safe code.
//!
//! Invariant: a `Block<A>` is live memory of `size` bytes from the one allocator of type `A`
//! (contenders have no state of their own: all values of the type are the same heap). Dropping a
//! block leaks it; `give` returns it.
#![allow(unsafe_code)] // calls `GlobalAlloc` and writes through what it returned

use std::alloc::Layout;
use std::hint::black_box;
use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::{Contender, Error};

/// Bytes between two writes of [`Block::touch_pages`]: the smallest page of x86_64.
const PAGE: usize = 4096;

/// Live memory from contender `A`.
pub(crate) struct Block<A> {
    start: NonNull<u8>,
    size: usize,
    from: PhantomData<fn() -> A>,
}

// SAFETY: a block is plain memory with one owner, and `Contender` requires that any thread may
// free what another allocated.
unsafe impl<A> Send for Block<A> {}

impl<A: Contender> Block<A> {
    /// Allocates `size` bytes (at least 1) and writes `mark` to the first.
    #[inline(always)]
    pub(crate) fn take(a: &A, size: usize, mark: u8) -> Result<Self, Error> {
        debug_assert!(size > 0);
        // SAFETY: the size is not zero (`Sizes` has no zero).
        let start = unsafe { a.alloc(layout(size)) };
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
        unsafe { a.dealloc(self.start.as_ptr(), layout(self.size)) }
    }

    /// Writes one byte in every page of the block.
    #[inline(always)]
    pub(crate) fn touch_pages(&mut self, mark: u8) {
        for offset in (0..self.size).step_by(PAGE).chain([self.size - 1]) {
            // SAFETY: `offset < size`, inside the live block that `self` owns.
            unsafe { self.start.add(offset).write_volatile(mark) };
        }
    }

    /// Reads the first byte, as a consumer of the block would.
    #[inline(always)]
    pub(crate) fn mark(&self) -> u8 {
        // SAFETY: the first byte of a live block, written by `take`.
        unsafe { self.start.read_volatile() }
    }

    /// The bytes that were asked for.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Fails unless `a` proves that this block is its own.
    pub(crate) fn prove(&self, a: &A) -> Result<(), Error> {
        if a.owns(self.start, self.size) {
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

/// Bytes, as `Vec<u8>` and `String` ask for them: no alignment, so that no peer has to leave its
/// plain path for sizes below an alignment.
#[inline(always)]
const fn layout(size: usize) -> Layout {
    // SAFETY: an alignment of 1 is a power of two, and `Sizes` bounds the size far below isize::MAX.
    unsafe { Layout::from_size_align_unchecked(size, 1) }
}

#[cold]
#[inline(never)]
fn exhausted<A: Contender>(size: usize) -> Error {
    Error::Exhausted {
        allocator: A::NAME,
        size,
    }
}
