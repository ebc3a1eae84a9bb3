//! Random slots whose blocks are freed or replaced: a working set in its steady state.
//!
//! Workloads pass steps one by one, rows pass slices of steps ([`crate::steps`] says why); the loop
//! is the same, and each caller gets it compiled for its kind of steps.

use std::borrow::Borrow;

use crate::block::{Aligned, Block, Slot};
use crate::contender::Contender;
use crate::error::Error;
use crate::steps::Step;

/// Each step frees its slot's block if there is one, and puts a new block there if not. In the
/// steady state half of the slots hold a block.
#[inline(never)]
pub(crate) fn toggle<A: Contender, const ALIGN: usize>(
    a: &A,
    steps: impl Iterator<Item: Borrow<Step>>,
    slots: &mut [Slot<A, ALIGN>],
) -> Result<(), Error> {
    toggle_with(a, steps, slots, |size| Aligned::take(a, size, 1))
}

/// Does the work of [`toggle`] with blocks that `take` allocates.
#[inline(always)]
pub(crate) fn toggle_with<A: Contender, const ALIGN: usize>(
    a: &A,
    steps: impl Iterator<Item: Borrow<Step>>,
    slots: &mut [Slot<A, ALIGN>],
    mut take: impl FnMut(usize) -> Result<Aligned<A, ALIGN>, Error>,
) -> Result<(), Error> {
    for step in steps {
        let step = step.borrow();
        let slot = &mut slots[step.slot as usize];
        match slot.take() {
            Some(block) => block.give(a),
            None => *slot = Some(take(step.size as usize)?),
        }
    }
    Ok(())
}

/// Each step frees its slot's block if there is one, and then puts a new block there. The old block
/// is freed first, as in Larson's original, so that the allocator may hand out the same memory
/// again.
#[inline(never)]
pub(crate) fn replace<A: Contender>(
    a: &A,
    steps: impl Iterator<Item: Borrow<Step>>,
    slots: &mut [Slot<A>],
) -> Result<(), Error> {
    for step in steps {
        let step = step.borrow();
        let slot = &mut slots[step.slot as usize];
        if let Some(old) = slot.take() {
            old.give(a);
        }
        *slot = Some(Block::take(a, step.size as usize, 1)?);
    }
    Ok(())
}
