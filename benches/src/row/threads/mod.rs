//! Rows of several threads.

mod crew;
mod handed;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::Instant;

use crew::{crew, pin};
pub(super) use handed::{pairs, ring, steal};

use super::single::{Slot, empty, give_all, replace, toggle};
use super::steps::{self, Circle};
use super::{Budget, throughput};
use crate::block::Block;
use crate::tape::Step;
use crate::{Contender, Error, Metric};

/// Operations between two looks at the clock.
const CHUNK: usize = 1024;

/// Chunks that a thread of Larson's server has.
const CHUNKS: usize = 1000;

/// Replacements in the life of a thread of Larson's server: so many that starting it is a few hundredths of them.
const LIFE: usize = 100 * CHUNKS;

/// Blocks of a thread in [`phases`].
const PHASE: usize = 20_000;

/// Writes to a block of the false-sharing rows.
const WRITES: usize = 100;

/// Blocks that a thread of [`spawn`] allocates.
const FEW: usize = 10;

/// Threads that one of [`spawn`] starts before it waits for the first, so that the CPU has work meanwhile.
const BROOD: usize = 4;

/// Bytes of their stacks: little enough that the C library keeps all of them for the next threads.
const STACK: usize = 128 << 10;

/// Steps of one thread, which starts where its number says.
fn circle(steps: &[Step], nth: usize) -> Circle<'_> {
    Circle::from(steps, nth * 7919)
}

/// Every thread has a working set of its own: [`super::single::mixed`], many times.
pub(super) fn apart<A: Contender>(
    a: &A,
    budget: Budget,
    threads: usize,
    slots: usize,
    sizes: (u32, u32),
) -> Result<Vec<Metric>, Error> {
    let steps = steps::even(slots, sizes);
    let make = |nth| {
        let mut circle = circle(&steps, nth);
        let mut slots = empty::<A, 1>(slots);
        for _ in 0..(2 * slots.len()).div_ceil(CHUNK) {
            toggle(a, circle.next(CHUNK), &mut slots)?;
        }
        Ok((circle, slots))
    };
    crew(
        budget,
        (0..threads).collect(),
        make,
        |(circle, slots)| toggle(a, circle.next(CHUNK), slots),
        |(_, slots)| give_all(a, slots),
    )
}

/// Larson's server: a thread replaces random ones of its chunks, hands all of them to a new thread and ends. The first
/// chunks are the main thread's.
pub(super) fn larson<A: Contender>(
    a: &A,
    budget: Budget,
    threads: usize,
) -> Result<Vec<Metric>, Error> {
    let steps = steps::even(CHUNKS, (8, 1000));
    let lane = |nth| {
        let mut slots = empty(CHUNKS);
        for (slot, step) in slots.iter_mut().zip(&steps) {
            *slot = Some(Block::take(a, step.size as usize, 1)?);
        }
        Ok((circle(&steps, nth), slots))
    };
    let lanes = (0..threads).map(lane).collect::<Result<_, Error>>()?;
    let life = |(circle, slots): &mut (Circle, Vec<Slot<A>>)| {
        let mut ops = 0;
        while ops < 2 * LIFE as u64 {
            ops += replace(a, circle.next(CHUNK), slots)?;
        }
        Ok(ops)
    };
    crew(
        budget,
        lanes,
        Ok,
        |lane| thread::scope(|scope| joined(scope.spawn(|| life(lane)))),
        |(_, slots)| give_all(a, slots),
    )
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// All threads allocate, and when all are done, all free. The first round, which faults the memory in, does not count.
pub(super) fn phases<A: Contender>(
    a: &A,
    budget: Budget,
    threads: usize,
) -> Result<Vec<Metric>, Error> {
    let steps = steps::even(1, (16, 1024));
    let (gate, over) = (Barrier::new(threads), AtomicBool::new(false));
    let (begun, ended) = (OnceLock::new(), OnceLock::new());
    let is_late = || {
        begun
            .get()
            .is_some_and(|begun: &Instant| begun.elapsed() >= budget.0)
    };
    let member = |nth: usize| {
        let mut circle = circle(&steps, nth);
        let mut blocks: Vec<Block<A>> = Vec::with_capacity(2 * PHASE);
        let mut ops = 0;
        let mut result = pin(nth);
        while !over.load(Ordering::Acquire) {
            let sizes = circle.next(PHASE).iter().map(|step| step.size as usize);
            let mut grown = sizes.map(|size| Block::take(a, size, 1));
            result = result.and(grown.try_for_each(|block| {
                blocks.push(block?);
                Ok(())
            }));
            if gate.wait().is_leader() && is_late() {
                over.store(true, Ordering::Release);
            }
            if begun.get().is_some() {
                ops += 2 * blocks.len() as u64;
            }
            blocks.drain(..).for_each(|block| block.give(a));
            gate.wait(); // Nobody looks at the flag before it is set.
            begun.get_or_init(Instant::now);
        }
        ended.get_or_init(Instant::now);
        result.map(|()| ops)
    };
    let ops = thread::scope(|scope| {
        let member = &member;
        let threads: Vec<_> = (0..threads)
            .map(|nth| scope.spawn(move || member(nth)))
            .collect();
        threads.into_iter().map(joined).sum::<Result<u64, Error>>()
    })?;
    let wall = ended
        .get()
        .zip(begun.get())
        .map(|(ended, begun)| *ended - *begun);
    Ok(vec![throughput(
        ops,
        wall.expect("both are set before a thread ends"),
    )])
}

/// Every thread allocates a block of 8 bytes, writes to it again and again and frees it: slow where blocks of two
/// threads are in one cache line. If `passive`, the threads first free blocks that the main thread allocated one
/// after the other.
pub(super) fn false_sharing<A: Contender>(
    a: &A,
    budget: Budget,
    threads: usize,
    passive: bool,
) -> Result<Vec<Metric>, Error> {
    let given = (0..threads)
        .map(|_| passive.then(|| Block::take(a, 8, 1)).transpose())
        .collect::<Result<Vec<Option<Block<A>>>, _>>()?;
    let make = |given: Option<Block<A>>| {
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
    crew(budget, given, make, turn, Ok)
}

/// Threads that start others, which allocate and free a few blocks and end. An operation is one of those calls.
pub(super) fn spawn<A: Contender>(
    a: &A,
    budget: Budget,
    threads: usize,
) -> Result<Vec<Metric>, Error> {
    let short = || {
        let mut blocks: [Option<Block<A>>; FEW] = [const { None }; FEW];
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
    crew(budget, vec![(); threads], Ok, turn, Ok)
}
