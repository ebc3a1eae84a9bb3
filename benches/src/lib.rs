//! Benchmarks that any allocator can run, and the means to compare the runs honestly.
//!
//! There are two kinds of benchmarks, and both stand on the same building blocks:
//! - A [`Workload`] does a given amount of work, and reports times, latencies and page faults.
//!   `theap compare` and `theap evaluate` run workloads.
//! - A [row](row::Row) does as much work as fits in a given time, and reports operations a second.
//!   The [`suite`] and `theap bench` run rows.
//!
//! Both are generic code over a [`Contender`], so every allocator is driven by the same
//! instructions around its own calls. The harness makes and touches the memory that it needs itself
//! (sizes, slots, samples) before the measured part. An **operation** is one call of the allocator,
//! an allocation or a deallocation, unless a row says otherwise. The harness writes to every block.
//!
//! No run is believed by its label: before and after the measured part the contender must prove
//! by its own records that the blocks are its own ([`Contender::owns`], [`Error::Foreign`]).
//!
//! [`interleave`] runs contenders A B C, B C A, C A B, … so that drift of the machine falls on all
//! of them; [`Series`] turns the rounds into [`Record`]s of median, minimum and maximum.
//!
//! The rooms, each of which uses only rooms that stand before it here:
//!
//! - `error`: why a run counts for nothing.
//! - `contender`: the allocators under comparison, and how each proves that a block is its own.
//! - `steps`: random sizes and slots, made before the measured part.
//! - `measure`: clocks, latencies, page faults, the process's memory.
//! - `thread`: pinning, joining, and crews of threads that work for a given time.
//! - `block`: a block as an owned value: allocate, touch, prove, free.
//! - `pattern`: the inner loops over blocks, each of them once.
//! - `rounds`: interleaved rounds, and the records that come out of them.
//! - `workload`, `row`: the benchmarks by name: sizes, counts and threads for the patterns.
//! - `render`: tables, charts, pages.
//! - `suite`: runs of the rows in child processes, and what their figures say.

mod block;
mod contender;
mod error;
mod measure;
mod pattern;
pub mod render;
mod rounds;
pub mod row;
mod steps;
pub mod suite;
mod thread;
mod workload;

pub use contender::{Contender, Null, Preloaded, is_of_neither};
pub use error::Error;
pub use measure::{Latency, Metric, QUANTILES, clock_resolution};
pub use render::{Column, figures, shown_unit, table};
pub use rounds::{Record, Series, interleave};
pub use steps::Sizes;
pub use suite::{answer, run};
pub use workload::random_mixed_operations;
pub use workload::{CONTENDERS, Entry, Outcome, Params, Workload, contender};
