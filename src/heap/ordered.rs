//! The choice of blocks: the first ones, in address order. The twin of `random`.

use super::spans::lowest;

/// Nothing to remember.
pub struct Choice;

impl Choice {
    /// Needs no seed.
    pub fn new(_seed: impl FnOnce() -> u64) -> Self {
        Self
    }

    /// The word of a span to take blocks from, of those whose bits are set.
    #[inline]
    pub fn word(&self, summary: u64) -> usize {
        summary.trailing_zeros() as usize
    }

    /// Up to `want` blocks of a word.
    #[inline]
    pub fn blocks(&self, word: u64, want: usize) -> u64 {
        lowest(word, want)
    }
}
