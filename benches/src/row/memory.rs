//! Rows about memory: the most that the process had ([`PEAK`]), and its memory after each phase.

use std::sync::Barrier;
use std::thread;

use crate::block::{Block, Slot, free_proved};
use crate::contender::Contender;
use crate::error::Error;
use crate::measure::{Metric, PEAK, bytes, peak_memory, present_memory};
use crate::steps::{Random, SEED, Sizes};
use crate::thread::joined;

/// Bytes of each of the two phases of [`fragments`] that allocate.
const PHASE: u64 = 64 << 20;

/// Sizes of the blocks in the first of these phases.
const SMALL: Sizes = Sizes::constant(16, 256);

/// Sizes of the blocks in the second of these phases.
const LARGE: Sizes = Sizes::constant(512, 8192);

/// Blocks of a program that allocates next to nothing.
const FEW: usize = 200;

/// Threads of [`idle`].
const THREADS: usize = 100;

/// Allocates small blocks, frees nine of ten at random, and allocates large blocks: the memory that
/// the small blocks left free is in pieces.
pub(super) fn fragments<A: Contender>(a: &A) -> Result<Vec<Metric>, Error> {
    let mut random = Random::new(SEED);
    let mut slots: Vec<Slot<A>> = Vec::with_capacity(PHASE as usize / 16);
    add(a, &mut slots, &mut random, SMALL)?;
    let grown = present_memory()?;
    for slot in &mut slots {
        if random.below(10) > 0
            && let Some(block) = slot.take()
        {
            block.give(a);
        }
    }
    let freed = present_memory()?;
    add(a, &mut slots, &mut random, LARGE)?;
    let metrics = vec![
        bytes(PEAK, peak_memory()?),
        bytes("rss_after_small", grown),
        bytes("rss_after_free", freed),
        bytes("rss_after_large", present_memory()?),
    ];
    free_proved(a, slots)?;
    Ok(metrics)
}

/// Adds blocks until they have a phase's bytes, and writes every page of them.
fn add<A: Contender>(
    a: &A,
    slots: &mut Vec<Slot<A>>,
    random: &mut Random,
    sizes: Sizes,
) -> Result<(), Error> {
    let mut left = PHASE;
    while left > 0 {
        let size = random.even_size(sizes);
        let mut block = Block::take(a, size as usize, 1)?;
        block.touch_pages(1);
        slots.push(Some(block));
        left = left.saturating_sub(size.into());
    }
    Ok(())
}

/// A program that allocates a few small blocks.
pub(super) fn floor<A: Contender>(a: &A) -> Result<Vec<Metric>, Error> {
    let blocks = few(a)?;
    let metrics = vec![bytes(PEAK, peak_memory()?)];
    blocks.into_iter().for_each(|block| block.give(a));
    Ok(metrics)
}

/// A hundred threads that have each allocated and freed a few small blocks, and wait.
pub(super) fn idle<A: Contender>(a: &A) -> Result<Vec<Metric>, Error> {
    let (ready, measured) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
    let idle = || {
        let result = few(a).map(|blocks| blocks.into_iter().for_each(|block| block.give(a)));
        ready.wait();
        measured.wait();
        result
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(idle)).collect();
        ready.wait();
        let peak = peak_memory();
        measured.wait();
        threads.into_iter().try_for_each(joined)?;
        Ok(vec![bytes(PEAK, peak?)])
    })
}

/// A few blocks of 16 to 1011 bytes.
fn few<A: Contender>(a: &A) -> Result<Vec<Block<A>>, Error> {
    (0..FEW)
        .map(|nth| Block::take(a, 16 + nth * 5 % 1000, 1))
        .collect()
}
