//! The choice of blocks for the feature `hardened`: at random, by xorshift64*, seeded by the system
//! for each heap. It makes guesses fail; it is no cryptography.

use super::spans::lowest;
use core::cell::Cell;

/// A source of random numbers, of one thread.
pub struct Choice(Cell<u64>);

impl Choice {
    /// A source from a secret seed.
    pub fn new(seed: impl FnOnce() -> u64) -> Self {
        Self(Cell::new(seed() | 1))
    }

    /// A number below `bound`, which is below 2^31.
    pub fn below(&self, bound: usize) -> usize {
        let mut x = self.0.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.0.set(x);
        ((x.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize * bound) >> 31
    }

    /// The word of a span to take blocks from, of those whose bits are set: any.
    pub fn word(&self, summary: u64) -> usize {
        let turn = self.below(64) as u32;
        (summary.rotate_right(turn).trailing_zeros() + turn) as usize % 64
    }

    /// A few blocks of a word, so that a refill goes through many words.
    pub fn blocks(&self, word: u64, want: usize) -> u64 {
        let turn = self.below(64) as u32;
        lowest(word.rotate_right(turn), want.min(8)).rotate_left(turn)
    }

    /// Puts what is in the slice in random order.
    pub fn shuffle<T>(&self, slice: &mut [T]) {
        for i in (1..slice.len()).rev() {
            slice.swap(i, self.below(i + 1));
        }
    }
}
