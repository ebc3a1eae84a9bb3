//! Distributions of times. A run records into them without a page fault or an allocation; processes
//! send them to each other; rounds are merged.

use std::borrow::Cow;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The longest time that a distribution tells from longer ones, in nanoseconds: a minute.
const LONGEST: u64 = 60_000_000_000;

/// Decimal digits that a distribution keeps of a time.
const DIGITS: u8 = 3;

/// The quantiles of a report by name; `max` is the largest time itself.
pub const QUANTILES: [(&str, f64); 7] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
    ("p99.999", 0.99999),
    ("max", 1.0),
];

/// The times that something took, as a distribution in nanoseconds to three digits.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Counts", into = "Counts")]
pub struct Latency {
    /// The name of the timed work, for example `alloc_touch`.
    pub what: Cow<'static, str>,
    histogram: Histogram<u64>,
}

impl Latency {
    /// An empty distribution whose memory is made and touched: recording takes no page fault.
    pub(crate) fn new(what: impl Into<Cow<'static, str>>) -> Self {
        let mut histogram =
            Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("bounds and digits are valid");
        histogram.reset(); // writes every count
        Self {
            what: what.into(),
            histogram,
        }
    }

    /// Records a time.
    #[inline]
    pub(crate) fn record(&mut self, nanos: u64) {
        self.histogram.saturating_record(nanos.max(1));
    }

    /// The number of times recorded.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The number of times longer than `nanos`, to three digits.
    pub fn longer_than(&self, nanos: u64) -> u64 {
        self.count() - self.histogram.count_between(0, nanos)
    }

    /// The time in nanoseconds that the part `quantile` of all times did not exceed. With fewer
    /// than 1/(1-`quantile`) times it is the longest.
    pub fn quantile(&self, quantile: f64) -> u64 {
        self.histogram.value_at_quantile(quantile)
    }

    /// The longest time in nanoseconds.
    pub fn max(&self) -> u64 {
        self.histogram.max()
    }

    /// Adds another run's times.
    pub fn merge(&mut self, other: &Self) {
        self.histogram
            .add(&other.histogram)
            .expect("all distributions have the same bounds");
    }

    /// The curve of a report: pairs of nines (1 is p90, 2 is p99, …) and nanoseconds, up to the
    /// nines that the count of times can tell, where the longest stands.
    pub fn curve(&self) -> Vec<(f64, u64)> {
        /// Points for each nine.
        const STEPS: u32 = 20;
        let end = (self.count().max(1) as f64).log10();
        let inner = (0..)
            .map(|step| f64::from(step) / f64::from(STEPS))
            .take_while(|&nines| nines < end)
            .map(|nines| (nines, self.quantile(1.0 - 10f64.powf(-nines))));
        inner.chain([(end, self.max())]).collect()
    }
}

/// A [`Latency`] on its way from process to process.
#[derive(Serialize, Deserialize)]
struct Counts {
    what: Cow<'static, str>,
    /// Each time that occurs, in nanoseconds, and how often it does.
    counts: Vec<(u64, u64)>,
}

impl From<Latency> for Counts {
    fn from(latency: Latency) -> Self {
        let counts = latency
            .histogram
            .iter_recorded()
            .map(|step| (step.value_iterated_to(), step.count_at_value()))
            .collect();
        Self {
            what: latency.what,
            counts,
        }
    }
}

impl TryFrom<Counts> for Latency {
    type Error = Error;

    fn try_from(counts: Counts) -> Result<Self, Error> {
        let mut latency = Self::new(counts.what);
        for (nanos, count) in counts.counts {
            latency
                .histogram
                .record_n(nanos, count)
                .map_err(|error| Error::Setup(format!("a distribution has {nanos} ns: {error}")))?;
        }
        Ok(latency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_survives_the_way_to_its_parent() {
        let mut sent = Latency::new("work");
        for nanos in (0..100_000u64).map(|nth| nth * nth % 1_000_003 + 1) {
            sent.record(nanos);
        }
        sent.record(2 * LONGEST);
        let json = serde_json::to_string(&sent).unwrap();
        let mut received: Latency = serde_json::from_str(&json).unwrap();
        assert_eq!(received.curve(), sent.curve());
        received.merge(&sent);
        assert_eq!(received.count(), 200_002);
        for (_, quantile) in QUANTILES {
            assert_eq!(received.quantile(quantile), sent.quantile(quantile));
        }
    }

    #[test]
    fn a_curve_ends_with_the_longest_time() {
        let mut latency = Latency::new("work");
        for _ in 0..999 {
            latency.record(100);
        }
        latency.record(5_000);
        let curve = latency.curve();
        assert_eq!(curve[0], (0.0, 100));
        let (nines, nanos) = *curve.last().unwrap();
        assert!((nines - 3.0).abs() < 1e-9 && (5_000..5_010).contains(&nanos));
        assert!(curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
        assert_eq!(latency.longer_than(1_000), 1);
    }
}
