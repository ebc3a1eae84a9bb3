//! Queues of blocks, one a thread: its thread allocates into the queue and frees from it, other
//! threads steal from it and free what they stole.

use std::thread;

use crossbeam_deque::{Steal, Stealer, Worker};

use super::ring::free_marked;
use crate::block::Block;
use crate::contender::Contender;
use crate::error::Error;
use crate::steps::Circle;

/// Blocks that a thread allocates, or steals, in a turn.
const CHUNK: usize = 256;

/// Blocks in a queue above which its thread frees as many as it allocates.
const LONG: usize = 4096;

/// Allocates a chunk of blocks into the queue and frees half as many of it, or as many if the queue
/// is long. Returns the operations.
///
/// # Errors
/// Fails if memory runs out.
pub(crate) fn work<A: Contender>(
    a: &A,
    circle: &mut Circle<'_>,
    queue: &Worker<Block<A>>,
) -> Result<u64, Error> {
    let mut ops = 0;
    for step in circle.next(CHUNK) {
        queue.push(Block::take(a, step.size as usize, 1)?);
        ops += 1;
    }
    let own = if queue.len() > LONG { CHUNK } else { CHUNK / 2 };
    let done = std::iter::from_fn(|| queue.pop()).take(own);
    Ok(ops + free_marked(a, done))
}

/// Steals blocks of every other queue, from the first on, by way of the thread's own `queue`, and
/// frees them until they are a chunk. Yields the CPU if there was nothing to steal. Returns the
/// operations.
pub(crate) fn steal<A: Contender>(
    a: &A,
    queue: &Worker<Block<A>>,
    queues: &[Stealer<Block<A>>],
) -> u64 {
    let mut ops = 0;
    for victim in queues.iter().step_by(2) {
        while let Steal::Success(block) = victim.steal_batch_and_pop(queue) {
            let stolen = std::iter::once(block).chain(std::iter::from_fn(|| queue.pop()));
            ops += free_marked(a, stolen);
            if ops >= CHUNK as u64 {
                return ops;
            }
        }
    }
    if ops == 0 {
        thread::yield_now();
    }
    ops
}
