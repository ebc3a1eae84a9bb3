//! The rows of the benchmark suite: named benchmarks for any [`Contender`](crate::Contender), each
//! measured for a given time.
//!
//! A row is measured for a time, not for a number of operations: the work of an operation is the
//! same for every contender, and one that is fifty times slower than another does not hold up the
//! run. (Rows of one thread can take a number of turns, for a run that is counted.) An operation is
//! one call of the allocator; `collections.rs` says what it is there. Before the measured part the
//! row makes everything that it needs itself, and runs for a quarter of the time.
//!
//! The contender must prove that the memory is its own: by probes before and after the row
//! (`block/probe.rs`), and of the blocks that a row leaves. Rows that work through Rust's
//! collections need the contender to be the process's global allocator, which is proved, too.

mod collections;
mod growth;
mod handed;
mod large;
mod memory;
mod rest;
mod rows;
mod single;
mod tasks;
mod threads;

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::measure::{Metric, throughput};
use crate::thread::crew;

pub use rows::{ROWS, Row};

/// Metric: operations a second, in millions.
pub const THROUGHPUT: &str = crate::measure::THROUGHPUT;

/// Metric: the most memory that the process had at once, in bytes.
pub const PEAK: &str = crate::measure::PEAK;

/// Metric: the memory that the process has when its work is done, in bytes.
pub const RESIDENT: &str = crate::measure::RESIDENT;

/// Metric: the time that one of 100,000 allocations, each with its first touch, exceeds.
pub const TAIL: &str = "alloc_touch_p99.999";

/// Metric: operations in a number of turns.
pub(crate) const OPERATIONS: &str = "operations";

/// Metric: the hugetlb pages of the process when its heap has grown, in bytes.
pub(crate) const HUGETLB: &str = "hugetlb_at_end";

/// Bytes to which the heap grows in the rows of [`Category::Growth`].
pub(crate) const GROWN: usize = growth::GROWN;

/// The time that rows of memory that is left wait: longer than any contender's own delay, which is
/// 10 s for theap and jemalloc.
const WAIT: Duration = Duration::from_secs(13);

/// A shorter budget than this is a test's, and waits no longer than it must to run the code.
const TEST: Duration = Duration::from_millis(20);

/// A group of rows in reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Category {
    /// One thread that writes to the first byte of each block and nowhere else: the null allocator
    /// can run these rows, too.
    HitPath,
    /// One thread, with other work.
    Single,
    /// One thread with blocks beyond 256 KiB.
    Large,
    /// Threads that share memory, or come and go.
    Threads,
    /// Threads that share nothing.
    Scaling,
    /// Times, not operations: the longest of a heap that grows.
    Growth,
    /// Bytes, not operations: the most at once.
    Memory,
    /// Bytes, not operations: what is left when the work is done.
    Resident,
}

impl Category {
    /// Every category, in the order of a report.
    pub const ALL: [Self; 8] = [
        Self::HitPath,
        Self::Single,
        Self::Large,
        Self::Threads,
        Self::Scaling,
        Self::Growth,
        Self::Memory,
        Self::Resident,
    ];

    /// The category's title in reports.
    pub const fn title(self) -> &'static str {
        match self {
            Self::HitPath => "one thread, hit path",
            Self::Single => "one thread, other work",
            Self::Large => "one thread, large blocks",
            Self::Threads => "threads that share",
            Self::Scaling => "threads that share nothing",
            Self::Growth => "a heap that grows",
            Self::Memory => "memory",
            Self::Resident => "memory that is left",
        }
    }

    /// The category's name in files and markers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HitPath => "hit-path",
            Self::Single => "single",
            Self::Large => "large",
            Self::Threads => "threads",
            Self::Scaling => "scaling",
            Self::Growth => "growth",
            Self::Memory => "memory",
            Self::Resident => "resident",
        }
    }

    /// Tells whether the rows' figures are bytes, of which less is better.
    pub const fn is_memory(self) -> bool {
        matches!(self, Self::Memory | Self::Resident)
    }

    /// Tells whether the rows' figures are operations a second, of which more is better.
    pub const fn is_speed(self) -> bool {
        !self.is_memory() && !matches!(self, Self::Growth)
    }

    /// Tells whether the rows work in one thread, for as long as they are told to.
    pub const fn has_one_thread(self) -> bool {
        matches!(self, Self::HitPath | Self::Single | Self::Large)
    }

    /// A sentence with the unit of the rows' figures.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Growth => {
                "The time in ns that one of 100,000 allocations with its first touch exceeds, less is better."
            }
            Self::Memory => "Peak memory in MiB, less is better.",
            Self::Resident => {
                "Resident memory in MiB when the work is done and the threads rest, less is better."
            }
            _ => "Million operations a second.",
        }
    }
}

/// The measure of a row's work.
#[derive(Clone, Copy, Debug)]
pub enum Budget {
    /// The row does as much as fits in this time.
    Time(Duration),
    /// The row takes so many turns of its loop, which are not timed but counted from outside. Only
    /// rows of one thread take turns ([`Category::has_one_thread`]).
    Turns(u64),
}

/// The row of that name.
pub fn row(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}

/// The rows whose name contains one of `parts`, in the order of a report. Without parts these are
/// all rows, in a `quick` run without those that wait.
pub fn chosen(parts: &[String], quick: bool) -> Vec<&'static Row> {
    let chosen = |row: &&Row| match parts {
        [] => !(quick && row.waits()),
        parts => parts.iter().any(|part| row.name.contains(part)),
    };
    ROWS.iter().filter(chosen).collect()
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => write!(f, "{}", time.as_millis()),
            Self::Turns(turns) => write!(f, "{turns}x"),
        }
    }
}

impl FromStr for Budget {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        match text.strip_suffix('x') {
            Some(turns) => turns.parse().map(Self::Turns),
            None => Ok(Self::Time(Duration::from_millis(text.parse()?))),
        }
    }
}

impl Budget {
    /// The time that the row is measured.
    ///
    /// # Errors
    /// Fails if it takes a number of turns.
    fn time(self) -> Result<Duration, Error> {
        match self {
            Self::Time(time) => Ok(time),
            Self::Turns(_) => Err(Error::Setup(
                "the row takes no number of turns, but as many as fit in a time".into(),
            )),
        }
    }

    /// The time that a row waits for memory to be given back. It is the same for every contender.
    fn wait(self) -> Result<Duration, Error> {
        let time = self.time()?;
        Ok(if time < TEST { 10 * time } else { WAIT })
    }

    /// Tells whether the work up to now has brought the row to its steady state: that takes a
    /// quarter of the time and at least three turns.
    fn has_settled(self, turns: u64, elapsed: Duration) -> bool {
        turns >= 3
            && match self {
                Self::Time(time) => elapsed >= time / 4,
                Self::Turns(_) => true,
            }
    }

    fn is_used_up(self, turns: u64, elapsed: Duration) -> bool {
        match self {
            Self::Time(time) => elapsed >= time,
            Self::Turns(all) => turns >= all,
        }
    }

    /// Runs `pass` until the row [has settled](Self::has_settled), and then again and again until
    /// the budget is used up. Returns the throughput of the latter passes, or their operations;
    /// `pass` returns its operations.
    fn measure(self, mut pass: impl FnMut() -> Result<u64, Error>) -> Result<Vec<Metric>, Error> {
        let start = Instant::now();
        for turns in 0.. {
            if self.has_settled(turns, start.elapsed()) {
                break;
            }
            pass()?;
        }
        let start = Instant::now();
        let (mut ops, mut turns) = (0, 0);
        loop {
            ops += pass()?;
            turns += 1;
            let elapsed = start.elapsed();
            if self.is_used_up(turns, elapsed) {
                return Ok(vec![match self {
                    Self::Time(_) => throughput(ops, elapsed),
                    Self::Turns(_) => Metric::new(OPERATIONS, "ops", ops as f64),
                }]);
            }
        }
    }

    /// The throughput of a [`crew`] that works for this time.
    fn crew<I: Send, S>(
        self,
        inputs: Vec<I>,
        make: impl Fn(I) -> Result<S, Error> + Sync,
        turn: impl Fn(&mut S) -> Result<u64, Error> + Sync,
        end: impl Fn(S) -> Result<(), Error> + Sync,
    ) -> Result<Vec<Metric>, Error> {
        let (ops, wall) = crew(self.time()?, inputs, make, turn, end)?;
        Ok(vec![throughput(ops, wall)])
    }
}
