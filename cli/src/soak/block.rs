//! The blocks of a life. Every block is full of a pattern that follows from its number; the pattern
//! is compared before the block is resized or freed.
#![allow(unsafe_code)] // Calls the allocator, and writes to its blocks.

use theap::raw;

/// Words between two that carry the pattern in a block of `LARGE` bytes or more.
const STEP: usize = 61;
/// Bytes of a block from which on not every word carries the pattern.
const LARGE: usize = 8192;

/// A live block, full of the pattern of its number.
pub struct Block {
    start: *mut u8,
    pub size: usize,
    number: u64,
}

// SAFETY: only the holder of the value uses the block that `start` points to, and theap's blocks
// may be used and freed by any thread.
unsafe impl Send for Block {}

impl Block {
    /// Allocates a block; nothing if theap refuses it.
    pub fn new(size: usize, number: u64, align: usize, zeroed: bool) -> Option<Self> {
        let start = match (zeroed, align) {
            (true, _) => raw::alloc_zeroed(size),
            (_, 1) => raw::alloc(size),
            _ => raw::alloc_aligned(size, align),
        };
        if start.is_null() {
            return None;
        }
        assert!(
            (start as usize).is_multiple_of(align),
            "the block at {start:?} is not aligned to {align} bytes"
        );
        let block = Self {
            start,
            size,
            number,
        };
        if zeroed {
            assert!(
                block.words(step(size)).all(|(_, word)| word == 0),
                "a zeroed block is not zero"
            );
        }
        block.fill();
        Some(block)
    }

    /// The words that carry the pattern, every `step`th, each with its index.
    fn words(&self, step: usize) -> impl Iterator<Item = (usize, u64)> {
        let indices = (0..self.size / 8).step_by(step);
        // SAFETY: `index` is below `size / 8`, so the word is within the live block at `start`.
        indices.map(|index| (index, unsafe { self.start.cast::<u64>().add(index).read() }))
    }

    /// Whether these words are those of the pattern.
    fn is_whole(&self, step: usize) -> bool {
        self.words(step)
            .all(|(index, word)| word == self.number ^ index as u64)
    }

    fn fill(&self) {
        for index in (0..self.size / 8).step_by(step(self.size)) {
            let word = self.number ^ index as u64;
            // SAFETY: `index` is below `size / 8`, so the word is within the live block at `start`,
            // which nobody else uses.
            unsafe { self.start.cast::<u64>().add(index).write(word) };
        }
    }

    /// Fails unless the pattern is as it was written.
    pub fn check(&self) {
        assert!(
            self.is_whole(step(self.size)),
            "somebody else wrote to the block of {} bytes at {:?}",
            self.size,
            self.start
        );
    }

    /// Checks the block and resizes it; it stays as it is if theap refuses. Returns whether it has
    /// the new size.
    pub fn resize(&mut self, size: usize) -> bool {
        self.check();
        // SAFETY: `start` is a live block of theap, which this value alone holds.
        let moved = unsafe { raw::realloc(self.start, size) };
        if moved.is_null() {
            self.check();
            return false;
        }
        let kept = Self {
            start: moved,
            size: self.size.min(size),
            number: self.number,
        };
        // The old pattern can be compared where it was written to the same words as the new one.
        if step(self.size) == step(size) {
            assert!(
                kept.is_whole(step(size)),
                "a block at {moved:?} lost its contents when it was resized to {size} bytes"
            );
        }
        (self.start, self.size) = (moved, size);
        self.fill();
        true
    }

    /// Checks the block and frees it.
    pub fn free(self) {
        self.check();
        // SAFETY: `start` is a live block of theap, and the value that holds it ends here.
        unsafe { raw::free(self.start) };
    }

    /// Checks and frees the copy of the block that a forked child has.
    ///
    /// # Safety
    /// The caller is a forked child that uses the block no more.
    pub unsafe fn free_copy(&self) {
        self.check();
        // SAFETY: by this function's contract the block is the child's copy, and not used again.
        unsafe { raw::free(self.start) };
    }
}

/// The distance between two words of a block that carry the pattern.
fn step(size: usize) -> usize {
    if size < LARGE { 1 } else { STEP }
}
