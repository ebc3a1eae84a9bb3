//! What a run measured, as named metrics with units.

use std::borrow::Cow;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::meter::{Reading, peak_memory};

/// One figure of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// What was measured, for example `wall_time`.
    pub metric: Cow<'static, str>,
    /// Unit of the value: `ms`, `ns`, `faults`, `bytes` or `Mop/s`.
    pub unit: Cow<'static, str>,
    /// The figure.
    pub value: f64,
}

/// The result of one run of a workload.
pub struct Outcome {
    ops: u64,
    reading: Reading,
    /// Peak memory of the process in bytes at the end of the measured part.
    peak: u64,
    latency: Option<Histogram<u64>>,
    preparation: Option<Duration>,
}

impl Outcome {
    /// An outcome of `ops` operations, with the peak memory of this moment.
    pub(crate) fn new(ops: u64, reading: Reading) -> Result<Self, Error> {
        Ok(Self {
            ops,
            reading,
            peak: peak_memory()?,
            latency: None,
            preparation: None,
        })
    }

    /// With the times of single operations.
    pub(crate) fn with_latency(self, latency: Histogram<u64>) -> Self {
        Self {
            latency: Some(latency),
            ..self
        }
    }

    /// With the time that went into preparation before the measured part.
    pub(crate) fn with_preparation(self, preparation: Duration) -> Self {
        Self {
            preparation: Some(preparation),
            ..self
        }
    }

    /// Operations of the measured part in millions a second.
    pub fn throughput(&self) -> Metric {
        metric(
            "throughput",
            "Mop/s",
            self.ops as f64 / self.reading.wall.as_secs_f64() / 1e6,
        )
    }

    /// Every other metric, in the order of a report. `preparation` and the times of a single
    /// allocate-and-touch are there only where the workload measures them.
    pub fn metrics(&self) -> Vec<Metric> {
        let wall = self.reading.wall.as_secs_f64();
        let mut metrics = vec![
            metric("wall_time", "ms", wall * 1e3),
            metric("time_per_op", "ns", wall * 1e9 / self.ops as f64),
            metric("minor_faults", "faults", self.reading.faults.minor as f64),
            metric("major_faults", "faults", self.reading.faults.major as f64),
            metric("peak_rss", "bytes", self.peak as f64),
        ];
        if let Some(latency) = &self.latency {
            for (name, quantile) in [
                ("alloc_touch_p50", 0.5),
                ("alloc_touch_p99", 0.99),
                ("alloc_touch_p99.9", 0.999),
                ("alloc_touch_p99.99", 0.9999),
                ("alloc_touch_max", 1.0),
            ] {
                metrics.push(metric(
                    name,
                    "ns",
                    latency.value_at_quantile(quantile) as f64,
                ));
            }
        }
        if let Some(preparation) = self.preparation {
            metrics.push(metric("preparation", "ms", preparation.as_secs_f64() * 1e3));
        }
        metrics
    }
}

const fn metric(name: &'static str, unit: &'static str, value: f64) -> Metric {
    Metric {
        metric: Cow::Borrowed(name),
        unit: Cow::Borrowed(unit),
        value,
    }
}
