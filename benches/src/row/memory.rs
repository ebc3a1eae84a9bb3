//! Rows about memory: the most that there was ([`PEAK`]), and what there is after each phase.

use std::sync::Barrier;
use std::thread;

use super::single::Slot;
use super::{PEAK, bytes, rss};
use crate::block::Block;
use crate::tape::Random;
use crate::{Contender, Error, Metric};

/// Bytes of each of the two phases that allocate.
const PHASE: usize = 64 << 20;

/// What a program allocates that does next to nothing.
const FEW: usize = 200;

/// Threads of [`idle`].
const THREADS: usize = 100;

/// Allocates blocks of 16 to 256 bytes, frees nine of ten at random, and allocates blocks of 512 to 8192 bytes: what
/// the first left free is in pieces.
pub(super) fn fragments<A: Contender>(a: &A) -> Result<Vec<Metric>, Error> {
    let mut random = Random::new(42);
    let mut slots: Vec<Slot<A>> = Vec::with_capacity(PHASE / 16);
    fill(a, &mut slots, &mut random, (16, 256))?;
    let grown = rss::now()?;
    for slot in &mut slots {
        if random.below(10) > 0
            && let Some(block) = slot.take()
        {
            block.give(a);
        }
    }
    let freed = rss::now()?;
    fill(a, &mut slots, &mut random, (512, 8192))?;
    let metrics = vec![
        bytes(PEAK, rss::peak()?),
        bytes("rss_after_small", grown),
        bytes("rss_after_free", freed),
        bytes("rss_after_large", rss::now()?),
    ];
    super::single::give_all(a, slots)?;
    Ok(metrics)
}

/// Allocates a phase's bytes and writes all of them.
fn fill<A: Contender>(
    a: &A,
    slots: &mut Vec<Slot<A>>,
    random: &mut Random,
    (min, max): (u64, u64),
) -> Result<(), Error> {
    let mut left = PHASE as u64;
    while left > 0 {
        let size = min + random.below(max - min + 1);
        let mut block = Block::take(a, size as usize, 1)?;
        block.touch_pages(1);
        slots.push(Some(block));
        left = left.saturating_sub(size);
    }
    Ok(())
}

/// A program that allocates a few small blocks.
pub(super) fn floor<A: Contender>(a: &A) -> Result<Vec<Metric>, Error> {
    let blocks = few(a)?;
    let metrics = vec![bytes(PEAK, rss::peak()?)];
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
        let peak = rss::peak();
        measured.wait();
        for thread in threads {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(vec![bytes(PEAK, peak?)])
    })
}

fn few<A: Contender>(a: &A) -> Result<Vec<Block<A>>, Error> {
    (0..FEW)
        .map(|nth| Block::take(a, 16 + nth * 5 % 1000, 1))
        .collect()
}
