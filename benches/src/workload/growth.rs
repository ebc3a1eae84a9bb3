//! A service whose live heap grows: blocks of mixed sizes at a steady pace in bytes a second, each
//! written in every page, each allocate-and-touch timed alone, none freed before the end. Whoever is
//! behind the pace goes on without a pause until it has caught up.

use super::prepare;
use crate::block::Block;
use crate::latency::{Idler, Stopwatch};
use crate::meter::{Meter, ThreadUsage};
use crate::tape::mixed_sizes;
use crate::{Contender, Error, Outcome, Params};

pub(super) fn run<A: Contender>(a: &A, params: &Params, warm: bool) -> Result<Outcome, Error> {
    let sizes = mixed_sizes(params);
    let mut blocks: Vec<Option<Block<A>>> = Vec::new();
    // Written, not only reserved, so that the measured part faults on no page of the harness.
    blocks.resize_with(sizes.len(), || None);
    let mut stopwatch = Stopwatch::new("alloc_touch")?;
    let tsc = stopwatch.tsc();
    let mut idler = Idler::new(tsc);
    let ticks_a_byte = match params.growth_rate {
        0 => 0.0,
        rate => tsc.ticks(1e9 / rate as f64),
    };
    let preparation = if warm {
        prepare(a, params.bytes)?
    } else {
        None
    };

    let before = ThreadUsage::now();
    let meter = Meter::start();
    let start = tsc.start();
    let mut out = 0.0;
    for (slot, &size) in blocks.iter_mut().zip(&sizes) {
        idler.wait_until(start + (out * ticks_a_byte) as u64);
        let block = stopwatch.time(|| {
            let mut block = Block::take(a, size as usize, 1)?;
            block.touch_pages(1);
            Ok(block)
        })?;
        *slot = Some(block);
        out += f64::from(size);
    }
    let reading = meter.stop();
    let usage = before.until_now();

    let outcome = Outcome::new(sizes.len() as u64, reading)?
        .with_latency(stopwatch.latency())
        .with_latency(idler.latency())
        .with_thread(usage)
        .with_preparation(preparation);
    blocks
        .iter()
        .flatten()
        .try_for_each(|block| block.prove(a))?;
    blocks.into_iter().flatten().for_each(|block| block.give(a));
    Ok(outcome)
}
