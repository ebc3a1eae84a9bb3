//! Blocks that nobody writes to: they take addresses, and no memory but what the contender itself
//! writes to them. They are a type of their own because a [`Block`]'s first byte can be read.
#![allow(unsafe_code)] // calls `GlobalAlloc`

use std::ptr::NonNull;

use super::{Block, exhausted, layout};
use crate::contender::Contender;
use crate::error::Error;

/// Live memory from contender `A` to which nobody writes.
///
/// Invariant: the block within is what the type says, except that its first byte is not written.
pub(crate) struct Unwritten<A>(Block<A>);

impl<A: Contender> Unwritten<A> {
    /// Allocates `size` bytes (at least 1).
    pub(crate) fn take(a: &A, size: usize) -> Result<Self, Error> {
        debug_assert!(size > 0);
        // SAFETY: `alloc` asks for a size other than 0. The callers pass constants that are not 0.
        let start = NonNull::new(unsafe { a.alloc(layout(size, 1)) });
        let from = std::marker::PhantomData;
        let block = start.map(|start| Self(Block { start, size, from }));
        block.ok_or_else(|| exhausted::<A>(size))
    }

    /// Frees the block.
    pub(crate) fn give(self, a: &A) {
        self.0.give(a);
    }

    /// Fails unless `a` proves that this block is its own.
    pub(crate) fn prove(&self, a: &A) -> Result<(), Error> {
        self.0.prove(a)
    }
}
