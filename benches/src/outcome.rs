//! What a run measured, as named metrics with units.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::latency::QUANTILES;
use crate::meter::{Reading, ThreadUsage, peak_memory};
use crate::{Error, Latency};

/// One figure of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// What was measured, for example `wall_time`.
    pub metric: Cow<'static, str>,
    /// Unit of the value: `ms`, `ns`, `us/MiB`, `faults`, `switches`, `bytes` or `Mop/s`.
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
    latencies: Vec<Latency>,
    preparation: Option<Duration>,
    /// Bytes whose first touch the measured part is about.
    touched: Option<usize>,
    /// The measured thread's share, where the workload works at a given pace.
    thread: Option<ThreadUsage>,
}

impl Outcome {
    /// An outcome of `ops` operations, with the peak memory of this moment.
    pub(crate) fn new(ops: u64, reading: Reading) -> Result<Self, Error> {
        Ok(Self {
            ops,
            reading,
            peak: peak_memory()?,
            latencies: Vec::new(),
            preparation: None,
            touched: None,
            thread: None,
        })
    }

    /// With a distribution of times, if there are any.
    pub(crate) fn with_latency(mut self, latency: Latency) -> Self {
        if latency.count() > 0 {
            self.latencies.push(latency);
        }
        self
    }

    /// With the time that went into preparation before the measured part, if there was any.
    pub(crate) fn with_preparation(self, preparation: Option<Duration>) -> Self {
        Self {
            preparation,
            ..self
        }
    }

    /// Of a measured part that is the first touch of so many bytes.
    pub(crate) fn with_touched(self, bytes: usize) -> Self {
        Self {
            touched: Some(bytes),
            ..self
        }
    }

    /// Of a thread at a given pace, which this happened to.
    pub(crate) fn with_thread(self, usage: ThreadUsage) -> Self {
        Self {
            thread: Some(usage),
            ..self
        }
    }

    /// The distributions of times that the workload measured.
    pub fn latencies(&self) -> &[Latency] {
        &self.latencies
    }

    /// Operations of the measured part in millions a second.
    pub fn throughput(&self) -> Metric {
        metric(
            "throughput",
            "Mop/s",
            self.ops as f64 / self.reading.wall.as_secs_f64() / 1e6,
        )
    }

    /// Every other metric, in the order of a report; each is there only where the workload measures it.
    /// The involuntary switches stand beside the longest time.
    pub fn metrics(&self) -> Vec<Metric> {
        let wall = self.reading.wall.as_secs_f64();
        let mut metrics = vec![metric("wall_time", "ms", wall * 1e3)];
        if self.thread.is_none() {
            metrics.push(metric("time_per_op", "ns", wall * 1e9 / self.ops as f64));
        }
        metrics.extend([
            metric("minor_faults", "faults", self.reading.faults.minor as f64),
            metric("major_faults", "faults", self.reading.faults.major as f64),
            metric("peak_rss", "bytes", self.peak as f64),
        ]);
        for latency in &self.latencies {
            metrics.extend(QUANTILES.map(|(name, quantile)| Metric {
                metric: format!("{}_{name}", latency.what).into(),
                unit: "ns".into(),
                value: latency.quantile(quantile) as f64,
            }));
        }
        if let Some(thread) = self.thread {
            metrics.extend([
                metric(
                    "involuntary_switches",
                    "switches",
                    thread.involuntary as f64,
                ),
                metric("voluntary_switches", "switches", thread.voluntary as f64),
                metric("thread_minor_faults", "faults", thread.faults.minor as f64),
                metric("thread_major_faults", "faults", thread.faults.major as f64),
            ]);
        }
        let preparation = self.preparation.unwrap_or_default().as_secs_f64();
        if self.preparation.is_some() {
            metrics.push(metric("preparation", "ms", preparation * 1e3));
        }
        if let Some(touched) = self.touched {
            let mebibytes = touched as f64 / f64::from(1 << 20);
            let cost = (preparation + wall) * 1e6 / mebibytes;
            metrics.push(metric("cost_per_mib", "us/MiB", cost));
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
