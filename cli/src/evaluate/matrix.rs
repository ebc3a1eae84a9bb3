//! What is measured: sides and rows.

use std::path::PathBuf;

use anyhow::{Context, Result};
use theap_bench::{CONTENDERS, Metric, Params, Sizes, Workload};

use crate::child::Order;
use crate::pages::PageMode;
use crate::settings::{Setting, setting};

/// The side that the others are compared with: every layer on.
pub const THEAP: &str = "theap";

/// An allocator as it is configured.
pub struct Side {
    pub name: String,
    allocator: &'static str,
    settings: Vec<Setting>,
    /// Another build of this program; `None` is this one.
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
            watched: false,
        }
    }
}

/// System, the peers of this build, theap with its fronts, and other builds of it.
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

    /// The topic's figure out of a run's.
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

/// All rows; `quick` takes a tenth of the operations.
pub fn rows(quick: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |topic, workload: Workload, sizes: (usize, usize), ops: u64, note: &str| {
        let mut params = workload.defaults();
        params.sizes = Sizes::new(sizes.0, sizes.1).expect("the ranges of this table are valid");
        params.ops = if quick { (ops / 10).max(10_000) } else { ops };
        let sizes = if sizes.0 == sizes.1 {
            sizes.0.to_string()
        } else {
            format!("{}-{}", sizes.0, sizes.1)
        };
        rows.push(Row {
            topic,
            name: format!("{workload} {sizes}{note}"),
            workload,
            params,
        });
        rows.len() - 1
    };
    const MIX: [(usize, usize); 5] = [(128, 128), (256, 256), (512, 512), (1024, 1024), (16, 1024)];
    for sizes in MIX {
        for (ops, note) in [
            (100_000, ", 100 K"),
            (1_000_000, ", 1 M"),
            (10_000_000, ", 10 M"),
        ] {
            add(Topic::RandomMixed, Workload::RandomMixed, sizes, ops, note);
        }
    }
    for sizes in [
        (1 << 10, 8 << 10),
        (8 << 10, 32 << 10),
        (32 << 10, 256 << 10),
    ] {
        add(Topic::Mid, Workload::RandomMixed, sizes, 1_000_000, "");
    }
    add(
        Topic::Threads,
        Workload::Larson,
        (1, 1000),
        20_000_000,
        ", 1 thread",
    );
    let two = add(
        Topic::Threads,
        Workload::Larson,
        (1, 1000),
        20_000_000,
        ", 2 threads",
    );
    add(
        Topic::Threads,
        Workload::ProducerConsumer,
        (64, 64),
        10_000_000,
        "",
    );
    add(
        Topic::Threads,
        Workload::ProducerConsumer,
        (16, 1024),
        10_000_000,
        "",
    );
    add(
        Topic::SuperSlabs,
        Workload::AllClasses,
        (16, 256 << 10),
        1,
        "",
    );
    rows[two].params.threads = 2;
    rows
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
