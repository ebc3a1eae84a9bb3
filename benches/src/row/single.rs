//! Rows of one thread that call the allocator themselves.

use super::Budget;
use super::steps::{self, Circle};
use crate::block::{Aligned, Block};
use crate::tape::Step;
use crate::{Contender, Error, Metric};

/// Operations between two looks at the clock.
const CHUNK: usize = 8192;

/// A slot of a working set.
pub(super) type Slot<A, const ALIGN: usize = 1> = Option<Aligned<A, ALIGN>>;

/// Each operation picks a random slot and frees its block, or allocates one if it is empty.
pub(super) fn mixed<A: Contender, const ALIGN: usize>(
    a: &A,
    budget: Budget,
    slots: usize,
    sizes: (u32, u32),
) -> Result<Vec<Metric>, Error> {
    let steps = steps::even(slots, sizes);
    let mut circle = Circle::new(&steps);
    let mut slots = empty::<A, ALIGN>(slots);
    // Filled to its usual half first: the measured part is the steady state.
    for _ in 0..(2 * slots.len()).div_ceil(CHUNK) {
        toggle(a, circle.next(CHUNK), &mut slots)?;
    }
    let metrics = budget.measure(|| toggle(a, circle.next(CHUNK), &mut slots))?;
    give_all(a, slots)?;
    Ok(metrics)
}

/// A random slot's block is replaced, as the server mix says.
pub(super) fn server<A: Contender>(a: &A, budget: Budget) -> Result<Vec<Metric>, Error> {
    let (steps, slots) = steps::server();
    let mut circle = Circle::new(&steps);
    let mut slots = empty::<A, 1>(slots);
    replace(a, &steps, &mut slots)?;
    let metrics = budget.measure(|| replace(a, circle.next(CHUNK), &mut slots))?;
    give_all(a, slots)?;
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
            once(a, &mut blocks, count, size, take)?;
        }
        Ok((2 * bursts * count) as u64)
    })?;
    let block = take(a, size, 1)?;
    block.prove(a)?;
    block.give(a);
    Ok(metrics)
}

#[inline]
fn once<A: Contender, const ALIGN: usize>(
    a: &A,
    blocks: &mut Vec<Aligned<A, ALIGN>>,
    count: usize,
    size: usize,
    take: impl Fn(&A, usize, u8) -> Result<Aligned<A, ALIGN>, Error> + Copy,
) -> Result<(), Error> {
    for _ in 0..count {
        blocks.push(take(a, size, 1)?);
    }
    blocks.drain(..).for_each(|block| block.give(a));
    Ok(())
}

pub(super) fn empty<A: Contender, const ALIGN: usize>(count: usize) -> Vec<Slot<A, ALIGN>> {
    (0..count).map(|_| None).collect()
}

#[inline(never)]
pub(super) fn toggle<A: Contender, const ALIGN: usize>(
    a: &A,
    steps: &[Step],
    slots: &mut [Slot<A, ALIGN>],
) -> Result<u64, Error> {
    for step in steps {
        let slot = &mut slots[step.slot as usize];
        match slot.take() {
            Some(block) => block.give(a),
            None => *slot = Some(Aligned::take(a, step.size as usize, 1)?),
        }
    }
    Ok(steps.len() as u64)
}

/// Frees what is in the steps' slots and puts a new block there.
#[inline(never)]
pub(super) fn replace<A: Contender>(
    a: &A,
    steps: &[Step],
    slots: &mut [Slot<A>],
) -> Result<u64, Error> {
    for step in steps {
        let slot = &mut slots[step.slot as usize];
        if let Some(old) = slot.take() {
            old.give(a);
        }
        *slot = Some(Block::take(a, step.size as usize, 1)?);
    }
    Ok(2 * steps.len() as u64)
}

/// Frees the blocks of the slots, each of them proved.
pub(super) fn give_all<A: Contender, const ALIGN: usize>(
    a: &A,
    slots: Vec<Slot<A, ALIGN>>,
) -> Result<(), Error> {
    slots
        .iter()
        .flatten()
        .try_for_each(|block| block.prove(a))?;
    slots.into_iter().flatten().for_each(|block| block.give(a));
    Ok(())
}
