//! Rows in which one thread frees what another allocated. A thread without work yields its CPU at
//! once where another may need it.

use std::hint::spin_loop;
use std::thread;

use crossbeam_deque::Worker;
use rtrb::{Consumer, Producer, RingBuffer};

use super::Budget;
use crate::block::Block;
use crate::contender::Contender;
use crate::error::Error;
use crate::measure::Metric;
use crate::pattern::ring::{BATCH, consume_batch, produce_batch};
use crate::pattern::steal;
use crate::steps::{Circle, Sizes, for_row};

/// Blocks that a ring has room for.
const RING: usize = 1024;

/// Batches that a thread passes on before it looks at the clock.
const BATCHES: usize = 256 / BATCH;

/// Looks at a full or empty ring before a thread that has a CPU for itself yields it.
const SPINS: usize = 256;

/// A thread that allocates for the next one, frees the blocks of the previous one, or both.
struct Link<'a, A> {
    /// The ring to the thread that frees this one's blocks.
    next: Option<Producer<Block<A>>>,
    /// The ring from the thread whose blocks this one frees.
    previous: Option<Consumer<Block<A>>>,
    circle: Circle<'a>,
    /// Turns without work since the last turn that had some.
    idle: usize,
    /// Turns without work that pass before the thread yields its CPU.
    patience: usize,
}

/// Pairs of threads, one of which allocates and the other frees.
pub(super) fn pairs<A: Contender>(
    a: &A,
    budget: Budget,
    pairs: usize,
    sizes: Sizes,
) -> Result<Vec<Metric>, Error> {
    let steps = for_row(1, sizes);
    let mut links = Vec::new();
    for nth in 0..pairs {
        let (producer, consumer) = RingBuffer::new(RING);
        let circle = || Circle::of_thread(&steps, nth);
        links.push(Link::new(Some(producer), None, circle()));
        links.push(Link::new(None, Some(consumer), circle()));
    }
    pass_on(a, budget, links)
}

/// Threads in a circle, each of which allocates for the next and frees what the previous one
/// allocated.
pub(super) fn ring<A: Contender>(
    a: &A,
    budget: Budget,
    threads: usize,
    sizes: Sizes,
) -> Result<Vec<Metric>, Error> {
    let steps = for_row(1, sizes);
    let (producers, mut consumers): (Vec<_>, Vec<_>) =
        (0..threads).map(|_| RingBuffer::new(RING)).unzip();
    consumers.rotate_right(1);
    let ends = producers.into_iter().zip(consumers).enumerate();
    let links = ends.map(|(nth, (next, previous))| {
        Link::new(Some(next), Some(previous), Circle::of_thread(&steps, nth))
    });
    pass_on(a, budget, links.collect())
}

/// A thread of [`fan_in()`].
enum Member<'a, A> {
    Producer(Link<'a, A>),
    /// The one that frees what all the others allocate.
    Consumer(Vec<Consumer<Block<A>>>),
}

/// Many threads allocate, and one frees: requests of many connections that one thread logs. There
/// are more threads than CPUs on most hosts, so a thread without work yields its CPU at once.
pub(super) fn fan_in<A: Contender>(
    a: &A,
    budget: Budget,
    producers: usize,
    sizes: Sizes,
) -> Result<Vec<Metric>, Error> {
    let steps = for_row(1, sizes);
    let (nexts, rings): (Vec<_>, Vec<_>) = (0..producers).map(|_| RingBuffer::new(RING)).unzip();
    let mut members = vec![Member::Consumer(rings)];
    let links = nexts.into_iter().enumerate();
    members.extend(links.map(|(nth, next)| {
        Member::Producer(Link::new(Some(next), None, Circle::of_thread(&steps, nth)))
    }));
    let turn = |member: &mut Member<A>| match member {
        Member::Producer(link) => link.turn(a),
        Member::Consumer(rings) => {
            let ops = rings.iter_mut().map(|ring| consume_batch(a, ring)).sum();
            if ops == 0 {
                thread::yield_now();
            }
            Ok(ops)
        }
    };
    let end = |member| match member {
        Member::Producer(_) => Ok(()),
        Member::Consumer(rings) => rings.into_iter().try_for_each(|ring| free_rest(a, ring)),
    };
    budget.crew(members, Ok, turn, end)
}

/// Frees the blocks that are left in the ring after `a` has proved them.
fn free_rest<A: Contender>(a: &A, mut ring: Consumer<Block<A>>) -> Result<(), Error> {
    while let Ok(block) = ring.pop() {
        block.prove(a)?;
        block.give(a);
    }
    Ok(())
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
    let end = |link: Link<A>| link.previous.map_or(Ok(()), |ring| free_rest(a, ring));
    budget.crew(links, Ok, |link| link.turn(a), end)
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
        for _ in 0..BATCHES {
            if let Some(next) = &mut self.next {
                ops += produce_batch(a, &mut self.circle, next)?;
            }
            if let Some(previous) = &mut self.previous {
                ops += consume_batch(a, previous);
            }
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
}

/// A thread of [`steal()`] with its queue.
struct Thief<'a, A> {
    nth: usize,
    queue: Worker<Block<A>>,
    circle: Circle<'a>,
}

/// Every other thread puts blocks into its queue and frees half of them itself; the threads between
/// steal the rest.
pub(super) fn steal<A: Contender>(
    a: &A,
    budget: Budget,
    threads: usize,
    sizes: Sizes,
) -> Result<Vec<Metric>, Error> {
    let steps = for_row(1, sizes);
    let thief = |nth| Thief {
        nth,
        queue: Worker::new_fifo(),
        circle: Circle::of_thread(&steps, nth),
    };
    let thieves: Vec<Thief<A>> = (0..threads).map(thief).collect();
    let queues: Vec<_> = thieves.iter().map(|thief| thief.queue.stealer()).collect();
    let turn = |thief: &mut Thief<A>| {
        if thief.nth.is_multiple_of(2) {
            steal::work(a, &mut thief.circle, &thief.queue)
        } else {
            Ok(steal::steal(a, &thief.queue, &queues))
        }
    };
    let end = |thief: Thief<A>| {
        while let Some(block) = thief.queue.pop() {
            block.prove(a)?;
            block.give(a);
        }
        Ok(())
    };
    budget.crew(thieves, Ok, turn, end)
}
