//! The random numbers of the benchmarks: the same on every machine.

use super::Sizes;

/// xorshift64*: a few instructions a number.
pub(crate) struct Random(u64);

impl Random {
    /// The numbers that belong to `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        // The state must not be 0, and seeds that differ little must not start alike.
        Self(
            seed.wrapping_add(0x9e37_79b9_7f4a_7c15)
                .wrapping_mul(0xbf58_476d_1ce4_e5b9)
                | 1,
        )
    }

    /// The next number, evenly distributed over all but 0.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound` (not 0), by the high half of a product: no division.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number evenly distributed in [0, 1).
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A size in bytes, evenly distributed over the range.
    pub(crate) fn even_size(&mut self, sizes: Sizes) -> u32 {
        let (min, max) = sizes.into();
        (min as u64 + self.below((max - min + 1) as u64)) as u32
    }

    /// A size in bytes, evenly distributed over the logarithm of the range: many small blocks, most
    /// bytes in large ones.
    pub(crate) fn log_size(&mut self, sizes: Sizes) -> u32 {
        let (min, max) = sizes.into();
        let (low, high) = ((min as f64).ln(), (max as f64 + 1.0).ln());
        let size = (low + (high - low) * self.unit()).exp() as usize;
        size.clamp(min, max) as u32
    }

    /// Sizes of [`Random::log_size`] that add up to `bytes` or just above.
    pub(crate) fn log_sizes(&mut self, sizes: Sizes, bytes: usize) -> Vec<u32> {
        let mut all = Vec::new();
        let mut sum = 0;
        while sum < bytes {
            let size = self.log_size(sizes);
            sum += size as usize;
            all.push(size);
        }
        all
    }
}
