//! One thread allocates and writes blocks, another reads and frees them; between them is a bounded
//! ring that needs no lock. A thread that finds the ring full or empty spins briefly, then yields
//! its CPU. Before the measured part some blocks go through with every one of them proved by the
//! consumer.

use std::sync::Barrier;
use std::thread;

use rtrb::RingBuffer;

use super::{Outcome, Params};
use crate::block::Block;
use crate::contender::Contender;
use crate::error::Error;
use crate::measure::{Meter, Reading};
use crate::pattern::ring::{consume_each, produce_each};
use crate::steps::Steps;
use crate::thread::joined;

/// Blocks that go through the ring under proof.
const PROVED: u64 = 4096;

pub(super) fn run<A: Contender>(a: &A, params: &Params) -> Result<Outcome, Error> {
    let steps = Steps::new(params.seed, params.slots, params.sizes);
    let blocks = params.ops.div_ceil(2);
    pass(a, params, &steps, PROVED.min(blocks), |block| {
        block.prove(a)
    })?;
    let reading = pass(a, params, &steps, blocks, |_| Ok(()))?;
    Outcome::new(2 * blocks, reading)
}

/// Sends `count` blocks through a ring; the consumer calls `check` with each.
fn pass<A: Contender>(
    a: &A,
    params: &Params,
    steps: &Steps,
    count: u64,
    check: impl Fn(&Block<A>) -> Result<(), Error> + Send + Sync,
) -> Result<Reading, Error> {
    let (producer, consumer) = RingBuffer::new(params.slots);
    let start = Barrier::new(2);
    thread::scope(|scope| {
        let freeing = scope.spawn(|| {
            let pinned = params.pin(1);
            start.wait();
            pinned.and_then(|()| consume_each(a, consumer, count, check))
        });
        start.wait();
        let meter = Meter::start();
        let produced = produce_each(a, steps.iter_from(0, count), producer);
        // A consumer that failed dropped its end, which also ends the producer: its error is the
        // cause, so it comes first.
        joined(freeing)?;
        produced?;
        Ok(meter.stop())
    })
}
