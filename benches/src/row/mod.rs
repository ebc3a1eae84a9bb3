//! The rows of the benchmark suite: what is run, on any [`Contender`].
//!
//! A row is measured for a given time, not for a given number of operations: the work of an operation is the same for
//! every contender, and one that is fifty times slower than another does not hold up the run. An operation is one call
//! of the allocator, in `collections` and `spawn` what their module says. Before the measured part everything that the
//! harness needs is made, and the row has run once.
//!
//! Whose memory it is, is proved before and after (`proof.rs`) and of the blocks that a row leaves. Rows that
//! work through Rust's collections need the contender to be the process's global allocator, which is proved, too.

mod collections;
mod memory;
mod rss;
mod single;
mod steps;
mod table;
mod threads;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::{Contender, Error, Metric, proof};

pub use table::ROWS;
use table::Work;

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Category {
    /// One thread, and every block is written to only where it starts: a null allocator can run it, too.
    HitPath,
    /// One thread.
    Single,
    /// Threads that share memory, or come and go.
    Threads,
    /// Threads that share nothing.
    Scaling,
    /// Bytes, not operations.
    Memory,
}

impl Category {
    /// Every category, in the order of a report.
    pub const ALL: [Self; 5] = [
        Self::HitPath,
        Self::Single,
        Self::Threads,
        Self::Scaling,
        Self::Memory,
    ];

    /// Its title in reports.
    pub const fn title(self) -> &'static str {
        match self {
            Self::HitPath => "one thread, hit path",
            Self::Single => "one thread, other work",
            Self::Threads => "threads that share",
            Self::Scaling => "threads that share nothing",
            Self::Memory => "memory",
        }
    }

    /// Its name in files and markers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HitPath => "hit-path",
            Self::Single => "single",
            Self::Threads => "threads",
            Self::Scaling => "scaling",
            Self::Memory => "memory",
        }
    }

    /// The unit of its rows' figures, and which are better.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Memory => "Peak memory in MiB, less is better.",
            _ => "Million operations a second.",
        }
    }
}

/// One row of the suite.
pub struct Row {
    /// Its name on the command line and in reports.
    pub name: &'static str,
    /// What it is about.
    pub category: Category,
    work: Work,
}

/// How long a row is measured.
#[derive(Clone, Copy, Debug)]
pub struct Budget(pub Duration);

/// Metric: operations a second, in millions.
pub const THROUGHPUT: &str = "throughput";

/// Metric: the most memory that the process had at once, in bytes.
pub const PEAK: &str = "peak_rss";

/// The row of that name.
pub fn row(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}

impl Row {
    /// What a reader compares: [`THROUGHPUT`], more is better, or [`PEAK`], less is better.
    pub fn metric(&self) -> &'static str {
        match self.category {
            Category::Memory => PEAK,
            _ => THROUGHPUT,
        }
    }

    /// Runs the row on `a`.
    ///
    /// # Errors
    /// Fails if a proof fails or memory runs out.
    pub fn run<A: Contender>(&self, a: &A, budget: Budget) -> Result<Vec<Metric>, Error> {
        if let Some((blocks, mean)) = self.work.limits() {
            a.expect(blocks, mean);
        }
        if self.work.needs_global() {
            proof::prove_global(a)?;
        }
        proof::prove(a)?;
        let mut metrics = self.work.run(a, budget)?;
        proof::prove(a)?;
        if metrics.iter().all(|metric| metric.metric != PEAK) {
            metrics.push(bytes(PEAK, rss::peak()?));
        }
        Ok(metrics)
    }
}

impl Budget {
    /// Runs `pass` for a quarter of the time, at least three times, and then again and again until the time is over.
    /// Returns the operations a second of the latter; `pass` says how many operations it did.
    fn measure(self, mut pass: impl FnMut() -> Result<u64, Error>) -> Result<Vec<Metric>, Error> {
        let start = Instant::now();
        for nth in 0.. {
            if nth >= 3 && start.elapsed() >= self.0 / 4 {
                break;
            }
            pass()?;
        }
        let start = Instant::now();
        let mut ops = 0;
        loop {
            ops += pass()?;
            let elapsed = start.elapsed();
            if elapsed >= self.0 {
                return Ok(vec![throughput(ops, elapsed)]);
            }
        }
    }
}

fn throughput(ops: u64, wall: Duration) -> Metric {
    Metric {
        metric: THROUGHPUT.into(),
        unit: "Mop/s".into(),
        value: ops as f64 / wall.as_secs_f64() / 1e6,
    }
}

fn bytes(metric: &'static str, value: u64) -> Metric {
    Metric {
        metric: metric.into(),
        unit: "bytes".into(),
        value: value as f64,
    }
}
