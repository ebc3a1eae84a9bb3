//! The instruments: clocks, distributions of times, page faults, the process's memory.

mod latency;
mod memory;
mod meter;
mod metric;
mod stopwatch;
mod tsc;

pub use latency::{Latency, QUANTILES};
pub(crate) use memory::{SmallPages, hugetlb_memory, peak_memory, present_memory, resident_memory};
pub(crate) use meter::{Meter, Reading, ThreadUsage};
pub use metric::Metric;
pub(crate) use metric::{INSTRUCTIONS, PEAK, RESIDENT, THROUGHPUT, bytes, throughput};
pub use stopwatch::clock_resolution;
pub(crate) use stopwatch::{Idler, Stopwatch};
pub(crate) use tsc::Tsc;
