//! The figures of one run of a workload, as named metrics with units.

use std::time::Duration;

use crate::error::Error;
use crate::measure::{
    Latency, Metric, PEAK, QUANTILES, Reading, ThreadUsage, bytes, peak_memory, throughput,
};

/// The result of one run of a workload.
pub struct Outcome {
    ops: u64,
    reading: Reading,
    /// Peak memory of the process in bytes at the end of the measured part.
    peak: u64,
    latencies: Vec<Latency>,
    preparation: Option<Duration>,
    /// Bytes that the measured part touched for the first time, where that is its purpose.
    touched: Option<usize>,
    /// The measured thread's usage, where the workload works at a given pace.
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

    /// Adds a distribution of times, unless it is empty.
    pub(crate) fn with_latency(mut self, latency: Latency) -> Self {
        if latency.count() > 0 {
            self.latencies.push(latency);
        }
        self
    }

    /// Adds the time that went into preparation before the measured part, if there was any.
    pub(crate) fn with_preparation(self, preparation: Option<Duration>) -> Self {
        Self {
            preparation,
            ..self
        }
    }

    /// Says that the measured part was the first touch of `bytes`.
    pub(crate) fn with_touched(self, bytes: usize) -> Self {
        Self {
            touched: Some(bytes),
            ..self
        }
    }

    /// Says that the workload works at a given pace, and adds its thread's usage.
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

    /// The throughput of the measured part, in millions of operations a second.
    pub fn throughput(&self) -> Metric {
        throughput(self.ops, self.reading.wall)
    }

    /// Every other metric, in the order of a report; each is there only where the workload measures
    /// it. The involuntary switches stand beside the longest time.
    pub fn metrics(&self) -> Vec<Metric> {
        let wall = self.reading.wall.as_secs_f64();
        let mut metrics = vec![Metric::new("wall_time", "ms", wall * 1e3)];
        if self.thread.is_none() {
            metrics.push(Metric::new(
                "time_per_op",
                "ns",
                wall * 1e9 / self.ops as f64,
            ));
        }
        metrics.extend([
            Metric::new("minor_faults", "faults", self.reading.faults.minor as f64),
            Metric::new("major_faults", "faults", self.reading.faults.major as f64),
            bytes(PEAK, self.peak),
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
                Metric::new(
                    "involuntary_switches",
                    "switches",
                    thread.involuntary as f64,
                ),
                Metric::new("voluntary_switches", "switches", thread.voluntary as f64),
                Metric::new("thread_minor_faults", "faults", thread.faults.minor as f64),
                Metric::new("thread_major_faults", "faults", thread.faults.major as f64),
            ]);
        }
        let preparation = self.preparation.unwrap_or_default().as_secs_f64();
        if self.preparation.is_some() {
            metrics.push(Metric::new("preparation", "ms", preparation * 1e3));
        }
        if let Some(touched) = self.touched {
            let mebibytes = touched as f64 / f64::from(1 << 20);
            let cost = (preparation + wall) * 1e6 / mebibytes;
            metrics.push(Metric::new("cost_per_mib", "us/MiB", cost));
        }
        metrics
    }
}
