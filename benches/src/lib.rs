//! Workloads that any allocator can run, and the means to compare the runs honestly.
//!
//! A [`Workload`] is generic code over a [`Contender`], so every allocator is driven by the same
//! instructions around its own calls. What the harness needs itself (sizes, slots, samples) it
//! makes and touches before the measured part. An **operation** is one call of the allocator: an
//! allocation or a deallocation. Every allocated block is written to.
//!
//! No run is believed by its label: before and after the measured part the contender must prove
//! by its own records that the blocks are its own ([`Contender::owns`], [`Error::Foreign`]).
//!
//! [`interleave`] runs contenders A B C, B C A, C A B, … so that drift of the machine falls on all
//! of them; [`Series`] turns the rounds into [`Record`]s of median, minimum and maximum.

mod answer;
mod block;
mod contender;
mod delegate;
mod foreign;
#[cfg(feature = "peers")]
mod jemalloc;
mod latency;
mod meter;
mod null;
mod outcome;
#[cfg(feature = "report")]
pub mod page;
mod params;
#[cfg(feature = "peers")]
mod peers;
mod preloaded;
mod proof;
mod rounds;
pub mod row;
pub mod suite;
mod table;
mod tape;
mod tsc;
mod workload;

pub use answer::{answer, run};
pub use contender::{CONTENDERS, Contender, Entry, contender};
pub use foreign::{is_of_neither, provider};
pub use latency::{Latency, QUANTILES, clock_resolution};
pub use null::Null;
pub use outcome::{Metric, Outcome};
pub use params::{Params, Sizes};
pub use preloaded::Preloaded;
pub use rounds::{Record, Series, interleave};
pub use table::{Column, figures, shown_unit, table};
pub use workload::Workload;
pub use workload::random_mixed::operations as random_mixed_operations;

/// Why a run counts for nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A block is not where the contender's label says: the figures would be another allocator's.
    #[error("the run is not {allocator}'s: {found}")]
    Foreign {
        /// The contender that failed to prove its memory.
        allocator: &'static str,
        /// What was found instead.
        found: String,
    },
    /// The allocator returned null.
    #[error("{allocator} could not allocate {size} bytes; lower the parameters or free memory")]
    Exhausted {
        /// The contender that returned null.
        allocator: &'static str,
        /// Bytes asked for.
        size: usize,
    },
    /// The run could not be prepared as asked.
    #[error("{0}")]
    Setup(String),
}

fn cannot(act: &str, path: &std::path::Path, error: &std::io::Error) -> Error {
    Error::Setup(format!("cannot {act} {}: {error}", path.display()))
}
