//! Rows of one thread that call the allocator themselves.

use super::Budget;
use crate::block::{Aligned, empty_slots, free_proved};
use crate::contender::Contender;
use crate::error::Error;
use crate::measure::Metric;
use crate::pattern::burst::push_and_drain;
use crate::pattern::turnover::{replace, toggle};
use crate::steps::{Circle, Sizes, for_row, server as server_steps};

/// Operations between two looks at the clock.
const CHUNK: usize = 8192;

/// Each operation picks a random slot and frees its block, or allocates one if the slot is empty.
pub(super) fn mixed<A: Contender, const ALIGN: usize>(
    a: &A,
    budget: Budget,
    slots: usize,
    sizes: Sizes,
) -> Result<Vec<Metric>, Error> {
    let steps = for_row(slots, sizes);
    let mut circle = Circle::new(&steps);
    let mut slots = empty_slots::<A, ALIGN>(slots);
    // Filled to its usual half first: the measured part is the steady state.
    for _ in 0..(2 * slots.len()).div_ceil(CHUNK) {
        toggle(a, circle.next(CHUNK).iter(), &mut slots)?;
    }
    let metrics = budget.measure(|| {
        let steps = circle.next(CHUNK);
        toggle(a, steps.iter(), &mut slots)?;
        Ok(steps.len() as u64)
    })?;
    free_proved(a, slots)?;
    Ok(metrics)
}

/// Replaces a random slot's block, with sizes and lifetimes of the server mix.
pub(super) fn server<A: Contender>(a: &A, budget: Budget) -> Result<Vec<Metric>, Error> {
    let (steps, slots) = server_steps();
    let mut circle = Circle::new(&steps);
    let mut slots = empty_slots::<A, 1>(slots);
    replace(a, steps.iter(), &mut slots)?;
    let metrics = budget.measure(|| {
        let steps = circle.next(CHUNK);
        replace(a, steps.iter(), &mut slots)?;
        Ok(2 * steps.len() as u64)
    })?;
    free_proved(a, slots)?;
    Ok(metrics)
}

/// Allocates `count` blocks of `size` bytes by `take`, and frees them in the same order.
pub(super) fn burst<A: Contender, const ALIGN: usize>(
    a: &A,
    budget: Budget,
    count: usize,
    size: usize,
    take: impl Fn(&A, usize, u8) -> Result<Aligned<A, ALIGN>, Error> + Copy,
) -> Result<Vec<Metric>, Error> {
    let mut blocks = Vec::with_capacity(count);
    let bursts = CHUNK.div_ceil(2 * count);
    let metrics = budget.measure(|| {
        for _ in 0..bursts {
            push_and_drain(a, &mut blocks, count, size, take)?;
        }
        Ok((2 * bursts * count) as u64)
    })?;
    let block = take(a, size, 1)?;
    block.prove(a)?;
    block.give(a);
    Ok(metrics)
}
