//! The classic random mix: each operation picks a random slot and frees its block, or allocates
//! one if the slot is empty, so half of the slots hold a block on average. After the measured
//! part an eighth of the operations run again with each allocate-and-touch timed alone; the clock
//! would weigh on the throughput.

use crate::block::Block;
use crate::latency::Stopwatch;
use crate::meter::Meter;
use crate::tape::Tape;
use crate::{Contender, Error, Outcome, Params};

/// One in so many operations is run again, timed alone.
const TIMED: u64 = 8;

/// Operations of a run whose measured part has `ops`, those that fill the slots not counted.
pub fn operations(ops: u64) -> u64 {
    ops + ops / TIMED
}

pub(super) fn run<A: Contender>(a: &A, params: &Params) -> Result<Outcome, Error> {
    let tape = Tape::new(params);
    let mut slots: Vec<Option<Block<A>>> = Vec::new();
    slots.resize_with(params.slots, || None);
    // Filled to its usual half first: the measured part is the steady state.
    let fill = 2 * params.slots as u64;
    turn(a, &tape, 0, fill, &mut slots)?;

    let meter = Meter::start();
    turn(a, &tape, fill, params.ops, &mut slots)?;
    let reading = meter.stop();

    slots
        .iter()
        .flatten()
        .try_for_each(|block| block.prove(a))?;
    let mut stopwatch = Stopwatch::new("alloc_touch")?;
    for step in tape.steps(fill + params.ops, params.ops / TIMED) {
        let slot = &mut slots[step.slot as usize];
        match slot.take() {
            Some(block) => block.give(a),
            None => {
                *slot = Some(stopwatch.time(|| Block::take(a, step.size as usize, 1))?);
            }
        }
    }
    let outcome = Outcome::new(params.ops, reading)?.with_latency(stopwatch.latency());
    slots.into_iter().flatten().for_each(|block| block.give(a));
    Ok(outcome)
}

/// `count` operations from step `from` of the tape.
#[inline(never)]
fn turn<A: Contender>(
    a: &A,
    tape: &Tape,
    from: u64,
    count: u64,
    slots: &mut [Option<Block<A>>],
) -> Result<(), Error> {
    for step in tape.steps(from, count) {
        let slot = &mut slots[step.slot as usize];
        match slot.take() {
            Some(block) => block.give(a),
            None => *slot = Some(Block::take(a, step.size as usize, 1)?),
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(unsafe_code, reason = "an allocator that counts")]
mod tests {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::ptr::NonNull;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;
    use crate::Workload;

    struct Counting(AtomicU64);

    // SAFETY: System's blocks.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            self.0.fetch_add(1, Relaxed);
            // SAFETY: the caller's promise.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            self.0.fetch_add(1, Relaxed);
            // SAFETY: the caller's promise.
            unsafe { System.dealloc(block, layout) }
        }
    }

    impl Contender for Counting {
        const NAME: &'static str = "counting";

        fn owns(&self, _block: NonNull<u8>, _size: usize) -> bool {
            true
        }
    }

    #[test]
    fn the_timed_operations_count_too() {
        let calls = |ops: u64| {
            let allocator = Counting(AtomicU64::new(0));
            let mut params = Workload::RandomMixed.defaults();
            (params.ops, params.slots) = (ops, 1);
            run(&allocator, &params).unwrap();
            allocator.0.into_inner()
        };
        let more = calls(16_000) - calls(8_000);
        // The last block may be freed after the operations.
        assert!(
            more.abs_diff(operations(16_000) - operations(8_000)) <= 1,
            "{more}"
        );
    }
}
