//! Blocks of mixed sizes, each written in every page and none freed before the end: the cost of a
//! program's first pass over its memory. Each allocate-and-touch is timed alone.
//!
//! Sizes are spread evenly over their logarithm: many small blocks, most bytes in large ones.

use super::prepare;
use crate::block::Block;
use crate::latency::Stopwatch;
use crate::meter::Meter;
use crate::tape::mixed_sizes;
use crate::{Contender, Error, Outcome, Params};

pub(super) fn run<A: Contender>(a: &A, params: &Params, warm: bool) -> Result<Outcome, Error> {
    let sizes = mixed_sizes(params);
    let mut blocks: Vec<Option<Block<A>>> = Vec::new();
    // Written, not only reserved, so that the measured part faults on no page of the harness.
    blocks.resize_with(sizes.len(), || None);
    let mut stopwatch = Stopwatch::new("alloc_touch")?;
    let preparation = if warm {
        prepare(a, params.bytes)?
    } else {
        None
    };

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

    let outcome = Outcome::new(sizes.len() as u64, reading)?
        .with_latency(stopwatch.latency())
        .with_preparation(preparation)
        .with_touched(sizes.iter().map(|&size| size as usize).sum());
    blocks
        .iter()
        .flatten()
        .try_for_each(|block| block.prove(a))?;
    blocks.into_iter().flatten().for_each(|block| block.give(a));
    Ok(outcome)
}
