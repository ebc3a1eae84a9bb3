//! One thread allocates and writes blocks, another reads and frees them; between them is a bounded
//! ring that needs no lock.
//!
//! The workload's loops and those of the rows differ, and so are there both:
//! - A workload ([`produce_each`], [`consume_each`]) passes a given number of blocks on, each
//!   alone. A thread that finds the ring full or empty waits until that changes.
//! - A row ([`produce_batch`], [`consume_batch`]) passes batches on, and returns when there is no
//!   room for one, or none to get. The ring's indices are shared, and if each block moved them, a
//!   consumer that keeps up would pay for a cache line from the other CPU with each block, and one
//!   that lags would not: two speeds of the ring, not of the allocator.

use rtrb::{Consumer, Producer, PushError};

use crate::block::Block;
use crate::contender::Contender;
use crate::error::Error;
use crate::steps::{Circle, Step};
use crate::thread::wait;

/// Blocks that are put into a ring, or taken out of it, at once.
pub(crate) const BATCH: usize = 64;

/// Allocates a block for each step and pushes it.
///
/// # Errors
/// Fails if memory runs out or the consumer is gone.
#[inline(never)]
pub(crate) fn produce_each<A: Contender>(
    a: &A,
    steps: impl Iterator<Item = Step>,
    mut ring: Producer<Block<A>>,
) -> Result<(), Error> {
    for step in steps {
        let mut block = Block::take(a, step.size as usize, 1)?;
        let mut tries = 0;
        while let Err(PushError::Full(back)) = ring.push(block) {
            if ring.is_abandoned() {
                return Err(Error::Setup("the consumer ended early".into()));
            }
            block = back;
            wait(&mut tries);
        }
    }
    Ok(())
}

/// Pops `count` blocks, has `check` look at each, reads and frees it. Ends early if the producer is
/// gone and the ring empty.
///
/// # Errors
/// Fails if `check` does.
#[inline(never)]
pub(crate) fn consume_each<A: Contender>(
    a: &A,
    mut ring: Consumer<Block<A>>,
    count: u64,
    check: impl Fn(&Block<A>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut sum = 0u64;
    for _ in 0..count {
        let mut tries = 0;
        let block = loop {
            match ring.pop() {
                Ok(block) => break block,
                // The producer may have pushed its last block between the two looks.
                Err(_) if ring.is_abandoned() && ring.is_empty() => {
                    return Ok(());
                }
                Err(_) => wait(&mut tries),
            }
        };
        check(&block)?;
        sum += u64::from(block.mark());
        block.give(a);
    }
    debug_assert_eq!(sum, count);
    Ok(())
}

/// Allocates a batch of blocks into the ring if there is room for one, and returns how many.
///
/// # Errors
/// Fails if memory runs out.
#[inline(never)]
pub(crate) fn produce_batch<A: Contender>(
    a: &A,
    circle: &mut Circle<'_>,
    ring: &mut Producer<Block<A>>,
) -> Result<u64, Error> {
    let Ok(room) = ring.write_chunk_uninit(BATCH) else {
        return Ok(0);
    };
    let mut result = Ok(());
    let steps = circle.next(BATCH).iter();
    let blocks = steps.map_while(|step| match Block::take(a, step.size as usize, 1) {
        Ok(block) => Some(block),
        Err(error) => {
            result = Err(error);
            None
        }
    });
    let made = room.fill_from_iter(blocks);
    result.map(|()| made as u64)
}

/// Reads and frees a batch of blocks from the ring if there is one, and returns how many.
#[inline(never)]
pub(crate) fn consume_batch<A: Contender>(a: &A, ring: &mut Consumer<Block<A>>) -> u64 {
    let Ok(blocks) = ring.read_chunk(BATCH) else {
        return 0;
    };
    free_marked(a, blocks)
}

/// Reads and frees the blocks, and returns how many: every block's first byte is 1.
#[inline(always)]
pub(crate) fn free_marked<A: Contender>(a: &A, blocks: impl IntoIterator<Item = Block<A>>) -> u64 {
    let mut ops = 0;
    for block in blocks {
        ops += u64::from(block.mark());
        block.give(a);
    }
    ops
}
