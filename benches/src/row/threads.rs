//! Rows of several threads, in which a thread frees what it allocated, or what a thread before it
//! did.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use super::Budget;
use crate::block::{Block, Slot, empty_slots, free_proved};
use crate::contender::Contender;
use crate::error::Error;
use crate::measure::{Metric, throughput};
use crate::pattern::burst::fill;
use crate::pattern::turnover::{replace, toggle};
use crate::steps::{Circle, Sizes, Step, for_row};
use crate::thread::{joined, pin_by_turn};

/// Operations between two looks at the clock.
const CHUNK: usize = 1024;

/// Chunks that a thread of Larson's server has, which is Larson's word for blocks.
const CHUNKS: usize = 1000;

/// Replacements in the life of a thread of Larson's server. To start the thread takes a few
/// hundredths of the time that these take.
const LIFE: usize = 100 * CHUNKS;

/// Blocks of a thread in [`phases`].
const PHASE: usize = 20_000;

/// Writes to a block of the false-sharing rows.
const WRITES: usize = 100;

/// Blocks that a thread of [`spawn`] allocates.
const FEW: usize = 10;

/// Threads that one of [`spawn`] starts before it waits for the first, so that the CPU has work
/// meanwhile.
const BROOD: usize = 4;

/// Bytes of their stacks: little enough that the C library keeps all of them for the next threads.
const STACK: usize = 128 << 10;

/// Every thread has a working set of its own: [`super::single::mixed`], many times.
pub(super) fn apart<A: Contender>(
    a: &A,
    budget: Budget,
    threads: usize,
    slots: usize,
    sizes: Sizes,
) -> Result<Vec<Metric>, Error> {
    let steps = for_row(slots, sizes);
    let make = |nth| {
        let mut circle = Circle::of_thread(&steps, nth);
        let mut slots = empty_slots::<A, 1>(slots);
        for _ in 0..(2 * slots.len()).div_ceil(CHUNK) {
            toggle(a, circle.next(CHUNK).iter(), &mut slots)?;
        }
        Ok((circle, slots))
    };
    let turn = |(circle, slots): &mut (Circle, Vec<Slot<A>>)| {
        let steps = circle.next(CHUNK);
        toggle(a, steps.iter(), slots)?;
        Ok(steps.len() as u64)
    };
    let end = |(_, slots)| free_proved(a, slots);
    budget.crew((0..threads).collect(), make, turn, end)
}

/// Larson's server: a thread replaces random ones of its chunks, hands all of them to a new thread
/// and ends. The main thread allocates the first chunks.
///
/// The workload of that name has threads that start their successors. Here a thread of the crew
/// starts each and waits for it, because the clock ends the row.
pub(super) fn larson<A: Contender>(
    a: &A,
    budget: Budget,
    threads: usize,
) -> Result<Vec<Metric>, Error> {
    let steps = for_row(CHUNKS, Sizes::constant(8, 1000));
    let lane = |nth| {
        let mut slots = empty_slots(CHUNKS);
        fill(a, steps.iter(), &mut slots)?;
        Ok((Circle::of_thread(&steps, nth), slots))
    };
    let lanes = (0..threads).map(lane).collect::<Result<_, Error>>()?;
    let life = |(circle, slots): &mut (Circle, Vec<Slot<A>>)| {
        let mut ops = 0;
        while ops < 2 * LIFE as u64 {
            let steps = circle.next(CHUNK);
            replace(a, steps.iter(), slots)?;
            ops += 2 * steps.len() as u64;
        }
        Ok(ops)
    };
    budget.crew(
        lanes,
        Ok,
        |lane| thread::scope(|scope| joined(scope.spawn(|| life(lane)))),
        |(_, slots)| free_proved(a, slots),
    )
}

/// The threads of [`phases`].
struct Phases<'a, A> {
    a: &'a A,
    steps: &'a [Step],
    limit: Duration,
    gate: Barrier,
    over: AtomicBool,
    /// The end of the first round, which does not count.
    begun: OnceLock<Instant>,
    ended: OnceLock<Instant>,
}

/// All threads allocate, and when all are done, all free. The first round, which faults the memory
/// in, does not count.
pub(super) fn phases<A: Contender>(
    a: &A,
    budget: Budget,
    threads: usize,
    sizes: Sizes,
) -> Result<Vec<Metric>, Error> {
    let phases = Phases {
        a,
        steps: &for_row(1, sizes),
        limit: budget.time()?,
        gate: Barrier::new(threads),
        over: AtomicBool::new(false),
        begun: OnceLock::new(),
        ended: OnceLock::new(),
    };
    let ops = thread::scope(|scope| {
        let phases = &phases;
        let threads: Vec<_> = (0..threads)
            .map(|nth| scope.spawn(move || phases.member(nth)))
            .collect();
        threads.into_iter().map(joined).sum::<Result<u64, Error>>()
    })?;
    let bounds = phases.ended.get().zip(phases.begun.get());
    let wall = bounds.map(|(ended, begun)| *ended - *begun);
    Ok(vec![throughput(
        ops,
        wall.expect("both are set before a thread ends"),
    )])
}

impl<A: Contender> Phases<'_, A> {
    /// One thread's rounds; returns its operations.
    fn member(&self, nth: usize) -> Result<u64, Error> {
        let mut circle = Circle::of_thread(self.steps, nth);
        let mut blocks: Vec<Block<A>> = Vec::with_capacity(2 * PHASE);
        let mut ops = 0;
        let mut result = pin_by_turn(nth);
        while !self.over.load(Ordering::Acquire) {
            let sizes = circle.next(PHASE).iter().map(|step| step.size as usize);
            let mut grown = sizes.map(|size| Block::take(self.a, size, 1));
            result = result.and(grown.try_for_each(|block| {
                blocks.push(block?);
                Ok(())
            }));
            if self.gate.wait().is_leader() && self.is_late() {
                self.over.store(true, Ordering::Release);
            }
            if self.begun.get().is_some() {
                ops += 2 * blocks.len() as u64;
            }
            blocks.drain(..).for_each(|block| block.give(self.a));
            self.gate.wait(); // No thread looks at the flag before it is set.
            self.begun.get_or_init(Instant::now);
        }
        self.ended.get_or_init(Instant::now);
        result.map(|()| ops)
    }

    fn is_late(&self) -> bool {
        let begun = self.begun.get();
        begun.is_some_and(|begun| begun.elapsed() >= self.limit)
    }
}

/// Every thread allocates a block of 8 bytes, writes to it again and again and frees it: slow where
/// blocks of two threads are in one cache line. If `passive`, the threads first free blocks that
/// the main thread allocated one after the other.
pub(super) fn false_sharing<A: Contender>(
    a: &A,
    budget: Budget,
    threads: usize,
    passive: bool,
) -> Result<Vec<Metric>, Error> {
    let given = (0..threads)
        .map(|_| passive.then(|| Block::take(a, 8, 1)).transpose())
        .collect::<Result<Vec<Slot<A>>, _>>()?;
    let make = |given: Slot<A>| {
        if let Some(block) = given {
            block.prove(a)?;
            block.give(a);
        }
        Ok(())
    };
    let turn = |(): &mut ()| {
        for _ in 0..CHUNK {
            let mut block = Block::<A>::take(a, 8, 1)?;
            block.hammer(1, WRITES);
            block.give(a);
        }
        Ok(2 * CHUNK as u64)
    };
    budget.crew(given, make, turn, Ok)
}

/// Threads that start others, which allocate and free a few blocks and end. An operation is one of
/// those allocations or deallocations.
pub(super) fn spawn<A: Contender>(
    a: &A,
    budget: Budget,
    threads: usize,
) -> Result<Vec<Metric>, Error> {
    let short = || {
        let mut blocks: [Slot<A>; FEW] = [const { None }; FEW];
        for (nth, slot) in blocks.iter_mut().enumerate() {
            *slot = Some(Block::take(a, 16 << (nth % 6), 1)?);
        }
        blocks.into_iter().flatten().for_each(|block| block.give(a));
        Ok(2 * FEW as u64)
    };
    let turn = |(): &mut ()| {
        thread::scope(|scope| {
            let start = |_| {
                thread::Builder::new()
                    .stack_size(STACK)
                    .spawn_scoped(scope, short)
            };
            let brood: Vec<_> = (0..BROOD)
                .map(start)
                .collect::<Result<_, _>>()
                .map_err(|error| Error::Setup(format!("cannot start a thread: {error}")))?;
            brood.into_iter().map(joined).sum::<Result<u64, Error>>()
        })
    };
    budget.crew(vec![(); threads], Ok, turn, Ok)
}
