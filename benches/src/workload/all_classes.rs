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
use crate::steps::Sizes;

/// Sizes from the smallest to the largest: in steps of an eighth to a quarter.
pub(super) fn sizes(range: Sizes) -> impl Iterator<Item = usize> {
    let next = |&size: &usize| Some(size + ((size + 1).next_power_of_two() / 8).max(16));
    std::iter::successors(Some(range.min()), next).take_while(move |&size| size <= range.max())
}

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
    let blocks = sizes(params.sizes).count() * params.slots * params.threads;
    Outcome::new(2 * blocks as u64, reading)
}

/// Allocates a thread's blocks and has the contender prove them.
fn hold<A: Contender>(a: &A, params: &Params) -> Result<Vec<Block<A>>, Error> {
    let mut blocks = Vec::with_capacity(sizes(params.sizes).count() * params.slots);
    for size in sizes(params.sizes) {
        for _ in 0..params.slots {
            blocks.push(Block::take(a, size, 1)?);
        }
    }
    blocks.iter().try_for_each(|block| block.prove(a))?;
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_meet_every_class() {
        let range = Sizes::new(16, 256 << 10).unwrap();
        assert_eq!(sizes(range).count(), 52);
        assert_eq!(
            sizes(range).take(13).collect::<Vec<_>>(),
            [16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320]
        );
        assert_eq!(sizes(range).last(), Some(256 << 10));
    }
}
