//! Random steps, made before the measured part: a step costs it one sequential load.
//!
//! There are two ways to read steps, and both start again from the first step after the last:
//! - [`Steps::iter_from`] gives exactly as many steps as asked for, one by one. Workloads, which do
//!   a given number of operations, read this way; each step also costs an `and` and a bounds check.
//! - [`Circle`] gives slices. Rows, which look at the clock after about as many operations as they
//!   like, read this way; a slice may be shorter than asked for where the circle closes.

mod random;
mod server;
mod sizes;

pub(crate) use random::Random;
pub(crate) use server::{server, server_blocks, server_mean};
pub use sizes::Sizes;

/// Steps of a workload, and the fewest of a row. They are 2 MiB: long enough that no branch
/// predictor learns them, short enough to stay in the caches' reach.
const STEPS: usize = 1 << 18;

/// The seed of every row, and of a workload unless its user gives another.
pub(crate) const SEED: u64 = 42;

/// One step: the slot that it is about, and the size in bytes of a block for that slot.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    pub(crate) slot: u32,
    pub(crate) size: u32,
}

/// The steps of a workload, read in a circle.
pub(crate) struct Steps(Box<[Step]>);

impl Steps {
    /// Steps of random slots below `slots`, with sizes evenly distributed over `sizes`.
    pub(crate) fn new(seed: u64, slots: usize, sizes: Sizes) -> Self {
        Self(even(seed, STEPS, slots, sizes))
    }

    /// `count` steps, starting at step `from` of the endless circle.
    pub(crate) fn iter_from(&self, from: u64, count: u64) -> impl Iterator<Item = Step> {
        // The closure holds the slice itself: by way of `self` each step would load pointer and
        // length.
        let steps = &*self.0;
        let mut at = from as usize % STEPS;
        (0..count).map(move |_| {
            let step = steps[at % STEPS];
            at += 1;
            step
        })
    }
}

/// The steps of a row: of random slots below `slots`, with sizes evenly distributed over `sizes`.
pub(crate) fn for_row(slots: usize, sizes: Sizes) -> Box<[Step]> {
    // Every slot has to come up.
    let count = STEPS.max((4 * slots).next_power_of_two());
    even(SEED, count, slots, sizes)
}

fn even(seed: u64, count: usize, slots: usize, sizes: Sizes) -> Box<[Step]> {
    let mut random = Random::new(seed);
    let step = |_| Step {
        slot: random.below(slots as u64) as u32,
        size: random.even_size(sizes),
    };
    (0..count).map(step).collect()
}

/// Hands out a row's steps in a circle, as slices.
pub(crate) struct Circle<'a> {
    steps: &'a [Step],
    at: usize,
}

impl<'a> Circle<'a> {
    /// A circle that starts at the first step.
    pub(crate) fn new(steps: &'a [Step]) -> Self {
        Self::from(steps, 0)
    }

    /// The circle of the `nth` thread, which starts at a place of its own.
    pub(crate) fn of_thread(steps: &'a [Step], nth: usize) -> Self {
        Self::from(steps, first_of_thread(nth))
    }

    fn from(steps: &'a [Step], at: usize) -> Self {
        let at = at % steps.len();
        Self { steps, at }
    }

    /// The next steps, at most `count`: fewer where the circle closes.
    #[inline]
    pub(crate) fn next(&mut self, count: usize) -> &'a [Step] {
        let end = (self.at + count).min(self.steps.len());
        let steps = &self.steps[self.at..end];
        self.at = end % self.steps.len();
        steps
    }
}

/// The step at which the `nth` thread starts, so that threads are at different places of the
/// circle.
pub(crate) const fn first_of_thread(nth: usize) -> usize {
    nth * 7919
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_read_give_the_same_steps() {
        let sizes = Sizes::constant(16, 1024);
        let (workload, row) = (Steps::new(SEED, 100, sizes), for_row(100, sizes));
        let mut circle = Circle::of_thread(&row, 3);
        let mut slices: Vec<Step> = Vec::new();
        while slices.len() < 2 * STEPS {
            slices.extend(circle.next(10_000));
        }
        let first = first_of_thread(3) as u64;
        for (step, other) in workload.iter_from(first, 2 * STEPS as u64).zip(slices) {
            assert_eq!((step.slot, step.size), (other.slot, other.size));
            assert!(step.slot < 100 && (16..=1024).contains(&step.size));
        }
    }
}
