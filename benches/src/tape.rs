//! Random steps, made before the measured part so that they cost it one sequential load each.

use crate::{Params, Sizes};

/// Steps of a tape; it is then read again from the start. 2 MiB: long enough that no branch
/// predictor learns it, short enough to stay in the caches' reach.
const STEPS: usize = 1 << 18;

/// One step: which slot, and the block size for it in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    pub(crate) slot: u32,
    pub(crate) size: u32,
}

/// A cyclic tape of random steps.
pub(crate) struct Tape(Box<[Step]>);

impl Tape {
    /// A tape of slots below `params.slots` and sizes evenly distributed over `params.sizes`.
    pub(crate) fn new(params: &Params) -> Self {
        let mut random = Random::new(params.seed);
        let (min, max) = params.sizes.into();
        let step = |_| Step {
            slot: random.below(params.slots as u64) as u32,
            size: (min as u64 + random.below((max - min + 1) as u64)) as u32,
        };
        Self((0..STEPS).map(step).collect())
    }

    /// `count` steps, starting at step `from` of the endless tape.
    pub(crate) fn steps(&self, from: u64, count: u64) -> impl Iterator<Item = Step> {
        let mut at = from as usize % STEPS;
        (0..count).map(move |_| {
            let step = self.0[at % STEPS];
            at += 1;
            step
        })
    }
}

/// xorshift64*: a few instructions, and the same numbers on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // The state must not be 0, and seeds that differ little must not start alike.
        Self(
            seed.wrapping_add(0x9e37_79b9_7f4a_7c15)
                .wrapping_mul(0xbf58_476d_1ce4_e5b9)
                | 1,
        )
    }

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
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A size evenly distributed over the logarithm of the range: many small, most bytes in large.
    pub(crate) fn size(&mut self, sizes: Sizes) -> u32 {
        let (min, max) = sizes.into();
        let (low, high) = ((min as f64).ln(), (max as f64 + 1.0).ln());
        let size = (low + (high - low) * self.unit()).exp() as usize;
        size.clamp(min, max) as u32
    }
}

/// Sizes of [`Random::size`] that add up to `params.bytes` or just above.
pub(crate) fn mixed_sizes(params: &Params) -> Vec<u32> {
    let mut random = Random::new(params.seed);
    let mut sizes = Vec::new();
    let mut sum = 0;
    while sum < params.bytes {
        let size = random.size(params.sizes);
        sum += size as usize;
        sizes.push(size);
    }
    sizes
}
