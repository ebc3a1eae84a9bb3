//! Rows of one thread with large blocks. Like other rows they write to the first byte of a block
//! only, unless they say so.

use super::Budget;
use crate::block::{Block, Unwritten, empty_slots, free_proved};
use crate::contender::Contender;
use crate::error::Error;
use crate::measure::{Metric, SmallPages, present_memory};
use crate::pattern::burst::push_and_drain;
use crate::pattern::turnover::toggle_with;
use crate::steps::{Circle, Sizes, for_row};

/// Operations between two looks at the clock: so few that a contender that calls the kernel in each
/// does not hold up the run.
const CHUNK: usize = 1024;

/// The same where every page of a block is written.
const CHUNK_WRITTEN: usize = 64;

/// Bytes of the blocks of [`sparse`], and of those that find no room between them.
const SPARSE: (usize, usize) = (2 << 20, 3 << 20);

/// Bytes that a contender may take for the blocks of [`sparse`] although nobody writes to them. One
/// that takes more would soon take all of the machine's.
const UNWRITTEN: u64 = 4 << 30;

/// Pairs of blocks of [`sparse`] after which its memory is looked at.
const LOOK: usize = 256;

/// Allocates `count` blocks of `size` bytes, and frees them in the same order.
pub(super) fn burst<A: Contender>(
    a: &A,
    budget: Budget,
    count: usize,
    size: usize,
) -> Result<Vec<Metric>, Error> {
    let mut blocks = Vec::with_capacity(count);
    let bursts = CHUNK.div_ceil(2 * count);
    let metrics = budget.measure(|| {
        for _ in 0..bursts {
            push_and_drain(a, &mut blocks, count, size, Block::take)?;
        }
        Ok((2 * bursts * count) as u64)
    })?;
    let block = Block::take(a, size, 1)?;
    block.prove(a)?;
    block.give(a);
    Ok(metrics)
}

/// Each operation picks a random slot and frees its block, or allocates one if the slot is empty
/// and, where the blocks are to be `written`, writes every page of it.
pub(super) fn mixed<A: Contender>(
    a: &A,
    budget: Budget,
    slots: usize,
    sizes: Sizes,
    written: bool,
) -> Result<Vec<Metric>, Error> {
    let steps = for_row(slots, sizes);
    let mut circle = Circle::new(&steps);
    let mut slots = empty_slots::<A, 1>(slots);
    let chunk = if written { CHUNK_WRITTEN } else { CHUNK };
    let take = |size| {
        let mut block = Block::take(a, size, 1)?;
        if written {
            block.touch_pages(1);
        }
        Ok(block)
    };
    let metrics = budget.measure(|| {
        let steps = circle.next(chunk);
        toggle_with(a, steps.iter(), &mut slots, take)?;
        Ok(steps.len() as u64)
    })?;
    free_proved(a, slots)?;
    Ok(metrics)
}

/// Pairs of malloc and free of a size that no hole of the heap has room for: of so many `blocks`
/// every other one has been freed. Nobody writes to those, and the kernel backs what the contender
/// writes to them by small pages: on hugepages a contender with a header in each block would need
/// all of their memory.
pub(super) fn sparse<A: Contender>(
    a: &A,
    budget: Budget,
    blocks: usize,
) -> Result<Vec<Metric>, Error> {
    let (hole, size) = SPARSE;
    let small = SmallPages::of_process()?;
    let mut stay = Vec::with_capacity(blocks / 2);
    let mut holes = Vec::with_capacity(blocks / 2);
    for nth in 0..blocks / 2 {
        stay.push(Unwritten::take(a, hole)?);
        holes.push(Unwritten::take(a, hole)?);
        look::<A>(nth)?;
    }
    for (nth, block) in holes.into_iter().enumerate() {
        block.give(a);
        look::<A>(nth)?;
    }
    let metrics = burst(a, budget, 1, size)?;
    stay.iter().try_for_each(|block| block.prove(a))?;
    stay.into_iter().for_each(|block| block.give(a));
    drop(small);
    Ok(metrics)
}

/// Fails if the blocks of a sparse heap take memory: `nth` tells when to look.
fn look<A: Contender>(nth: usize) -> Result<(), Error> {
    if !nth.is_multiple_of(LOOK) || present_memory()? <= UNWRITTEN {
        return Ok(());
    }
    let (name, gib) = (A::NAME, UNWRITTEN >> 30);
    Err(Error::Setup(format!(
        "{name} takes more than {gib} GiB of memory for blocks that nobody writes to"
    )))
}
