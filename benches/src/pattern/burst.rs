//! Many blocks are allocated, then all are freed in the same order.
//!
//! The workload's bursts ([`fill`], [`empty`]) and those of the rows ([`push_and_drain`]) differ in
//! two points, and so keep loops of their own:
//! - the sizes are the steps' in a workload, one size in a row;
//! - the blocks stand in slots in a workload, in a vector that is pushed to and drained in a row.

use std::borrow::Borrow;

use crate::block::{Aligned, Block, Slot};
use crate::contender::Contender;
use crate::error::Error;
use crate::steps::Step;

/// Puts a block into each slot, of the next step's size. A slot must not hold a block already, or
/// that block is lost.
#[inline(never)]
pub(crate) fn fill<A: Contender>(
    a: &A,
    steps: impl Iterator<Item: Borrow<Step>>,
    slots: &mut [Slot<A>],
) -> Result<(), Error> {
    for (slot, step) in slots.iter_mut().zip(steps) {
        *slot = Some(Block::take(a, step.borrow().size as usize, 1)?);
    }
    Ok(())
}

/// Frees the slots' blocks in order.
#[inline(never)]
pub(crate) fn empty<A: Contender>(a: &A, slots: &mut [Slot<A>]) {
    for block in slots.iter_mut().filter_map(Option::take) {
        block.give(a);
    }
}

/// Has `take` allocate `count` blocks of `size` bytes, and frees them. `blocks` is empty before and
/// after, and has room for all of them.
#[inline]
pub(crate) fn push_and_drain<A: Contender, const ALIGN: usize>(
    a: &A,
    blocks: &mut Vec<Aligned<A, ALIGN>>,
    count: usize,
    size: usize,
    take: impl Fn(&A, usize, u8) -> Result<Aligned<A, ALIGN>, Error>,
) -> Result<(), Error> {
    for _ in 0..count {
        blocks.push(take(a, size, 1)?);
    }
    blocks.drain(..).for_each(|block| block.give(a));
    Ok(())
}
