//! The results of a comparison: figures over all rounds, distributions of times, and memory over
//! time.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use theap_bench::{Latency, QUANTILES, Record, Series};

use crate::measure::Resident;
use crate::measure::child::Run;

/// All results, as `--json` writes them.
#[derive(Serialize)]
pub struct Findings {
    pub records: Vec<Record>,
    /// The times of the workloads that time single operations.
    pub latencies: Vec<Finding<Distribution>>,
    /// The memory of the workloads about a service, in the first round.
    pub memory: Vec<Finding<Resident>>,
}

/// A result for one workload on one side.
#[derive(Serialize)]
pub struct Finding<T> {
    pub workload: String,
    pub allocator: String,
    pub pages: String,
    #[serde(flatten)]
    pub what: T,
}

/// The distribution of the times of all rounds together.
pub struct Distribution(pub Latency);

impl Serialize for Distribution {
    /// Writes `what`, `count`, `quantiles` by name, and `curve`: pairs of nines and nanoseconds.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(latency) = self;
        let quantiles = QUANTILES.map(|(name, quantile)| (name, latency.quantile(quantile)));
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("what", &latency.what)?;
        map.serialize_entry("unit", "ns")?;
        map.serialize_entry("count", &latency.count())?;
        map.serialize_entry("quantiles", &serde_json::Map::from_iter(named(&quantiles)))?;
        map.serialize_entry("curve", &latency.curve())?;
        map.end()
    }
}

fn named(quantiles: &[(&str, u64)]) -> impl Iterator<Item = (String, serde_json::Value)> {
    let pair = |&(name, nanos): &(&str, u64)| (name.to_owned(), nanos.into());
    quantiles.iter().map(pair)
}

/// Collects the results of one run after the other.
#[derive(Default)]
pub struct Collector {
    series: Series,
    latencies: Vec<Finding<Distribution>>,
    memory: Vec<Finding<Resident>>,
}

impl Collector {
    /// Adds one run.
    pub fn push(&mut self, workload: &str, allocator: &str, pages: &str, run: Run) {
        self.series.push(workload, allocator, pages, run.metrics);
        for latency in run.latencies {
            let known = self.latencies.iter_mut().find(|found| {
                found.is(workload, allocator, pages) && found.what.0.what == latency.what
            });
            match known {
                Some(found) => found.what.0.merge(&latency),
                None => self.latencies.push(Finding::new(
                    workload,
                    allocator,
                    pages,
                    Distribution(latency),
                )),
            }
        }
        if !run.memory.memory.is_empty() {
            let found = Finding::new(workload, allocator, pages, run.memory);
            self.memory.push(found);
        }
    }

    pub fn findings(self) -> Findings {
        Findings {
            records: self.series.records(),
            latencies: self.latencies,
            memory: self.memory,
        }
    }
}

impl<T> Finding<T> {
    fn new(workload: &str, allocator: &str, pages: &str, what: T) -> Self {
        Self {
            workload: workload.into(),
            allocator: allocator.into(),
            pages: pages.into(),
            what,
        }
    }

    pub fn is(&self, workload: &str, allocator: &str, pages: &str) -> bool {
        self.workload == workload && self.allocator == allocator && self.pages == pages
    }
}
