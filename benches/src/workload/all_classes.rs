//! Every size in use by every thread at once: each thread allocates `slots` blocks of each size up
//! to the largest, with about four sizes to a doubling, and all threads hold their blocks together.
//! The workload shows how much memory it takes to serve many size classes to many threads.

use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;

use super::{Outcome, Params};
use crate::block::Block;
use crate::contender::Contender;
use crate::error::Error;
use crate::measure::Meter;

pub(super) fn run<A: Contender>(a: &A, params: &Params) -> Result<Outcome, Error> {
    let all_hold = Barrier::new(params.threads);
    let failed = Mutex::new(None);
    let fail = |error| *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    let meter = Meter::start();
    thread::scope(|scope| {
        for nth in 0..params.threads {
            let (all_hold, fail) = (&all_hold, &fail);
            scope.spawn(move || {
                let held = params.pin(nth).and_then(|()| hold(a, params));
                all_hold.wait();
                match held {
                    Ok(blocks) => blocks.into_iter().for_each(|block| block.give(a)),
                    Err(error) => fail(error),
                }
            });
        }
    });
    let reading = meter.stop();
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let blocks = params.sizes.ladder().count() * params.slots * params.threads;
    Outcome::new(2 * blocks as u64, reading)
}

/// Allocates a thread's blocks and has the contender prove them.
fn hold<A: Contender>(a: &A, params: &Params) -> Result<Vec<Block<A>>, Error> {
    let mut blocks = Vec::with_capacity(params.sizes.ladder().count() * params.slots);
    for size in params.sizes.ladder() {
        for _ in 0..params.slots {
            blocks.push(Block::take(a, size, 1)?);
        }
    }
    blocks.iter().try_for_each(|block| block.prove(a))?;
    Ok(blocks)
}
