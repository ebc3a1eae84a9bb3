//! `theap evaluate` measures the layers of theap against each other, against System, and against
//! the peers that are built in, and writes the report about it.
//!
//! This program can be several sides, because the fronts are options of the library. Builds without
//! a layer are other programs, which speak the same protocol ([`child`]). People write the report's
//! prose; this program writes only the text between its markers ([`document`]).

mod matrix;
mod rebuild;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use theap_bench::render::charts::{self, Bars};
use theap_bench::render::document::{self, Section};
use theap_bench::{
    Column, Metric, Record, Series, Sizes, Workload, interleave, random_mixed_operations, table,
};

use crate::arguments::name_and_file;
use crate::doctor;
use crate::measure::child::{self, Order};
use crate::measure::{progress, ptrace};
use crate::pages::{self, PageMode};
use matrix::{Row, Side, Topic};

/// The operations of the two runs whose system calls are counted.
const COUNTED: [u64; 2] = [100_000, 1_100_000];
/// The block sizes of these runs.
const COUNTED_SIZES: [(usize, usize); 2] = [(16, 1024), (32 << 10, 256 << 10)];

/// Measure theap's layers against each other and write the report
///
/// Runs the A/B matrix (System, the peers that are built in, theap with magazines, without them,
/// and with magazines for the classes 0 to 3 only, and builds without a layer) over random-mixed,
/// mid sizes, Larson and producer-consumer, every run in a process of its own, in interleaved
/// rounds. Counts the system calls of each side in a run of its own, and the SuperSlabs of a
/// program that has all classes in use.
///
/// The report's tables and charts are written anew; the text between them is kept.
#[derive(Args)]
pub struct Evaluate {
    /// The report; its charts go to a directory of the same name beside it
    #[arg(long, value_name = "FILE", default_value = "docs/evaluation.md")]
    out: PathBuf,
    /// Sections to measure and write [default: all of them]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    topic: Vec<Topic>,
    /// Rounds [default: 7, or 3 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// A tenth of the operations
    #[arg(long)]
    quick: bool,
    /// Page mode of theap
    #[arg(long, value_name = "MODE", default_value = "small")]
    pages: PageMode,
    /// Another build of this program to measure too
    #[arg(long, value_name = "NAME=PROGRAM", value_parser = variant)]
    variant: Vec<(String, PathBuf)>,
    /// Build theap without its layers, in the workspace of the current directory, and measure these
    /// builds too
    #[arg(long)]
    rebuild: bool,
    /// Also write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn variant(text: &str) -> Result<(String, PathBuf)> {
    let (name, program) = name_and_file(text, "NAME=PROGRAM")?;
    Ok((name, program.into()))
}

impl Evaluate {
    pub fn run(self) -> Result<()> {
        let charts = document::charts_beside(&self.out)?;
        pages::choose(&[self.pages], 64 << 20)?;
        let mut variants = self.variant.clone();
        if self.rebuild {
            variants.extend(rebuild::all()?);
        }
        let sides = matrix::sides(variants)?;
        let mut topics = Topic::ALL.to_vec();
        topics.retain(|topic| self.topic.is_empty() || self.topic.contains(topic));
        let mut rows = matrix::rows(self.quick);
        rows.retain(|row| topics.contains(&row.topic));
        let records = self.measure(&sides, &rows, topics.contains(&Topic::SystemCalls))?;
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&records)? + "\n";
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let mut sections = vec![host(self.pages)];
        for topic in topics {
            sections.push(section(topic, &records, &rows, &charts)?);
        }
        document::write(&self.out, "evaluate", "Evaluation", &sections)?;
        for section in &sections {
            writeln!(io::stdout(), "{}\n", section.body)?;
        }
        writeln!(io::stdout(), "written: {}", self.out.display())?;
        Ok(())
    }

    fn measure(&self, sides: &[Side], rows: &[Row], calls: bool) -> Result<Vec<Record>> {
        let rounds = self
            .rounds
            .map_or(if self.quick { 3 } else { 7 }, usize::from);
        let counted = if calls { &COUNTED_SIZES[..] } else { &[] };
        let steps = rounds * rows.len() + counted.len();
        let progress = progress::steps(steps * sides.len());
        let mut series = Series::default();
        for row in rows {
            let rounds = if row.topic == Topic::SuperSlabs {
                1
            } else {
                rounds
            };
            interleave(rounds, sides.len(), |round, nth| {
                let side = &sides[nth];
                progress.set_message(format!("{}, {}, round {}", row.name, side.name, round + 1));
                if row.topic != Topic::SuperSlabs || side.is_theap() {
                    let order = side.order(row.workload, &row.params, self.pages);
                    let run = child::spawn(&order)
                        .with_context(|| format!("{} under {} failed", row.name, side.name))?;
                    let metric = row.topic.metric(&run.metrics)?;
                    series.push(&row.name, &side.name, "default", vec![metric]);
                }
                progress.inc(1);
                anyhow::Ok(())
            })?;
        }
        for &(min, max) in counted {
            for side in sides {
                progress.set_message(format!("system calls, {}", side.name));
                let metric = self.syscalls(side, Sizes::new(min, max)?)?;
                let name = format!("{} {min}-{max}", Topic::SystemCalls.title());
                series.push(&name, &side.name, "default", vec![metric]);
                progress.inc(1);
            }
        }
        progress.finish_and_clear();
        Ok(series.records())
    }

    /// The system calls of a million operations: those that a longer run makes more than a shorter
    /// run.
    fn syscalls(&self, side: &Side, sizes: Sizes) -> Result<Metric> {
        let mut params = Workload::RandomMixed.defaults();
        params.sizes = sizes;
        params.slots = 1024;
        let mut calls = [0; 2];
        for (calls, ops) in calls.iter_mut().zip(COUNTED) {
            params.ops = ops;
            let order: Order = side.order(Workload::RandomMixed, &params, self.pages);
            let mut command = child::command(&order)?;
            command.stdout(std::process::Stdio::null());
            let (status, counted) = ptrace::count_syscalls(&mut command)?;
            ensure!(
                status.success(),
                "counting the system calls of {} failed: {status}",
                side.name
            );
            *calls = counted;
        }
        let [fewer, more] = COUNTED.map(random_mixed_operations);
        let millions = (more - fewer) as f64 / 1e6;
        Ok(Metric {
            metric: "system_calls".into(),
            unit: "/Mop".into(),
            value: calls[1].saturating_sub(calls[0]) as f64 / millions,
        })
    }
}

/// The section about the host on which the figures were measured.
fn host(pages: PageMode) -> Section {
    let facts: Vec<_> = doctor::facts()
        .into_iter()
        .map(|(subject, found)| format!("| {subject} | {found} |"))
        .collect();
    Section {
        name: "host".into(),
        title: "Host".into(),
        body: format!(
            "theap {} on {pages} pages.\n\n| | |\n|---|---|\n{}",
            env!("CARGO_PKG_VERSION"),
            facts.join("\n")
        ),
    }
}

/// A topic's table, and its chart beside the report.
fn section(topic: Topic, records: &[Record], rows: &[Row], charts: &Path) -> Result<Section> {
    let is_topics = |record: &&Record| match topic {
        Topic::SystemCalls => record.workload.starts_with(topic.title()),
        _ => rows
            .iter()
            .any(|row| row.topic == topic && row.name == record.workload),
    };
    let records: Vec<Record> = records.iter().filter(is_topics).cloned().collect();
    let theap = Column {
        allocator: matrix::THEAP.into(),
        pages: "default".into(),
    };
    let multiple = |record: &Record, theap: &Record| {
        (topic.is_throughput() && record.median > 0.0)
            .then(|| format!("{:.2}x", theap.median / record.median))
    };
    let mut body = table(&records, &theap, multiple);
    if topic.is_throughput() {
        fs::create_dir_all(charts).with_context(|| format!("cannot make {}", charts.display()))?;
        let file = charts.join(format!("{}.svg", topic.name()));
        fs::write(&file, chart(&records)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        let directory = charts.file_name().unwrap_or_default().to_string_lossy();
        body += &format!(
            "\n\n![{0}]({directory}/{1}.svg)",
            topic.title(),
            topic.name()
        );
    }
    Ok(Section {
        name: topic.name().into(),
        title: topic.title().into(),
        body,
    })
}

/// Bars of the medians, one a side under each row's name, with a key.
fn chart(records: &[Record]) -> Result<String> {
    let mut sides: Vec<&str> = Vec::new();
    let mut groups: Vec<Bars> = Vec::new();
    for record in records {
        let side = sides.iter().position(|side| *side == record.allocator);
        let side = side.unwrap_or_else(|| {
            sides.push(&record.allocator);
            sides.len() - 1
        });
        let value = (side, record.median);
        match groups
            .iter_mut()
            .find(|group| group.name == record.workload)
        {
            Some(group) => group.values.push(value),
            None => groups.push(Bars {
                name: record.workload.clone(),
                values: vec![value],
            }),
        }
    }
    let label = |side: usize, value: f64| format!("{value:.0}  {}", sides[side]);
    Ok(charts::standalone(&charts::named_bars(&groups, &label)?))
}
