//! The classic random mix: each operation picks a random slot and frees its block, or allocates
//! one if the slot is empty, so half of the slots hold a block on average. After the measured
//! part an eighth of the operations run again with each allocate-and-touch timed alone; the clock
//! would weigh on the throughput.

use super::{Outcome, Params};
use crate::block::{Block, empty_slots, prove_all};
use crate::contender::Contender;
use crate::error::Error;
use crate::measure::{Meter, Stopwatch};
use crate::pattern::turnover::{toggle, toggle_with};
use crate::steps::Steps;

/// The operations of the measured part are this many times those that run again, timed alone.
const TIMED: u64 = 8;

/// The operations of a run whose measured part has `ops`. The operations that fill the slots do not
/// count.
pub fn operations(ops: u64) -> u64 {
    ops + ops / TIMED
}

pub(super) fn run<A: Contender>(a: &A, params: &Params) -> Result<Outcome, Error> {
    let steps = Steps::new(params.seed, params.slots, params.sizes);
    let mut slots = empty_slots::<A, 1>(params.slots);
    // Filled to its usual half first: the measured part is the steady state.
    let fill = 2 * params.slots as u64;
    toggle(a, steps.iter_from(0, fill), &mut slots)?;

    let meter = Meter::start();
    toggle(a, steps.iter_from(fill, params.ops), &mut slots)?;
    let reading = meter.stop();

    prove_all(a, &slots)?;
    let mut stopwatch = Stopwatch::new("alloc_touch")?;
    let again = steps.iter_from(fill + params.ops, params.ops / TIMED);
    toggle_with(a, again, &mut slots, |size| {
        stopwatch.time(|| Block::take(a, size, 1))
    })?;
    let outcome = Outcome::new(params.ops, reading)?.with_latency(stopwatch.latency());
    slots.into_iter().flatten().for_each(|block| block.give(a));
    Ok(outcome)
}

#[cfg(test)]
#[allow(unsafe_code)] // an allocator that counts
mod tests {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::ptr::NonNull;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::super::Workload;
    use super::*;

    /// System, which counts the calls.
    struct Counting(AtomicU64);

    // SAFETY: every call goes to System unchanged.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            self.0.fetch_add(1, Relaxed);
            // SAFETY: `GlobalAlloc::alloc` has its caller promise a size other than 0.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            self.0.fetch_add(1, Relaxed);
            // SAFETY: `GlobalAlloc::dealloc` has its caller promise a live block of this allocator,
            // all of which are System's, with its layout.
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
