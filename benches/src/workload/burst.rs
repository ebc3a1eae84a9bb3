//! Bursts: allocate `slots` blocks, free them in the same order, and again.

use super::{Outcome, Params};
use crate::block::{empty_slots, prove_all};
use crate::contender::Contender;
use crate::error::Error;
use crate::measure::Meter;
use crate::pattern::burst::{empty, fill};
use crate::steps::Steps;

pub(super) fn run<A: Contender>(a: &A, params: &Params) -> Result<Outcome, Error> {
    let steps = Steps::new(params.seed, params.slots, params.sizes);
    let count = params.slots as u64;
    let mut slots = empty_slots::<A, 1>(params.slots);
    fill(a, steps.iter_from(0, count), &mut slots)?;
    prove_all(a, &slots)?;
    empty(a, &mut slots);

    let bursts = params.ops.div_ceil(2 * count);
    let meter = Meter::start();
    for _ in 0..bursts {
        fill(a, steps.iter_from(0, count), &mut slots)?;
        empty(a, &mut slots);
    }
    let reading = meter.stop();
    Outcome::new(bursts * 2 * count, reading)
}
