//! The matrix that is measured: its sides and its rows.

use std::path::PathBuf;

use anyhow::{Context, Result};
use theap_bench::{CONTENDERS, Metric, Params, Sizes, Workload};

use crate::launch::settings::{Setting, setting};
use crate::measure::child::Order;
use crate::pages::PageMode;

/// The side that the others are compared with: every layer on.
pub const THEAP: &str = "theap";

/// A side of the matrix: an allocator with its settings.
pub struct Side {
    pub name: String,
    allocator: &'static str,
    settings: Vec<Setting>,
    /// Another build of this program; nothing for this build.
    program: Option<PathBuf>,
}

impl Side {
    fn new(name: &str, allocator: &'static str, settings: &[(&str, &str)]) -> Result<Self> {
        Ok(Self {
            name: name.into(),
            allocator,
            settings: settings
                .iter()
                .map(|(name, value)| setting(name, value))
                .collect::<Result<_>>()?,
            program: None,
        })
    }

    pub fn is_theap(&self) -> bool {
        self.allocator == THEAP
    }

    pub fn order<'a>(
        &'a self,
        workload: Workload,
        params: &'a Params,
        pages: PageMode,
    ) -> Order<'a> {
        Order {
            program: self.program.as_deref(),
            allocator: self.allocator,
            mode: self.is_theap().then_some(pages),
            settings: &self.settings,
            workload,
            params,
            sampled: false,
        }
    }
}

/// System, the peers of this build, theap with each front, and the other builds of theap.
pub fn sides(variants: Vec<(String, PathBuf)>) -> Result<Vec<Side>> {
    let mut sides = vec![Side::new("System", "system", &[])?];
    for entry in CONTENDERS {
        if entry.name != THEAP && entry.name != "system" {
            sides.push(Side::new(entry.name, entry.name, &[])?);
        }
    }
    sides.push(Side::new(THEAP, THEAP, &[])?);
    sides.push(Side::new("classes 0-3", THEAP, &[("classes", "0-3")])?);
    sides.push(Side::new("classic", THEAP, &[("front", "classic")])?);
    for (name, program) in variants {
        let mut side = Side::new(&name, THEAP, &[])?;
        side.program = Some(program);
        sides.push(side);
    }
    Ok(sides)
}

/// A section of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Topic {
    /// One thread, blocks up to 1 KiB
    RandomMixed,
    /// One thread, blocks of 1 to 256 KiB
    Mid,
    /// Larson, and a producer with a consumer
    Threads,
    /// SuperSlabs of a program with all classes in use
    #[value(name = "superslabs")]
    SuperSlabs,
    /// System calls for a million operations
    SystemCalls,
}

impl Topic {
    pub const ALL: [Self; 5] = [
        Self::RandomMixed,
        Self::Mid,
        Self::Threads,
        Self::SuperSlabs,
        Self::SystemCalls,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::RandomMixed => "random-mixed",
            Self::Mid => "mid",
            Self::Threads => "threads",
            Self::SuperSlabs => "superslabs",
            Self::SystemCalls => "system-calls",
        }
    }

    pub const fn title(self) -> &'static str {
        match self {
            Self::RandomMixed => "Random mix",
            Self::Mid => "Mid sizes",
            Self::Threads => "Threads",
            Self::SuperSlabs => "SuperSlabs",
            Self::SystemCalls => "System calls",
        }
    }

    pub const fn is_throughput(self) -> bool {
        matches!(self, Self::RandomMixed | Self::Mid | Self::Threads)
    }

    /// The topic's figure among the metrics of a run.
    pub fn metric(self, metrics: &[Metric]) -> Result<Metric> {
        let find = |name: &str| {
            let mut metrics = metrics.iter();
            metrics
                .find(|metric| metric.metric == name)
                .with_context(|| format!("the run did not report {name}"))
        };
        if !self.is_throughput() {
            return find("superslabs").cloned();
        }
        Ok(Metric {
            metric: "throughput".into(),
            unit: "Mop/s".into(),
            value: 1e3 / find("time_per_op")?.value,
        })
    }
}

/// A line of a table.
pub struct Row {
    pub topic: Topic,
    pub name: String,
    pub workload: Workload,
    pub params: Params,
}

/// The block sizes of the rows about a random mix.
const MIX: [(usize, usize); 5] = [(128, 128), (256, 256), (512, 512), (1024, 1024), (16, 1024)];
/// The numbers of operations of these rows.
const MIX_OPS: [(u64, &str); 3] = [
    (100_000, ", 100 K"),
    (1_000_000, ", 1 M"),
    (10_000_000, ", 10 M"),
];
/// The block sizes of the rows about mid sizes.
const MID: [(usize, usize); 3] = [
    (1 << 10, 8 << 10),
    (8 << 10, 32 << 10),
    (32 << 10, 256 << 10),
];

/// All rows; `quick` takes a tenth of the operations.
pub fn rows(quick: bool) -> Vec<Row> {
    let row = |topic, workload, sizes, ops: u64, note: &str| {
        let ops = if quick { (ops / 10).max(10_000) } else { ops };
        Row::new(topic, workload, sizes, ops, note)
    };
    let mut rows = Vec::new();
    for sizes in MIX {
        for (ops, note) in MIX_OPS {
            rows.push(row(
                Topic::RandomMixed,
                Workload::RandomMixed,
                sizes,
                ops,
                note,
            ));
        }
    }
    for sizes in MID {
        rows.push(row(Topic::Mid, Workload::RandomMixed, sizes, 1_000_000, ""));
    }
    for (threads, note) in [(None, ", 1 thread"), (Some(2), ", 2 threads")] {
        let mut larson = row(
            Topic::Threads,
            Workload::Larson,
            (1, 1000),
            20_000_000,
            note,
        );
        larson.params.threads = threads.unwrap_or(larson.params.threads);
        rows.push(larson);
    }
    for sizes in [(64, 64), (16, 1024)] {
        let workload = Workload::ProducerConsumer;
        rows.push(row(Topic::Threads, workload, sizes, 10_000_000, ""));
    }
    let sizes = (16, 256 << 10);
    rows.push(row(Topic::SuperSlabs, Workload::AllClasses, sizes, 1, ""));
    rows
}

impl Row {
    fn new(
        topic: Topic,
        workload: Workload,
        (min, max): (usize, usize),
        ops: u64,
        note: &str,
    ) -> Self {
        let mut params = workload.defaults();
        params.sizes = Sizes::new(min, max).expect("the ranges of the tables above are valid");
        params.ops = ops;
        let sizes = if min == max {
            min.to_string()
        } else {
            format!("{min}-{max}")
        };
        Self {
            topic,
            name: format!("{workload} {sizes}{note}"),
            workload,
            params,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_rows_and_sides_apart() {
        let rows = rows(true);
        let sides = sides(vec![("other".into(), "program".into())]).unwrap();
        let mut names: Vec<_> = rows.iter().map(|row| &row.name).collect();
        names.extend(sides.iter().map(|side| &side.name));
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        for topic in Topic::ALL {
            let has_rows = rows.iter().any(|row| row.topic == topic);
            assert!(has_rows || topic == Topic::SystemCalls, "{}", topic.title());
        }
    }
}
