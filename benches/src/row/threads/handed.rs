//! Rows in which one thread frees what another allocated.
//!
//! Blocks go through a ring in batches: its indices are shared, and where each block moved them, a consumer that keeps up
//! paid for a cache line from the other CPU with each block and one that lagged did not: two speeds of the ring, not of the
//! allocator. A thread without work yields its CPU at once where another may need it.

use std::hint::spin_loop;
use std::thread;

use crossbeam_deque::{Steal, Stealer, Worker};
use rtrb::{Consumer, Producer, RingBuffer};

use super::super::Budget;
use super::super::steps::{self, Circle};
use super::{circle, crew};
use crate::block::Block;
use crate::{Contender, Error, Metric};

/// Blocks that a ring has room for.
const RING: usize = 1024;

/// Blocks that are put into a ring, or taken out of it, at once.
const BATCH: usize = 64;

/// Blocks that a thread passes on at a time.
const CHUNK: usize = 256;

/// Looks at a full or empty ring before a thread that has a CPU for itself yields it.
const SPINS: usize = 256;

/// Blocks in a worker's queue above which it works on its own.
const QUEUE: usize = 4096;

/// What a thread of a ring has.
struct Link<'a, A> {
    /// Where its blocks go.
    next: Option<Producer<Block<A>>>,
    /// Where it gets blocks to free.
    previous: Option<Consumer<Block<A>>>,
    circle: Circle<'a>,
    /// Turns in which it had nothing to do, since it last had.
    idle: usize,
    /// How many of these pass before it yields.
    patience: usize,
}

/// Pairs of threads, one of which allocates and the other frees.
pub(in super::super) fn pairs<A: Contender>(
    a: &A,
    budget: Budget,
    pairs: usize,
    sizes: (u32, u32),
) -> Result<Vec<Metric>, Error> {
    let steps = steps::even(1, sizes);
    let mut links = Vec::new();
    for nth in 0..pairs {
        let (producer, consumer) = RingBuffer::new(RING);
        links.push(Link::new(Some(producer), None, circle(&steps, nth)));
        links.push(Link::new(None, Some(consumer), circle(&steps, nth)));
    }
    pass_on(a, budget, links)
}

/// Threads in a circle, each of which allocates for the next and frees what the previous one allocated.
pub(in super::super) fn ring<A: Contender>(
    a: &A,
    budget: Budget,
    threads: usize,
    sizes: (u32, u32),
) -> Result<Vec<Metric>, Error> {
    let steps = steps::even(1, sizes);
    let (producers, mut consumers): (Vec<_>, Vec<_>) =
        (0..threads).map(|_| RingBuffer::new(RING)).unzip();
    consumers.rotate_right(1);
    let ends = producers.into_iter().zip(consumers).enumerate();
    let links = ends
        .map(|(nth, (next, previous))| Link::new(Some(next), Some(previous), circle(&steps, nth)))
        .collect();
    pass_on(a, budget, links)
}

fn pass_on<A: Contender>(
    a: &A,
    budget: Budget,
    mut links: Vec<Link<'_, A>>,
) -> Result<Vec<Metric>, Error> {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    if links.len() <= cpus {
        links.iter_mut().for_each(|link| link.patience = SPINS);
    }
    let end = |link: Link<A>| {
        let mut previous = link.previous;
        while let Some(block) = previous.as_mut().and_then(|previous| previous.pop().ok()) {
            block.prove(a)?;
            block.give(a);
        }
        Ok(())
    };
    crew(budget, links, Ok, |link| link.turn(a), end)
}

impl<'a, A: Contender> Link<'a, A> {
    fn new(
        next: Option<Producer<Block<A>>>,
        previous: Option<Consumer<Block<A>>>,
        circle: Circle<'a>,
    ) -> Self {
        Self {
            next,
            previous,
            circle,
            idle: 0,
            patience: 0,
        }
    }

    fn turn(&mut self, a: &A) -> Result<u64, Error> {
        let mut ops = 0;
        for _ in 0..CHUNK / BATCH {
            ops += self.produce(a)? + self.consume(a);
        }
        if ops > 0 {
            self.idle = 0;
        } else if self.idle < self.patience {
            self.idle += 1;
            spin_loop();
        } else {
            thread::yield_now();
        }
        Ok(ops)
    }

    /// Allocates a batch if the ring has room for it.
    #[inline(never)]
    fn produce(&mut self, a: &A) -> Result<u64, Error> {
        let Some(Ok(room)) = self
            .next
            .as_mut()
            .map(|next| next.write_chunk_uninit(BATCH))
        else {
            return Ok(0);
        };
        let mut result = Ok(());
        let steps = self.circle.next(BATCH).iter();
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

    /// Reads and frees a batch if the ring has one.
    #[inline(never)]
    fn consume(&mut self, a: &A) -> u64 {
        let Some(Ok(blocks)) = self
            .previous
            .as_mut()
            .map(|previous| previous.read_chunk(BATCH))
        else {
            return 0;
        };
        let mut ops = 0;
        for block in blocks {
            ops += u64::from(block.mark());
            block.give(a);
        }
        ops
    }
}

/// What a worker has.
struct Thief<'a, A> {
    nth: usize,
    queue: Worker<Block<A>>,
    circle: Circle<'a>,
}

/// Every other thread puts blocks into its queue and frees half of them itself; the threads between steal the rest.
pub(in super::super) fn steal<A: Contender>(
    a: &A,
    budget: Budget,
    threads: usize,
) -> Result<Vec<Metric>, Error> {
    let steps = steps::even(1, (16, 1024));
    let thieves: Vec<Thief<A>> = (0..threads)
        .map(|nth| Thief {
            nth,
            queue: Worker::new_fifo(),
            circle: circle(&steps, nth),
        })
        .collect();
    let queues: Vec<_> = thieves.iter().map(|thief| thief.queue.stealer()).collect();
    let turn = |thief: &mut Thief<A>| {
        if thief.nth.is_multiple_of(2) {
            thief.work(a)
        } else {
            Ok(thief.steal(a, &queues))
        }
    };
    let end = |thief: Thief<A>| {
        while let Some(block) = thief.queue.pop() {
            block.prove(a)?;
            block.give(a);
        }
        Ok(())
    };
    crew(budget, thieves, Ok, turn, end)
}

impl<A: Contender> Thief<'_, A> {
    fn work(&mut self, a: &A) -> Result<u64, Error> {
        let mut ops = 0;
        for step in self.circle.next(CHUNK) {
            self.queue.push(Block::take(a, step.size as usize, 1)?);
            ops += 1;
        }
        let own = if self.queue.len() > QUEUE {
            CHUNK
        } else {
            CHUNK / 2
        };
        let done = std::iter::from_fn(|| self.queue.pop()).take(own);
        done.for_each(|block| {
            ops += u64::from(block.mark());
            block.give(a);
        });
        Ok(ops)
    }

    fn steal(&mut self, a: &A, queues: &[Stealer<Block<A>>]) -> u64 {
        let mut ops = 0;
        for victim in queues.iter().step_by(2) {
            while let Steal::Success(block) = victim.steal_batch_and_pop(&self.queue) {
                for block in std::iter::once(block).chain(std::iter::from_fn(|| self.queue.pop())) {
                    ops += u64::from(block.mark());
                    block.give(a);
                }
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
}
