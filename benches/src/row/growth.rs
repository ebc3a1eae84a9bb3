//! Rows of a heap that grows at a steady pace: the longest times of single allocations, each with
//! the first write to its pages. The workload of that name does the same for any amount and pace,
//! in `theap compare`; here the peers are beside it.

use super::TAIL;
use crate::block::{empty_slots, free_proved};
use crate::contender::Contender;
use crate::error::Error;
use crate::measure::{Idler, Metric, Stopwatch, bytes, hugetlb_memory};
use crate::pattern::growth::grow_at_pace;
use crate::steps::{Random, SEED, Sizes};
use crate::thread::{Affinity, pin_to};

/// Sizes of the blocks.
const SIZES: Sizes = Sizes::constant(64, 4096);

/// Bytes to which the heap grows.
pub(super) const GROWN: usize = 512 << 20;

/// Bytes by which it grows in a second.
const PACE: u64 = 1 << 30;

/// A heap that grows to [`GROWN`] bytes. The thread is pinned to the last CPU that it may use, as
/// interrupts mostly go to the first; `idle_…` is what the machine did to the thread while it
/// waited for its pace.
pub(super) fn growth<A: Contender>(a: &A) -> Result<Vec<Metric>, Error> {
    let before = Affinity::keep()?;
    if let Some(&last) = before.cpus().first() {
        pin_to(last)?;
    }
    let sizes = Random::new(SEED).log_sizes(SIZES, GROWN);
    let mut slots = empty_slots::<A, 1>(sizes.len());
    let mut stopwatch = Stopwatch::new("alloc_touch")?;
    let mut idler = Idler::new(stopwatch.tsc());
    grow_at_pace(a, &sizes, &mut slots, &mut stopwatch, &mut idler, PACE)?;
    let (touch, idle) = (stopwatch.latency(), idler.latency());
    let nanos = |name, value| Metric::new(name, "ns", value as f64);
    let metrics = vec![
        nanos(TAIL, touch.quantile(0.99999)),
        nanos("alloc_touch_max", touch.max()),
        nanos("idle_p99.999", idle.quantile(0.99999)),
        nanos("idle_max", idle.max()),
        bytes(super::HUGETLB, hugetlb_memory()?),
    ];
    free_proved(a, slots)?;
    Ok(metrics)
}
