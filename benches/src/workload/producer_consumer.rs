//! One thread allocates and writes blocks, another reads and frees them; between them a bounded
//! ring that needs no lock. Whoever finds the ring full or empty spins briefly, then yields.
//! Before the measured part some blocks go through with every one of them proved by the consumer.

use std::sync::Barrier;
use std::thread;

use rtrb::{Consumer, Producer, PushError, RingBuffer};

use super::wait;
use crate::block::Block;
use crate::meter::{Meter, Reading};
use crate::tape::Tape;
use crate::{Contender, Error, Outcome, Params};

/// Blocks that go through the ring under proof.
const PROVED: u64 = 4096;

pub(super) fn run<A: Contender>(a: &A, params: &Params) -> Result<Outcome, Error> {
    let tape = Tape::new(params);
    let blocks = params.ops.div_ceil(2);
    pass(a, params, &tape, PROVED.min(blocks), |block| block.prove(a))?;
    let reading = pass(a, params, &tape, blocks, |_| Ok(()))?;
    Outcome::new(2 * blocks, reading)
}

/// Sends `count` blocks through a ring; the consumer has each one looked at by `check`.
fn pass<A: Contender>(
    a: &A,
    params: &Params,
    tape: &Tape,
    count: u64,
    check: impl Fn(&Block<A>) -> Result<(), Error> + Send + Sync,
) -> Result<Reading, Error> {
    let (producer, consumer) = RingBuffer::new(params.slots);
    let start = Barrier::new(2);
    thread::scope(|scope| {
        let freeing = scope.spawn(|| {
            let pinned = params.pin(1);
            start.wait();
            pinned.and_then(|()| consume(a, consumer, count, check))
        });
        start.wait();
        let meter = Meter::start();
        let produced = produce(a, tape, producer, count);
        // A consumer that failed dropped its end, which also ends the producer: its error is the
        // cause, so it comes first.
        freeing
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        produced?;
        Ok(meter.stop())
    })
}

#[inline(never)]
fn produce<A: Contender>(
    a: &A,
    tape: &Tape,
    mut ring: Producer<Block<A>>,
    count: u64,
) -> Result<(), Error> {
    for step in tape.steps(0, count) {
        let mut block = Block::take(a, step.size as usize, 1)?;
        let mut tries = 0;
        while let Err(PushError::Full(back)) = ring.push(block) {
            if ring.is_abandoned() {
                return Err(Error::Setup("the consumer ended early".into()));
            }
            block = back;
            wait(&mut tries);
        }
    }
    Ok(())
}

#[inline(never)]
fn consume<A: Contender>(
    a: &A,
    mut ring: Consumer<Block<A>>,
    count: u64,
    check: impl Fn(&Block<A>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut sum = 0u64;
    for _ in 0..count {
        let mut tries = 0;
        let block = loop {
            match ring.pop() {
                Ok(block) => break block,
                // The producer may have pushed its last block between the two looks.
                Err(_) if ring.is_abandoned() && ring.is_empty() => {
                    return Ok(());
                }
                Err(_) => wait(&mut tries),
            }
        };
        check(&block)?;
        sum += u64::from(block.mark());
        block.give(a);
    }
    debug_assert_eq!(sum, count);
    Ok(())
}
