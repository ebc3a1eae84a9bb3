//! A figure with its name and unit.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One figure of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// The name of the quantity, for example `wall_time`.
    pub metric: Cow<'static, str>,
    /// Unit of the value: `ms`, `ns`, `us/MiB`, `faults`, `switches`, `calls`, `bytes`,
    /// `ops`, `/op` or `Mop/s`.
    pub unit: Cow<'static, str>,
    /// The figure.
    pub value: f64,
}

/// Metric: operations a second, in millions.
pub(crate) const THROUGHPUT: &str = "throughput";

/// Metric: instructions of an operation.
pub(crate) const INSTRUCTIONS: &str = "instructions";

/// Metric: the most memory that the process had at once, in bytes.
pub(crate) const PEAK: &str = "peak_rss";

/// Metric: the memory that the process has when its work is done, in bytes.
pub(crate) const RESIDENT: &str = "rss_at_rest";

impl Metric {
    /// A metric whose name and unit are constants.
    pub(crate) const fn new(name: &'static str, unit: &'static str, value: f64) -> Self {
        Self {
            metric: Cow::Borrowed(name),
            unit: Cow::Borrowed(unit),
            value,
        }
    }
}

/// The throughput of `ops` operations in the time `wall`.
pub(crate) fn throughput(ops: u64, wall: Duration) -> Metric {
    let value = ops as f64 / wall.as_secs_f64() / 1e6;
    Metric::new(THROUGHPUT, "Mop/s", value)
}

/// A metric in bytes.
pub(crate) const fn bytes(name: &'static str, value: u64) -> Metric {
    Metric::new(name, "bytes", value as f64)
}
