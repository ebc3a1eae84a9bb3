//! Random choice of blocks, for the feature `hardened`: xorshift64*, seeded by the system for each heap. It makes guesses
//! fail, not cryptography.

use core::cell::Cell;

/// A source of random numbers, of one thread.
pub struct Random(Cell<u64>);

impl Random {
    /// A source from a secret seed.
    pub fn new(seed: u64) -> Self {
        Self(Cell::new(seed | 1))
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

    /// Puts what is in the slice in random order.
    pub fn shuffle<T>(&self, slice: &mut [T]) {
        for i in (1..slice.len()).rev() {
            slice.swap(i, self.below(i + 1));
        }
    }
}
