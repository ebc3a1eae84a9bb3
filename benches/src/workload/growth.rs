//! A heap that grows to `bytes`: blocks of mixed sizes, each written in every page, each
//! allocate-and-touch timed alone, none freed before the end. Sizes are spread evenly over their
//! logarithm: many small blocks, most bytes in large ones.
//!
//! - [`first_touch`] goes as fast as it can: the cost of a program's first pass over its memory.
//! - [`growth`] keeps a steady pace in bytes a second, as a service whose live heap grows.

use std::time::Duration;

use super::{Outcome, Params, prepare};
use crate::block::{Slot, empty_slots, free_proved};
use crate::contender::Contender;
use crate::error::Error;
use crate::measure::{Idler, Meter, Stopwatch, ThreadUsage};
use crate::pattern::growth::{grow, grow_at_pace};
use crate::steps::Random;

/// Everything that a run makes before its measured part.
struct Prepared<A> {
    sizes: Vec<u32>,
    slots: Vec<Slot<A>>,
    stopwatch: Stopwatch,
}

impl<A: Contender> Prepared<A> {
    fn new(params: &Params) -> Result<Self, Error> {
        let sizes = Random::new(params.seed).log_sizes(params.sizes, params.bytes);
        let slots = empty_slots(sizes.len());
        let stopwatch = Stopwatch::new("alloc_touch")?;
        Ok(Self {
            sizes,
            slots,
            stopwatch,
        })
    }
}

/// Bytes of memory of which a part is in use: the last span of each class, and what the allocator
/// takes for its thread ahead of the blocks.
const BEGUN: usize = 16 << 20;

/// The time that the contender took to make the memory of blocks of these sizes ready, if it was
/// asked to and can.
fn warmed<A: Contender>(a: &A, sizes: &[u32], warm: bool) -> Result<Option<Duration>, Error> {
    if !warm {
        return Ok(None);
    }
    let bytes: usize = sizes.iter().map(|&size| a.taken(size as usize)).sum();
    prepare(a, bytes + BEGUN)
}

pub(super) fn first_touch<A: Contender>(
    a: &A,
    params: &Params,
    warm: bool,
) -> Result<Outcome, Error> {
    let Prepared {
        sizes,
        mut slots,
        mut stopwatch,
    } = Prepared::new(params)?;
    let preparation = warmed(a, &sizes, warm)?;

    let meter = Meter::start();
    grow(a, &sizes, &mut slots, &mut stopwatch, |_| ())?;
    let reading = meter.stop();

    let outcome = Outcome::new(sizes.len() as u64, reading)?
        .with_latency(stopwatch.latency())
        .with_preparation(preparation)
        .with_touched(sizes.iter().map(|&size| size as usize).sum());
    free_proved(a, slots)?;
    Ok(outcome)
}

pub(super) fn growth<A: Contender>(a: &A, params: &Params, warm: bool) -> Result<Outcome, Error> {
    let Prepared {
        sizes,
        mut slots,
        mut stopwatch,
    } = Prepared::new(params)?;
    let mut idler = Idler::new(stopwatch.tsc());
    let preparation = warmed(a, &sizes, warm)?;

    let before = ThreadUsage::now();
    let meter = Meter::start();
    let rate = params.growth_rate;
    grow_at_pace(a, &sizes, &mut slots, &mut stopwatch, &mut idler, rate)?;
    let reading = meter.stop();
    let usage = before.until_now();

    let outcome = Outcome::new(sizes.len() as u64, reading)?
        .with_latency(stopwatch.latency())
        .with_latency(idler.latency())
        .with_thread(usage)
        .with_preparation(preparation);
    free_proved(a, slots)?;
    Ok(outcome)
}
