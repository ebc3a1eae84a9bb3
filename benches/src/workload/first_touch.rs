//! Blocks of mixed sizes, each written in every page and none freed before the end: the cost of a
//! program's first pass over its memory. Each allocate-and-touch is timed alone.
//!
//! Sizes are spread evenly over their logarithm: many small blocks, most bytes in large ones.

use std::time::{Duration, Instant};

use crate::block::Block;
use crate::meter::{Meter, Stopwatch};
use crate::tape::Random;
use crate::{Contender, Error, Outcome, Params};

pub(super) fn run<A: Contender>(a: &A, params: &Params, warm: bool) -> Result<Outcome, Error> {
    let sizes = mixed_sizes(params);
    let mut blocks: Vec<Option<Block<A>>> = Vec::new();
    // Written, not only reserved, so that the measured part faults on no page of the harness.
    blocks.resize_with(sizes.len(), || None);
    let mut stopwatch = Stopwatch::new(sizes.len());
    let preparation = if warm { prepare(a, params)? } else { None };

    let meter = Meter::start();
    for (slot, &size) in blocks.iter_mut().zip(&sizes) {
        let block = stopwatch.time(|| {
            let mut block = Block::take(a, size as usize, 1)?;
            block.touch_pages(1);
            Ok(block)
        })?;
        *slot = Some(block);
    }
    let reading = meter.stop();

    let mut outcome =
        Outcome::new(sizes.len() as u64, reading)?.with_latency(stopwatch.histogram());
    if let Some(preparation) = preparation {
        outcome = outcome.with_preparation(preparation);
    }
    blocks
        .iter()
        .flatten()
        .try_for_each(|block| block.prove(a))?;
    blocks.into_iter().flatten().for_each(|block| block.give(a));
    Ok(outcome)
}

/// Has the contender prepare the bytes of the run; returns the time that took, or nothing if it
/// cannot prepare.
fn prepare<A: Contender>(a: &A, params: &Params) -> Result<Option<Duration>, Error> {
    let start = Instant::now();
    let prepared = a.warm_up(params.bytes)?;
    Ok(prepared.then(|| start.elapsed()))
}

/// Sizes that add up to `params.bytes` or just above.
fn mixed_sizes(params: &Params) -> Vec<u32> {
    let mut random = Random::new(params.seed);
    let (min, max): (usize, usize) = params.sizes.into();
    let (low, high) = ((min as f64).ln(), (max as f64 + 1.0).ln());
    let mut sizes = Vec::new();
    let mut sum = 0;
    while sum < params.bytes {
        let size = (low + (high - low) * random.unit()).exp() as usize;
        let size = size.clamp(min, max);
        sum += size;
        sizes.push(size as u32);
    }
    sizes
}
