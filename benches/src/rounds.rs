//! Interleaved rounds, and the records that come out of them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::measure::Metric;

/// Calls `run(round, contender)` for every contender in every round. The order is rotated by one
/// from round to round, so that no contender always runs first, or always after the same one.
///
/// # Errors
/// Returns the first error of `run`; nothing runs after it.
pub fn interleave<E>(
    rounds: usize,
    contenders: usize,
    mut run: impl FnMut(usize, usize) -> Result<(), E>,
) -> Result<(), E> {
    for round in 0..rounds {
        for turn in 0..contenders {
            run(round, (round + turn) % contenders)?;
        }
    }
    Ok(())
}

/// One metric of one contender over all rounds, as it is written to JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The workload's name, with its variant if it has one.
    pub workload: String,
    /// The contender's name.
    pub allocator: String,
    /// The contender's page mode; `default` where it has none to choose.
    pub pages: String,
    /// The name of the metric.
    pub metric: Cow<'static, str>,
    /// Unit of median, minimum and maximum.
    pub unit: Cow<'static, str>,
    /// Median of the rounds (the mean of the middle two if their number is even).
    pub median: f64,
    /// The smallest round.
    pub min: f64,
    /// The largest round.
    pub max: f64,
    /// The number of rounds that were measured.
    pub rounds: usize,
}

/// All rounds of all metrics, in order of their first appearance.
#[derive(Default)]
pub struct Series(Vec<Samples>);

struct Samples {
    workload: String,
    allocator: String,
    pages: String,
    metric: Metric,
    values: Vec<f64>,
}

impl Series {
    /// Adds one round's metrics.
    pub fn push(&mut self, workload: &str, allocator: &str, pages: &str, metrics: Vec<Metric>) {
        for metric in metrics {
            let known = self.0.iter_mut().find(|samples| {
                samples.workload == workload
                    && samples.allocator == allocator
                    && samples.pages == pages
                    && samples.metric.metric == metric.metric
            });
            match known {
                Some(samples) => samples.values.push(metric.value),
                None => self.0.push(Samples {
                    workload: workload.into(),
                    allocator: allocator.into(),
                    pages: pages.into(),
                    values: vec![metric.value],
                    metric,
                }),
            }
        }
    }

    /// The records, in order of first appearance.
    pub fn records(self) -> Vec<Record> {
        self.0.into_iter().map(Samples::record).collect()
    }
}

impl Samples {
    fn record(mut self) -> Record {
        self.values.sort_by(f64::total_cmp);
        let rounds = self.values.len();
        Record {
            workload: self.workload,
            allocator: self.allocator,
            pages: self.pages,
            metric: self.metric.metric,
            unit: self.metric.unit,
            median: (self.values[(rounds - 1) / 2] + self.values[rounds / 2]) / 2.0,
            min: self.values[0],
            max: self.values[rounds - 1],
            rounds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_rotates() {
        let mut order = Vec::new();
        interleave(3, 3, |_, contender| {
            order.push(contender);
            Ok::<_, ()>(())
        })
        .unwrap();
        assert_eq!(order, [0, 1, 2, 1, 2, 0, 2, 0, 1]);
    }

    #[test]
    fn medians_of_odd_and_even_rounds() {
        let median = |values: &[f64]| {
            let mut series = Series::default();
            for &value in values {
                let metric = Metric {
                    metric: "m".into(),
                    unit: "ns".into(),
                    value,
                };
                series.push("w", "a", "p", vec![metric]);
            }
            let record = series.records().remove(0);
            (record.median, record.min, record.max, record.rounds)
        };
        assert_eq!(median(&[3.0, 1.0, 2.0]), (2.0, 1.0, 3.0, 3));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), (2.5, 1.0, 4.0, 4));
    }
}
