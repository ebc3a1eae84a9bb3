//! Bursts: allocate `slots` blocks, then free them in the same order, and again.

use crate::block::Block;
use crate::meter::Meter;
use crate::tape::Tape;
use crate::{Contender, Error, Outcome, Params};

pub(super) fn run<A: Contender>(a: &A, params: &Params) -> Result<Outcome, Error> {
    let tape = Tape::new(params);
    let mut blocks: Vec<Option<Block<A>>> = Vec::new();
    blocks.resize_with(params.slots, || None);
    fill(a, &tape, &mut blocks)?;
    blocks
        .iter()
        .flatten()
        .try_for_each(|block| block.prove(a))?;
    empty(a, &mut blocks);

    let bursts = params.ops.div_ceil(2 * params.slots as u64);
    let meter = Meter::start();
    for _ in 0..bursts {
        fill(a, &tape, &mut blocks)?;
        empty(a, &mut blocks);
    }
    let reading = meter.stop();
    Outcome::new(bursts * 2 * params.slots as u64, reading)
}

#[inline(never)]
fn fill<A: Contender>(a: &A, tape: &Tape, blocks: &mut [Option<Block<A>>]) -> Result<(), Error> {
    let count = blocks.len() as u64;
    for (slot, step) in blocks.iter_mut().zip(tape.steps(0, count)) {
        *slot = Some(Block::take(a, step.size as usize, 1)?);
    }
    Ok(())
}

#[inline(never)]
fn empty<A: Contender>(a: &A, blocks: &mut [Option<Block<A>>]) {
    for block in blocks.iter_mut().filter_map(Option::take) {
        block.give(a);
    }
}
